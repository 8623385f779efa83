"""The configurations of a MONAI bundle, read as plain values: nothing in them is executed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from seg_export.checkpoints.folders.folder import library, read_json
from seg_runtime.errors import CheckpointError
from seg_runtime.plain_files import read_text

__all__ = ["class_name", "expression_in", "read_config", "resolved"]

_REFERENCE = re.compile(r"\$?[@%]([\w.]+(?:(?:#|::)\w+)*)")
"""All of a text that names another value of the file, for example "@train#transforms"."""

_DEPTH = 32
"""Of references in references and values in values."""

_MOST = 100_000
"""Values of one that is resolved: references to references could fill any memory."""

_MOST_YAML = 2**17
"""Bytes of a configuration in YAML, which PyYAML reads slowly; those of bundles have some thousand."""


def read_config(folder: Path, name: str) -> Mapping[str, Any]:
    """A configuration as it is written; empty where there is none.

    Args:
        folder: of the bundle.
        name: of the file without its ending.

    Raises:
        CheckpointError: a file that cannot be read.
        MissingExtraError: it is YAML, and PyYAML is not installed.
    """
    stem = folder / "configs" / name
    if stem.with_suffix(".json").is_file():
        return read_json(stem.with_suffix(".json"))
    for path in (stem.with_suffix(".yaml"), stem.with_suffix(".yml")):
        if path.is_file():
            return _read_yaml(path)
    return {}


def resolved(config: Mapping[str, Any], value: Any) -> Any:
    """A value whose references are replaced by what they name; expressions stay as they are.

    Args:
        config: the file that it is from.
        value: plain values, in mappings and lists.

    Raises:
        CheckpointError: references that go round in a circle, or to more than any network needs.

    Example:
        >>> resolved({"classes": 2, "out": "@classes"}, {"out_channels": "@out", "act": "$torch.nn.ReLU"})
        {'out_channels': 2, 'act': '$torch.nn.ReLU'}
    """
    return _resolved(config, value, 0, iter(range(_MOST)))


def _resolved(config: Mapping[str, Any], value: Any, depth: int, left: Iterator[int]) -> Any:
    """A value that lies `depth` values deep in another, while there are some `left`."""
    if depth > _DEPTH:
        raise CheckpointError(
            f"the references of a bundle's configuration go round in a circle, at {value!r:.40}"
        )
    if next(left, None) is None:
        raise CheckpointError(
            f"the references of a bundle's configuration make more than {_MOST} values of it"
        )
    if isinstance(value, Mapping):
        return {str(key): _resolved(config, each, depth + 1, left) for key, each in value.items()}
    if isinstance(value, list):
        return [_resolved(config, each, depth + 1, left) for each in value]
    if not isinstance(value, str) or not (reference := _REFERENCE.fullmatch(value)):
        return value
    try:
        named = _named(config, reference[1])
    except (IndexError, KeyError, TypeError, ValueError):
        return value
    return _resolved(config, named, depth + 1, left)


def expression_in(value: Any) -> str:
    """The first text in a resolved value that is code, or a reference to nothing; "" where there is none.

    Example:
        >>> expression_in({"in_channels": 3, "act": ["$torch.nn.ReLU"]})
        '$torch.nn.ReLU'
    """
    if isinstance(value, str):
        return value if value[:1] in {"$", "@", "%"} else ""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return next((found for part in parts if (found := expression_in(part))), "")


def class_name(value: Any) -> str:
    """The last part of what a mapping is to be made with; "" for anything else.

    Example:
        >>> class_name({"_target_": "monai.networks.nets.UNet"})
        'UNet'
    """
    return str(value.get("_target_", "")).rpartition(".")[2] if isinstance(value, Mapping) else ""


def _named(config: Any, way: str) -> Any:
    for part in re.split("#|::", way):
        config = config[int(part)] if isinstance(config, list) else config[part]
    return config


def _read_yaml(path: Path) -> Mapping[str, Any]:
    yaml = library("yaml", "PyYAML")
    try:
        document = yaml.safe_load(read_text(path, _MOST_YAML))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"'{path}' cannot be read as YAML: {reason}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"'{path}' holds a {type(document).__name__}, expected a mapping")
    return document
