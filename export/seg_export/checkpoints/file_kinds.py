"""What a file is that `torch.load` cannot read, and the step that gets it in."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch

from seg_export.checkpoints.near_misses import class_near_miss

__all__ = ["other_archive", "other_file", "refused_pickle"]

_HEADS = (
    (rb"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes: export its model to ONNX, then seg-export onnx FILE"),
    (rb"\s*<", "a page of the web: download the file itself"),
    (rb".{4}TFL3", "a TensorFlow Lite model: name the PyTorch weights that it was made of"),
    (rb"\x1f\x8b|7z|Rar!|BZh|\xfd7zXZ", "a compressed archive: unpack it and name the file of weights"),
    (rb"\x93NUMPY", "a NumPy array: save a state_dict with torch.save"),
    (rb"ptrt|ftrt", "a TensorRT engine: name the weights, and make engines with seg-export build"),
)
"""How files begin that people take for checkpoints."""

_ENDS = {
    ".onnx": "an ONNX graph: seg-export onnx FILE",
    ".engine": "a TensorRT engine: name the weights, and make engines with seg-export build",
    ".plan": "a TensorRT engine: name the weights, and make engines with seg-export build",
}


def other_file(path: Path, head: bytes) -> str:
    """What a file is that begins with these bytes, and none that torch.save writes."""
    kinds = (text for pattern, text in _HEADS if re.match(pattern, head, re.DOTALL))
    kind = _ENDS.get(path.suffix.lower()) or next(kinds, "")
    return f"is not a PyTorch checkpoint{f' but {kind}' if kind else ': expected a file of torch.save'}"


def other_archive(path: Path) -> str:
    """What a zip archive is that torch.save did not write; "" for its own, and for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return ""
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "is a TorchScript module, which holds code: save the state_dict of the original, or export that "
            "to ONNX: seg-export onnx FILE"
        )
    if any(name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names) or (
        "serialized_exported_program.json" in names
    ):
        return (
            "is a program of torch.export (.pt2): save the state_dict of the original, or export that to "
            "ONNX: seg-export onnx FILE"
        )
    if any(name.endswith("data.pkl") for name in names):
        return ""
    kind = "NumPy arrays" if any(name.endswith(".npy") for name in names) else "no PyTorch tensors"
    return f"is a zip archive with {kind}: expected a file of torch.save with a state_dict"


def refused_pickle(path: Path, reason: str) -> str:
    """Why a pickle is refused that holds more than tensors and plain values.

    Args:
        path: the file, which is not run.
        reason: what PyTorch says.
    """
    names = _classes(path) | set(re.findall(r"GLOBAL (\S+) ", reason))
    if "torch.distributed" in reason:
        names.add("torch.distributed.")
    if text := class_near_miss(names):
        return text
    first = next(iter(re.findall(r"GLOBAL (\S+) ", reason)), "")
    name = f" {first}" if 0 < len(first) <= 60 else ""
    if any(each.startswith("torch.nn.modules.") for each in names):
        what = f"is a whole pickled module{name and f',{name}'}"
    elif name:
        what = f"holds the class{name}"
    else:
        what = "holds more than tensors and plain values"
    return f"{what}, which could run code, and is refused: save its state_dict() alone"


def _classes(path: Path) -> set[str]:
    """Classes and functions that a file names beyond those that are safe; none where that cannot be said."""
    try:
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (AssertionError, EOFError, LookupError, RuntimeError, ValueError, struct.error, UnpicklingError):
        # Files of before PyTorch 1.6, and damaged ones.
        return set()
