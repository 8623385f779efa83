"""How many bits of 16-bit pixels count: what the file says, else an estimate that strays cannot change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["BitDepth", "check_bit_depth", "decide_depth", "scale_to_uint8", "unscaled"]

_USUAL_BITS = (8, 10, 12, 14)
_STRAY_SHARE, _RARE_SHARE = 0.01, 0.0001
_CHUNK = 2**22


@dataclass(frozen=True)
class BitDepth:
    """The depth that pixels were reduced by.

    Attributes:
        bits: white is 2**bits - 1.
        source: "file" when the file says so, "guess" when its values were looked at, "option" when the
            caller said so.
    """

    bits: int
    source: Literal["file", "guess", "option"]

    def to_json(self) -> dict[str, Any]:
        """As it stands in result files.

        Example:
            >>> BitDepth(12, "guess").to_json()
            {'bit_depth': 12, 'bit_depth_from': 'guess'}
        """
        return {"bit_depth": self.bits, "bit_depth_from": self.source}

    @property
    def warning(self) -> str | None:
        """What a reader of the results should know, where the depth is a guess."""
        if self.source != "guess":
            return None
        return f"the file does not say its bit depth: read as {self.bits}-bit (--bit-depth sets it)"


def check_bit_depth(bits: int | None) -> None:
    """Refuse a depth that no 16-bit file has. Raises BadInputError."""
    if bits is not None and not 8 <= bits <= 16:
        raise BadInputError(f"--bit-depth is {bits} and must be 8 to 16")


def decide_depth(values: NDArray[np.uint16], stated: int | None, wanted: int | None = None) -> BitDepth:
    """The depth of 16-bit pixels.

    `wanted` wins; then what the file states, unless its values contradict it. Else the depth is the smallest
    of 8, 10, 12 and 14 bits that holds all pixels but strays, and 16 when none does. Strays are at most 1 %
    of the pixels, and of the kind that a marker, a defect of the sensor or clipping leaves: most of them have
    one of two values, or they exceed the range by less than a quarter, or they are no more than 0.01 %.
    Small bright objects, whose values spread, are none.

    Args:
        values: pixels of any shape.
        stated: bits that the file states.
        wanted: bits that the caller knows.

    Example:
        >>> image = np.arange(4096, dtype=np.uint16)
        >>> image[:20] = 65535  # a marker
        >>> decide_depth(image, None)
        BitDepth(bits=12, source='guess')
    """
    if wanted is not None:
        return BitDepth(wanted, "option")
    counts = _counts(values)
    if stated is not None and _holds(counts, stated):
        return BitDepth(stated, "file")
    fitting = (bits for bits in _USUAL_BITS if _holds(counts, bits))
    bits = next(fitting, 16)
    # Pixels that need all 16 bits are what the container says.
    return BitDepth(bits, "file" if bits == 16 else "guess")


def scale_to_uint8(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """`values` * 255 / (2**bits - 1), rounded to the nearest and clipped; (...) uint8 of unsigned integers.

    Example:
        >>> scale_to_uint8(np.array([0, 2048, 4095, 65535], np.uint16), 12).tolist()
        [0, 128, 255, 255]
    """
    white = 2**bits - 1
    levels = (np.arange(np.iinfo(values.dtype).max + 1, dtype=np.int64) * 255 + white // 2) // white
    return np.asarray(np.minimum(levels, 255).astype(np.uint8)[values], dtype=np.uint8)


def unscaled(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint16]:
    """The samples of `bits` bits that a writer spread over 16; values that were not spread come as they are.

    PNG (section 12.4) asks writers to shift samples to the left, the low bits zero or a copy of the high
    ones; many do not. Decoders of TIFF shift too.

    Example:
        >>> unscaled(np.array([0, 0x1230, 0xFFFF], np.uint16), 12).tolist()
        [0, 291, 4095]
    """
    shift = 16 - bits
    low = values & (2**shift - 1)
    # Scaling by multiplication rounds, and is one higher at most.
    copied = values >> bits
    if not shift or not np.all((low == 0) | (low == copied) | (low == copied + 1)):
        return values
    return np.asarray(values >> shift, dtype=np.uint16)


def _counts(values: NDArray[np.uint16]) -> NDArray[np.int64]:
    """(65536,) how many pixels have each value."""
    flat, counts = values.ravel(), np.zeros(65536, np.int64)
    for at in range(0, flat.size, _CHUNK):
        counts += np.bincount(flat[at : at + _CHUNK], minlength=65536)
    return counts


def _holds(counts: NDArray[np.int64], bits: int) -> bool:
    """Whether all pixels but strays are below 2**bits."""
    above = counts[2**bits :]
    strays, pixels = int(above.sum()), int(counts.sum())
    if strays > _STRAY_SHARE * pixels:
        return False
    few_values = 2 * int(np.sort(above)[-2:].sum()) >= strays
    clipped = not above[2**bits // 4 :].any()
    return few_values or clipped or strays <= _RARE_SHARE * pixels
