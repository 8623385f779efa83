"""Frames that lie in a folder as images, one file each."""

from __future__ import annotations

import re
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, BadVideoError, VideoEndedError
from seg_runtime.files.image_header import complete_header
from seg_runtime.files.images import read_bytes, read_image
from seg_runtime.files.limits import check_inflation
from seg_runtime.video.source import FrameSource

__all__ = ["ImageFolderSource", "natural_order"]

_FPS = 24.0
"""DAVIS' rate; a folder does not say its own."""

_JPEG = (".jpg", ".jpeg")
_OTHERS = (".png", ".tif", ".tiff")


class ImageFolderSource(FrameSource):
    """See `FrameSource` and `open_video`. Sizes are read from all headers when it is opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.name = str(folder)
        self._files = _frames(folder)
        self.frame_count = len(self._files)
        self.fps = _FPS
        self.names = tuple(file.stem for file in self._files)
        self.size_hw = _common_size(folder, self._files)

    def _read(self, index: int) -> NDArray[np.uint8]:
        file = self._files[index]
        try:
            return _decode(file)
        except BadImageError as error:
            raise VideoEndedError(f"frame {index} cannot be read: {error}", index) from error

    def close(self) -> None:
        """There is nothing to close."""


def natural_order(files: list[Path]) -> list[Path]:
    """By number when every stem is one, as sam2 sorts; else by name, numbers in it by their value."""
    if all(file.stem.isdecimal() for file in files):
        return sorted(files, key=lambda file: (int(file.stem), file.name))
    parts = re.compile(r"(\d+)")

    def key(file: Path) -> list[tuple[bool, int, str]]:
        pieces = parts.split(file.stem.casefold())
        return [(piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece) for piece in pieces]

    return sorted(files, key=lambda file: (key(file), file.name))


def _frames(folder: Path) -> list[Path]:
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    except OSError as error:
        raise BadVideoError(f"cannot list folder '{folder}': {error.strerror or error}") from error
    # Masks often lie beside their frames as PNG: sam2 looks at JPEG files alone.
    for suffixes in (_JPEG, _OTHERS):
        files = [entry for entry in entries if entry.suffix.lower() in suffixes]
        if files:
            return natural_order(files)
    raise BadVideoError(f"folder '{folder}' has no frames ({', '.join(_JPEG + _OTHERS)})")


def _common_size(folder: Path, files: list[Path]) -> tuple[int, int]:
    first = _size(files[0])
    for file in files[1:]:
        size_hw = _size(file)
        if size_hw != first:
            raise BadVideoError(
                f"frames in '{folder}' differ in size: {file.name} has {size_hw[1]}x{size_hw[0]} pixels and "
                f"{files[0].name} {first[1]}x{first[0]}; a video has frames of one size"
            )
    return first


def _size(file: Path) -> tuple[int, int]:
    """(height, width) from the header; pixels are not decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                return image.height, image.width
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadVideoError(
            f"cannot read frame '{file}': it is no image, or its header is damaged"
        ) from error


def _decode(file: Path) -> NDArray[np.uint8]:
    if file.suffix.lower() not in _JPEG:
        return read_image(file, 3)
    from PIL import Image

    # Decoders of JPEG differ in the last bit: sam2 reads with pillow, so the same pixels are tracked.
    try:
        data = read_bytes(file)
        header = complete_header(data)
        if header is not None:
            check_inflation(header.size_hw, header.pixel_bytes, len(data))
        with warnings.catch_warnings():
            # The file was looked at.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data)) as image:
                return np.array(image.convert("RGB"), dtype=np.uint8)
    except BadImageError as error:
        raise BadImageError(f"cannot read image '{file}': {error}") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadImageError(f"cannot read image '{file}': the file is cut off or damaged") from error
