"""Small honest images of every format, and files of that format that lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from microbench.damage import MARKER, Damage
from microbench.dicom_files import DICOM_LIES, encapsulated, explicit

__all__ = ["FORMATS", "honest", "lies", "suffix"]

_SIDE_HW = (80, 96)
_EXTREMES = (0, 1, 7, 255, 256, 16384, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_TIFF_TAGS = (256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 339)
_DESCRIPTION = "{'descr': '|u1', 'fortran_order': False, 'shape': (80, 96)}"


@cache
def _pixels() -> NDArray[np.uint8]:
    """(80, 96) uint8 out of an X-ray of the tests."""
    xray = cv2.imread("tests/data/montgomery/images/MCUCXR_0003_0.png", cv2.IMREAD_GRAYSCALE)
    return np.ascontiguousarray(xray[200 : 200 + _SIDE_HW[0], 150 : 150 + _SIDE_HW[1]], dtype=np.uint8)


def _encoded(suffix: str, *options: int) -> Callable[[], bytes]:
    return lambda: bytes(cv2.imencode(suffix, _pixels(), list(options))[1])


def _colour(suffix: str, *options: int) -> Callable[[], bytes]:
    return lambda: bytes(
        cv2.imencode(suffix, np.dstack([_pixels() // (1 + index) for index in range(3)]), list(options))[1]
    )


def _array(values: Any) -> bytes:
    file = BytesIO()
    np.save(file, values)
    return file.getvalue()


def _bands() -> bytes:
    """A TIFF of four bands, a page each."""
    return bytes(cv2.imencodemulti(".tif", [_pixels() // (1 + index) for index in range(4)])[1])


def _of_tests(path: str) -> Callable[[], bytes]:
    return lambda: Path("tests/data", path).read_bytes()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _with_header(data: bytes, layout: str, at: int, *values: int) -> bytes:
    """A PNG with other numbers in its header, and the checksum that belongs to them."""
    header = bytearray(data[16:29])
    struct.pack_into(layout, header, at, *values)
    return data[:8] + _chunk(b"IHDR", bytes(header)) + data[33:]


def _png_size(data: bytes, rng: Random) -> bytes:
    return _with_header(data, ">II", 0, rng.choice(_EXTREMES), rng.choice((80, *_EXTREMES)))


def _png_kind(data: bytes, rng: Random) -> bytes:
    return _with_header(data, ">BBBBB", 8, *(rng.choice((0, 1, 2, 3, 4, 6, 7, 8, 16, 255)) for _ in range(5)))


def _png_bomb(data: bytes, rng: Random) -> bytes:
    """The largest image that is read, or one beyond, of few bytes."""
    side = rng.choice((16384, 16385))
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return data[:8] + header + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _png_more(data: bytes, rng: Random) -> bytes:
    """Chunks that are large when unpacked, or many, or out of place."""
    bomb = zlib.compress(bytes(2**26), 9)
    chunks = (
        _chunk(b"zTXt", b"a\0\0" + bomb),
        _chunk(b"iCCP", b"a\0\0" + bomb),
        _chunk(b"tEXt", b"a\0b") * 50_000,
        _chunk(b"PLTE", bytes(range(256)) * 4),
        _chunk(b"sBIT", bytes(rng.randrange(256) for _ in range(4))),
        _chunk(b"tRNS", bytes(3)),
    )
    return data[:33] + rng.choice(chunks) + data[33:]


def _jpeg_frame(data: bytes, rng: Random) -> bytes:
    """Height, width, components and sampling factors of the frame header."""
    at = next(data.find(b"\xff" + kind) for kind in (b"\xc0", b"\xc1", b"\xc2") if b"\xff" + kind in data)
    out, change = bytearray(data), rng.randrange(4)
    if change < 2:
        struct.pack_into(">HH", out, at + 5, rng.choice((0, 1, 80, 65500, 65535)), rng.choice((0, 96, 65535)))
    elif change == 2:
        out[at + 9] = rng.choice((0, 2, 4, 5, 255))
    else:
        out[at + 11] = rng.choice((0x00, 0x14, 0x41, 0x44, 0xFF))
    return bytes(out)


def _jpeg_scans(data: bytes, rng: Random) -> bytes:
    """A picture of many scans, each of which is decoded over the whole of it."""
    again = bytes(cv2.imencode(".jpg", _pixels(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])
    at = again.rfind(b"\xff\xda")
    return again[:at] + again[at:-2] * rng.choice((100, 2000)) + again[-2:]


def _jpeg_segment(data: bytes, rng: Random) -> bytes:
    """A segment with a wrong length, or an EXIF block of nonsense, or tables that do not belong."""
    body = bytes(rng.randrange(256) for _ in range(64))
    segments = (
        b"\xff\xe1\xff\xff",
        b"\xff\xe1\x00\x00",
        b"\xff\xe1\x00\x48Exif\0\0" + body,
        b"\xff\xc4\x00\x42" + body,
        b"\xff\xdb\x00\x42" + body,
        b"\xff\xdd\x00\x04\xff\xff",
    )
    return data[:2] + rng.choice(segments) + data[2:]


def _directory(data: bytes) -> tuple[int, int]:
    """Where the first page's directory begins, and how many entries it has."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    return at, count


def _tiff_tag(data: bytes, rng: Random) -> bytes:
    """A tag of the pixels with another value, count or type."""
    out, (at, count) = bytearray(data), _directory(data)
    entries = [at + 2 + 12 * index for index in range(count)]
    entry = rng.choice([each for each in entries if struct.unpack_from("<H", out, each)[0] in _TIFF_TAGS])
    kind, where = rng.choice((("<H", 2), ("<I", 4), ("<I", 8), ("<I", 8), ("<I", 8)))
    value = rng.choice(_EXTREMES)
    struct.pack_into(kind, out, entry + where, value & (0xFFFF if kind == "<H" else 2**32 - 1))
    return bytes(out)


def _tiff_pages(data: bytes, rng: Random) -> bytes:
    """Directories that lead to themselves, to nowhere, or have too many entries."""
    out, (at, count) = bytearray(data), _directory(data)
    following = at + 2 + 12 * count
    change = rng.choice(
        ((following, "<I", at), (following, "<I", 2**32 - 1), (at, "<H", 65535), (4, "<I", 4))
    )
    struct.pack_into(change[1], out, change[0], change[2])
    return bytes(out)


def _numpy_header(data: bytes, rng: Random) -> bytes:
    changes = (
        ("(80, 96)", "(800000, 960000)"), ("(80, 96)", "(-80, -96)"), ("(80, 96)", "()"),
        ("(80, 96)", "(7680,)"),
        ("(80, 96)", "(80, 96" + ", 1" * 40 + ")"), ("(80, 96)", "(80, 0)"), ("(80, 96)", "(8e1, 96)"),
        ("(80, 96)", "(True, 7680)"), ("'|u1'", "'|O'"), ("'|u1'", "'<f8'"), ("'|u1'", "'|b1'"),
        ("'|u1'", "'<M8[s]'"), ("'|u1'", "[('a', '|u1')]"), ("'|u1'", "'|V1'"), ("'|u1'", "'|S1'"),
        ("False", "True"), ("False", f"open('{MARKER}', 'w')"), ("{", "{" * 5000),
        ("'shape'", "'form'"), ("'|u1'", "'|u1" + "0" * 60_000 + "'"),
    )  # fmt: skip
    old, new = rng.choice(changes)
    text = _DESCRIPTION.replace(old, new).encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data[-80 * 96 :]


FORMATS: dict[str, tuple[Callable[[], bytes], tuple[Damage, ...]]] = {
    "PNG": (_encoded(".png"), (_png_size, _png_kind, _png_more, _png_bomb)),
    "PNG of the tests": (_of_tests("cases/masks/disc.png"), (_png_kind,)),
    "JPEG": (_encoded(".jpg"), (_jpeg_frame, _jpeg_scans, _jpeg_segment)),
    "JPEG of the tests": (_of_tests("cases/masks/disc.jpg"), (_jpeg_frame,)),
    "TIFF": (_encoded(".tif"), (_tiff_tag, _tiff_tag, _tiff_pages)),
    "TIFF, uncompressed colour": (_colour(".tif", cv2.IMWRITE_TIFF_COMPRESSION, 1), (_tiff_tag, _tiff_pages)),
    "TIFF of four bands": (_bands, (_tiff_tag, _tiff_pages)),
    "DICOM": (lambda: explicit(_pixels()), DICOM_LIES),
    "DICOM with JPEG": (lambda: encapsulated(_pixels()), DICOM_LIES),
    "npy": (lambda: _array(_pixels()), (_numpy_header, _numpy_header)),
    "BMP": (_encoded(".bmp"), ()),
    "WebP": (_encoded(".webp"), ()),
}
"""An honest file of each format, and what lies it can tell; BMP and WebP are not read at all."""

_SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif", "DICOM": ".dcm", "npy": ".npy"}


@cache
def honest(name: str) -> bytes:
    """The honest file of a format of `FORMATS`."""
    return FORMATS[name][0]()


def lies(name: str) -> tuple[Damage, ...]:
    """The damages that know a format of `FORMATS`."""
    return FORMATS[name][1]


def suffix(name: str) -> str:
    """What the files of a format are called here; those that are not read are called PNG."""
    return _SUFFIXES.get(name.replace(",", " ").split(maxsplit=1)[0], ".png")
