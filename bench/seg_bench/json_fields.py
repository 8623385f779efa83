"""Frozen dataclasses as JSON and back, with an error that names the field that is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from seg_runtime.errors import BadInputError

__all__ = ["from_json", "to_json", "write_json"]

Decoded = TypeVar("Decoded")
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def to_json(value: Any) -> Any:
    """A dataclass (or a part of one) as dicts, lists, strings and numbers.

    Infinite and undefined floats become the strings "inf", "-inf" and "nan", which JSON has no
    numbers for.
    """
    if dataclasses.is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write_json(path: Path, value: Any) -> None:
    """Write what `to_json` makes of a value into a file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_json(value), indent=1) + "\n", encoding="utf-8")


def from_json(kind: type[Decoded], value: Any, where: str = "") -> Decoded:
    """Build a dataclass from what `to_json` made.

    Args:
        kind: the dataclass; its fields may be str, int, float, bool, `X | None`, `tuple[X, ...]`,
            `dict[str, X]` and other dataclasses.
        value: parsed JSON.
        where: the path of `value` in its file, for messages.

    Raises:
        BadInputError: a field is missing, unknown or of another type.
    """
    decoded: Decoded = _decode(kind, value, where)
    return decoded


def _decode(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _decode(arguments[0], value, where)
    if origin is tuple:
        entries = _expect(list, value, where, "a list")
        return tuple(_decode(arguments[0], entry, f"{where}[{i}]") for i, entry in enumerate(entries))
    if origin is dict:
        mapping = _expect(dict, value, where, "an object")
        return {key: _decode(arguments[1], entry, f"{where}.{key}") for key, entry in mapping.items()}
    return _decode_plain(kind, value, where)


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    mapping = _expect(dict, value, where or "the file", "an object")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    prefix = f"{where}." if where else ""
    unknown = sorted(set(mapping) - set(fields))
    if unknown:
        raise BadInputError(f"unknown field '{prefix}{unknown[0]}'; known here: {', '.join(fields)}")
    hints = get_type_hints(kind)
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = _decode(hints[name], mapping[name], prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise BadInputError(f"the field '{prefix}{name}' is missing")
    return kind(**values)


def _decode_plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        return _expect(float, value, where, "a number")
    if kind is int and isinstance(value, bool):
        raise BadInputError(f"the field '{where}' is {value!r}; it must be a whole number")
    names = {str: "a string", int: "a whole number", bool: "true or false"}
    return _expect(kind, value, where, names[kind])


def _expect(kind: Any, value: Any, where: str, name: str) -> Any:
    if not isinstance(value, kind):
        shown = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:40]}..."
        raise BadInputError(f"the field '{where}' is {shown}; it must be {name}")
    return value
