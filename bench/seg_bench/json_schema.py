"""A JSON schema of frozen dataclasses, as `seg_bench.json_fields` writes and reads them."""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any, Union, get_args, get_origin, get_type_hints

from seg_bench.record_files import READABLE
from seg_bench.records import Run

__all__ = ["json_schema", "records_schema"]

_DRAFT = "http://json-schema.org/draft-07/schema#"
_PLAIN = {str: "string", int: "integer", bool: "boolean"}
_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["inf", "-inf", "nan"]}]}


def records_schema() -> dict[str, Any]:
    """The schema of the files that `seg-bench run` writes; it refuses the types that `read_run` refuses.

    `read_run` also checks what a schema cannot say: that lists belong together.
    """
    schema = json_schema(Run)
    schema["definitions"]["Run"]["properties"]["schema"] = {"enum": list(READABLE)}
    return {"$schema": _DRAFT, "title": "Records of seg-bench run", **schema}


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """Draft 7 of JSON Schema for a dataclass and all that it holds.

    Args:
        kind: as `seg_bench.json_fields.from_json` takes it.
    """
    definitions: dict[str, Any] = {}
    reference = _schema(kind, definitions)
    return {**reference, "definitions": dict(sorted(definitions.items()))}


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(kind):
        name = getattr(kind, "__name__", "")
        if name not in definitions:
            definitions[name] = {}  # it may hold itself
            definitions[name] = _object(kind, definitions)
        return {"$ref": f"#/definitions/{name}"}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(arguments[0], definitions), {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    return dict(_NUMBER) if kind is float else {"type": _PLAIN[kind]}


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return {
        "type": "object",
        "description": inspect.getdoc(kind),
        "properties": {field.name: _schema(hints[field.name], definitions) for field in fields},
        "required": required,
        "additionalProperties": False,
    }
