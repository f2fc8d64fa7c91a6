"""Checks JSON against the part of JSON Schema that our files use, so that reading one needs no further package."""

from __future__ import annotations

import re
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def fault(schema: dict[str, Any], value: Any, where: str = "") -> str | None:
    """What is wrong with `value` by the schema, with the place where it stands, in words; None if it is right."""
    here = where or "the file"
    if "type" in schema:
        names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, name) for name in names):
            return f"{here} is no {' or '.join(names)}"
    if "const" in schema and value != schema["const"]:
        return f"{here} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{here} is none of {', '.join(map(str, schema['enum']))}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{here} is not of the form {schema['pattern']}"
    if "minimum" in schema and not value >= schema["minimum"]:  # so that NaN is caught
        return f"{here} is less than {schema['minimum']}"
    if isinstance(value, dict):
        return _object_fault(schema, value, where)
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            if reason := fault(schema["items"], item, f"{where}[{number}]"):
                return reason
    return None


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _object_fault(schema: dict[str, Any], value: dict[str, Any], where: str) -> str | None:
    here, inside = where or "the file", f"{where}." if where else ""
    for name in schema.get("required", ()):
        if name not in value:
            return f"{here} has no {name!r}"
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        return f"{here} has {len(value)} entries"
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            reason = fault(known[name], item, f"{inside}{name}")
        elif others is False:
            reason = f"{here} has the unknown entry {name!r}"
        else:
            reason = fault(others, item, f"{inside}{name}") if isinstance(others, dict) else None
        if reason:
            return reason
    if "if" in schema and fault(schema["if"], value, where) is None:
        return fault(schema["then"], value, where)
    return None
