"""The one reader of masks: prompts, ground truths, maps of classes and of objects.

It looks at the values, decides what they mean, says so, and refuses what can mean two things:

| values | read as |
|---|---|
| 0 and 1; 0 and 255 (65535 in 16 bits) | background and foreground |
| gray with soft edges between 0 and 255, or a JPEG of such a mask | cut at the middle |
| 0, 1, 2, ... | numbers of classes or objects |
| 255 (65535) next to such numbers; -1 | pixels that belong to nothing and do not count |
| indices of a palette | likewise, whatever its colours are |
| one colour on black; a shape in the alpha | background and foreground |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.mask_pixels import MaskPixels, read_mask_pixels

__all__ = ["IGNORED", "LabelMap", "Reading", "check_truths", "read_labels", "read_objects", "read_shape"]

IGNORED = -1
"""Label of pixels that belong to nothing and do not count."""

_Meaning = Literal["shape", "classes", "objects"]
Reading = Literal["empty", "0 and 1", "0 and white", "soft edges", "labels", "labels and ignored"]

_WHITES = (255, 65535)
_MOST_CLASSES = 50
"""Next to higher gray values than this, 255 may be a shade as well as "ignore"."""
_MOST_LEVELS = 64
"""Maps with more values than this must be flat: else they are pictures."""


@dataclass(frozen=True)
class LabelMap:
    """A mask as it was read.

    Attributes:
        labels: (H, W) int32, 0 background, `IGNORED` for pixels that do not count, else the number of the
            class or object; a mask of two values has 0 and 1.
        reading: what the values were taken for.
        source: where they were: "gray values", "palette indices", "alpha", ...
        path: the file.
    """

    labels: NDArray[np.int32]
    reading: Reading
    source: str
    path: Path

    @property
    def foreground(self) -> NDArray[np.bool_]:
        """(H, W) bool: all that is neither background nor ignored."""
        return np.asarray(self.labels > 0)

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(H, W) bool."""
        return np.asarray(self.labels == IGNORED)


def read_labels(path: str | Path) -> LabelMap:
    """Read a map of classes. White alone in an indexed file is "ignore", in a gray one the foreground.

    Raises:
        BadImageError: it cannot be read, or its values can mean two things.
    """
    return _read(Path(path), "classes")


def read_objects(path: str | Path) -> LabelMap:
    """Read a map of objects: every number is one, 255 too.

    Raises:
        BadImageError: it cannot be read, or its values are those of a picture.
    """
    return _read(Path(path), "objects")


def read_shape(path: str | Path) -> LabelMap:
    """Read a mask of which only the shape counts: foreground, background, and what is ignored.

    Raises:
        BadImageError: as from `read_labels`, or there are several values, or one that is neither 1 nor white,
            and no background.
    """
    found = _read(Path(path), "shape")
    if found.reading in ("labels", "labels and ignored") and not (found.labels == 0).any():
        raise _unclear(found.path, _values(found.labels), "and none is 0, the background")
    return found


def check_truths(maps: Iterable[LabelMap]) -> None:
    """Refuse ground truths that say nothing, or in which 255 means two things. Holds two of them at a time.

    Raises:
        BadInputError: all are empty, so that an empty answer would be perfect; or one has 0 and 255, another
            one 255 as "ignore" or small numbers as foreground.
    """
    white: LabelMap | None = None
    numbered: LabelMap | None = None
    count, filled = 0, False
    for each in maps:
        count += 1
        filled |= bool(each.foreground.any())
        white = each if each.reading in ("0 and white", "soft edges") else white
        numbered = each if each.reading in ("0 and 1", "labels", "labels and ignored") else numbered
        if white and numbered:
            raise BadInputError(
                f"masks of one data set are written in two ways: '{white.path}' has white as foreground, and "
                f"'{numbered.path}' numbers, next to which 255 means 'ignore': save all with the same values"
            )
    if not filled:
        raise BadInputError(
            f"all {count} masks are empty, and no score means anything against them: give masks with 0 and "
            "255, or with 0, 1, 2, ... for classes"
        )


def _read(path: Path, meaning: _Meaning) -> LabelMap:
    try:
        pixels = read_mask_pixels(path)
        values = _whole_numbers(pixels.values)
    except BadImageError as error:
        raise BadImageError(f"cannot read mask '{path}': {error}") from error
    present = _present(values)
    labels, reading = _labels(path, pixels, values, present, meaning)
    return LabelMap(labels, reading, pixels.source, path)


def _whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """(H, W) uint8 or uint16 where that holds them, else int64."""
    if values.dtype in (np.bool_, np.uint8):
        return np.asarray(values, np.uint8)
    if values.dtype.kind not in "iuf":
        raise BadImageError(f"its values are {values.dtype}: save whole numbers")
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.round(values))).all():
        raise BadImageError(
            "its values are fractions, as probabilities have them: choose a threshold and save 0 and 1"
        )
    lowest, highest = values.min(), values.max()
    if lowest < IGNORED or highest > np.iinfo(np.int32).max:
        raise BadImageError(
            f"its values are {lowest:g} to {highest:g}: labels are -1 (ignored), 0, 1, 2, ..."
        )
    return values.astype(np.uint16 if lowest >= 0 and highest <= _WHITES[-1] else np.int64)


def _present(values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype.kind == "u":
        return np.asarray(np.flatnonzero(np.bincount(values.ravel())), np.int64)
    return np.asarray(np.unique(values), np.int64)


def _labels(
    path: Path, pixels: MaskPixels, values: NDArray[Any], present: NDArray[np.int64], meaning: _Meaning
) -> tuple[NDArray[np.int32], Reading]:
    white = int(present[-1]) if present[-1] in _WHITES else None
    numbers = present[(present > 0) & (present != white)]
    if present[-1] == 0 and len(present) == 1:
        return values.astype(np.int32), "empty"
    if pixels.lossy or (not pixels.indexed and _is_soft(values, numbers)):
        return _cut(path, values), "soft edges"
    is_void = pixels.indexed and meaning == "classes"
    if white and not len(numbers) and not is_void and meaning != "objects":
        return np.where(values == white, 1, values).astype(np.int32), "0 and white"
    # Numbers that run up to white make it one more of them.
    if white is None or meaning == "objects" or white - 1 in numbers:
        _check_flat(path, values, present)
        return values.astype(np.int32), _numbered(present)
    if len(numbers) and not pixels.indexed and numbers[-1] > _MOST_CLASSES:
        raise _unclear(
            path, _values(values), f"so {white} may be an object, 'ignore' or the brightest of several shades"
        )
    return np.where(values == white, IGNORED, values.astype(np.int32)), "labels and ignored"


def _numbered(present: NDArray[np.int64]) -> Reading:
    if present[0] == IGNORED:
        return "labels and ignored"
    return "0 and 1" if present[-1] == 1 else "labels"


def _is_soft(values: NDArray[Any], numbers: NDArray[np.int64]) -> bool:
    """Whether values between black and white are edges, that change from pixel to pixel, and no areas."""
    import cv2

    top = _top(int(values.max()))
    if top is None or not len(numbers) or numbers[-1] <= _MOST_CLASSES or values.dtype.kind != "u":
        return False
    kernel = np.ones((3, 3), np.uint8)
    bright = (values >= top - top // 4).astype(np.uint8)
    middle = (values > top // 4) & (bright == 0)
    between = (values > 0) & (values < values.max())
    flat = cv2.erode(values, kernel) == cv2.dilate(values, kernel)
    # Few values may also be thin objects, unless all of them are at the rim of something bright.
    at_rim = len(numbers) > 2 or not (between & (cv2.dilate(bright, kernel) == 0)).any()
    return bool(
        values.min() <= top // 4
        and at_rim
        and 2 * np.count_nonzero(flat & between) < np.count_nonzero(between)
        and np.count_nonzero(middle) <= min(np.count_nonzero(bright), values.size // 4)
    )


def _top(largest: int) -> int | None:
    """White, of which the largest value is at least three quarters; None where it is far from any."""
    return next((white for white in _WHITES if 3 * white // 4 <= largest <= white), None)


def _cut(path: Path, values: NDArray[Any]) -> NDArray[np.int32]:
    """Foreground above the middle. JPEGs may be anything, so the middle must be almost empty."""
    top = _top(int(values.max()))
    middle = 0 if top is None else np.count_nonzero((values > top // 4) & (values < top - top // 4))
    if top is None or 4 * middle > values.size:
        raise _unclear(path, _values(values), "not black and white, in a JPEG, which mixes numbers at edges")
    return np.asarray(values > top // 2, dtype=np.int32)


def _check_flat(path: Path, values: NDArray[Any], present: NDArray[np.int64]) -> None:
    """Maps of labels are flat nearly everywhere; pictures and probabilities are not."""
    if len(present) > _MOST_LEVELS:
        same = np.count_nonzero(values[:, 1:] == values[:, :-1])
        if 2 * same < values[:, 1:].size:
            raise _unclear(path, _values(values), "that change from pixel to pixel, as in a picture")


def _values(values: NDArray[Any]) -> str:
    """What there is, for a message: "the values 0, 1 and 255"."""
    present = [int(value) for value in np.unique(values)]
    if len(present) == 1:
        return f"the value {present[0]} alone"
    if len(present) <= 6:
        return f"the values {', '.join(map(str, present[:-1]))} and {present[-1]}"
    return f"{len(present)} values from {present[0]} to {present[-1]}"


def _unclear(path: Path, values: str, why: str) -> BadImageError:
    return BadImageError(
        f"mask '{path}' has {values}, {why}: save 0 and 255 for a mask, or 0, 1, 2, ... for classes "
        "and 255 for what is ignored, as PNG"
    )
