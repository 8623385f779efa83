"""Files of weights that ask for far more memory or time than they look; none holds anything to run."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["CHECKPOINTS", "archive", "safetensors", "sparse", "tensor"]


def archive(pickled: bytes, storage: bytes = b"", compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive as torch.save writes it, with a pickle and one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as members:
        for name, data in (
            ("data.pkl", pickled),
            ("byteorder", b"little"),
            ("data/0", storage),
            ("version", b"3\n"),
        ):
            members.writestr(f"archive/{name}", data)
    return file.getvalue()


def tensor(count: int, size: tuple[int, int], strides: tuple[int, int]) -> bytes:
    """A pickle of {"a.weight": tensor} over a storage of `count` float32."""
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + _number(count)
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQK\0" + _pair(size) + _pair(strides)
    return b"\x80\x02}" + _text("a.weight") + rebuild + b"\x89ccollections\nOrderedDict\n)RtRs."


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _number(number: int) -> bytes:
    return b"\x8a\x09" + number.to_bytes(9, "little", signed=True)


def _pair(numbers: tuple[int, int]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"


def _bytearray() -> bytes:
    """A pickle that allocates 3 GB."""
    return b"\x80\x02}" + _text("a") + b"c__builtin__\nbytearray\n" + _number(3 * 2**30) + b"\x85Rs."


def _laughs() -> bytes:
    """A pickle of lists of which each holds the one before it 30 times."""
    lists = (b"]q" + bytes([at]) + b"(" + (b"h" + bytes([at - 1])) * 30 + b"e" for at in range(1, 30))
    return b"\x80\x02]q\0K\1a" + b"".join(lists) + b"."


def _members(count: int) -> bytes:
    """An archive of empty members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        for index in range(count):
            members.writestr(f"archive/data/{index:0200d}", b"")
    return file.getvalue()


def safetensors(header: bytes, data: bytes = b"") -> bytes:
    """A file with this header."""
    return struct.pack("<Q", len(header)) + header + data


def _many_tensors() -> bytes:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return safetensors(json.dumps({f"layer.{index}": entry for index in range(150_000)}).encode(), bytes(4))


_LONG = b"\x80\x02" + b"K\1" * 2**23 + b"."

CHECKPOINTS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "a pickle that inflates": (
        "a.pth",
        lambda: archive(bytes(2**28), compression=zipfile.ZIP_DEFLATED),
        "unpacks to 268435",
    ),
    "a storage that inflates": (
        "a.pth",
        lambda: archive(tensor(2**26, (2**13, 2**13), (2**13, 1)), bytes(2**28), zipfile.ZIP_DEFLATED),
        "unpacks to 268435",
    ),
    "a tensor of one value": (
        "a.pth",
        lambda: archive(tensor(4, (30_000, 30_000), (0, 0)), bytes(16)),
        "contiguous",
    ),
    "a long pickle": ("a.pth", lambda: archive(_LONG), "16777219 bytes next to its tensors"),
    "a long pickle of old PyTorch": ("a.pth", lambda: _LONG, "far more values"),
    "a bytearray": ("a.pth", lambda: archive(_bytearray()), "holds a bytearray"),
    "a bytearray in an old file": ("a.pth", _bytearray, "holds a bytearray"),
    "lists in lists": ("a.pth", lambda: archive(_laughs()), "expected a dict of tensors"),
    "a list in itself": (
        "a.pth",
        lambda: archive(b"\x80\x02]q\0(" + b"h\0" * 100 + b"e."),
        "expected a dict of tensors",
    ),
    "many members": ("a.pth", lambda: _members(80_000), "directory has"),
    "arrays that inflate": (
        "a.npz",
        lambda: archive(bytes(2**27), compression=zipfile.ZIP_DEFLATED).replace(b"data.pkl", b"data.npy"),
        "is a zip archive with NumPy arrays",
    ),
    "a header of 2**62 bytes": (
        "a.safetensors",
        lambda: struct.pack("<Q", 2**62) + b"{}",
        "header too large",
    ),
    "many tensors": ("a.safetensors", _many_tensors, "has a header of over"),
    "a nested header": (
        "a.safetensors",
        lambda: safetensors(b'{"a":' + b"[" * 10**6 + b"]" * 10**6 + b"}"),
        "recursion limit",
    ),
}
"""By what each has: a file's name, its bytes, and a part of the line that it is refused with."""


def sparse(path: Path, begin: bytes) -> Path:
    """A file of 4 GB of which only the beginning is there."""
    path.write_bytes(begin)
    os.truncate(path, 2**32)
    return path
