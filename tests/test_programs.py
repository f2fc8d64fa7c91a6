"""Random programs: what they reach, that they are data, and that the tape and PyTorch can part."""

import random
from collections import Counter

import pytest
import torch

from specs.kit.drawing import CHUNK, WEIGHTS, written
from specs.kit.lockstep import difference
from specs.kit.programs import Program
from specs.kit.world import World
from specs.tape.operations import OPERATIONS

from .faults import patched, wrong_kernel

WORLD = World(torch.device("cpu"))
DRAWN = [written(random.Random(seed).randbytes(CHUNK * 26)) for seed in range(1500)]
REACH = Counter(thing for program in DRAWN for thing in set(program.contents))
KINDS = {"result", "view", "several", "in place", "leaf"} | WEIGHTS.keys() - {"write", "quiet_write"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_statement_occurs(kind):
    assert REACH[f"statement {kind}"] >= 0.02 * len(DRAWN)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_occurs(operation):
    assert REACH[f"operation {operation}"] >= 2


@pytest.mark.parametrize(
    "mode",
    [
        "no_grad",
        "enable_grad",
        *(f"{mode} {on}" for mode in ("set_grad_enabled", "inference_mode") for on in (True, False)),
    ],
)
def test_every_mode_occurs(mode):
    assert REACH[f"mode {mode}"] >= 0.02 * len(DRAWN)


def test_nearly_every_pair_of_neighbours_occurs():
    pairs = {thing for thing in REACH if thing.startswith("pair ")}
    assert len(pairs) >= 0.85 * len(KINDS) ** 2


def test_programs_have_many_statements_and_few_of_them_are_errors():
    sizes = [len(program.statements) for program in DRAWN]
    assert sorted(sizes)[len(sizes) // 2] >= 12


def test_the_same_bytes_make_the_same_program():
    content = random.Random(7).randbytes(CHUNK * 26)
    assert written(content) == written(content)


def test_a_program_without_bytes_is_a_single_leaf():
    assert written(bytes(CHUNK * 13)).lines() == ["a = torch.tensor([1, 1], dtype=torch.float64, requires_grad=True)"]


def test_programs_go_to_json_and_back():
    for program in DRAWN:
        assert Program.from_json(program.to_json()) == program


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[["leaf"]]',
        '[["nothing", [], [], []]]',
        '[["add", ["b"], ["a", "a"], []]]',
        '[["leaf", ["a"], [], ["float64", [2], [1, 2, 3], true]]]',
        '[["leaf", ["a"], [], ["float64", [2], "xy", true]]]',
        '[["plan", [], [], []]]',
        '[["leaf", ["a"], [], ["float128", [1], [1], true]]]',
    ],
)
def test_what_is_no_program_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"."):
        Program.from_json(text)


@pytest.mark.parametrize("seed", range(0, 1500, 15))
def test_a_program_is_a_script_that_runs_by_itself(seed):
    script = DRAWN[seed].script(torch.device("cpu"))
    assert "specs" not in script
    try:
        exec(compile(script, "script", "exec"), {})
    finally:
        torch.set_grad_enabled(True)


def test_the_tape_and_pytorch_agree_without_a_fault():
    for program in DRAWN[:300]:
        assert difference(WORLD, program) is None


def test_a_wrong_derivative_is_noticed_by_lock_step_and_by_the_script():
    with wrong_kernel("square", lambda cotangent, x: (cotangent * x,)):
        found = [program for program in DRAWN[:1200] if difference(WORLD, program)]
        assert len(found) >= 5
        failed = 0
        for program in found:
            try:
                exec(compile(program.script(torch.device("cpu")), "script", "exec"), {})
            except AssertionError:
                failed += 1
            finally:
                torch.set_grad_enabled(True)
    assert failed >= 0.9 * len(found)


def test_a_gradient_that_there_should_not_be_is_noticed():
    def make(true):
        def grad(outputs, inputs, *args, **options):
            found = true(outputs, inputs, *args, **options)
            return tuple(torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True))

        return grad

    with patched(torch.autograd, "grad", make):
        found = [broken for program in DRAWN[:400] if (broken := difference(WORLD, program))]
    assert found
    assert {broken.expected for broken in found} == {"None"}
