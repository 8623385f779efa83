"""What a checkpoint file of our own format says, field by field: its type, then its range."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg_export.checkpoints.tensors import float32
from seg_export.checkpoints.types import Checkpoint, Preprocessing
from seg_export.families import FAMILIES
from seg_runtime.contract import (
    check_clahe_range,
    check_class_names,
    check_probability,
    check_scale,
    check_size,
    check_statistics,
    one_of,
)
from seg_runtime.errors import CheckpointError
from seg_runtime.hashing import file_sha256
from seg_runtime.spec import ChannelOrder, ClaheSpec, Resize

__all__ = ["read_document"]


def read_document(document: Mapping[Any, Any], path: Path) -> Checkpoint:
    """The checkpoint that a document of the format `seg_export.checkpoints.checkpoint.FORMAT` describes.

    Raises:
        CheckpointError: an unknown family, a field that is missing, or one of another type or out of range.
    """
    family = document.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise CheckpointError(
            f"checkpoint {path} is of the unknown model family {family!r}: "
            f"this version knows {', '.join(sorted(FAMILIES))}"
        )
    try:
        names = _list(document["class_names"], "class_names")
        check_class_names(names)
        return Checkpoint(
            family=family,
            arguments=_fields(document["arguments"], "arguments"),
            state_dict=float32(document["state_dict"], path),
            preprocessing=_preprocessing(_fields(document["preprocessing"], "preprocessing")),
            class_names=tuple(names),
            metadata=_fields(document["metadata"], "metadata"),
            sha256=file_sha256(path),
        )
    except KeyError as error:
        raise CheckpointError(f"checkpoint {path} lacks the field {error}: export it again") from error
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"checkpoint {path} has a wrong field: {error}") from error


def _preprocessing(values: dict[str, Any]) -> Preprocessing:
    mean, std = _list(values["mean"], "mean"), _list(values["std"], "std")
    size = _list(values["input_size_hw"], "input_size_hw", 2)
    # Checkpoints of earlier versions do not have these.
    scale, threshold = values.get("scale", 255.0), values.get("threshold", 0.5)
    score_threshold, resize = values.get("score_threshold", 0.5), values.get("resize")
    check_statistics(mean, std)
    check_size(size)
    check_scale(scale)
    check_probability(threshold)
    check_probability(score_threshold, "score threshold")
    return Preprocessing(
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        clahe=_clahe(values["clahe"]),
        input_size_hw=(size[0], size[1]),
        scale=float(scale),
        channel_order=one_of(ChannelOrder, "channel order", values.get("channel_order", "rgb")),
        threshold=float(threshold),
        score_threshold=float(score_threshold),
        resize=None if resize is None else one_of(Resize, "resize", resize),
    )


def _clahe(value: Any) -> ClaheSpec | None:
    if value is None:
        return None
    values = _fields(value, "clahe")
    rows, columns = _list(values["tile_grid_hw"], "tile_grid_hw", 2)
    clahe = ClaheSpec(values["clip_limit"], (rows, columns))
    check_clahe_range(clahe)
    return clahe


def _fields(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{what} is {type(value).__name__}, expected fields with names")
    return dict(value)


def _list(value: Any, what: str, count: int | None = None) -> list[Any]:
    if not isinstance(value, list | tuple) or count not in (None, len(value)):
        number = "values" if count is None else f"{count} values"
        raise ValueError(f"{what} {value!r}, expected a list of {number}")
    return list(value)
