"""Lets glibc keep freed memory while large PyTorch models run on the CPU."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

__all__ = ["memory_kept"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 2**28}
_USUAL = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 2**17, _TOP_PAD: 2**17}


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Keep what is freed inside the block, and give it back to the system after it.

    glibc gives large blocks back at once. PyTorch then spends most of its time on getting the same
    pages again: segment_anything's encoder takes two to three times as long. Elsewhere than with
    glibc nothing is changed.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    try:
        for parameter, value in _KEEP.items():
            library.mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _USUAL.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
