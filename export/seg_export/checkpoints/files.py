"""Reading and writing the files of checkpoints: tensors and plain values only, whole or not at all."""

from __future__ import annotations

import importlib
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.file_kinds import other_archive, other_file, refused_pickle
from seg_export.checkpoints.file_limits import CountedFile, check_archive, check_file
from seg_export.checkpoints.safe_classes import SAFE_CLASSES
from seg_runtime.errors import CheckpointError, MissingExtraError

__all__ = ["read_plain", "write_atomically"]

_MAGIC = (b"PK", b"\x80")
"""First bytes of torch.save's zip archives and of pickles."""


def write_atomically(document: Mapping[str, Any], path: Path) -> None:
    """`torch.save` next to `path`, then rename: a kill at any moment leaves the old file or the new.

    Raises:
        CheckpointError: the folder is not writable or the disk is full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            torch.save(document, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"cannot write checkpoint {path}: {error}") from error
    finally:
        beside.unlink(missing_ok=True)


def read_plain(path: Path) -> Any:
    """Load a `torch.save` file with `weights_only=True`, or a `.safetensors` file, onto the CPU.

    Raises:
        CheckpointError: the file is missing, empty, truncated, not a checkpoint, or holds code.
        MissingExtraError: a `.safetensors` file, and safetensors is not installed.
    """
    head = _first_bytes(path)
    try:
        check_file(path, head)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path} {error}") from error
    if _is_safetensors(path, head):
        return _read_safetensors(path)
    if not head.startswith(_MAGIC):
        raise CheckpointError(f"{path} {other_file(path, head)}")
    if text := other_archive(path):
        raise CheckpointError(f"checkpoint {path} {text}")
    try:
        check_archive(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE_CLASSES):
            # A plain pickle of a newer protocol is refused below, and so are quantised tensors.
            warnings.simplefilter("ignore")
            with CountedFile(path) as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path} {error}") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"checkpoint {path} {refused_pickle(path, str(error))}") from error
    except Exception as error:
        # Damaged bytes can make the unpickler raise anything: struct.error, KeyError, EOFError...
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if reason.startswith("Invalid magic number"):
            raise CheckpointError(
                f"checkpoint {path} is a pickle of another program: save a state_dict with torch.save"
            ) from error
        raise CheckpointError(
            f"checkpoint {path} is truncated or damaged: copy or download it again ({reason[:60]})"
        ) from error


def _is_safetensors(path: Path, head: bytes) -> bool:
    """By the length of a header in JSON that it begins with, whose bytes may be any; else by its name."""
    if head[8:9] == b"{" and head[4:8] == b"\0\0\0\0":
        return True
    return path.suffix == ".safetensors" and not head.startswith(_MAGIC)


def _first_bytes(path: Path) -> bytes:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: name the file of weights in it")
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file {path}: check the path")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {path}: {error}") from error
    if not head:
        raise CheckpointError(f"checkpoint {path} is empty: copy or download it again")
    return head


def _read_safetensors(path: Path) -> Any:
    try:
        safetensors_torch = importlib.import_module("safetensors.torch")
    except ModuleNotFoundError as error:
        raise MissingExtraError("safetensors", "export") from error
    try:
        return safetensors_torch.load_file(path)
    except Exception as error:
        raise CheckpointError(
            f"checkpoint {path} is truncated or damaged: download it again ({error})"
        ) from error
