"""Videos with object masks in DAVIS' layout, and in a flat one.

DAVIS: `JPEGImages/480p/SEQUENCE/00000.jpg` with `Annotations/480p/SEQUENCE/00000.png`, the folder of the
resolution being optional, as in YouTube-VOS. Flat: `images/` and `masks/`, one sequence. An annotation may be
missing for a frame. Masks are indexed PNG files: 0 background, 255 void, all else object ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files import masks
from seg_runtime.video.folder_source import natural_order

__all__ = ["VideoSequence", "load_davis", "read_labels"]

_VOID = 255
"""What DAVIS puts on pixels that belong to nothing."""


@dataclass(frozen=True)
class VideoSequence:
    """Frames and annotations of one video, read when asked for.

    Attributes:
        name: of its folder.
        folder: of the frames, for `seg_runtime.video.open_video`.
        frames: image files in the order of the video.
        annotations: index of a frame -> its mask file; sparse where only some frames are annotated.
    """

    name: str
    folder: Path
    frames: tuple[Path, ...]
    annotations: Mapping[int, Path]

    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the first frame in pixels. Raises BadImageError."""
        return _size(self.frames[0])

    def annotation(self, index: int) -> NDArray[np.uint8]:
        """(H, W) uint8 object ids of a frame, 255 where pixels do not count.

        Raises:
            BadInputError: the frame has none, or it does not fit the frame.
        """
        if index not in self.annotations:
            raise BadInputError(f"frame {index} of '{self.name}' has no annotation")
        return read_labels(self.annotations[index], self.size_hw())

    def object_ids(self) -> tuple[int, ...]:
        """Ids in any annotation, in their order; reads them all."""
        found = {int(number) for index in self.annotations for number in np.unique(self.annotation(index))}
        return tuple(sorted(found - {0, 255}))


def load_davis(
    root: Path, sequences: Sequence[str] | None = None, *, split: str | None = None, resolution: str = "480p"
) -> tuple[VideoSequence, ...]:
    """Find the sequences under a folder, sorted by name.

    Args:
        root: folder with `JPEGImages/` and `Annotations/`, or with `images/` and `masks/`.
        sequences: names of those to take; None for all.
        split: a list of names instead, as "2017/val" for `ImageSets/2017/val.txt`.
        resolution: the folder between, where there is one.

    Raises:
        BadInputError: neither layout is there, a sequence is missing, or a mask belongs to no frame.
    """
    if (root / "JPEGImages").is_dir():
        images, truths = (_with_resolution(root / kind, resolution) for kind in ("JPEGImages", "Annotations"))
        there = {entry.name: entry for entry in sorted(images.iterdir()) if entry.is_dir()}
        wanted = sequences if split is None else _names(root / "ImageSets" / f"{split}.txt")
        missing = [name for name in wanted or () if name not in there]
        if missing or not there:
            raise BadInputError(f"'{images}' has no sequence {missing[0] if missing else 'at all'}")
        return tuple(_sequence(there[name], truths / name) for name in wanted or there)
    if (root / "images").is_dir():
        return (_sequence(root / "images", root / "masks", root.name),)
    raise BadInputError(
        f"'{root}' holds no videos: expected JPEGImages/ and Annotations/ as DAVIS has, or images/ and masks/"
    )


def read_labels(path: Path, size_hw: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an indexed or gray PNG of object ids; a gray one of 0 and 255 (DAVIS 2016) holds object 1.

    A mask that is one pixel smaller or larger than its frame is filled up with background or cut, as some
    editors round frames to even sizes.

    Args:
        path: the file.
        size_hw: (height, width) that it must have; None for any.

    Returns:
        (H, W) uint8.

    Raises:
        BadImageError: it cannot be read, is in colour or ambiguous, or has another size.
    """
    found = masks.read_labels(path)
    if found.labels.max() >= _VOID:
        raise BadImageError(f"mask '{path}' has the id {found.labels.max()}: ids are 1 to {_VOID - 1}")
    labels = np.where(found.ignored, _VOID, found.labels).astype(np.uint8)
    return labels if size_hw is None else _fit(labels, size_hw, path)


def _fit(labels: NDArray[np.uint8], size_hw: tuple[int, int], path: Path) -> NDArray[np.uint8]:
    if labels.shape == size_hw:
        return labels
    height, width = labels.shape
    if abs(height - size_hw[0]) > 1 or abs(width - size_hw[1]) > 1:
        raise BadImageError(
            f"mask '{path}' has {width}x{height} pixels and its frame {size_hw[1]}x{size_hw[0]}: "
            "both must have one size"
        )
    fitted = np.zeros(size_hw, dtype=np.uint8)
    fitted[:height, :width] = labels[: size_hw[0], : size_hw[1]]
    return fitted


def _sequence(images: Path, annotations: Path, name: str | None = None) -> VideoSequence:
    frames = [path for path in images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not frames:
        raise BadInputError(f"'{images}' has no frames (.jpg, .jpeg, .png)")
    frames = natural_order(frames)
    places = {path.stem: index for index, path in enumerate(frames)}
    found = natural_order(list(annotations.glob("*.png"))) if annotations.is_dir() else []
    stray = [path for path in found if path.stem not in places]
    if stray:
        raise BadInputError(f"mask '{stray[0]}' belongs to no frame in '{images}'")
    by_frame = {places[path.stem]: path for path in found}
    return VideoSequence(name or images.name, images, tuple(frames), by_frame)


def _with_resolution(folder: Path, resolution: str) -> Path:
    return folder / resolution if (folder / resolution).is_dir() else folder


def _names(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError as error:
        raise BadInputError(f"cannot read the split '{file}': {error.strerror or error}") from error


def _size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError) as error:
        raise BadImageError(f"cannot read frame '{path}': it is no image, or damaged") from error
