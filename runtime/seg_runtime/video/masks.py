"""Writes the masks of tracked objects frame by frame: as indexed PNG files, or into one JSON file."""

from __future__ import annotations

import io
import json
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.sam.rle import coco_annotation
from seg_runtime.video.drawing import label_map

__all__ = ["MaskSink", "PngMasks", "RleMasks", "davis_palette"]

_PARTIAL = ".partial"
_COMPRESSION = 3
"""Of 9: a mask of 720p takes 9 kB and 14 ms; the usual 6 takes 7 kB and 24 ms."""


class MaskSink(ABC):
    """Takes masks in the order of frames, for a `with` block: finished at its end, discarded on an error."""

    path: Path

    @abstractmethod
    def write(self, index: int, logits: Mapping[int, NDArray[np.float32]]) -> None:
        """Add a frame.

        Args:
            index: of the frame; larger than the one before.
            logits: object id -> (H, W) float32 mask logits, above 0 inside the object.

        Raises:
            BadInputError: it cannot be written.
        """

    @abstractmethod
    def finish(self) -> None:
        """Complete what was written and give it its name. Raises BadInputError."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what was written; after `finish` it does nothing."""

    def __enter__(self) -> MaskSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        else:
            self.discard()


class PngMasks(MaskSink):
    """A folder of indexed PNG files, a pixel's value the object's id, in DAVIS' palette and naming.

    Where objects overlap, the one with the highest logit has the pixel. Files are written into a hidden
    folder beside it, which takes its name at the end. A folder that is there is replaced when it holds
    nothing but PNG files of this naming, and refused otherwise.
    """

    def __init__(self, folder: Path, size_hw: tuple[int, int], names: tuple[str, ...] | None = None) -> None:
        """Args:
            folder: to be made.
            size_hw: (height, width) of the frames.
            names: a name per frame; numbers of five digits when None.

        Raises:
            BadInputError: the folder is there and holds something else.
        """
        self.path = folder
        self._size_hw = size_hw
        self._names = names
        self._temporary = folder.with_name(f".{uuid.uuid4().hex}.partial")
        _check_replaceable(folder, set(names or ()))

    def write(self, index: int, logits: Mapping[int, NDArray[np.float32]]) -> None:
        """See `MaskSink.write`; ids go up to 254."""
        from PIL import Image

        image = Image.fromarray(label_map(logits, self._size_hw))
        image.putpalette(davis_palette())
        data = io.BytesIO()
        image.save(data, "PNG", compress_level=_COMPRESSION)
        name = self._names[index] if self._names else f"{index:05d}"
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            # Ctrl-C keeps what is there, so no file of a mask may be half written.
            (self._temporary / _PARTIAL).write_bytes(data.getvalue())
            (self._temporary / _PARTIAL).replace(self._temporary / f"{name}.png")
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def finish(self) -> None:
        """See `MaskSink.finish`."""
        if not self._temporary.exists():
            return
        old = self._temporary.with_suffix(".old")
        try:
            (self._temporary / _PARTIAL).unlink(missing_ok=True)
            if self.path.exists():
                self.path.rename(old)
            self._temporary.rename(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        shutil.rmtree(old, ignore_errors=True)

    def discard(self) -> None:
        """See `MaskSink.discard`."""
        shutil.rmtree(self._temporary, ignore_errors=True)


class RleMasks(MaskSink):
    """One JSON file: what was tracked, then a line per frame with COCO's compressed run lengths.

    `{"info": {...}, "frames": [{"frame": 0, "time_s": 0.0, "objects": [{"id": 1, "segmentation": {"size":
    [H, W], "counts": "..."}, "area": ..., "bbox": [x, y, w, h]}]}, ...]}`. Objects may overlap, and an object
    that is not seen in a frame has an area of 0.
    """

    def __init__(
        self, path: Path, info: Mapping[str, Any], time_of: Callable[[int], float | None] = lambda index: None
    ) -> None:
        """Args:
        path: the file; a present one is replaced at the end.
        info: plain values for the head of the file.
        time_of: when a frame appears, in seconds from the first; None where nobody knows.
        """
        self.path = path
        self._info = dict(info)
        self._time_of = time_of
        self._temporary = path.with_name(f".{uuid.uuid4().hex}.partial")
        self._file: TextIO | None = None
        self._rows = 0

    def write(self, index: int, logits: Mapping[int, NDArray[np.float32]]) -> None:
        """See `MaskSink.write`."""
        objects = [{"id": number, **coco_annotation(values > 0)} for number, values in sorted(logits.items())]
        row = json.dumps({"frame": index, "time_s": self._time_of(index), "objects": objects})
        start = ",\n" if self._rows else f'{{"info": {json.dumps(self._info)},\n"frames": [\n'
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._temporary.open("w", encoding="utf-8")
            # One call: Ctrl-C comes before it or after it.
            self._file.write(start + row)
            self._rows += 1
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def finish(self) -> None:
        """See `MaskSink.finish`."""
        if self._file is None or not self._rows:
            self.discard()
            return
        try:
            self._file.write("\n]}\n")
            self._file.close()
            self._temporary.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        finally:
            self.discard()

    def discard(self) -> None:
        """See `MaskSink.discard`."""
        if self._file is not None:
            # A full disk refuses what is left in the buffer; the file goes away in any case.
            with suppress(OSError):
                self._file.close()
        self._temporary.unlink(missing_ok=True)


def davis_palette() -> bytes:
    """(256 * 3,) RGB: PASCAL VOC's colours, which DAVIS uses; bits of the id spread over the channels."""
    ids = np.arange(256)[:, None]
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colors |= ((ids >> np.arange(3) & 1) << (7 - bit)).astype(np.uint8)
        ids = ids >> 3
    return colors.tobytes()


def _check_replaceable(folder: Path, names: set[str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise BadInputError(f"'{folder}' is a file, and masks need a folder of this name: remove it")
    for entry in folder.iterdir():
        ours = entry.suffix == ".png" and (entry.stem in names or re.fullmatch(r"\d{5,}", entry.stem))
        if not ours:
            raise BadInputError(
                f"'{folder}' holds '{entry.name}', which is no mask of ours: empty it, or name another"
            )


def _unwritable(path: Path, error: OSError) -> BadInputError:
    return BadInputError(f"cannot write '{path}': {error.strerror or error}")
