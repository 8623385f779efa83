"""Which files of a folder are images: by their suffix, or by their content where that says nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from seg_runtime.errors import BadInputError
from seg_runtime.files.bands import NUMPY_SIGNATURE
from seg_runtime.files.image_header import HEAD_BYTES, image_kind, other_format
from seg_runtime.files.nifti import split_slice
from seg_runtime.files.nifti_header import is_nifti

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageListing",
    "find_images",
    "has_image_suffix",
    "image_stem",
    "list_images",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".npy", ".nii", ".nii.gz")
"""What is taken from a folder unseen; a file named outright may have any suffix."""

_DICOM_DIRECTORY = b"1.2.840.10008.1.3.10\0"


@dataclass(frozen=True)
class ImageListing:
    """Files to read, and what was left out of folders.

    Attributes:
        files: in the order given, each folder sorted by name.
        skipped: entry of a folder -> why it was skipped.
    """

    files: tuple[Path, ...]
    skipped: dict[Path, str]

    @property
    def note(self) -> str | None:
        """How many entries were skipped and why, in one line; None when none were.

        Example:
            >>> ImageListing((), {Path("a.txt"): "not an image", Path("b.csv"): "not an image"}).note
            'skipped 2: not an image (a.txt, b.csv)'
        """
        if not self.skipped:
            return None
        names: dict[str, list[str]] = {}
        for path, reason in self.skipped.items():
            names.setdefault(reason, []).append(path.name)
        reasons = (f"{len(each)} {reason}" if len(names) > 1 else reason for reason, each in names.items())
        shown = "; ".join(
            f"{text} ({_some(each)})" for text, each in zip(reasons, names.values(), strict=True)
        )
        return f"skipped {len(self.skipped)}: {shown}"


def find_images(sources: Iterable[str | Path]) -> ImageListing:
    """The image files of files and folders, in the order given, each folder sorted by name.

    Only paths are held, so ten thousand images cost a few megabytes until they are read one by
    one. Files are taken as given, existing or not: reading one says what is wrong with it.
    Of a folder, subfolders and hidden files are skipped, and files that have neither a suffix of
    `IMAGE_SUFFIXES` nor the first bytes of an image; a file reached twice is listed once.

    Raises:
        BadInputError: a folder without images, or an unreadable one.
    """
    found: dict[Path, None] = {}
    skipped: dict[Path, str] = {}
    for source in map(Path, sources):
        if not source.is_dir():
            found[source] = None
            continue
        entries = {entry: _why_skipped(entry) for entry in _entries(source)}
        images = [entry for entry, reason in entries.items() if reason is None]
        left_out = {entry: reason for entry, reason in entries.items() if reason is not None}
        if not images:
            raise BadInputError(_none_found(source, left_out))
        found.update(dict.fromkeys(images))
        skipped.update(left_out)
    return ImageListing(tuple(found), skipped)


def list_images(sources: Iterable[str | Path]) -> tuple[Path, ...]:
    """The files of `find_images`. Raises likewise."""
    return find_images(sources).files


def has_image_suffix(path: Path) -> bool:
    """Whether a file's name ends as that of an image.

    Example:
        >>> has_image_suffix(Path("a.NII.gz")), has_image_suffix(Path("a.gz"))
        (True, False)
    """
    return path.name.lower().endswith(IMAGE_SUFFIXES)


def image_stem(path: Path) -> str:
    """The name of a file without the suffix of an image.

    Example:
        >>> [image_stem(Path(path)) for path in ("ct/scan.nii.gz", "ct/scan.nii.gz/12", "a.b.png")]
        ['scan', 'scan_0012', 'a.b']
    """
    file, number = split_slice(path)
    if number is not None:
        return f"{image_stem(file)}_{number:04}"
    return path.name[:-7] if path.name.lower().endswith(".nii.gz") else path.stem


def _none_found(folder: Path, left_out: dict[Path, str]) -> str:
    note = ImageListing((), left_out).note
    why = f": {note}" if note else ""
    return f"folder '{folder}' has no images ({', '.join(IMAGE_SUFFIXES)}); subfolders are not searched{why}"


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise BadInputError(f"cannot list folder '{folder}': {error.strerror or error}") from error


def _why_skipped(entry: Path) -> str | None:
    """None for an image."""
    if entry.name.startswith("."):
        return "hidden"
    if not entry.is_file():
        return "a subfolder" if entry.is_dir() else "not a regular file"
    if has_image_suffix(entry):
        return None
    try:
        with entry.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        return f"unreadable: {error.strerror or error}"
    return _why_no_image(head)


def _why_no_image(head: bytes) -> str | None:
    """None for the first bytes of an image."""
    if _DICOM_DIRECTORY in head:
        return "an index of DICOM files"
    if head.startswith(NUMPY_SIGNATURE) or image_kind(head) or is_nifti(head):
        return None
    other = other_format(head)
    return f"in the format {other}, which is not read" if other else "not an image"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown}, ..." if len(names) > 3 else shown
