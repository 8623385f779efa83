"""Plain values that training leaves next to weights, which may be read since building them runs no code."""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import types
from typing import Any

import numpy as np
import torch

__all__ = ["SAFE_CLASSES"]


def _numpy_classes() -> list[Any]:
    """Scalars, arrays and their types, under the names of NumPy 1 and 2."""
    reduced: list[Any] = [np.float64(0).__reduce__(), np.zeros(0).__reduce__()]
    scalar, rebuild = (each[0] for each in reduced)
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    functions = [(scalar, f"{module}.scalar") for module in modules]
    functions += [(rebuild, f"{module}._reconstruct") for module in modules]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["All"]}
    return [*functions, np.ndarray, np.dtype, *dtypes]


def _paths() -> list[Any]:
    """Paths of any system as text without a disk behind it; Python 3.13 has them in another module."""
    kinds = {
        "PosixPath": pathlib.PurePosixPath,
        "PurePosixPath": pathlib.PurePosixPath,
        "WindowsPath": pathlib.PureWindowsPath,
        "PureWindowsPath": pathlib.PureWindowsPath,
    }
    modules = ("pathlib", "pathlib._local")
    return [(kind, f"{module}.{name}") for name, kind in kinds.items() for module in modules]


def _mappings() -> list[Any]:
    """Subclasses of dict, which PyTorch's unpickler does not fill, as those that it does."""
    modules = (
        "lightning.fabric.utilities.data",
        "lightning.pytorch.utilities.parsing",
        "lightning_fabric.utilities.data",
        "pytorch_lightning.utilities.parsing",
    )
    lightning = [(collections.OrderedDict, f"{module}.AttributeDict") for module in modules]
    return [(_without_default, "collections.defaultdict"), *lightning]


def _without_default(default: Any = None) -> dict[Any, Any]:
    return {}


SAFE_CLASSES: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    frozenset,
    # Defaults of a defaultdict.
    dict,
    float,
    int,
    list,
    torch.torch_version.TorchVersion,
    *_mappings(),
    *_paths(),
    *_numpy_classes(),
]
"""For `torch.serialization.safe_globals`."""
