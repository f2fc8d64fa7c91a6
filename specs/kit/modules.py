"""Random modules, as data: layers nested and shared in ways that people nest and share them.

PyTorch builds the module in a world; the reference model predicts its output and its gradients.

A module is written down as the statements of a straight-line program, each of which makes one part
of it out of parameters and of earlier parts, the same ones twice included. Weights are integers and
nothing is random when the module runs, so that all numbers are exact.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import nn

from ..tape.arrays import Array, elementwise, indexes, size_of, total
from ..tape.scalars import Scalar, gradients
from .values import Values, values
from .world import World


def linear(weight: nn.Parameter, bias: nn.Parameter | None = None) -> nn.Linear:
    """A layer with these parameters."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight, layer.bias = weight, bias
    return layer


class Sum(nn.Module):
    """The sum of what two modules make of the input."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Both, added up."""
        return self.first(x) + self.second(x)


class Scaled(nn.Module):
    """What a module makes of the input, times a parameter."""

    def __init__(self, scale: nn.Parameter, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.scale = scale  # comes first in parameters() all the same: a module's own precede its children's

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The product."""
        return self.inner(x) * self.scale


class Shifted(nn.Module):
    """The input plus every parameter of a list."""

    def __init__(self, *shifts: nn.Parameter):
        super().__init__()
        self.shifts = nn.ParameterList(shifts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum."""
        for shift in self.shifts:
            x = x + shift
        return x


class Spare(nn.Module):
    """The input as it is, and a parameter that takes no part."""

    def __init__(self, unused: nn.Parameter):
        super().__init__()
        self.unused = unused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input."""
        return x


MADE_BY = {
    "linear": linear,
    "nn.Sequential": nn.Sequential,
    "nn.ReLU": nn.ReLU,
    "Sum": Sum,
    "Scaled": Scaled,
    "Shifted": Shifted,
    "Spare": Spare,
}
_NAMES = {  # of what a part is made of; what a Sequential holds is numbered
    "linear": ("weight", "bias"),
    "Sum": ("first", "second"),
    "Scaled": ("scale", "inner"),
    "Spare": ("unused",),
}


class Part(NamedTuple):
    """`name` is a module of some kind, made of the parameters and parts of these names."""

    name: str
    kind: str
    operands: tuple[str, ...]

    @property
    def code(self) -> str:
        """The statement in PyTorch's words."""
        return f"{self.name} = {self.kind}({', '.join(self.operands)})"


@dataclass(frozen=True)
class Network:
    """A module, the part made last, with an input that it takes and a cotangent of its output."""

    weights: dict[str, Values]  # the parameters by the names that statements use
    statements: tuple[Part, ...]
    input: Values

    def _walk(self, part: str, path: str = "") -> Iterator[tuple[str, str]]:
        """Every parameter and part below a part with its path, the part first, shared ones every time."""
        kind, operands = next((s.kind, s.operands) for s in self.statements if s.name == part)
        yield path, part
        if kind == "Shifted":  # its parameters are in a list, which is a module of its own
            yield f"{path}.shifts".lstrip("."), f"{part}.shifts"
            names = [f"shifts.{i}" for i in range(len(operands))]
        else:
            names = _NAMES.get(kind, map(str, itertools.count()))
        named = [(f"{path}.{name}".lstrip("."), operand) for name, operand in zip(names, operands)]
        yield from (pair for pair in named if pair[1] in self.weights)
        for below, operand in named:
            if operand not in self.weights:
                yield from self._walk(operand, below)

    @functools.cached_property
    def _paths(self) -> dict[str, str]:
        """Where each parameter and part is met first, in the order of a walk from the top."""
        paths: dict[str, str] = {}
        for path, name in self._walk(self.statements[-1].name):
            paths.setdefault(name, path)
        return paths

    @functools.cached_property
    def below(self) -> dict[str, list[str]]:
        """For each part, by its path, the paths of all parts and parameters in it, each once."""
        paths = self._paths
        found = {paths[s.name]: [paths[n] for _, n in self._walk(s.name)] for s in self.statements if s.name in paths}
        found |= {
            path: [path, *(paths[s] for s in self._statement(name.removesuffix(".shifts")).operands)]
            for name, path in paths.items()
            if name.endswith(".shifts")
        }
        return {path: list(dict.fromkeys(inside)) for path, inside in found.items()}

    def _statement(self, name: str) -> Part:
        return next(s for s in self.statements if s.name == name)

    def build(self, world: World) -> tuple[nn.Module, dict[str, nn.Parameter], dict[str, nn.Module]]:
        """The module made in the world; its parameters; all modules in it, itself included.

        The latter two by path, each once: at the place where it is met first.
        """
        made = {name: nn.Parameter(world.constant(v)) for name, v in self.weights.items()}
        for name, kind, operands in self.statements:
            made[name] = MADE_BY[kind](*(made[operand] for operand in operands))
            if kind == "Shifted":
                made[f"{name}.shifts"] = made[name].shifts
        parameters = {path: made[name] for name, path in self._paths.items() if name in self.weights}
        parts = {path: made[name] for name, path in self._paths.items() if name not in self.weights}
        return made[self.statements[-1].name], parameters, parts

    @functools.cached_property
    def _predicted(self) -> tuple[Values, Values, dict[str, Values | None]]:
        """The output, a cotangent of its shape, and the gradients by path; None for what takes no part."""
        dtype = self.input.dtype
        arrays = {name: Array.of(v.shape, v.numbers) for name, v in self.weights.items()}
        used: set[str] = set()

        def applied(part: str, x: Array) -> Array:
            _, kind, operands = self._statement(part)
            own = [arrays[operand] for operand in operands if operand in arrays]
            if kind != "Spare":
                used.update(operand for operand in operands if operand in arrays)
            if kind == "linear":
                return _linear(x, *own)
            if kind == "nn.ReLU":
                return x.map(lambda s: s.times(1 if s.number > 0 else 0))
            if kind == "Sum":
                return _plus(*(applied(operand, x) for operand in operands))
            if kind == "Scaled":
                return _times(applied(operands[1], x), *own)
            if kind == "Shifted":
                return functools.reduce(_plus, own, x)
            inner = operands if kind == "nn.Sequential" else ()
            return functools.reduce(lambda y, operand: applied(operand, y), inner, x)

        x = Array.of(self.input.shape, self.input.numbers)
        output = applied(self.statements[-1].name, x)
        weights = tuple((1, 2, -1, 3, 0)[i % 5] for i in range(size_of(output.shape)))
        derivative = gradients(zip(output.scalars, weights, strict=True))

        def by(array: Array) -> Values:
            return Values(array.shape, tuple(derivative.get(s, 0) for s in array.scalars), dtype)

        predicted: dict[str, Values | None] = {
            path: by(arrays[name]) if name in used else None for name, path in self._paths.items() if name in arrays
        }
        predicted["input"] = by(x)
        return Values(output.shape, output.numbers, dtype), Values(output.shape, weights, dtype), predicted

    @property
    def output(self) -> Values:
        """What the reference model predicts that the module makes of the input."""
        return self._predicted[0]

    @property
    def cotangent(self) -> Values:
        """A cotangent of the output's shape."""
        return self._predicted[1]

    def gradients(self, world: World) -> dict[str, torch.Tensor | None]:
        """What the reference model predicts for backward with the cotangent: by path, and by "input"."""
        return {name: v and world.constant(v) for name, v in self._predicted[2].items()}

    def __repr__(self) -> str:
        return "; ".join(statement.code for statement in self.statements)

    def definition(self, name: str, world: World) -> str:
        """The network as a class of plain PyTorch that a script can use in its place."""

        kinds = dict.fromkeys(s.kind for s in self.statements if not s.kind.startswith("nn."))
        parameters = {path: n for n, path in self._paths.items() if n in self.weights}
        parts = {path: n for n, path in self._paths.items() if n not in self.weights}
        lines = [
            "from torch import nn",
            "",
            "",
            *("\n\n".join(textwrap.dedent(inspect.getsource(MADE_BY[kind])) for kind in kinds).splitlines()),
            "",
            "",
            f"class {name}:",
            f"    below = {self.below}",
            f"    input = lambda: {world.code(self.input)}",
            f"    output = lambda: {world.code(self.output)}",
            f"    cotangent = lambda: {world.code(self.cotangent)}",
            "",
            "    def build(world):",
            *(f"        {n} = nn.Parameter({world.code(v)})" for n, v in self.weights.items()),
            *(f"        {statement.code}" for statement in self.statements),
            f"        parameters = {{{', '.join(f'{path!r}: {n}' for path, n in parameters.items())}}}",
            f"        parts = {{{', '.join(f'{path!r}: {n}' for path, n in parts.items())}}}",
            f"        return {self.statements[-1].name}, parameters, parts",
            "",
            "    def gradients(world):  # by hand, one scalar after the other",
            "        return {",
            *(f"            {n!r}: {world.code(v)}," for n, v in self._predicted[2].items()),
            "        }",
            "",
        ]
        return "\n".join(lines)


_plus = elementwise(lambda x, y: x + y)
_times = elementwise(lambda x, y: x * y)


def _linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """The products of the input's last dimension with every row of the weight, plus the bias."""
    rows, columns = weight.shape
    scalars: list[Scalar] = []
    for *i, row in indexes((*x.shape[:-1], rows)):
        terms = [x[(*i, k)] * weight[(row, k)] for k in range(columns)]
        scalars.append(total(terms + ([bias[(row,)]] if bias else [])))
    return Array((*x.shape[:-1], rows), tuple(scalars))


_BATCHES = ((2,), (), (1,), (3,), (2, 2), (0,), (1, 2, 1))
_NUMBERS = (1, 2, -1, 3, -2, 0)
_KINDS = 10


@functools.cache
def networks(*, most: int = 3) -> st.SearchStrategy[Network]:
    """Modules of one to `most` nested layers with at least one parameter that takes part."""
    shapes = tuple((*batch, width) for batch in _BATCHES for width in (2, 3, 1))
    return st.builds(
        _network,
        values(shapes=shapes, dtypes=("float64", "float32")),
        # One byte stands for a layer: its kind, how many features it makes, and a variation of the kind.
        st.binary(min_size=1, max_size=most),
        st.binary(min_size=32, max_size=32),
    )


class _Maker:
    """The statements and parameters made so far."""

    def __init__(self, content: bytes, dtype: str):
        self.numbers = itertools.cycle(_NUMBERS[byte % len(_NUMBERS)] for byte in content)
        self.dtype = dtype
        self.weights: dict[str, Values] = {}
        self.statements: list[Part] = []

    def parameter(self, *shape: int) -> str:
        name = f"p{len(self.weights)}"
        self.weights[name] = Values(shape, tuple(itertools.islice(self.numbers, size_of(shape))), self.dtype)
        return name

    def part(self, kind: str, *operands: str) -> str:
        name = f"m{len(self.statements)}"
        self.statements.append(Part(name, kind, operands))
        return name

    def linear(self, rows: int, columns: int, *, bias: bool) -> str:
        return self.part("linear", self.parameter(rows, columns), *([self.parameter(rows)] if bias else []))

    def earlier(self, columns: int) -> str | None:
        """The weight of an earlier layer that takes so many features."""
        return next((n for n, v in self.weights.items() if v.shape[1:] == (columns,)), None)


def _network(input: Values, choices: bytes, content: bytes) -> Network:
    maker = _Maker(content, input.dtype)
    width = input.shape[-1]
    layers: list[str] = []
    for choice in choices:
        choice, varied = divmod(choice % (_KINDS * 3 * 2), 2)
        kind, rows = divmod(choice, 3)
        made, width = _layer(maker, kind, width, rows + 1, bool(varied))
        layers += made
    if not any(statement.kind == "linear" for statement in maker.statements):
        layers.append(maker.linear(2, width, bias=True))
    if len(layers) > 1:
        maker.part("nn.Sequential", *layers)
    net = Network(maker.weights, tuple(maker.statements), input)
    if _bound(net) <= _LIMIT:
        return net
    small = {n: dataclasses.replace(v, numbers=tuple(map(_sign, v.numbers))) for n, v in net.weights.items()}
    return dataclasses.replace(net, weights=small)


_LIMIT = 2**24  # numbers up to which float32 is exact


def _bound(net: Network) -> int:
    """What no number that the network computes, forward or backward, nor any partial sum of one, exceeds."""

    def largest(name: str) -> int:
        # Nor a product in which one factor is left out, hence at least 1.
        return max([1, *map(abs, net.weights[name].numbers)])

    def applied(part: str, x: int) -> int:
        _, kind, operands = next(s for s in net.statements if s.name == part)
        if kind == "linear":
            return net.weights[operands[0]].shape[1] * largest(operands[0]) * x + sum(map(largest, operands[1:]))
        if kind == "Sum":
            return sum(applied(operand, x) for operand in operands)
        if kind == "Scaled":
            return largest(operands[0]) * applied(operands[1], x)
        if kind == "Shifted":
            return x + sum(map(largest, operands))
        return functools.reduce(lambda y, operand: applied(operand, y), operands if kind == "nn.Sequential" else (), x)

    top = net.statements[-1].name
    output = applied(top, max([1, *map(abs, net.input.numbers)]))
    walked = [name for _, name in net._walk(top)]
    uses = max(map(walked.count, net.weights))
    cotangent, features, batch = 3, 3, max(1, math.prod(net.input.shape[:-1]))
    return output * uses * cotangent * features * batch


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def _layer(maker: _Maker, kind: int, width: int, rows: int, varied: bool) -> tuple[list[str], int]:
    """The names of the parts that the choice adds, and how many features they make."""
    if kind == 0:
        return [maker.linear(rows, width, bias=not varied)], rows
    if kind == 1:
        return [maker.part("Sum", maker.linear(rows, width, bias=varied), maker.linear(rows, width, bias=True))], rows
    if kind == 2:  # a layer of its own parameters, and a part that has none
        return [maker.part("nn.Sequential", maker.linear(rows, width, bias=varied), maker.part("nn.ReLU"))], rows
    if kind == 3:
        scale = maker.parameter(*([rows] if varied else []))
        return [maker.part("Scaled", scale, maker.linear(rows, width, bias=True))], rows
    if kind == 4:
        return [maker.part("Shifted", maker.parameter(width), maker.parameter())], width
    if kind == 5:  # a layer of its own that shares an earlier one's weight
        weight = maker.earlier(width) or maker.parameter(rows, width)
        rows = maker.weights[weight].shape[0]
        return [maker.part("linear", weight, *([maker.parameter(rows)] if varied else []))], rows
    if kind == 6:  # one layer twice, one after the other or side by side
        if varied:
            return [maker.linear(width, width, bias=True)] * 2, width
        return [maker.part("Sum", *[maker.linear(rows, width, bias=True)] * 2)], rows
    if kind == 7:  # two layers that share their weight, and perhaps their bias
        weight, bias = maker.parameter(rows, width), maker.parameter(rows)
        other = bias if varied else maker.parameter(rows)
        return [maker.part("Sum", maker.part("linear", weight, bias), maker.part("linear", weight, other))], rows
    if kind == 8:  # deeply nested
        inner = maker.part("nn.Sequential", maker.linear(rows, width, bias=varied))
        inner = maker.part("nn.Sequential", maker.part("Scaled", maker.parameter(), inner))
        return [inner], rows
    return [maker.part("Spare", maker.parameter(width))], width
