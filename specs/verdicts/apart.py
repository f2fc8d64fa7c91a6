"""Claims decided in a process of their own: one that takes its process down costs a verdict and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..kit.claim import Claim

ROOT = Path(__file__).parents[2]
DIED = "the process died"
_READY = "ready"


class ApartError(RuntimeError):
    """A process that didn't come to deciding anything; the message is one sentence."""


@dataclass(frozen=True)
class Job:
    """A claim to decide on a device: by one example, if its text is given, or as ever."""

    claim: Claim
    device: str
    example: str = ""


@dataclass(frozen=True)
class Result:
    """The record of a job, and if the claim is broken the text of its counterexample."""

    record: dict[str, Any]
    counterexample: str = ""


def decide_apart(jobs: Sequence[Job], profile: str, example_seed: int, imports: Sequence[str]) -> list[Result]:
    """The results of the jobs. A claim on which the process died is undecided; the others go on in another one.

    Raises ApartError if a process can't even begin.
    """
    results: list[Result] = []
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # what --import found, the process finds
    while len(results) < len(jobs):
        rest = [[job.claim.id, job.device, job.example] for job in jobs[len(results) :]]
        asked = {"profile": profile, "example_seed": example_seed, "imports": list(imports), "jobs": rest}
        done = subprocess.run(
            [sys.executable, "-m", __package__.partition(".")[0], "replay"],
            input=json.dumps(asked),
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        ready, *lines = done.stdout.split("\n")
        if ready != _READY:
            last = done.stderr.strip().rpartition("\n")[2] or _end(done.returncode)
            raise ApartError(f"the process that decides claims could not begin: {last}")
        results += [Result(**json.loads(line)) for line in lines[:-1]]  # what follows the last line break is none
        if len(results) < len(jobs):
            results.append(_died(jobs[len(results)], done.returncode))
    return results


def _died(job: Job, code: int) -> Result:
    from .decide import Outcome

    return Result(Outcome(job.claim, job.device, "undecided", f"{DIED}: {_end(code)}").record())


def _end(code: int) -> str:
    """How a process with this exit code ended, in words."""
    return signal.strsignal(-code) or f"signal {-code}" if code < 0 else f"exit code {code}"


def serve() -> int:
    """Do the jobs that the standard input tells, as `decide_apart` writes them; gives the exit code."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a spec or a library prints is no result
    try:
        asked = json.load(sys.stdin)
        profile, seed, imports, jobs = (asked[name] for name in ("profile", "example_seed", "imports", "jobs"))
        for name in imports:
            importlib.import_module(name)
        claims = {claim: _claim(claim) for claim, _, _ in jobs}
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    import torch

    from ..kit.world import World
    from . import profiles
    from .counterexamples import CounterexampleError, from_text, to_text
    from .decide import decide, replay

    torch.set_num_threads(1)  # as in a run
    profiles.load(profile)
    print(_READY, file=out, flush=True)
    worlds: dict[str, World] = {}
    for name, device, example in jobs:
        world = worlds.setdefault(device, World(torch.device(device), imports))
        claim = claims[name]
        outcome = replay(claim, world, from_text(example)) if example else decide(claim, world, seed)
        try:
            text = to_text(outcome.example) if outcome.verdict == "broken" else ""
        except CounterexampleError:
            text = ""  # then the claim is run in full next time
        print(json.dumps({"record": outcome.record(), "counterexample": text}), file=out, flush=True)
    return 0


def _claim(name: str) -> Claim:
    from ..kit.claim import CLAIMS

    importlib.import_module(f"..{name.partition('/')[0]}", __package__)
    return CLAIMS[name]
