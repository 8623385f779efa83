"""Checkpoints that lie about what they hold, hold what they should not, or are packed wrongly."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import nn

from microbench.checkpoint_files import SOURCES, contents, honest, written
from microbench.damage import MARKER, damaged

__all__ = ["malformed"]

_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 10**6, 2**63, 0.5, 1e300, float("nan"), "", "unet", "²", b"bytes", [], [0],
    [-1, -1], [100_000, 100_000], [10_000, 10_000], ["a"], [[1]],
    {}, {"a": 1}, {1: 2}, torch.zeros(2), "x" * 10**6,
)  # fmt: skip


def malformed(source: str, seed: int) -> bytes:
    """The file of a key of `SOURCES`, its contents, packing or bytes damaged by this seed."""
    rng, row = Random(f"checkpoint {source} {seed}"), SOURCES[source]
    if row.suffix == ".safetensors":
        changes = [_bytes, _header, _tensor]
    elif "format" in contents(source):
        changes = [_field, _tensor, _bytes, _field, _pickled, _packed]
    else:
        changes = [_tensor, _bytes, _pickled, _packed]
    return changes[seed % len(changes)](source, seed, rng)


def _bytes(source: str, seed: int, rng: Random) -> bytes:
    return damaged(honest(source), (), rng.randrange(1000), source)


def _field(source: str, seed: int, rng: Random) -> bytes:
    """One field with a value of another type or range."""
    document = contents(source)
    fields = rng.choice([document, document["preprocessing"], document["arguments"]])
    fields[rng.choice(sorted(fields))] = rng.choice(_VALUES)
    return written(document)


def _tensor(source: str, seed: int, rng: Random) -> bytes:
    """One tensor of another type, shape, kind or value, or without its name."""
    row, document = SOURCES[source], contents(source)
    weights = document.get("state_dict", document)
    name = rng.choice([name for name, each in weights.items() if each.ndim > 1])
    changes = _DENSE if row.suffix == ".safetensors" else (*_DENSE, *_OTHER)
    changed = rng.choice(changes)(weights.pop(name))
    weights[rng.choice((name, name, name, f"module.{name}", "x" * 10_000, ""))] = changed
    return written(document, row.suffix)


def _with_nan(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[0] = float("nan")
    return tensor


def _quantised(tensor: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Such tensors are deprecated, and still in files.
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


_DENSE: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    _with_nan,
    lambda tensor: tensor / 0,
    lambda tensor: tensor * 1e37,
    lambda tensor: tensor.to(torch.int8),
    lambda tensor: tensor.to(torch.bool),
    lambda tensor: tensor.to(torch.float64),
    lambda tensor: tensor.to(torch.bfloat16),
    lambda tensor: tensor.to(torch.float8_e5m2),
    lambda tensor: tensor.flatten(),
    lambda tensor: tensor[None].clone(),
    lambda tensor: tensor[:0].clone(),
    lambda tensor: tensor.transpose(0, 1).contiguous(),
)
_OTHER: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda tensor: tensor.to_sparse(),
    lambda tensor: tensor.to("meta"),
    _quantised,
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor.flatten()[:1].expand(100_000, 100_000),
    lambda tensor: tensor.flatten()[:1].expand(2**40),
    nn.Parameter,
    lambda tensor: tensor.tolist(),
    lambda tensor: {"a": tensor, "b": [tensor] * 3},
)


class _Runs:
    """Its pickle runs a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def _pickled(source: str, seed: int, rng: Random) -> bytes:
    """Pickles that would run code, nest without end, or are none of `torch.save`'s."""
    runs = rng.choice(
        (
            _Runs(os.system, f"touch {MARKER}"),
            _Runs(eval, f"open('{MARKER}', 'w')"),
            _Runs(exec, f"open('{MARKER}', 'w')"),
        )
    )
    deep: Any = {}
    for _ in range(100):
        deep = {"model": [deep]}
    document = contents(source)
    choices: tuple[Any, ...] = (
        document | {"optimizer": runs}, document | {"arguments": runs}, [runs], nn.Conv2d(1, 1, 3), deep, (),
        {"state_dict": {}}, {"model": document, "ema": document}, [document] * 3,
    )  # fmt: skip
    content = rng.choice(choices)
    if rng.random() < 0.3:
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=False)
        return file.getvalue()
    return pickle.dumps(runs, rng.choice((0, 2, 4))) if rng.random() < 0.2 else written(content)


def _packed(source: str, seed: int, rng: Random) -> bytes:
    """An entry of the archive is missing, empty, another's, cut off, or there twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(honest(source))) as archive, zipfile.ZipFile(file, "w") as out:
        names = archive.namelist()
        chosen, change = rng.choice(names), rng.randrange(6)
        for name in names:
            content = archive.read(name)
            if name != chosen:
                out.writestr(name, content)
            elif change == 1:
                out.writestr(name, b"")
            elif change == 2:
                out.writestr(name, content[: len(content) // 2])
            elif change == 3:
                out.writestr(name, content * 2, compress_type=zipfile.ZIP_DEFLATED)
            elif change == 4:
                out.writestr(f"../{name}", content)
            elif change == 5:
                out.writestr(name, damaged(content or b"0", (), seed, name))
    return file.getvalue()


def _header(source: str, seed: int, rng: Random) -> bytes:
    """A safetensors header that lies about lengths, types, shapes and places."""
    whole = honest(source)
    (length,) = struct.unpack_from("<Q", whole)
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    key, value = rng.choice(
        (
            ("dtype", "F128"), ("dtype", "F8_E4M3"), ("dtype", 7), ("shape", [2**40, 2**40]), ("shape", [-1]),
            ("shape", []), ("shape", "4"), ("data_offsets", [0, 2**63]), ("data_offsets", [8, 0]),
            ("data_offsets", [0, 4]), ("data_offsets", None), ("x" * 10_000, 1),
        )
    )  # fmt: skip
    entry[key] = value
    text = json.dumps(header).encode()
    text = rng.choice((text, text, text, b"[" * 100_000, text[:-1], b"{}", text + b" " * 1000))
    lied = rng.choice((len(text), len(text), len(text), 0, 2**32, 2**63, len(text) + 8))
    return struct.pack("<Q", lied) + text + data
