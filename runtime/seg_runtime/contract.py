"""What a contract may hold: the range of every field of `ModelSpec`, in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, get_args

from seg_runtime.spec import VERSION_WITH_STATISTICS, ClaheSpec, ModelSpec, TensorSpec

__all__ = [
    "LARGEST_SIDE",
    "MOST_CHANNELS",
    "check_clahe_range",
    "check_class_names",
    "check_contract",
    "check_probability",
    "check_scale",
    "check_size",
    "check_stated",
    "check_statistics",
    "one_of",
]

LARGEST_SIDE = 16384
MOST_CHANNELS = 16
MOST_BATCHED = 4096
MOST_TILES = 256
MOST_VALUES = 2**31
HIGHEST_CLIP = 1e6


def one_of(values: Any, what: str, value: str) -> Any:
    """A value that must be one of a `Literal`'s. Raises ValueError, naming those."""
    if value not in get_args(values):
        raise ValueError(f"{what} {value!r}, expected {' or '.join(get_args(values))}")
    return value


def check_stated(values: Mapping[str, str]) -> None:
    """Refuse a contract that leaves out what its version has, so that no default is taken for it.

    Args:
        values: parameters of a `config.pbtxt`.

    Raises:
        ValueError: names what is missing.

    Example:
        >>> check_stated({"contract": "2", "channels": "3", "mean": "[0, 0, 0]", "std": "[1, 1, 1]"})
        Traceback (most recent call last):
        ...
        ValueError: no scale, which a contract of version 2 has next to mean
    """
    version = values.get("contract", "1")
    if int(version) < VERSION_WITH_STATISTICS:
        return
    for name, neighbour, there in (
        ("scale", "mean", "mean" in values),
        ("channel_order", "3 channels", values.get("channels") == "3"),
    ):
        if there and name not in values:
            raise ValueError(f"no {name}, which a contract of version {version} has next to {neighbour}")


def check_contract(spec: ModelSpec) -> None:
    """Refuse what no client could follow.

    Raises:
        ValueError: names the field, its value and its range.

    Example:
        >>> from seg_runtime.spec import ModelSpec
        >>> check_contract(ModelSpec("lungs", 1, "semantic", "unet", (), (), channels=0))
        Traceback (most recent call last):
        ...
        ValueError: channels 0, expected 1 to 16
    """
    for what, value, lowest, highest in (
        ("version", spec.version, 1, math.inf),
        ("contract", spec.contract_version, 1, math.inf),
        ("max_batch_size", spec.max_batch_size, 0, MOST_BATCHED),
        ("channels", spec.channels, 1, MOST_CHANNELS),
        ("parameter_count", spec.parameter_count, 0, math.inf),
    ):
        _check_whole(what, value, lowest, highest)
    check_size(spec.input_size_hw)
    if bool(spec.mean) != bool(spec.std):
        raise ValueError("mean without std, or std without mean")
    if spec.mean:
        check_statistics(spec.mean, spec.std, spec.channels)
    check_scale(spec.scale)
    check_clahe_range(spec.clahe)
    _check_threshold(spec)
    check_probability(spec.score_threshold, "score threshold")
    check_class_names(spec.class_names)
    for tensor in (*spec.inputs, *spec.outputs, *spec.by_products):
        _check_tensor(tensor)
    if spec.parity is not None:
        figures = (spec.parity.max_abs, spec.parity.max_rel, spec.parity.mask_iou)
        if not (all(is_number(each) and each >= 0 for each in figures) and spec.parity.mask_iou <= 1):
            raise ValueError(f"{spec.parity}, expected numbers of at least 0, and an IoU of at most 1")
    if not all(isinstance(each, str) for each in (*spec.assumed, *spec.assumed.values())):
        raise ValueError(f"assumed {dict(spec.assumed)}, expected names and values as text")


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, which True and text are not."""
    return _is(Real, value) and math.isfinite(value)


def check_size(size_hw: Sequence[Any]) -> None:
    """Refuse an input that no image is resized to. Raises ValueError."""
    for what, side in zip(("height", "width"), size_hw, strict=True):
        _check_whole(f"{what} of the input", side, 1, LARGEST_SIDE)


def check_statistics(mean: Sequence[Any], std: Sequence[Any], channels: int | None = None) -> None:
    """Refuse a mean and a standard deviation that no channels have. Raises ValueError.

    Args:
        mean: a value per channel.
        std: a value per channel.
        channels: how many; None for as many as `mean` has.
    """
    count = len(mean) if channels is None else channels
    for what, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != count or not numbers:
            raise ValueError(f"{what} has {len(numbers)} values, expected {count or 1}, one per channel")
        if not all(map(is_number, numbers)):
            raise ValueError(f"{what} {list(numbers)}, expected finite numbers")
    if not all(number > 0 for number in std):
        raise ValueError(f"std {list(std)}, expected numbers above 0")


def check_scale(scale: Any) -> None:
    """Refuse what no pixel can be divided by. Raises ValueError."""
    if not is_number(scale) or scale <= 0:
        raise ValueError(f"scale {scale!r}, expected a finite number above 0")


def check_clahe_range(clahe: ClaheSpec | None) -> None:
    """Refuse what OpenCV cannot compute, or dies of. Raises ValueError."""
    if clahe is None:
        return
    if not is_number(clahe.clip_limit) or not 0 < clahe.clip_limit <= HIGHEST_CLIP:
        raise ValueError(f"clahe limit {clahe.clip_limit!r}, expected a number above 0 to {HIGHEST_CLIP}")
    for tiles in clahe.tile_grid_hw:
        _check_whole("clahe grid", tiles, 1, MOST_TILES)


def check_class_names(names: Sequence[Any]) -> None:
    """Refuse names that are no text, or empty. Raises ValueError."""
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(f"class names {list(names)}, expected texts that are not empty")


def check_probability(value: Any, what: str = "threshold") -> None:
    """Refuse a threshold that no probability reaches. Raises ValueError."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{what} {value!r}, expected a probability, 0 to 1")


def _check_threshold(spec: ModelSpec) -> None:
    if spec.task in ("semantic", "instances"):
        check_probability(spec.threshold)
    elif not is_number(spec.threshold):
        raise ValueError(f"threshold {spec.threshold!r}, expected a finite number")


def _check_tensor(tensor: TensorSpec) -> None:
    if not all(axis == -1 or 1 <= axis < MOST_VALUES for axis in tensor.shape):
        raise ValueError(
            f"tensor '{tensor.name}' of shape {list(tensor.shape)}, expected axes of 1 and more, or -1"
        )


def _check_whole(what: str, value: Any, lowest: int, highest: float) -> None:
    if not _is(Integral, value) or not lowest <= value <= highest:
        most = f"{lowest} to {highest}" if math.isfinite(highest) else f"at least {lowest}"
        raise ValueError(f"{what} {value!r}, expected {most}")


def _is(kind: type, value: Any) -> bool:
    """As isinstance; True and False are no numbers."""
    return isinstance(value, kind) and not isinstance(value, bool)
