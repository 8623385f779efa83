"""What reading a checkpoint may cost, checked before PyTorch does the work.

Archives of torch.save are not compressed, and what they hold besides tensors is small; so is the header of a
safetensors file. PyTorch inflates, and unpickles in Python, whatever a file says.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any, cast

from seg_runtime.errors import CheckpointError
from seg_runtime.plain_files import check_whole

__all__ = ["CountedFile", "check_archive", "check_file", "check_tensor_bytes"]

_LARGEST_DIRECTORY = 2**24
"""Bytes of an archive's list of members, about a hundred for each tensor."""

_LARGEST_PICKLE = 2**23
"""Bytes of what lies next to the tensors: a hundred for each of them, and the notes of a training."""

_MOST_READS = 2_000_000
"""Of pieces of an old file, whose pickle may have any length: about thirty for each tensor."""

_LARGEST_HEADER = 2**23
"""Bytes of the header of a safetensors file: those of 60 thousand tensors."""

_FREE_BYTES, _MOST_INFLATION = 2**26, 4
"""Bytes that any archive may unpack to, and per byte of a larger one: float32 of 8 bits."""

_FREE_TENSORS = 2**28
"""Bytes of tensors that any file may have, in which some share their values."""

_BYTEARRAY = b"bytearray"
"""PyTorch lets a pickle allocate one of any length."""


class CountedFile(io.BufferedReader):
    """A file whose reader is stopped where a pickle goes on and on, or allocates memory.

    Raises:
        CheckpointError: from `read` and `readline`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path), 2**16)
        self._left = _MOST_READS

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise CheckpointError("has far more values than weights need: save its state_dict() alone")
        return super().read(size)

    def readline(self, size: int | None = -1) -> bytes:
        line = super().readline(size)
        _check_names(line)
        return line


def check_file(path: Path, head: bytes) -> None:
    """Refuse a file with holes, and one whose header or list of members takes long to read.

    Args:
        path: a regular file.
        head: its first bytes.

    Raises:
        CheckpointError: the message leaves out the file's name.
    """
    try:
        check_whole(path)
    except OSError as error:
        raise CheckpointError(f"is not whole: {error}") from error
    if head[8:9] == b"{" and _LARGEST_HEADER < struct.unpack("<Q", head[:8])[0] <= path.stat().st_size:
        raise CheckpointError(
            f"has a header of over {_LARGEST_HEADER} bytes, more than tensors need: save the weights alone"
        )
    with path.open("rb") as file:
        end = cast(Any, zipfile)._EndRecData(file)
    if end and end[5] > _LARGEST_DIRECTORY:
        raise CheckpointError(f"is an archive whose directory has {end[5]} bytes: save the weights again")


def check_archive(path: Path) -> None:
    """Refuse a zip archive that takes far more time or memory than its size says.

    Damaged archives and other files pass: whoever reads them says what they are.

    Raises:
        CheckpointError: the message leaves out the file's name.
    """
    stored = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, stored)
            for member in members:
                if member.filename.endswith("data.pkl"):
                    _check_names(archive.read(member))
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise


def check_tensor_bytes(held: int, path: Path) -> None:
    """Refuse tensors, or a network for them, that take far more memory than their file.

    Args:
        held: bytes of the tensors as float32.
        path: their file.

    Raises:
        CheckpointError: names both sizes.
    """
    stored = path.stat().st_size
    if held > _FREE_TENSORS and held > _MOST_INFLATION * stored:
        raise CheckpointError(
            f"checkpoint {path} has {stored} bytes, and its network or tensors would take {held}: save the "
            "whole tensors of this network, each as contiguous(), and without compression"
        )


def _check_members(members: list[zipfile.ZipInfo], stored: int) -> None:
    held = sum(member.file_size for member in members)
    if held > _FREE_BYTES and held > _MOST_INFLATION * stored:
        raise CheckpointError(
            f"is an archive of {stored} bytes that unpacks to {held}, as no weights do: use torch.save"
        )
    for member in members:
        if member.filename.endswith(".pkl") and member.file_size > _LARGEST_PICKLE:
            raise CheckpointError(
                f"has {member.file_size} bytes next to its tensors, some thousand are usual: save its "
                "state_dict() alone"
            )


def _check_names(pickled: bytes) -> None:
    if _BYTEARRAY in pickled:
        raise CheckpointError("holds a bytearray, which no weights need: save its state_dict() alone")
