"""A counterexample as a script of plain PyTorch that runs by itself.

The script is the spec's own body, with the example's values put in and with whatever the body uses
copied in front of it: imports, helpers of its chapter, the comparisons in a short form.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import textwrap
from typing import Any

import torch

from ..kit.claim import Claim
from ..kit.values import Values
from ..kit.world import World
from . import standalone
from .devices import import_lines

_WORLD = '''class world:
    """Where the example runs."""

    device = torch.device({device!r})

    def leaf(v):
        return v().requires_grad_()

    def constant(v):
        return v()
'''


def script(claim: Claim, world: World, drawn: dict[str, Any], what: str = "a counterexample") -> str:
    """The script that runs the body of the claim's spec on the example `drawn`, which is `what`, in `world`."""
    for value in drawn.values():
        if hasattr(value, "script"):  # a program, which says by itself what is expected of it
            return (
                _head(claim, world, what)
                + "\n"
                + import_lines(str(world.device), world.imports)
                + value.script(world.device)
            )
    source = textwrap.dedent(inspect.getsource(claim.body))
    definition = ast.parse(source).body[0]
    body, used = _body(source, definition, world, drawn)

    imports: list[str] = [*import_lines(str(world.device), world.imports).splitlines(), "import torch"]
    helpers: list[str] = []
    if "world" in used:
        helpers.append(_WORLD.format(device=str(world.device)))
    done = set(drawn) | {"world"}
    for name in sorted(used):
        _collect(name, importlib.import_module(claim.body.__module__), imports, helpers, done)
    example = [_assignment(name, value, world) for name, value in drawn.items() if name in used]
    parts = [
        _head(claim, world, what) + "\n" + "\n".join(dict.fromkeys(imports)) + "\n",
        *helpers,
        "".join(example),
        body,
    ]
    return "\n".join(part for part in parts if part)


def _head(claim: Claim, world: World, what: str) -> str:
    head = f'"""{claim.id}, {what} on torch {torch.__version__}, {world.device}.\n\n'
    return head + textwrap.fill(claim.sentence, 98) + '\n"""\n'


def _body(source: str, definition: ast.FunctionDef, world: World, drawn: dict[str, Any]) -> tuple[str, set[str]]:
    """The text of the body with the tensors of the example in place, and the names that it uses."""
    statements = definition.body[1:]  # without the docstring, which is the claim
    lines = source.splitlines(keepends=True)
    replacements = []
    spared: set[int] = set()  # names inside what is replaced
    for node in (n for statement in statements for n in ast.walk(statement)):
        if (text := _literal(node, world, drawn)) is not None:
            replacements.append((node, text))
            spared.update(map(id, ast.walk(node)))
    used = {
        node.id
        for statement in statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and id(node) not in spared
    }
    # From the end, so that earlier positions stay right; columns count bytes.
    for node, text in sorted(replacements, key=lambda r: (-r[0].lineno, -r[0].col_offset)):
        line = lines[node.lineno - 1].encode()
        lines[node.lineno - 1] = (line[: node.col_offset] + text.encode() + line[node.end_col_offset :]).decode()
    # Comments between the docstring and the first statement belong to the body.
    return textwrap.dedent("".join(lines[definition.body[0].end_lineno :])).lstrip("\n"), used


def _literal(node: ast.AST, world: World, drawn: dict[str, Any]) -> str | None:
    """`world.leaf(v)`, `world.constant(v)` and `world.device` in plain PyTorch, or None for other nodes."""
    if getattr(node, "lineno", 0) != getattr(node, "end_lineno", -1):
        return None
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="world"), attr="leaf" | "constant" as kind),
            args=[ast.Name(id=name)],
        ) if isinstance(drawn.get(name), Values):
            made = world.code(drawn[name])
            return made + (".requires_grad_()" if kind == "leaf" else "")
        case ast.Attribute(value=ast.Name(id="world"), attr="device"):
            return repr(world.device).replace("device(", "torch.device(", 1)
    return None


def _assignment(name: str, value: Any, world: World) -> str:
    if hasattr(value, "definition"):  # a graph says by itself how it is written down
        return value.definition(name, world) + "\n"
    return f"{name} = {_expression(value, world)}\n"


def _expression(value: Any, world: World) -> str:
    if isinstance(value, Values):
        return f"lambda: {world.code(value)}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(_expression(v, world) for v in value)
        return f"[{inside}]"
    return repr(value)


def _collect(name: str, module: Any, imports: list[str], helpers: list[str], done: set[str]) -> None:
    """Add to `imports` and `helpers` what defines `name` in `module`, and what that in turn uses."""
    if name in ("same", "raises", "warns", "silent"):
        module = standalone
    # By module as well: what is a variable in one may be a function in another.
    place = f"{module.__name__}.{name}"
    if name in done or place in done or hasattr(builtins, name):
        return
    done.add(place)
    source, statements = _read(module)
    for node in statements:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if name == (alias.asname or alias.name.partition(".")[0]):
                    imports.append(f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else ""))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    if not node.level:
                        imports.append(f"from {node.module} import {alias.name}")
                        continue
                    origin = importlib.import_module("." * node.level + (node.module or ""), module.__package__)
                    home = getattr(origin, alias.name)
                    _collect(name, inspect.getmodule(home) or origin, imports, helpers, done)
        elif name in _defined(node):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and inner.id != name:
                    _collect(inner.id, module, imports, helpers, done)
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            helpers.append("".join(source.splitlines(keepends=True)[first - 1 : node.end_lineno]))


@functools.cache
def _read(module: Any) -> tuple[str, list[ast.stmt]]:
    """The source of a module and the statements at its top."""
    source = inspect.getsource(module)
    return source, ast.parse(source).body


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module defines."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {t.id for t in targets if isinstance(t, ast.Name)}
