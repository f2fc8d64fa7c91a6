"""Counterexamples as text: what a spec drew, as JSON that can be read without anything of it being run.

What JSON knows stands for itself. All else is an object with one entry, the name of a kind and what it is made of:
`{"tuple": [1, 2]}`, `{"Values": [...]}`. The kinds are those below; nothing is imported by a name from the text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import torch

from ..kit.graphs import OPERATIONS, Graph, Operation, Statement
from ..kit.modules import MADE_BY, Network, Part
from ..kit.programs import Program
from ..kit.values import LAYOUTS, Values

_OPERATIONS = {operation.code: operation for operation in OPERATIONS}
_RECORDS = {kind.__name__: kind for kind in (Values, Graph, Statement, Network, Part)}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST = 10_000  # elements of a tensor; those that are drawn have a few dozen


class CounterexampleError(ValueError):
    """A text that is no counterexample, or a value that can't be written as one; the message is half a sentence."""


def to_text(drawn: dict[str, Any]) -> str:
    """What a spec drew, by the name of the argument, as a line of JSON; CounterexampleError for an unknown kind."""
    return json.dumps({name: _written(value) for name, value in drawn.items()})


def from_text(text: str) -> dict[str, Any]:
    """What `to_text` wrote. Raises CounterexampleError for any other text."""
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise CounterexampleError("it is no object with an entry for each argument")
        return {name: _read(value) for name, value in found.items()}
    except CounterexampleError:
        raise
    except Exception as error:  # whatever may be wrong with a text that anybody may have written
        raise CounterexampleError(f"{type(error).__name__}: {error}".partition("\n")[0][:200]) from error


def _written(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is list:
        return [_written(item) for item in value]
    if kind is tuple:
        return {"tuple": [_written(item) for item in value]}
    if kind in (set, frozenset):  # in an order, so that the text says the same each time
        return {kind.__name__: sorted(map(_written, value), key=json.dumps)}
    if kind is dict:
        return {"dict": [[_written(key), _written(item)] for key, item in value.items()]}
    if kind is float:
        return {"float": repr(value)}
    if kind is complex:
        return {"complex": [_written(value.real), _written(value.imag)]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind in (torch.dtype, torch.layout):
        return {kind.__name__: str(value).removeprefix("torch.")}
    if kind is Program:
        return {"Program": json.loads(value.to_json())}
    if kind is Operation:
        return {"Operation": value.code}
    if kind in _RECORDS.values():
        fields = getattr(kind, "_fields", None) or kind.__dataclass_fields__
        return {kind.__name__: [_written(getattr(value, name)) for name in fields]}
    raise CounterexampleError(f"{kind.__name__} is no kind of value that can be stored")


def _read(value: Any) -> Any:
    if isinstance(value, list):
        return [_read(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise CounterexampleError("an object stands for one value of a kind, and has one entry")
    ((kind, content),) = value.items()
    if kind not in _READERS:
        raise CounterexampleError(f"there is no kind of value {kind[:40]!r}")
    return _READERS[kind](content)


def _items(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise CounterexampleError("what should be a list isn't")
    return [_read(item) for item in content]


def _dict(content: Any) -> dict[Any, Any]:
    return dict(map(_items, content))


def _of_torch(kind: type) -> Callable[[Any], Any]:
    def read(content: Any) -> Any:
        found = getattr(torch, content)
        if not isinstance(found, kind):
            raise CounterexampleError(f"there is no {kind.__name__} {content!r}")
        return found

    return read


def _record(kind: type) -> Callable[[Any], Any]:
    def read(content: Any) -> Any:
        made = kind(*_items(content))
        if not _RIGHT[kind.__name__](made):
            raise CounterexampleError(f"what is called {kind.__name__} isn't one")
        return made

    return read


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(_NAME.fullmatch(name))


def _are(kind: type, *things: Any) -> bool:
    return all(isinstance(thing, kind) for thing in things)


def _names(names: Any) -> bool:
    return isinstance(names, tuple) and all(map(_is_name, names))


def _by_name(table: Any, *, may_lack: bool = False) -> bool:
    """Whether it is a dictionary from names to Values."""
    if not isinstance(table, dict) or not all(map(_is_name, table)):
        return False
    return all(isinstance(v, Values) or (v is None and may_lack) for v in table.values())


# Names and codes get into scripts that are shown to be run: they are what they say, and nothing else.


def _right_values(v: Values) -> bool:
    if not _are(tuple, v.shape, v.numbers) or not _are(str, v.dtype, v.layout):
        return False
    if not all(type(size) is int and size >= 0 for size in v.shape) or math.prod(v.shape) > _MOST:
        return False
    if not all(type(number) in (int, float, bool) for number in v.numbers) or len(v.numbers) != math.prod(v.shape):
        return False
    return isinstance(getattr(torch, v.dtype, None), torch.dtype) and v.layout in LAYOUTS


def _right_graph(g: Graph) -> bool:
    if not (_by_name(g.leaves) and _by_name(g.constants) and _by_name(g.cotangents) and _by_name(g.direction)):
        return False
    if not (g.cotangents and _by_name(g.predicted, may_lack=True) and _are(tuple, g.statements, g.derived)):
        return False
    return _are(Statement, *g.statements) and all(map(_by_name, g.derived))


def _right_network(n: Network) -> bool:
    return _by_name(n.weights) and _are(tuple, n.statements) and _are(Part, *n.statements) and _are(Values, n.input)


_RIGHT: dict[str, Callable[[Any], bool]] = {
    "Values": _right_values,
    "Graph": _right_graph,
    "Statement": lambda s: _is_name(s.name) and _are(Operation, s.operation) and _names(s.operands),
    "Network": _right_network,
    "Part": lambda p: _is_name(p.name) and p.kind in MADE_BY and _names(p.operands),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda content: tuple(_items(content)),
    "set": lambda content: set(_items(content)),
    "frozenset": lambda content: frozenset(_items(content)),
    "dict": _dict,
    "float": float,
    "complex": lambda content: complex(*_items(content)),
    "bytes": bytes.fromhex,
    "dtype": _of_torch(torch.dtype),
    "layout": _of_torch(torch.layout),
    "Program": lambda content: Program.from_json(json.dumps(content)),
    "Operation": lambda code: _OPERATIONS[code],
    **{name: _record(kind) for name, kind in _RECORDS.items()},
}
