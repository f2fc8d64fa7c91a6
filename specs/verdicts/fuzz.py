"""Random programs until the time is up: `pytest --profile fuzz --budget 10m`.

Workers run programs in lock step with the tape. A difference is shrunk; of each kind the smallest program is kept, and
written as a script and as JSON. Everything a worker runs follows from the seed, its number and a count, so a crash can
be repeated, too.
"""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import random
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import Any

from ..kit.comparisons import Broken
from ..kit.drawing import CHUNK, written
from ..kit.lockstep import difference
from ..kit.programs import Program
from ..kit.world import World
from ..tape.autograd import Tape
from ..tape.operations import OPERATIONS
from ..tape.statements import Refused
from .devices import import_lines

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
BATCH = 1.0  # seconds between two reports of a worker
MOST_SHRUNK = 5  # of each kind and worker; more of them would say the same


def parse_budget(text: str) -> float:
    """Seconds of a budget such as 90s, 10m, 2h or 45. Raises ValueError, with one sentence, for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match or not float(match[1]):
        raise ValueError(f"{text!r} is no time: say how long, as in 90s, 10m or 2h")
    return float(match[1]) * UNITS[match[2]]


def predictable(program: Program) -> bool:
    """Whether the tape knows what each statement of the program does."""
    tape = Tape()
    try:
        for statement in program.statements:
            tape.run(statement)
    except (Refused, LookupError, AttributeError, TypeError):
        return False
    return True


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """A program of as few statements as can be found by leaving statements out that still fails.

    A statement goes together with all that use what it makes; halves go before quarters before single ones.
    """
    size = max(len(program.statements) // 2, 1)
    while size:
        shorter = True
        while shorter:
            shorter = False
            for start in range(len(program.statements) - 1, -1, -1):
                candidate = _without(program, range(start, min(start + size, len(program.statements))))
                smaller = 0 < len(candidate.statements) < len(program.statements)
                if smaller and predictable(candidate) and fails(candidate):
                    program, shorter = candidate, True
                    break
        size //= 2
    return program


def _without(program: Program, gone: Collection[int]) -> Program:
    """The program without these statements, those that depend on them, and modes that lose their other end."""
    statements = program.statements
    ends: dict[int, int] = {}
    opened: list[int] = []
    for i, statement in enumerate(statements):
        if statement.does == "enter":
            opened.append(i)
        elif statement.does == "leave":
            start = opened.pop()
            ends[start], ends[i] = i, start
    removed, lost = {*gone, *(ends[i] for i in gone if i in ends)}, set()
    for i, statement in enumerate(statements):
        used = {name.partition(".")[0] for name in statement.of}
        if statement.does in ("unhook", "forget"):
            used.add(statement.options[0])
        if i in removed or used & lost:
            removed.add(i)
            lost.update(statement.makes)
        else:
            lost.difference_update(statement.makes)
    return Program(tuple(s for i, s in enumerate(statements) if i not in removed))


def kind_of(broken: Broken) -> str:
    """What differences are counted as one by: the statement, and the aspect in which it shows or the error."""
    aspect, of, _ = broken.why.partition(" of ")
    if of and " after " in broken.why:
        return f"{aspect} after {broken.does}"
    return f"{broken.does}: " + re.sub(r"\d+", "N", broken.came)[:60]


@dataclass
class Finding:
    """A kind of difference, and the smallest program that shows it."""

    kind: str
    program: str  # as JSON
    lines: int
    expected: str
    came: str
    times: int = 1


@dataclass
class Report:
    """What workers did."""

    programs: int = 0
    statements: int = 0
    contents: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)
    crashed: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Keep the finding if it is the smallest of its kind, and count it in any case."""
        known = self.findings.get(finding.kind)
        if known is None:
            self.findings[finding.kind] = finding
            return
        known.times += finding.times
        if finding.lines < known.lines:
            known.program, known.lines = finding.program, finding.lines
            known.expected, known.came = finding.expected, finding.came


def program_number(seed: int, worker: int, number: int) -> Program:
    """The program that a worker runs as its so-and-so-manieth; it has 6 to 30 statements."""
    source = random.Random(f"{seed}-{worker}-{number}")
    most = source.choice((6, 9, 12, 12, 16, 20, 30))
    return written(source.randbytes(CHUNK * 2 * (most + 1)), most=most)


def _work(channel: Any, device: str, imports: Sequence[str], seed: int, worker: int, seconds: float) -> None:
    """Run programs and send a report of every second or so, until the time is up."""
    import torch

    for name in imports:
        importlib.import_module(name)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    world, until, number = World(torch.device(device), imports), time.monotonic() + seconds, 0
    shrunk: Counter[str] = Counter()
    while time.monotonic() < until:
        report, batch = Report(), time.monotonic() + BATCH
        channel.put((worker, number, None))  # so that a crash can be told and repeated
        while time.monotonic() < min(batch, until):
            program = program_number(seed, worker, number)
            number += 1
            report.programs += 1
            report.statements += len(program.statements)
            report.contents.update(set(program.contents))
            if broken := difference(world, program):
                kind = kind_of(broken)
                shrunk[kind] += 1
                if shrunk[kind] <= MOST_SHRUNK:
                    program = shrink(
                        program, lambda p, k=kind: (b := difference(world, p)) is not None and kind_of(b) == k
                    )
                    broken = difference(world, program)
                report.add(Finding(kind, program.to_json(), len(program.statements), broken.expected, broken.came))
        channel.put((worker, number, report))
    channel.put((worker, None, None))


def fuzz(
    device: str,
    seconds: float,
    seed: int,
    workers: int,
    imports: Sequence[str],
    progress: Callable[[Report, float], None],
) -> Report:
    """Run programs on the device for so many seconds in so many processes; `progress` is told about once a second."""
    context = multiprocessing.get_context("spawn")
    channel, total, start = context.Queue(), Report(), time.monotonic()
    at = dict.fromkeys(range(workers), 0)
    processes = {
        worker: context.Process(target=_work, args=(channel, device, imports, seed, worker, seconds), daemon=True)
        for worker in at
    }
    for process in processes.values():
        process.start()
    while processes:
        try:
            worker, number, report = channel.get(timeout=BATCH)
        except Empty:
            for worker, process in list(processes.items()):
                if not process.is_alive():
                    del processes[worker]
                    total.crashed.append(
                        f"worker {worker} died (exit code {process.exitcode}) in its programs from number {at[worker]}"
                        f" on, of seed {seed}"
                    )
            continue
        if number is None:
            processes.pop(worker, None)
        elif report is None:
            at[worker] = number
        else:
            total.programs += report.programs
            total.statements += report.statements
            total.contents.update(report.contents)
            for finding in report.findings.values():
                total.add(finding)
            progress(total, time.monotonic() - start)
    return total


def write_findings(report: Report, folder: Path, device: str, imports: Sequence[str] = ()) -> dict[str, Path]:
    """Write each finding as a script and as JSON; the paths of the scripts by kind."""
    import torch

    paths = {}
    for finding in report.findings.values():
        folder.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(finding.program.encode()).hexdigest()[:8]
        path = folder / f"{re.sub(r'[^A-Za-z0-9]+', '_', finding.kind).strip('_').lower()[:50]}_{digest}.py"
        head = f'"""Expected {finding.expected!r},\ncame {finding.came!r}.\n\n'
        head += f'Found on torch {torch.__version__}, {device}.\n"""\n\n'
        head += import_lines(device, imports)
        path.write_text(head + Program.from_json(finding.program).script(torch.device(device)), encoding="utf-8")
        path.with_suffix(".json").write_text(finding.program + "\n", encoding="utf-8")
        paths[finding.kind] = path
    return paths


def told(report: Report, seconds: float, paths: dict[str, Path]) -> Iterator[str]:
    """The lines that tell what was run, covered and found."""
    rate = report.programs / seconds
    yield f"{report.programs} programs of {report.statements} statements in {seconds:.0f} s, {rate:.0f} a second"
    if report.programs:
        for kind in ("statement", "mode"):
            seen = sorted((n, thing) for thing, n in report.contents.items() if thing.startswith(kind + " "))
            shares = ", ".join(
                f"{t.removeprefix(kind + ' ')} {100 * n / report.programs:.0f}" for n, t in reversed(seen)
            )
            yield f"of 100 programs so many contained each {kind}: {shares}"
        counts = {name: report.contents[f"operation {name}"] for name in OPERATIONS}
        rarest = ", ".join(f"{name} {n}" for name, n in sorted(counts.items(), key=lambda item: item[1])[:10])
        yield f"operations: {sum(map(bool, counts.values()))} of {len(counts)}; the rarest: {rarest}"
        kinds = sum(thing.startswith("statement ") for thing in report.contents)
        pairs = sum(thing.startswith("pair ") for thing in report.contents)
        yield f"pairs of neighbouring statements: {pairs} of {kinds**2}"
    yield from report.crashed
    for finding in sorted(report.findings.values(), key=lambda f: -f.times):
        yield f"FOUND {finding.kind}: {finding.times} times, shrunk to {finding.lines} statements"
        yield f"    expected  {finding.expected}"
        yield f"    came      {finding.came}"
        yield f"    script    {paths[finding.kind]}"
    if not report.findings and not report.crashed:
        yield "no difference between PyTorch and the tape"


def main(devices: Sequence[str], seconds: float, seed: int, workers: int, imports: Sequence[str], folder: Path) -> int:
    """Fuzz the devices, each for its share of the time, and tell of it; 1 if anything was found, else 0."""
    found, rewrites = 0, sys.stdout.isatty()  # a terminal shows progress in one line
    for device in devices:
        share, last = seconds / len(devices), [0.0]

        def progress(report: Report, elapsed: float, share: float = share, last: list[float] = last) -> None:
            if elapsed - last[0] >= (1 if rewrites else 30):
                last[0] = elapsed
                text = f"{elapsed:.0f} of {share:.0f} s: {report.programs} programs"
                text += f", {len(report.findings)} kinds of difference"
                print(f"\r{text}" if rewrites else text, end="" if rewrites else "\n", flush=True)

        print(f"random programs on {device}, {workers} at a time, for {share:.0f} s, seed {seed}", flush=True)
        report = fuzz(device, share, seed, workers, imports, progress)
        if rewrites:
            print()
        for line in told(report, share, write_findings(report, folder, device, imports)):
            print(line)
        found += len(report.findings) + len(report.crashed)
    return int(found > 0)
