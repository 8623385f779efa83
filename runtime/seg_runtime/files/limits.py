"""How much work an image file may ask of a decoder, next to its own size.

A few kilobytes can announce, and even hold, gigabytes of one colour. Pictures compress far less, so a large
one whose file is tiny is refused by its header; one of usual size may be as empty as it likes.
"""

from __future__ import annotations

from seg_runtime.errors import BadImageError

__all__ = ["MOST_INFLATION", "MOST_SCANS", "check_inflation", "check_scans"]

FREE_PIXELS = 2**27
"""Pixels that any file may have: a slide of 12000x9000 is smaller."""

FREE_BYTES = 3 * FREE_PIXELS
"""What they take as 8-bit RGB: 0.4 GB."""

MOST_INFLATION = 60
"""Decoded bytes per byte of a larger file. Slides and X-rays reach 5 to 40, pictures of one colour 64
(PackBits), 85 (JPEG) to 1000 (PNG)."""

MOST_SCANS = 64
"""Scans of a JPEG file, each of which goes over all of its pixels; encoders write 1 to 20."""


def check_inflation(size_hw: tuple[int, int], pixel_bytes: float, stored: int) -> None:
    """Refuse pixels that take out of all proportion more memory than the file has bytes.

    Args:
        size_hw: (height, width) in pixels, as the file announces them.
        pixel_bytes: of one decoded pixel, all its channels or bands together.
        stored: bytes of the file.

    Raises:
        BadImageError: names both sizes.

    Example:
        >>> check_inflation((9000, 12000), 3, stored=20_000_000)
        >>> check_inflation((16384, 16384), 3, stored=800_000)
        Traceback (most recent call last):
        ...
        seg_runtime.errors.BadImageError: it has 16384x16384 pixels (805 MB) in a file of 0.8 MB, as no \
picture has: cut it into tiles, or save it without compression
    """
    pixels = size_hw[0] * size_hw[1]
    decoded = pixels * pixel_bytes
    if (pixels > FREE_PIXELS or decoded > FREE_BYTES) and decoded > MOST_INFLATION * stored:
        raise BadImageError(
            f"it has {size_hw[1]}x{size_hw[0]} pixels ({decoded / 1e6:.0f} MB) in a file of "
            f"{stored / 1e6:.1f} MB, as no picture has: cut it into tiles, or save it without compression"
        )


def check_scans(scans: int) -> None:
    """Refuse a progressive JPEG that is decoded over and over. Raises BadImageError."""
    if scans > MOST_SCANS:
        raise BadImageError(f"the JPEG file has over {MOST_SCANS} scans: save it again as a baseline JPEG")
