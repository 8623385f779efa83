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

_MOST_VALUES = 100_000
"""In a value whose references were replaced: lists that name each other twice grow with every step."""

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


def resolved(
    config: Mapping[str, Any], value: Any, depth: int = 0, budget: Iterator[int] | None = None
) -> Any:
    """A value whose references are replaced by what they name; expressions stay as they are.

    Args:
        config: the file that it is from.
        value: plain values, in mappings and lists.
        depth: how deep it lies in another value.
        budget: gives a number for each value that may still come.

    Raises:
        CheckpointError: references that go round in a circle, or that make far too much of a short file.

    Example:
        >>> resolved({"classes": 2, "out": "@classes"}, {"out_channels": "@out", "act": "$torch.nn.ReLU"})
        {'out_channels': 2, 'act': '$torch.nn.ReLU'}
    """
    if depth > _DEPTH:
        raise CheckpointError(
            f"the references of a bundle's configuration go round in a circle, at {value!r:.80}"
        )
    budget = iter(range(_MOST_VALUES)) if budget is None else budget
    if next(budget, None) is None:
        raise CheckpointError(f"the references of a bundle's configuration make over {_MOST_VALUES} values")
    if isinstance(value, Mapping):
        return {key: resolved(config, each, depth + 1, budget) for key, each in value.items()}
    if isinstance(value, list):
        return [resolved(config, each, depth + 1, budget) for each in value]
    if not isinstance(value, str) or not (reference := _REFERENCE.fullmatch(value)):
        return value
    try:
        named = _named(config, reference[1])
    except (IndexError, KeyError, TypeError, ValueError):
        return value
    return resolved(config, named, depth + 1, budget)


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
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"'{path}' cannot be read as YAML: {reason}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"'{path}' holds a {type(document).__name__}, expected a mapping")
    return document
