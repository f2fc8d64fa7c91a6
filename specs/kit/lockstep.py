"""A program run by PyTorch and by the tape in lock step: after each statement both tell what they see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..tape.autograd import Tape
from ..tape.statements import Statement
from ..tape.tensors import Tensor
from .comparisons import Broken
from .examples import exercise, reached
from .programs import ASSIGNMENTS, Program, code, compiled, dtype_of, form, several, shown
from .world import World

SPOILED = "reading its history is an error"


class Run:
    """A program on its way, in PyTorch and on the tape."""

    def __init__(self, device: torch.device):
        self.device = device
        self.tape = Tape()
        self.tensors: dict[str, torch.Tensor | None] = {}
        self.seen: dict[str, list[torch.Tensor]] = {}  # what hooks saw
        self._handles: dict[str, Any] = {}
        self._blocks: list[Any] = []
        self._first_version: dict[str, int] = {}
        self._rows: dict[int, tuple[Tensor, int, Any]] = {}

    def step(self, statement: Statement) -> Exception | None:
        """Let PyTorch and the tape carry the statement out; gives the error if there was one.

        Raises Broken for an error that the tape doesn't know of, or for one that didn't come.
        """
        plan = self.tape.plan(statement)
        error = None
        try:
            self._carry_out(statement)
        except Exception as caught:
            error = caught
        if error is not None and not (isinstance(error, RuntimeError) and any(p in str(error) for p in plan.errors)):
            wanted = "no error" if not plan.errors else f"RuntimeError that says {' or '.join(map(repr, plan.errors))}"
            came = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise Broken(self.text(statement), wanted, came) from error
        if error is None and plan.surely:
            wanted = f"RuntimeError that says {' or '.join(map(repr, plan.errors))}"
            raise Broken(self.text(statement), wanted, "no error")
        plan.carry_out(error is not None)
        for _, tensor, expected in self.live():
            if expected.outdated:
                # PyTorch renews the history of a view when somebody looks at it. Hooks go where it is then, and
                # register_hook crashes on torch 2.0 to 2.14 if nobody did: docs/FINDINGS.md.
                _history(tensor)
        return error

    def close(self) -> None:
        """Leave all modes."""
        while self._blocks:
            self._blocks.pop().__exit__(None, None, None)
        torch.set_grad_enabled(True)

    def text(self, statement: Statement) -> str:
        """The statement in plain PyTorch."""
        return " ".join(code(statement, self.tape, self.device)) or "leaving a mode"

    def _carry_out(self, statement: Statement) -> None:
        does, makes, of, options = statement
        if does == "enter":
            block = getattr(torch, options[0])(*options[1:])
            block.__enter__()
            self._blocks.append(block)
        elif does == "leave":
            self._blocks.pop().__exit__(None, None, None)
        elif does == "set_grad_enabled":
            torch.set_grad_enabled(options[0])
        elif does == "hook":
            self._hook(makes[0], self.tensors[of[0]], options[0])
        elif does == "unhook":
            self._handles[options[0]].remove()
        elif does == "forget":
            del self.tensors[options[0]]
        else:
            template, literals = form(statement, self.tape)
            operands = [self._operand(name) for name in of]
            given = {f"literal{i}": literal.tensor(self.device) for i, literal in enumerate(literals)}
            result = compiled(template, does in ASSIGNMENTS)(*operands, **given)
            if makes and several(statement):
                self.tensors.update(zip(makes, result, strict=True))
            elif makes:
                self.tensors[makes[0]] = result

    def _operand(self, name: str) -> torch.Tensor:
        holder, _, attribute = name.partition(".")
        tensor = self.tensors[holder]
        return tensor.grad if attribute else tensor

    def _hook(self, name: str, tensor: torch.Tensor, factor: float | None) -> None:
        if factor is not None:
            self._handles[name] = tensor.register_hook(lambda gradient: gradient * factor)
            return
        seen = self.seen[name] = []
        self._handles[name] = tensor.register_hook(lambda gradient: seen.append(gradient.clone()))

    # What there is to see: each method gives what PyTorch shows and what the tape says, by name.

    def live(self) -> Iterator[tuple[str, torch.Tensor, Tensor]]:
        """Every tensor that has a name; whether a gradient is there at all, `values` tells."""
        for name, tensor in self.tape.tensors.items():
            if tensor is not None and self.tensors[name] is not None:
                yield name, self.tensors[name], tensor

    def values(self) -> tuple[dict, dict]:
        """Dtypes, shapes and numbers; None for a gradient that there isn't."""
        seen = {n: t if t is None else (t.dtype, tuple(t.shape), t.detach().tolist()) for n, t in self.tensors.items()}
        expected = self.tape.tensors.items()
        return seen, {n: m and (dtype_of(m.dtype), m.shape, self._numbers(m)) for n, m in expected}

    def requires_grad(self) -> tuple[dict, dict]:
        """Whether gradients are wanted, and whether they are retained."""
        seen = {n: (t.requires_grad, t.retains_grad) for n, t, _ in self.live()}
        return seen, {n: (m.requires_grad, m.retains_grad) for n, _, m in self.live()}

    def history(self) -> tuple[dict, dict]:
        """Whether a tensor is a leaf, and whether it has a grad_fn."""
        expected = {}
        for n, _, m in self.live():
            expected[n] = SPOILED if m.spoiled else (m.is_leaf, m.requires_grad and not m.is_leaf)
        return {n: _history(t) for n, t, _ in self.live()}, expected

    def versions(self) -> tuple[dict, dict]:
        """How often tensors were written since they were first seen; inference tensors don't count."""
        seen, expected = {}, {}
        for n, t, m in self.live():
            if m.family.inference:
                continue
            version = t._version
            first = self._first_version.setdefault(n, version - m.family.counter.version)
            seen[n], expected[n] = version - first, m.family.counter.version
        return seen, expected

    def gradients(self) -> tuple[dict, dict]:
        """What .grad holds, where no failed backward makes it uncertain."""
        seen, expected = {}, {}
        for n, t, m in self.live():
            if m.grad_known:
                seen[n] = _gradient(t)
                expected[n] = m.grad and (dtype_of(m.dtype), m.shape, m.grad.requires_grad, self._numbers(m.grad))
        return seen, expected

    def modes(self) -> tuple[dict, dict]:
        """Which modes are on, and which tensors were made in inference mode."""
        seen = {n: t.is_inference() for n, t, _ in self.live()}
        expected = {n: m.family.inference for n, _, m in self.live()}
        seen |= {"grad mode": torch.is_grad_enabled(), "inference mode": torch.is_inference_mode_enabled()}
        return seen, expected | {"grad mode": self.tape.grad_enabled, "inference mode": self.tape.inference}

    def hooks(self) -> tuple[dict, dict]:
        """What hooks saw."""
        known = {name: hook for name, hook in self.tape.hooks.items() if hook.factor is None and hook.known}
        seen = {name: [_flat(gradient) for gradient in self.seen[name]] for name in known}
        return seen, {name: list(map(list, hook.seen)) for name, hook in known.items()}

    def _numbers(self, tensor: Tensor) -> Any:
        """The numbers as PyTorch's tolist() gives them."""
        writes = tensor.family.storage.writes
        known = self._rows.get(id(tensor))
        if known and known[1] == writes:
            return known[2]
        rows = shown(tensor)
        self._rows[id(tensor)] = (tensor, writes, rows)  # the tensor, so that its id stays its own
        return rows


# A run's methods that tell what there is to see.
ASPECTS = ("values", "requires_grad", "history", "versions", "gradients", "modes", "hooks")


def _history(tensor: torch.Tensor) -> Any:
    try:
        return (tensor.is_leaf, tensor.grad_fn is not None)
    except RuntimeError as error:
        return SPOILED if "modified inplace" in str(error) else str(error)


def _gradient(tensor: torch.Tensor) -> Any:
    grad = tensor.grad
    return None if grad is None else (grad.dtype, tuple(grad.shape), grad.requires_grad, grad.tolist())


def _flat(tensor: torch.Tensor) -> list[float]:
    tensor = tensor.detach()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).flatten().tolist()


@dataclass(frozen=True)
class Step:
    """A statement that PyTorch and the tape have both carried out."""

    run: Run
    text: str  # the statement in plain PyTorch
    failed: bool  # whether it was an error, as the tape expects

    def agree_on(self, *aspects: str) -> None:
        """PyTorch shows of every tensor what the tape says; the aspects are methods of Run."""
        for aspect in aspects:
            seen, expected = getattr(self.run, aspect)()
            if expected:
                exercise()
            if seen != expected:
                name = next(n for n in expected if seen[n] != expected[n])
                raise Broken(f"{aspect} of {name} after {self.text}", repr(expected[name]), repr(seen[name]))


def lock_step(world: World, program: Program) -> Iterator[Step]:
    """Run the program in the world and on the tape: a step for each statement.

    Raises Broken for an error of PyTorch that the tape doesn't expect, and for one that fails to come.
    """
    run = Run(world.device)
    reached(program.contents)
    try:
        for statement in program.statements:
            text = run.text(statement)
            error = run.step(statement)
            yield Step(run, text, error is not None)
    finally:
        run.close()


def difference(world: World, program: Program) -> Broken | None:
    """The first difference of any kind between PyTorch and the tape, or None."""
    agreed = 0
    try:
        for step in lock_step(world, program):
            step.agree_on(*ASPECTS)
            agreed += 1
    except Broken as broken:
        broken.does = program.statements[agreed].does
        return broken
    return None
