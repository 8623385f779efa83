"""Files that somebody handed in: only regular ones are read, of a size that such files have."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

__all__ = ["MOST_TEXT", "check_whole", "parse_json", "read_text", "real_path"]

MOST_TEXT = 2**23
"""Bytes of a text: contracts and configurations have some thousands, records of long runs a million. Parsed,
they take 60 times as much memory."""

_LARGE_FILE, _MOST_HOLES = 2**28, 16
"""From which size on a file may not be made of holes, and how much smaller compressing disks make files."""


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a file in UTF-8.

    Args:
        path: the file; nothing else is opened, since reading a pipe or a device may never end.
        most: bytes that it may have.

    Raises:
        OSError: it is missing, no regular file, unreadable or larger.
        UnicodeDecodeError: it is no text.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"it is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}")
    if status.st_size > most:
        raise OSError(f"it has {status.st_size} bytes, and such files have up to {most}: name another one")
    return path.read_text(encoding="utf-8")


def real_path(path: Path) -> Path:
    """Where a path leads. Unlike `Path.resolve`, it does not raise where links lead round in a circle."""
    return Path(os.path.realpath(path))


def parse_json(text: str) -> Any:
    """The value that JSON describes.

    Raises:
        ValueError: it is no JSON, or lists in it are nested deeper than Python reads them.

    Example:
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ...
        ValueError: it is nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_whole(path: Path) -> None:
    """Refuse a large file most of which is not on the disk, though it takes memory when it is read.

    Raises:
        OSError: it has holes, as downloads and copies that broke off have.
    """
    status = path.stat()
    # In blocks of 512 bytes; Windows does not say it, and some network file systems say 0 of all files.
    on_disk = 512 * getattr(status, "st_blocks", 0) or status.st_size
    if status.st_size > _LARGE_FILE and status.st_size > _MOST_HOLES * on_disk:
        raise OSError(f"it says {status.st_size} bytes and has {on_disk} on the disk: copy it again")
