"""Programs made of bytes: each statement of a program is chosen by a few of them.

A statement that the tape refuses gives way to another one, so that hardly any byte is wasted. A
chunk that begins with zero stands for no statement: a counterexample loses statements one by one.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from ..tape.autograd import Tape
from ..tape.operations import OPERATIONS, Operation
from ..tape.statements import Refused, Statement
from ..tape.tensors import Tensor
from .programs import Program

T = TypeVar("T")

CHUNK = 10  # bytes for a statement
LIVE = 9  # names at a time
# How often each kind of statement is tried, in proportion.
WEIGHTS = {
    "result": 12,
    "view": 6,
    "backward": 6,
    "write": 5,
    "leaf": 2,
    "quiet_write": 3,
    "grad": 3,
    "hook": 2,
    "detach": 1,
    "several": 1,
    "enter": 2,
    "leave": 3,
    "retain_grad": 1,
    "clear_grad": 1,
    "zero_grad": 1,
    "requires_grad_": 1,
    "unhook": 2,
    "set_grad_enabled": 1,
    "set_grad": 1,
    "data": 1,
    "detach_": 1,
    "forget": 1,
}
# Few shapes mostly, or operands would hardly ever fit each other; now and then a rare one.
SHAPES = (
    (2,),
    (2, 2),
    (2,),
    (),
    (2, 2),
    (2,),
    (2, 3),
    (3,),
    (1,),
    (2, 1),
    (1, 3),
    (3, 2),
    (2, 1, 2),
    (0,),
    (1, 1),
    (2, 0),
)
DTYPES = ("float64",) * 5 + ("float32", "float32", "complex128", "complex128", "int64")
NUMBERS = (1, 2, -1, 3, -2, 0)
COTANGENTS = (1, 2, -1, 0, 3)
BY_KIND: dict[str, list[Operation]] = {
    kind: [operation for operation in OPERATIONS.values() if operation.kind == kind]
    for kind in ("result", "view", "several", "in place")
}


class Writer:
    """A program that is being written, by choices that bytes make."""

    def __init__(self, content: bytes, weights: Mapping[str, int], most: int, dtypes: Sequence[str]):
        self.tape = Tape()
        self.statements: list[Statement] = []
        self._content, self._most, self._dtypes = content, most, dtypes
        self._kinds = [kind for kind, weight in weights.items() for _ in range(weight)]
        self._names = _names()
        self._hooks = (f"hook{i}" for i in itertools.count(1))
        self._chunk: bytes = b""
        self._at = 0

    def program(self) -> Program:
        """The program that the bytes stand for."""
        self._chunk, self._at = self._content[:CHUNK], 0
        self._leaf(requires_grad=True)
        *middle, last = range(CHUNK, len(self._content), CHUNK)
        for start in middle:
            self._chunk, self._at = self._content[start : start + CHUNK], 1
            if self._chunk[0] and len(self.statements) < self._most:
                self._write_statement(self._kinds[self._chunk[0] % len(self._kinds)])
        self._chunk, self._at = self._content[last : last + CHUNK], 1
        if self._chunk[0]:
            self._last_backward()
        return Program(tuple(self.statements))

    def _write_statement(self, kind: str) -> None:
        if len(self.tape.tensors) > LIVE:
            self._forget()
        for attempt in range(3):
            if getattr(self, "_" + kind)():
                return
            kind = "result" if attempt else kind

    # Choices

    def _byte(self) -> int:
        """The next byte; a chunk that is used up begins again, moved on a little."""
        at = self._at % CHUNK
        turn = self._at // CHUNK
        self._at += 1
        return (self._chunk[at] + 91 * turn) % 256 if turn else self._chunk[at]

    def _one_of(self, things: Sequence[T]) -> T:
        return things[self._byte() % len(things)]

    def _chance(self, one_in: int) -> bool:
        """True once in so many times, and never for the byte 0."""
        return self._byte() % one_in == one_in - 1

    def _tensors(self, wanted=lambda tensor: True) -> list[str]:
        """The names of tensors, the latest first."""
        return [n for n, t in reversed(self.tape.tensors.items()) if t is not None and not t.spoiled and wanted(t)]

    def _recent(self, names: Sequence[str]) -> str | None:
        """One of the names, the first one in half of the cases."""
        byte = self._byte()
        return names[byte % 7 * (byte // 7 % 7) // 7 % len(names)] if names else None

    def _add(self, does: str, makes: Iterable[str] = (), of: Iterable[str] = (), options: Iterable[Any] = ()) -> bool:
        """Append a statement, if the tape knows what it does."""
        statement = Statement(does, tuple(makes), tuple(of), tuple(options))
        try:
            self.tape.run(statement)
        except Refused:
            return False
        self.statements.append(statement)
        return True

    def _numbers(self, count: int, among: Sequence[int]) -> tuple[int, ...]:
        return tuple(self._one_of(among) for _ in range(count))

    # Statements

    def _leaf(self, requires_grad: bool | None = None) -> bool:
        dtype, shape = self._one_of(self._dtypes), self._one_of(SHAPES)
        if requires_grad is None:
            requires_grad = not self._chance(3)
        requires_grad = requires_grad and dtype != "int64" and not self.tape.inference
        size = functools.reduce(int.__mul__, shape, 2 if dtype == "complex128" else 1)
        numbers = self._numbers(size, NUMBERS)
        return self._add("leaf", [next(self._names)], [], [dtype, shape, numbers, requires_grad])

    def _operation(self, kind: str, first: Sequence[str] | None = None) -> bool:
        operations = BY_KIND[kind]
        start = self._byte()
        # An operation that suits no operand gives way to the next one.
        for operation in (operations[(start + 7 * i) % len(operations)] for i in range(6)):
            a = self._recent(first if first is not None else self._tensors())
            if a is None:
                return False
            for of in self._operands(operation, a):
                arrays = [self._shape_of(name) for name in of]
                if None in arrays:
                    continue
                options = operation.choices(*arrays)
                if not options:
                    continue
                chosen = self._one_of(options)
                makes = self._makes(operation, arrays[0], chosen)
                if self._add(operation.name, makes, of, chosen):
                    return True
        return False

    def _operands(self, operation: Operation, a: str) -> list[tuple[str, ...]]:
        if operation.kind == "result" and self._chance(12):
            a = a + ".grad"
        if operation.operands == 1:
            return [(a,)]
        others = self._tensors()
        turn = self._byte() % len(others)
        others = others[turn:] + others[:turn]
        pairs = [(a, b) for b in others[:4]]
        if operation.kind == "in place" and self.tape.tensors[a].grad is not None and self._chance(3):
            pairs.insert(0, (a, a + ".grad"))  # as an optimizer does
        return pairs

    def _shape_of(self, name: str):
        holder, _, attribute = name.partition(".")
        tensor = self.tape.tensors[holder]
        tensor = tensor.grad if attribute else tensor
        return tensor and tensor.elements(None)

    def _makes(self, operation: Operation, array: Any, options: Sequence[Any]) -> list[str]:
        if operation.kind == "in place":
            return []
        count = len(operation.rule(array, *options)) if operation.kind == "several" else 1
        return [next(self._names) for _ in range(count)]

    def _result(self) -> bool:
        return self._operation("result")

    def _view(self) -> bool:
        names = self._tensors()
        if not self._chance(3):  # mostly of what can be written
            names = _first(names, {name for name in self._recorded() if self.tape.tensors[name].family.node.parents})
        return self._operation("view", names)

    def _several(self) -> bool:
        return self._operation("several")

    def _write(self) -> bool:
        # A write to a leaf that requires grad is an error: let there be some.
        refused_too = self._chance(5)
        tape = self.tape

        def wanted(t: Tensor) -> bool:
            leaf = t.family.node is not None and t.family.node.owner is not None
            return refused_too or not (leaf and tape.grad_enabled) or t.view == "several"

        names = self._tensors(wanted)
        if not self._chance(3):  # mostly what has a history to change
            names = _first(names, {name for name in self._recorded() if self.tape.tensors[name].family.node.parents})
        if not self._chance(2):
            names = _first(names, {name for name in names if self.tape.tensors[name].view})
        return self._operation("in place", names)

    def _quiet_write(self) -> bool:
        """A write that isn't recorded, as optimizers and initializations do it."""
        if self.tape.inference:
            return self._write()
        self._add("enter", (), (), ["no_grad"])
        written = self._operation("in place")
        self._add("leave")
        return written

    def _detach(self) -> bool:
        name = self._recent(self._tensors())
        return name is not None and self._add("detach", [next(self._names)], [name])

    def _data(self) -> bool:
        name = self._recent(self._tensors())
        return name is not None and self._add("data", [next(self._names)], [name])

    def _detach_(self) -> bool:
        name = self._recent(self._tensors(lambda t: t.requires_grad))
        return name is not None and self._add("detach_", (), [name])

    def _requires_grad_(self) -> bool:
        name = self._recent(self._tensors())
        return name is not None and self._add("requires_grad_", (), [name], [not self._chance(3)])

    def _retain_grad(self) -> bool:
        results = self._tensors(lambda t: t.requires_grad and not t.is_leaf)
        name = self._recent(self._tensors() if self._chance(8) else results)
        return name is not None and self._add("retain_grad", (), [name])

    def _enter(self) -> bool:
        modes = (
            ("no_grad",),
            ("enable_grad",),
            ("set_grad_enabled", False),
            ("set_grad_enabled", True),
            ("inference_mode", True),
            ("inference_mode", False),
        )
        return self.tape.depth < 3 and self._add("enter", (), (), self._one_of(modes))

    def _leave(self) -> bool:
        return self._add("leave")

    def _set_grad_enabled(self) -> bool:
        return self._add("set_grad_enabled", (), (), [not self._chance(2)])

    def _hook(self) -> bool:
        name = self._recent(self._tensors(lambda t: t.requires_grad) if not self._chance(10) else self._tensors())
        return name is not None and self._add("hook", [next(self._hooks)], [name], [self._one_of((None, 2, None, -1))])

    def _unhook(self) -> bool:
        hooks = [name for name, hook in self.tape.hooks.items() if not hook.removed]
        return bool(hooks) and self._add("unhook", (), (), [self._one_of(hooks)])

    def _with_grad(self) -> str | None:
        return self._recent(self._tensors(lambda t: t.grad is not None))

    def _clear_grad(self) -> bool:
        name = self._with_grad()
        return name is not None and self._add("clear_grad", (), [name])

    def _zero_grad(self) -> bool:
        name = self._with_grad()
        return name is not None and self._add("zero_grad", (), [name])

    def _set_grad(self) -> bool:
        name = self._recent(self._tensors(lambda t: t.requires_grad and t.is_leaf))
        if name is None:
            return False
        return self._add("set_grad", (), [name], [self._numbers(len(self.tape.tensors[name].places), COTANGENTS)])

    def _forget(self) -> bool:
        names = list(self.tape.tensors)
        return len(names) > 2 and self._add("forget", (), (), [self._one_of(names)])

    def _last_backward(self) -> None:
        """A backward from what was recorded or written last, so that hardly anything stays without consequence."""
        while self.tape.inference and self._add("leave"):
            pass
        names = self._recorded()
        if names:
            cotangent = self._numbers(len(self.tape.tensors[names[0]].places), COTANGENTS)
            self._add("backward", (), [names[0]], [1, (cotangent,), True, False])

    def _recorded(self) -> list[str]:
        """The names of tensors that require grad, those first that were recorded or written last."""
        names = self._tensors(lambda t: t.requires_grad)
        return sorted(names, key=lambda name: -self.tape.tensors[name].family.node.order)

    def _roots(self) -> tuple[list[str], list[tuple[int, ...] | None]]:
        wanting = self._recorded()
        names = self._tensors() if self._chance(16) or not wanting else wanting
        roots = [self._recent(names)]
        if self._chance(5) and len(names) > 1:
            roots.append(next(name for name in names if name != roots[0]))
        cotangents = []
        for name in roots:
            tensor = self.tape.tensors[name]
            bare = (len(tensor.places) == 1 and not self._chance(3)) or self._chance(24)
            cotangents.append(None if bare else self._numbers(len(tensor.places), COTANGENTS))
        return roots, cotangents

    def _inputs(self, roots: Sequence[str]) -> list[str]:
        """Tensors that require grad, preferably those that a root may depend on."""
        names = self._tensors(lambda t: t.requires_grad)[::-1]
        if not names or self._chance(24):
            names = self._tensors()
        return list(dict.fromkeys(self._one_of(names) for _ in range(1 + self._chance(3))))

    def _backward(self) -> bool:
        if not self._tensors():
            return False
        roots, cotangents = self._roots()
        inputs = self._inputs(roots) if self._chance(5) else []
        retain, create = not self._chance(2), self._chance(6)
        counts = [len(roots), tuple(cotangents), retain]
        return self._add("backward", (), roots + inputs, [*counts, create]) or self._add(
            "backward", (), roots, [*counts, False]
        )

    def _grad(self) -> bool:
        if not self._tensors():
            return False
        roots, cotangents = self._roots()
        inputs = self._inputs(roots)
        makes = [next(self._names) for _ in inputs]
        create = self._chance(2)
        options = [len(roots), tuple(cotangents), create or not self._chance(2)]
        unused = not self._chance(4)
        return self._add("grad", makes, roots + inputs, [*options, create, unused]) or self._add(
            "grad", makes, roots + inputs, [*options, False, unused]
        )


def _first(names: Sequence[str], preferred: Collection[str]) -> list[str]:
    """The names, the preferred ones before the others."""
    return [n for n in names if n in preferred] + [n for n in names if n not in preferred]


def _names() -> Iterable[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    for length in itertools.count(1):
        for letter in letters:
            yield letter * length


def written(
    content: bytes, weights: Mapping[str, int] = WEIGHTS, most: int = 12, dtypes: Sequence[str] = DTYPES
) -> Program:
    """The program that the bytes stand for, of `most` statements at the most."""
    return Writer(content, weights, most, dtypes).program()


@functools.cache
def programs(*, most: int = 12, dtypes: Sequence[str] = DTYPES, **favoured: int) -> st.SearchStrategy[Program]:
    """Programs of up to so many statements, on leaves of these dtypes, each as often as it is named.

    favoured  how often a kind of statement is tried, by its name in WEIGHTS, which has the usual numbers
    """
    size = CHUNK * (most + 2)
    weights = WEIGHTS | favoured
    content = st.binary(min_size=size, max_size=size)
    return st.builds(lambda content: written(content, weights, most, dtypes), content)
