"""What becomes of image files: a result or one line of error for each, and the file of all of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO, TypeVar

from seg_runtime.errors import BadInputError
from seg_runtime.plain_files import real_path

__all__ = ["RESULTS_FILE", "FileResult", "ResultsFile", "Row", "check_out", "to_json_text", "unwritable"]

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
        read: the bit depth that it was read by, as `BitDepth.to_json`.
        warnings: what a reader of the results should know, a line each: of the file, as
            `LoadedImage.warnings`, and why the mask may be of no use, see `seg_runtime.files.doubts`.
        dicom_seg_path: the mask as a DICOM SEG, or None when none was asked for.
        slices: of a stack, whose figures are of all of them together; None for one image.
    """

    path: Path
    error: str | None = None
    size_hw: tuple[int, int] = (0, 0)
    mask_path: Path | None = None
    overlay_path: Path | None = None
    area_px: dict[str, int] | None = None
    timings_ms: dict[str, float] | None = None
    engine: str | None = None
    read: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    dicom_seg_path: Path | None = None
    slices: int | None = None

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
            **({} if self.slices is None else {"slices": self.slices}),
            "mask": str(self.mask_path),
            "overlay": str(self.overlay_path) if self.overlay_path else None,
            **({} if self.dicom_seg_path is None else {"dicom_seg": str(self.dicom_seg_path)}),
            "area_px": self.area_px,
            "timings_ms": timings,
            "engine": self.engine,
            **(self.read or {}),
            "warnings": list(self.warnings),
        }


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
            self._file.write(to_json_text(row.to_json()) + "\n")
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


def to_json_text(document: Any) -> str:
    """JSON as people read it; bytes of a file's name that are not UTF-8 are escaped, and come back as such.

    Example:
        >>> print(to_json_text({"path": "ä\\udcff.png"}))
        {"path": "ä\\udcff.png"}
    """
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def check_out(out: Path, paths: Sequence[Path]) -> None:
    """Refuse to write into a file, or next to the images. Raises BadInputError."""
    if out.exists() and not out.is_dir():
        raise BadInputError(f"'{out}' is a file: give a folder to write to")
    folder = real_path(out)
    if any(real_path(parent) == folder for parent in {path.parent for path in paths}):
        raise BadInputError(
            f"'{out}' holds images to segment: write to another folder, or masks would mix with them"
        )


def unwritable(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"cannot write '{path}': {error.strerror or error}")
