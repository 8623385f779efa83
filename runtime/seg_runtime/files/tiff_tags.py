"""The directories of a TIFF file: what each of its pages says about itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from seg_runtime.errors import BadImageError

__all__ = ["TIFF_SIGNATURES", "TiffPage", "tiff_pages"]

TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TYPES = {3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _BITS, _SAMPLES = 256, 257, 258, 277

_MOST_VALUES = 2**18
"""Numbers in a tag: those of 16384x16384 pixels in tiles of 32x32."""

_MOST_ENTRIES = 2**20
"""Entries in all directories together: those of 65535 pages, which usually have 10 to 16 each."""


@dataclass(frozen=True)
class TiffPage:
    """One image directory.

    Attributes:
        data: the whole file.
        order: "<" or ">", as `struct` names byte orders.
        big: whether it is a BigTIFF.
        entries: tag -> (type, count, the entry's value field).
        fields: tag -> where in the file the entry's value field begins.
    """

    data: bytes
    order: str
    big: bool
    entries: Mapping[int, tuple[int, int, bytes]]
    fields: Mapping[int, int]

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        (height,), (width,) = self.values(_HEIGHT), self.values(_WIDTH)
        return height, width

    @property
    def pixel_bytes(self) -> int:
        """Of a decoded pixel, all its samples together. Raises as `values`."""
        (samples, *_), bits = self.values(_SAMPLES, (1,)), max(self.values(_BITS, (1,)), default=1)
        return samples * -(-bits // 8)

    def values(self, tag: int, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """The numbers of a tag.

        Raises:
            KeyError: it is not there and has no default, or holds no whole numbers, or too many.
            struct.error: the file is cut off.
        """
        if tag not in self.entries and default is not None:
            return default
        return struct.unpack_from(self.layout(tag), self.data, self.where(tag))

    def layout(self, tag: int) -> str:
        """The numbers of a tag, as `struct` names them. Raises as `values`."""
        kind, count, _ = self.entries[tag]
        if count > _MOST_VALUES:
            raise KeyError(tag)
        return f"{self.order}{count}{_TYPES[kind]}"

    def where(self, tag: int) -> int:
        """Where in the file the numbers of a tag begin. Raises as `values`."""
        field = self.entries[tag][2]
        if struct.calcsize(self.layout(tag)) <= len(field):
            return self.fields[tag]
        (at,) = struct.unpack(self.order + ("Q" if self.big else "I"), field)
        return int(at)


def tiff_pages(data: bytes) -> Iterator[TiffPage]:
    """The pages of a TIFF file, in order.

    Raises:
        BadImageError: so many that listing them takes minutes.
        KeyError, struct.error: the file is cut off or damaged.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset = order + ("Q" if big else "I")
    (at,) = struct.unpack_from(offset, data, 8 if big else 4)
    seen: set[int] = set()
    listed = 0
    while at and at not in seen:
        seen.add(at)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        begin, step = at + (8 if big else 2), 20 if big else 12
        end = begin + count * step
        listed += count
        if listed > _MOST_ENTRIES:
            raise BadImageError(
                f"the TIFF file has over {_MOST_ENTRIES} entries in {len(seen)} pages: save one page alone"
            )
        entries, fields = _entries(data[begin:end], begin, order, big)
        if len(data) < end or _WIDTH not in entries:
            raise KeyError(_WIDTH)
        yield TiffPage(data, order, big, entries, fields)
        (at,) = struct.unpack_from(offset, data, end)


def _entries(
    directory: bytes, begin: int, order: str, big: bool
) -> tuple[dict[int, tuple[int, int, bytes]], dict[int, int]]:
    """`entries` and `fields` of a page whose directory begins at `begin`."""
    step, layout = (20, order + "HHQ8s") if big else (12, order + "HHI4s")
    entries, fields = {}, {}
    for at in range(0, len(directory) - step + 1, step):
        tag, kind, count, field = struct.unpack_from(layout, directory, at)
        entries[tag] = (kind, count, field)
        fields[tag] = begin + at + step - len(field)
    return entries, fields
