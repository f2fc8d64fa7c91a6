"""Programs: generated sequences of tensor statements, as data, and what they look like in PyTorch.

The tape says what each statement does; a program is built by trying statements on it, so that none
stands in a program that the tape can't predict.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..tape.autograd import Tape
from ..tape.operations import OPERATIONS
from ..tape.statements import Refused, Statement
from ..tape.tensors import Tensor

ASSIGNMENTS = ("set_row", "set_slice", "fill_row", "clear_grad", "set_grad")  # no expressions
_NAMES = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.grad)?")


@dataclass(frozen=True)
class Literal:
    """A tensor written down in the code."""

    shape: tuple[int, ...]
    numbers: tuple[float, ...]
    dtype: str
    requires_grad: bool = False

    def code(self, device: torch.device) -> str:
        """The expression of plain PyTorch."""
        where = "" if device.type == "cpu" else f", device={str(device)!r}"
        flag = ", requires_grad=True" if self.requires_grad else ""
        rows = nested(self.shape, self._elements())
        made = f"torch.tensor({rows}, dtype=torch.{self.dtype}{where}{flag})"
        # A nested list can't tell (2, 0) from (2, 0, 3).
        return made if 0 not in self.shape[:-1] else made.replace(f"tensor({rows}", f"zeros({self.shape}")

    def tensor(self, device: torch.device) -> torch.Tensor:
        """The tensor itself."""
        if 0 in self.shape:
            return torch.zeros(self.shape, dtype=dtype_of(self.dtype), device=device, requires_grad=self.requires_grad)
        rows = nested(self.shape, self._elements())
        return torch.tensor(rows, dtype=dtype_of(self.dtype), device=device, requires_grad=self.requires_grad)

    def _elements(self) -> Sequence[complex]:
        if self.dtype.startswith("complex"):
            pairs = iter(self.numbers)
            return [complex(real, imag) for real, imag in zip(pairs, pairs, strict=True)]
        return self.numbers


@functools.cache
def dtype_of(name: str) -> torch.dtype:
    """The dtype of this name."""
    return getattr(torch, name)


def nested(shape: tuple[int, ...], elements: Sequence[Any]) -> Any:
    """The elements as nested lists, as tolist() gives them."""
    if not all(shape):
        return _empty(shape)
    if not shape:
        return elements[0]
    if len(shape) == 1:
        return list(elements)
    step = math.prod(shape[1:])
    return [nested(shape[1:], elements[i * step : (i + 1) * step]) for i in range(shape[0])]


def _empty(shape: Sequence[int]) -> list:
    return [_empty(shape[1:]) for _ in range(shape[0])]


def code(statement: Statement, tape: Tape, device: torch.device) -> list[str]:
    """The statement as lines of plain PyTorch; `tape` is the state before it."""
    does, makes, of, options = statement
    if does == "hook":
        (hook,), (tensor,), (factor,) = makes, of, options
        if factor is not None:
            return [f"{hook} = {tensor}.register_hook(lambda gradient: gradient * {factor})"]
        keeps = f"{hook} = {tensor}.register_hook(lambda gradient: seen_by_{hook}.append(gradient.clone()))"
        return [f"seen_by_{hook} = []", keeps]
    simple = {
        "unhook": lambda: f"{options[0]}.remove()",
        "forget": lambda: f"del {options[0]}",
        "enter": lambda: f"with torch.{options[0]}({', '.join(map(str, options[1:]))}):",
        "leave": lambda: "",
        "set_grad_enabled": lambda: f"torch.set_grad_enabled({options[0]})",
    }
    if does in simple:
        return [simple[does]()]
    template, literals = form(statement, tape)
    operands = dict(zip("abcdefgh", of))
    written = {f"literal{i}": literal.code(device) for i, literal in enumerate(literals)}
    targets = ", ".join(makes) + "," * (len(makes) == 1 and several(statement))
    return [(f"{targets} = " if makes else "") + template.format(**operands, **written)]


def several(statement: Statement) -> bool:
    """Whether the statement gives a sequence of tensors."""
    does = statement.does
    return does == "grad" or (does in OPERATIONS and OPERATIONS[does].kind == "several")


def form(statement: Statement, tape: Tape) -> tuple[str, list[Literal]]:
    """The statement's right-hand side, with {a}, {b} for its operands and {literal0} for tensors written down."""
    does, _, of, options = statement
    if operation := OPERATIONS.get(does):
        parameters = dict(zip("pqr", options))
        return operation.code.format(a="{a}", b="{b}", **parameters), []
    if does == "leaf":
        dtype, shape, numbers, requires_grad = options
        return "{literal0}", [Literal(shape, numbers, dtype, requires_grad)]
    if does == "set_grad":
        tensor = tape.tensors[of[0]]
        return "{a}.grad = {literal0}", [Literal(tensor.shape, options[0], tensor.dtype)]
    if does in ("backward", "grad"):
        return _backward(statement, tape)
    fixed = {
        "detach": "{a}.detach()",
        "data": "{a}.data",
        "detach_": "{a}.detach_()",
        "requires_grad_": f"{{a}}.requires_grad_({options[0] if options else ''})",
        "retain_grad": "{a}.retain_grad()",
        "clear_grad": "{a}.grad = None",
        "zero_grad": "{a}.grad.zero_()",
    }
    return fixed[does], []


def _backward(statement: Statement, tape: Tape) -> tuple[str, list[Literal]]:
    does, _, of, (count, cotangents, retain, create, *unused) = statement
    slots = [f"{{{letter}}}" for letter in "abcdefgh"[: len(of)]]
    roots, inputs = slots[:count], slots[count:]
    several = f"[{', '.join(roots)}]"
    literals, given = [], []
    for name, cotangent in zip(of[:count], cotangents, strict=True):
        tensor = tape.tensors[name]
        given.append("None" if cotangent is None else f"{{literal{len(literals)}}}")
        if cotangent is not None:
            literals.append(Literal(tensor.shape, cotangent, tensor.dtype))
    some = any(cotangent is not None for cotangent in cotangents)
    options = [f"retain_graph={retain}"] + ["create_graph=True"] * create
    if does == "grad":
        options += ["allow_unused=True"] * unused[0]
        gradients = [f"[{', '.join(given)}]"] * some
        arguments = [several, f"[{', '.join(inputs)}]", *gradients, *options]
        return f"torch.autograd.grad({', '.join(arguments)})", literals
    options += [f"inputs=[{', '.join(inputs)}]"] * bool(inputs)
    if count == 1:
        return f"{roots[0]}.backward({', '.join([*given[:some], *options])})", literals
    gradients = [f"[{', '.join(given)}]"] * some
    return f"torch.autograd.backward({', '.join([several, *gradients, *options])})", literals


@functools.lru_cache(maxsize=20_000)
def compiled(template: str, assigns: bool) -> Callable[..., Any]:
    """A statement's right-hand side as a function of its operands and its literals."""
    slots = {name: name for name in (*"abcdefgh", *(f"literal{i}" for i in range(4)))}
    text = template.format(**slots)
    names = ", ".join(f"{name}=None" for name in slots)
    if not assigns:
        return eval(f"lambda {names}: {text}", {"torch": torch})
    scope: dict[str, Any] = {"torch": torch}
    exec(f"def function({names}): {text}", scope)
    return scope["function"]


@dataclass(frozen=True)
class Program:
    """Statements that the tape can predict."""

    statements: tuple[Statement, ...]

    def __repr__(self) -> str:
        return "; ".join(line.strip() for line in self.lines())

    def lines(self, device: str = "cpu") -> list[str]:
        """The program as lines of plain PyTorch, without what it is expected to do."""
        tape, lines, indent = Tape(), [], 0
        for statement in self.statements:
            if statement.does == "leave":
                if lines and lines[-1].endswith(":"):
                    lines.append("    " * indent + "pass")
                indent -= 1
            lines += ["    " * indent + line for line in code(statement, tape, torch.device(device)) if line]
            indent += statement.does == "enter"
            tape.run(statement)
        return [*lines, "    " * indent + "pass"] if lines and lines[-1].endswith(":") else lines

    @property
    def contents(self) -> list[str]:
        """What the program contains: statements, modes, operations, and pairs of neighbouring statements."""
        kinds = [_kind(statement) for statement in self.statements]
        found = [f"statement {kind}" for kind in kinds]
        found += [f"operation {s.does}" for s in self.statements if s.does in OPERATIONS]
        found += [f"mode {' '.join(map(str, s.options))}" for s in self.statements if s.does == "enter"]
        return found + [f"pair {first}, {second}" for first, second in itertools.pairwise(kinds)]

    def script(self, device: torch.device) -> str:
        """The program as a script that runs by itself and asserts what the tape predicts.

        After each statement it asserts what has changed, and at the end what all tensors are.
        """
        return "\n".join(_script(self, device))

    def to_json(self) -> str:
        """The program as text: a JSON list with a list for each statement."""
        return json.dumps([list(statement) for statement in self.statements])

    @staticmethod
    def from_json(text: str) -> Program:
        """The program that to_json wrote. Raises ValueError if it isn't one, or can't be predicted."""
        try:
            rows = json.loads(text)
            if not isinstance(rows, list):
                raise TypeError("it is no list of statements")
            program = Program(tuple(_statement(*row) for row in rows))
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not a program: {error}") from error
        tape = Tape()
        for number, statement in enumerate(program.statements, start=1):
            try:
                tape.run(statement)
            except (Refused, TypeError, AttributeError, ValueError, LookupError) as error:
                raise ValueError(f"statement {number}, {statement.does}, can't be predicted: {error}") from error
        return program


def _statement(does: str, makes: list[str], of: list[str], options: list[Any]) -> Statement:
    if not _plain([does, makes, of, options]):
        raise TypeError("a text in it is no name")
    return Statement(does, tuple(makes), tuple(of), _frozen(options, does))


def _plain(value: Any) -> bool:
    """Whether all text in the value is names: what a file says becomes code, which must not do anything else."""
    if isinstance(value, list):
        return all(map(_plain, value))
    return not isinstance(value, (str, dict)) or (isinstance(value, str) and _NAMES.fullmatch(value) is not None)


def _frozen(options: list[Any], does: str) -> tuple[Any, ...]:
    """Options as they were before they were JSON: shapes and numbers are tuples; lists of indices stay lists."""
    keep = does in ("index", "index_select", "gather", "index_add", "index_add_", "scatter_add", "scatter_add_") or (
        does in ("masked_fill", "masked_fill_")
    )

    def frozen(value: Any) -> Any:
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    return tuple(value if keep else frozen(value) for value in options)


def _kind(statement: Statement) -> str:
    operation = OPERATIONS.get(statement.does)
    return operation.kind if operation else statement.does


_SCRIPT_HEAD = """import torch


def check(tensor, dtype, values, requires_grad, is_leaf, grad):
    leaf = None if is_leaf is None else tensor.is_leaf  # of some tensors it can't be asked
    seen = tensor.dtype, tensor.detach().tolist(), tensor.requires_grad, leaf
    assert seen == (dtype, values, requires_grad, is_leaf), f"{tensor} is not {(dtype, values, requires_grad, is_leaf)}"
    if grad != "unknown":
        grad_seen = None if tensor.grad is None else (tensor.grad.tolist(), tensor.grad.requires_grad)
        assert grad_seen == grad, f"the gradient is {tensor.grad}, not {grad}"


def numbers(tensor):
    tensor = tensor.detach()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).flatten().tolist()


def raises(function, *telling):
    try:
        function()
    except RuntimeError as error:
        assert any(part in str(error) for part in telling), error
        return True
    return False


"""


def _script(program: Program, device: torch.device) -> Iterator[str]:
    yield _SCRIPT_HEAD.rstrip("\n") + "\n\n"
    tape, known, indent = Tape(), {}, 0
    versions: dict[str, int] = {}
    for statement in program.statements:
        lines = [line for line in code(statement, tape, device) if line]
        plan = tape.run(statement)
        indent -= statement.does == "leave"
        margin = "    " * indent
        if plan.errors:
            for line in lines[:-1]:
                yield margin + line
            yield margin + "def statement():"
            yield margin + f"    {lines[-1]}"
            yield ""
            test = f"raises(statement, {', '.join(map(repr, dict.fromkeys(plan.errors)))})"
            known = {}  # an error must leave everything as it was: all is asserted again
            yield margin + (f'assert {test}, "no error"' if plan.surely else f"{test}  # an error, or nothing")
        else:
            for line in lines:
                yield margin + line
        indent += statement.does == "enter"
        margin = "    " * indent
        if statement.does in ("enter", "leave", "set_grad_enabled"):
            yield margin + f"assert torch.is_grad_enabled() is {tape.grad_enabled}"
        for name, tensor in tape.tensors.items():
            if tensor is None:
                if known.get(name) != "None":
                    yield margin + f"assert {name} is None"
                    known[name] = "None"
                continue
            if tensor.outdated and not tensor.spoiled:
                yield margin + f"{name}.grad_fn  # renews the history of a view that was written"
            expected = _expected(name, tensor)
            if known.get(name) != expected:
                yield margin + expected
                known[name] = expected
            if not tensor.family.inference:
                version = tensor.family.counter.version
                if name not in versions:
                    yield margin + f"version_of_{name} = {name}._version - {version}"
                elif versions[name] != version:
                    yield margin + f"assert {name}._version - version_of_{name} == {version}"
                versions[name] = version
        for name, hook in tape.hooks.items():
            if hook.factor is None and hook.known and known.get(name) != len(hook.seen):
                rows = [list(row) for row in hook.seen]
                yield margin + f"assert [numbers(g) for g in seen_by_{name}] == {rows}, seen_by_{name}"
                known[name] = len(hook.seen)
    yield "# in the end"
    for name, tensor in tape.tensors.items():
        if tensor is not None:
            yield _expected(name, tensor)
    yield ""


def _expected(name: str, tensor: Tensor) -> str:
    """The assertion of what a tensor is."""
    leaf = None if tensor.spoiled else tensor.is_leaf
    grad = "'unknown'"
    if tensor.grad_known:
        grad = repr(tensor.grad and (shown(tensor.grad), tensor.grad.requires_grad))
    flags = f"requires_grad={tensor.requires_grad}, is_leaf={leaf}"
    return f"check({name}, torch.{tensor.dtype}, {shown(tensor)}, {flags}, grad={grad})"


def shown(tensor: Tensor) -> Any:
    """A tensor's numbers as tolist() gives them."""
    numbers = tensor.numbers
    if tensor.parts == 2:
        numbers = [complex(*numbers[i : i + 2]) for i in range(0, len(numbers), 2)]
    return nested(tensor.shape, numbers)
