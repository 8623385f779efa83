"""Segments image files one after the other into a folder of masks, overlays and one results file."""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import read_image, write_mask, write_png
from seg_runtime.files.overlay import draw_overlay, shown_channels
from seg_runtime.semantic import SemanticResult, SemanticSegmenter
from seg_runtime.spec import ModelSpec

__all__ = [
    "RESULTS_FILE",
    "FileResult",
    "ImageReader",
    "ReadImage",
    "ResultsFile",
    "check_out",
    "segment_files",
    "unwritable",
]

RESULTS_FILE = "results.jsonl"


@dataclass(frozen=True)
class FileResult:
    """What became of one image file.

    Attributes:
        path: the image as it was given.
        error: why it was left out, in one line; None when it was segmented, and then the rest is set.
        size_hw: (height, width) of the image in pixels.
        mask_path: the mask: 0 and 255 for a model of one class, class ids otherwise.
        overlay_path: the overlay, or None when none was asked for.
        area_px: pixels per class name; the background of a model with several classes is one of them.
        timings_ms: as in `SemanticResult`.
        engine: what computed it, as `Session.engine`.
    """

    path: Path
    error: str | None = None
    size_hw: tuple[int, int] = (0, 0)
    mask_path: Path | None = None
    overlay_path: Path | None = None
    area_px: dict[str, int] | None = None
    timings_ms: dict[str, float] | None = None
    engine: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A row for `results.jsonl`: path and error, or path and everything found."""
        if self.error is not None:
            return {"path": str(self.path), "error": self.error}
        height, width = self.size_hw
        timings = {step: round(spent, 3) for step, spent in (self.timings_ms or {}).items()}
        return {
            "path": str(self.path),
            "height": height,
            "width": width,
            "mask": str(self.mask_path),
            "overlay": str(self.overlay_path) if self.overlay_path else None,
            "area_px": self.area_px,
            "timings_ms": timings,
            "engine": self.engine,
        }


def segment_files(
    segmenter: SemanticSegmenter,
    paths: Sequence[Path],
    out: str | Path,
    *,
    gray: bool = False,
    overlay: bool = True,
    batch_size: int = 1,
) -> Iterator[FileResult]:
    """Segment image files, writing as it goes and holding one batch of images at a time.

    `out` receives `<name>_mask.png`, `<name>_overlay.png` and, once the iteration ends for whatever
    reason, `results.jsonl` with a line per file. Files of the same name get `_2`, `_3`, ... in the
    order of `paths`. Nothing is created before the first image was segmented, and a file that is
    there is complete.

    Args:
        segmenter: what to run.
        paths: image files, from `seg_runtime.files.images.list_images`.
        out: the folder to write to; made when missing.
        gray: convert colour images for a model of one channel.
        overlay: write overlays too.
        batch_size: how many images to run together.

    Yields:
        One `FileResult` per path, in order; a file that cannot be read is one with an error.

    Raises:
        BadInputError: `out` cannot be written to or holds one of the images, the batch is too large, or
            `gray` for a model of several channels.
        InferenceError, ServerError: as from `Session.infer`.
    """
    out, channels = Path(out), segmenter.spec.channels
    if gray and channels != 1:
        raise BadInputError(
            f"--gray (gray=True) has no effect: model '{segmenter.spec.name}' takes {channels} channels; "
            "leave it out"
        )
    check_out(out, paths)
    reader = ImageReader(paths, channels, gray)
    results = segmenter.stream(reader, batch_size)
    return _segment_files(segmenter, reader, results, out, overlay)


def _segment_files(
    segmenter: SemanticSegmenter,
    reader: ImageReader,
    results: Iterator[SemanticResult],
    out: Path,
    overlay: bool,
) -> Iterator[FileResult]:
    with ResultsFile(out) as file:
        for result in results:
            read = reader.take()
            for failed in read.failed_before:
                yield file.add(failed)
            file.open()
            yield file.add(_write(segmenter, read, result, out, overlay))
        for failed in reader.failed:
            yield file.add(failed)


@dataclass(frozen=True)
class ReadImage:
    """An image that could be read, its file, the name of its results, and files before it that could not."""

    path: Path
    name: str
    image: NDArray[np.uint8]
    failed_before: list[FileResult]


class ImageReader:
    """Yields readable images to the segmenter and remembers which files they, and the others, were."""

    def __init__(self, paths: Sequence[Path], channels: int, gray: bool) -> None:
        self._files = zip(paths, _unique_names(paths), strict=True)
        self._channels = channels
        self._gray = gray
        self._read: deque[ReadImage] = deque()
        self.failed: list[FileResult] = []

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        for path, name in self._files:
            try:
                image = read_image(path, self._channels, gray=self._gray)
            except BadImageError as error:
                self.failed.append(FileResult(path, " ".join(str(error).split())))
                continue
            self._read.append(ReadImage(path, name, image, self.failed))
            self.failed = []
            yield image

    def take(self) -> ReadImage:
        """The file of the next result."""
        return self._read.popleft()


class Row(Protocol):
    """What becomes a line of `results.jsonl`."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""


RowT = TypeVar("RowT", bound=Row)


class ResultsFile:
    """`results.jsonl`, under a temporary name until the `with` block ends."""

    def __init__(self, out: Path) -> None:
        self._path = out / RESULTS_FILE
        self._temporary = out / f".{uuid.uuid4().hex}.partial"
        self._file: TextIO | None = None
        self._waiting: list[Row] = []

    def open(self) -> None:
        """Create folder and file, for all rows so far and to come; calling it again does nothing."""
        if self._file is not None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("w", encoding="utf-8")
        except OSError as error:
            raise unwritable(self._path.parent, error) from error
        for row in self._waiting:
            self.add(row)
        self._waiting = []

    def add(self, row: RowT) -> RowT:
        """Write a row, or keep it until there is a file; returns the row."""
        if self._file is None:
            self._waiting.append(row)
            return row
        try:
            self._file.write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error
        return row

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
            self._temporary.replace(self._path)
        except OSError as failure:
            self._temporary.unlink(missing_ok=True)
            raise unwritable(self._path, failure) from failure


def _write(
    segmenter: SemanticSegmenter, read: ReadImage, result: SemanticResult, out: Path, overlay: bool
) -> FileResult:
    mask_path = out / f"{read.name}_mask.png"
    overlay_path = out / f"{read.name}_overlay.png" if overlay else None
    one_class = len(result.probabilities) == 1
    write_mask(mask_path, result.mask, binary=one_class)
    if overlay_path is not None:
        write_png(overlay_path, draw_overlay(shown_channels(read.image), result.mask))
    return FileResult(
        read.path,
        size_hw=(result.mask.shape[0], result.mask.shape[1]),
        mask_path=mask_path,
        overlay_path=overlay_path,
        area_px=_areas(segmenter.spec, result),
        timings_ms=dict(result.timings_ms),
        engine=segmenter.engine,
    )


def _areas(spec: ModelSpec, result: SemanticResult) -> dict[str, int]:
    count = len(result.probabilities)
    names = spec.class_names if len(spec.class_names) == count else tuple(f"class_{i}" for i in range(count))
    first_id = 1 if count == 1 else 0
    areas = np.bincount(result.mask.ravel(), minlength=first_id + count)[first_id:]
    return {name: int(area) for name, area in zip(names, areas, strict=True)}


def _unique_names(paths: Sequence[Path]) -> list[str]:
    # Compared without case: 'A_mask.png' and 'a_mask.png' are one file on some systems.
    used: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name.casefold() in used:
            number += 1
            name = f"{path.stem}_{number}"
        used.add(name.casefold())
        names.append(name)
    return names


def check_out(out: Path, paths: Sequence[Path]) -> None:
    """Refuse to write into a file, or beside the images. Raises BadInputError."""
    if out.exists() and not out.is_dir():
        raise BadInputError(f"'{out}' is a file: give a folder to write to")
    folder = out.resolve()
    if any(parent.resolve() == folder for parent in {path.parent for path in paths}):
        raise BadInputError(
            f"'{out}' holds images to segment: write to another folder, or masks would mix with them"
        )


def unwritable(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"cannot write '{path}': {error.strerror or error}")
