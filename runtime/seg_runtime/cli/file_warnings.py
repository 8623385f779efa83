"""Warnings about image files: one line for each kind, however many files it was about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seg_runtime.files.listing import ImageListing

__all__ = ["FileWarnings"]


class FileWarnings:
    """Gathers the warnings of a run's files.

    Example:
        >>> warnings = FileWarnings()
        >>> for name in ("a.tif", "b.tif", "c.tif"):
        ...     warnings.add(Path(name), ["it has 2 pages"])
        >>> list(warnings.notes())
        ['warning: a.tif and 2 more: it has 2 pages']
    """

    def __init__(self) -> None:
        self._files: dict[str, list[Path]] = {}

    def add(self, path: Path, warnings: Iterable[str]) -> None:
        """Take the warnings about a file."""
        for warning in warnings:
            self._files.setdefault(warning, []).append(path)

    def notes(self, listing: ImageListing | None = None) -> Iterator[str]:
        """A line for each kind of warning, and one for what was skipped in folders."""
        for warning, files in self._files.items():
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            yield f"warning: {files[0]}{more}: {warning}"
        if listing is not None and listing.note is not None:
            yield listing.note
