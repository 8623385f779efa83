"""What a contract may hold: the range of every field of `ModelSpec`, in one place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from seg_runtime.spec import VERSION_WITH_STATISTICS, ClaheSpec, ModelSpec

__all__ = ["LARGEST_SIDE", "MOST_CHANNELS", "check_contract", "check_stated", "one_of"]

LARGEST_SIDE = 16384
MOST_CHANNELS = 16
MOST_BATCHED = 4096
MOST_TILES = 256


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
        ("height of the input", spec.input_size_hw[0], 1, LARGEST_SIDE),
        ("width of the input", spec.input_size_hw[1], 1, LARGEST_SIDE),
        ("channels", spec.channels, 1, MOST_CHANNELS),
        ("parameter_count", spec.parameter_count, 0, math.inf),
    ):
        if not lowest <= value <= highest:
            most = f"{lowest} to {highest}" if math.isfinite(highest) else f"at least {lowest}"
            raise ValueError(f"{what} {value}, expected {most}")
    for what, numbers in (("mean", spec.mean), ("std", spec.std)):
        if numbers and len(numbers) != spec.channels:
            raise ValueError(f"{what} has {len(numbers)} values, expected {spec.channels}, one per channel")
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{what} {list(numbers)}, expected finite numbers")
    if bool(spec.mean) != bool(spec.std):
        raise ValueError("mean without std, or std without mean")
    if not all(number > 0 for number in (*spec.std, spec.scale)) or not math.isfinite(spec.scale):
        raise ValueError(f"std {list(spec.std)} and scale {spec.scale}, expected numbers above 0")
    if not math.isfinite(spec.threshold):
        raise ValueError(f"threshold {spec.threshold}, expected a finite number")
    clahe = spec.clahe or ClaheSpec()
    if not (clahe.clip_limit > 0 and all(1 <= tiles <= MOST_TILES for tiles in clahe.tile_grid_hw)):
        raise ValueError(f"clahe {clahe}, expected a limit above 0 and 1 to {MOST_TILES} tiles each way")
