"""How fast random programs are written, and run in lock step: `tox -e bench`.

Each round takes the same 100 programs of 12 statements. Times on a shared machine mean little; their ratios in one
run mean something: the last benchmark is PyTorch alone, so its share in the others can be told.
"""

import random

import pytest
import torch

from specs.kit.drawing import CHUNK, written
from specs.kit.lockstep import difference
from specs.kit.programs import Program
from specs.kit.world import World
from specs.tape.autograd import Tape

COUNT, STATEMENTS = 100, 12


def without_errors(program: Program) -> bool:
    """Whether no statement of the program may raise."""
    tape = Tape()
    for statement in program.statements:
        plan = tape.plan(statement)
        if plan.errors:
            return False
        plan.carry_out(False)
    return True


@pytest.fixture(scope="module")
def content() -> list[bytes]:
    """What the programs are made of: each makes twelve statements, none of them an error."""
    chosen, seed = [], 0
    while len(chosen) < COUNT:
        seed += 1
        candidate = random.Random(seed).randbytes(CHUNK * 2 * STATEMENTS)
        program = written(candidate, most=STATEMENTS)
        if len(program.statements) == STATEMENTS and without_errors(program):
            chosen.append(candidate)
    return chosen


def test_writing_programs(benchmark, content):
    programs = benchmark(lambda: [written(c, most=STATEMENTS) for c in content])
    assert len(programs) == COUNT


def test_running_programs_in_lock_step(benchmark, content):
    torch.set_num_threads(1)
    programs, world = [written(c, most=STATEMENTS) for c in content], World(torch.device("cpu"))
    assert benchmark(lambda: [difference(world, program) for program in programs]) == [None] * COUNT


def test_pytorch_alone(benchmark, content):
    torch.set_num_threads(1)
    programs = [written(c, most=STATEMENTS) for c in content]
    compiled = [compile("\n".join(program.lines()), "program", "exec") for program in programs]

    def run():
        for program in compiled:
            exec(program, {"torch": torch})
            torch.set_grad_enabled(True)

    benchmark(run)
