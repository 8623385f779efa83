"""Compares what a command wrote in two environments, file by file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from seg_runtime.video import open_video

__all__ = ["assert_same_outputs"]

MAX_MASK_PIXELS = 1e-3
"""Share of pixels that may differ: those where rounding decides."""

FAR = 32
"""Gray levels that a pixel of an overlay may be off; encoders of video differ."""

MAX_FAR_PIXELS = 1e-2
"""Share of the pixels of an overlay or a frame that may be further off."""

VOLATILE = ("engine", "frames_per_second", "mask", "out", "overlay", "path", "seconds", "timings_ms", "video")
"""Keys whose values are versions, times or names of folders."""


def assert_same_outputs(folder: Path, wanted: Path) -> None:
    """The same files with the same content, but for rounding."""
    names = {path.relative_to(wanted) for path in wanted.rglob("*") if path.is_file()}
    assert names == {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert names, "nothing was written"
    for name in sorted(names):
        _COMPARE[name.suffix](folder / name, wanted / name)


def _same_picture(path: Path, wanted: Path) -> None:
    pixels, other = (cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in (path, wanted))
    assert pixels.shape == other.shape and pixels.dtype == other.dtype
    if len(np.unique(other)) <= 16:
        share = (pixels != other).mean()
        assert share <= MAX_MASK_PIXELS, f"{path}: {share:.2%} of the pixels differ"
    else:
        _assert_near(path, pixels, other)


def _assert_near(path: Path, pixels: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
    far = np.abs(pixels.astype(np.int16) - other) > FAR
    assert far.mean() <= MAX_FAR_PIXELS, f"{path}: {far.mean():.2%} of the pixels differ by more than {FAR}"


def _same_video(path: Path, wanted: Path) -> None:
    with open_video(path) as source, open_video(wanted) as other:
        assert (source.frame_count, source.size_hw) == (other.frame_count, other.size_hw)
        assert source.fps == other.fps
        np.testing.assert_allclose(source.times_s, other.times_s, atol=1e-4)
        for frame, theirs in zip(source, other, strict=True):
            _assert_near(path, frame, theirs)


def _same_json(path: Path, wanted: Path) -> None:
    _assert_same_value(json.loads(path.read_text()), json.loads(wanted.read_text()), path.name)


def _same_lines(path: Path, wanted: Path) -> None:
    values, others = ([json.loads(line) for line in file.read_text().splitlines()] for file in (path, wanted))
    _assert_same_value(values, others, path.name)


def _assert_same_value(value: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, dict) and wanted.keys() == {"size", "counts"}:
        _assert_same_mask(value, wanted, where)
    elif isinstance(wanted, dict):
        assert value.keys() == wanted.keys(), where
        for key in wanted.keys() - set(VOLATILE):
            _assert_same_value(value[key], wanted[key], f"{where}: {key}")
    elif isinstance(wanted, list):
        assert len(value) == len(wanted), where
        for index, pair in enumerate(zip(value, wanted, strict=True)):
            _assert_same_value(*pair, f"{where}[{index}]")
    elif isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        # Boxes and areas are whole pixels, of which rounding may move one.
        near = math.isclose(value, wanted, rel_tol=0.01, abs_tol=1.0 if wanted > 1 else 2e-3)
        assert near, f"{where}: {value}, expected {wanted}"
    else:
        assert value == wanted, where


def _assert_same_mask(value: Any, wanted: Any, where: str) -> None:
    assert value["size"] == wanted["size"], where
    pixels, other = (_decode(run_lengths) for run_lengths in (value, wanted))
    share = (pixels != other).mean()
    assert share <= MAX_MASK_PIXELS, f"{where}: {share:.2%} of the pixels differ"


def _decode(run_lengths: dict[str, Any]) -> NDArray[np.uint8]:
    if isinstance(run_lengths["counts"], list):
        run_lengths = coco_mask.frPyObjects(run_lengths, *run_lengths["size"])
    return np.asarray(coco_mask.decode(run_lengths))


def _same_text(path: Path, wanted: Path) -> None:
    assert path.read_text(encoding="utf-8") == wanted.read_text(encoding="utf-8"), path


_COMPARE = {
    ".png": _same_picture,
    ".mp4": _same_video,
    ".json": _same_json,
    ".jsonl": _same_lines,
    **dict.fromkeys((".md", ".csv", ".html", ".txt"), _same_text),
}
