"""Image files that ask for far more work than they look: small, made from the formats' specifications."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import pydicom
from PIL import Image

__all__ = ["DICOM", "IMAGES", "jpeg", "png", "tiff"]

SIDE = 16384
"""Of the largest picture that is read."""


def zeros(count: int) -> bytes:
    """`count` bytes of 0 in zlib's format, a thousandth as long."""
    stream, block = zlib.compressobj(1), bytes(2**20)
    pieces = [stream.compress(block) for _ in range(count // len(block))]
    return b"".join([*pieces, stream.compress(block[: count % len(block)]), stream.flush()])


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, pixels: bytes, before: bytes = b"", colour: int = 0, depth: int = 8
) -> bytes:
    """A PNG with these compressed pixels, and chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    end = chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + end


def jpeg(size_hw: tuple[int, int], mode: str = "L", **options: bool) -> bytes:
    """A black picture."""
    file = io.BytesIO()
    Image.new(mode, size_hw[::-1]).save(file, "JPEG", **options)
    return file.getvalue()


def scans(count: int) -> bytes:
    """A progressive JPEG with this many scans more, each of which goes over all pixels and changes none."""
    data, scan = jpeg((4096, 4096), progressive=True), b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00"
    return data[: data.rindex(b"\xff\xd9")] + scan * count + b"\xff\xd9"


def tiff(width: int, height: int, strip: bytes, pages: int = 1, loop: bool = False, **tags: int) -> bytes:
    """A TIFF of gray pages that share one strip; tags such as `t259=8` are added or replaced."""
    values = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: height, 279: len(strip)}
    values |= {int(tag[1:]): value for tag, value in tags.items()}
    first = 8 + len(strip) + len(strip) % 2
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    step = len(entries) + 6
    nexts = [first + step * (page + 1) for page in range(pages - 1)] + [first if loop else 0]
    directories = (struct.pack("<H", len(values)) + entries + struct.pack("<I", each) for each in nexts)
    return b"II*\0" + struct.pack("<I", first) + strip.ljust(first - 8, b"\0") + b"".join(directories)


def element(tag: int, kind: bytes, value: bytes) -> bytes:
    """An element of a DICOM data set."""
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind
    long = kind in (b"OB", b"OW", b"SQ")
    return head + (struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))) + value


def data_set(side: int, pixels: bytes, before: bytes = b"") -> bytes:
    """A gray image, 8 bits deep."""
    numbers = {0x10: side, 0x11: side, 0x100: 8, 0x101: 8, 0x102: 7, 0x103: 0}
    described = element(0x280002, b"US", b"\1\0") + element(0x280004, b"CS", b"MONOCHROME2 ")
    described += b"".join(
        element(0x280000 + tag, b"US", struct.pack("<H", value)) for tag, value in numbers.items()
    )
    return before + described + pixels


def dicom(body: bytes, syntax: str = pydicom.uid.ExplicitVRLittleEndian) -> bytes:
    """A file with this data set."""
    value = syntax.encode()
    meta = element(0x20010, b"UI", value + b"\0" * (len(value) % 2))
    return bytes(128) + b"DICM" + element(0x20000, b"UL", struct.pack("<I", len(meta))) + meta + body


def deflated(body: bytes, then: int = 0) -> bytes:
    """A DICOM file whose data set is compressed, with so many bytes of 0 after it."""
    stream, block = zlib.compressobj(1, zlib.DEFLATED, -15), bytes(2**20)
    pieces = [stream.compress(body), *(stream.compress(block) for _ in range(then >> 20)), stream.flush()]
    return dicom(b"".join(pieces), pydicom.uid.DeflatedExplicitVRLittleEndian)


def encapsulated(frame: bytes) -> bytes:
    """The pixels of a data set, compressed."""
    items = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(each)) + each for each in (b"", frame))
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + items + end


def jpeg2000(side: int) -> bytes:
    """The code stream of a black picture."""
    file = io.BytesIO()
    Image.new("L", (side, side)).save(file, "JPEG2000")
    data = file.getvalue()
    data = data[data.index(b"\xff\x4f\xff\x51") :]
    return data + b"\0" * (len(data) % 2)


def npy(shape: str) -> bytes:
    """An array without its values."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header


def lying_jpeg() -> bytes:
    """A picture of 64x64 that says 65500x65500."""
    data = jpeg((64, 64))
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", 65500, 65500) + data[at + 4 :]


def many_pixels(suffix: str) -> bytes:
    """A black picture of 16384x16384, as OpenCV writes it."""
    return bytes(cv2.imencode(suffix, np.zeros((SIDE, SIDE), np.uint8))[1])


_TEXT = chunk(b"zTXt", b"x\0\0" + zeros(2**23))

IMAGES: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "png that says 2**31": ("a.png", partial(png, 2**31 - 1, 2**31 - 1, b""), "the limit is"),
    "png of one colour": ("a.png", partial(many_pixels, ".png"), "as no picture has"),
    "png of RGB": ("a.png", lambda: png(SIDE, SIDE, zeros(2**20), colour=2), "as no picture has"),
    "png of 16 bits": ("a.png", lambda: png(SIDE, SIDE, zeros(2**20), depth=16), "as no picture has"),
    "png whose pixels go on": ("a.png", lambda: png(64, 64, zeros(2**28)), "of compressed pixels"),
    "png of texts": ("a.png", lambda: png(64, 64, zeros(4160), _TEXT * 200), "of compressed texts"),
    "png of chunks": ("a.png", lambda: png(64, 64, zeros(4160), chunk(b"abCd", b"") * 300_000), "chunks"),
    "jpeg of one colour": ("a.jpg", lambda: jpeg((SIDE, SIDE)), "as no picture has"),
    "jpeg that says 65500": ("a.jpg", lying_jpeg, "the limit is"),
    "jpeg of scans": ("a.jpg", partial(scans, 1000), "over 64 scans"),
    "jpeg of segments": (
        "a.jpg",
        lambda: b"\xff\xd8" + b"\xff\xfe\0\2" * 2**20 + jpeg((64, 64))[2:],
        "over 512 segments",
    ),
    "jpeg of fill bytes": ("a.jpg", lambda: b"\xff\xd8" + b"\xff" * 2**23 + jpeg((64, 64))[2:], "damaged"),
    "tiff of one colour": ("a.tif", lambda: tiff(SIDE, SIDE, zeros(2**28)), "as no picture has"),
    "tiff of PackBits": (
        "a.tif",
        lambda: tiff(SIDE, SIDE, b"\x81\0" * 2**10, t259=32773),
        "as no picture has",
    ),
    "tiff of LZW": ("a.tif", partial(many_pixels, ".tif"), "as no picture has"),
    "tiff that says 2**31": ("a.tif", lambda: tiff(2**31 - 1, 2**31 - 1, bytes(8)), "the limit is"),
    "tiff of samples": ("a.tif", lambda: tiff(4096, 4096, bytes(8), t277=65535), "as no picture has"),
    "tiff of pages": ("a.tif", lambda: tiff(64, 64, zeros(4096), pages=130_000), "over 1048576 entries"),
    "npy that says 2**40": ("a.npy", partial(npy, "(1048576, 1048576)"), "the limit is"),
    "npy nested deeply": ("a.npy", lambda: npy("(" * 9000), "damaged"),
}
"""By what each is: a file's name, its bytes, and a part of the line that it is refused with."""

_ITEMS = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 300_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
_OPEN = struct.pack("<HH2sHI", 0x40, 0x3010, b"SQ", 0, 0xFFFFFFFF)

DICOM: dict[str, tuple[Callable[[], bytes], str]] = {
    "deflated pixels": (lambda: deflated(data_set(SIDE, b""), 2**28), "inflate to over"),
    "deflated rest": (
        lambda: deflated(data_set(64, element(0x7FE00010, b"OW", bytes(4096))), 2**28),
        "inflate to over",
    ),
    "a size that is not there": (
        lambda: dicom(data_set(SIDE, element(0x7FE00010, b"OW", bytes(64)))),
        "as no image has",
    ),
    "frames": (
        lambda: dicom(data_set(64, element(0x280008, b"IS", b"2147483647") + encapsulated(b""))),
        "2147483647 frames",
    ),
    "RLE that goes on": (
        lambda: dicom(
            data_set(64, encapsulated(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 2**21)),
            pydicom.uid.RLELossless,
        ),
        "compressed, of 4096",
    ),
    "JPEG 2000 of another size": (
        lambda: dicom(data_set(64, encapsulated(jpeg2000(8192))), pydicom.uid.JPEG2000Lossless),
        "a picture of 8192x8192",
    ),
    "JPEG of another size": (
        lambda: dicom(data_set(64, encapsulated(lying_jpeg() + b"\0")), pydicom.uid.JPEGBaseline8Bit),
        "a picture of 65500x65500",
    ),
    "fragments": (
        lambda: dicom(
            data_set(64, struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + _ITEMS),
            pydicom.uid.RLELossless,
        ),
        "more elements",
    ),
    "items of a sequence": (lambda: dicom(data_set(64, b"", _OPEN + _ITEMS)), "damaged|more elements"),
    "sequences in sequences": (
        lambda: dicom(data_set(64, (_OPEN + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 100_000)),
        "damaged",
    ),
}
"""By what there is too much of: the bytes, and a part of the line that it is refused with."""
