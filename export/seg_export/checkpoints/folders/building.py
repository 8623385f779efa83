"""Networks as a library builds them from a configuration, and none that is far larger than its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules import module

from seg_export.checkpoints.folders.folder import in_short
from seg_runtime.errors import CheckpointError

__all__ = ["building"]

_FEW = 10**8
"""Weights that any network may have: 400 MB."""

_LEAST = 10**4
"""Weights that a tensor counts for at least: small layers take time and memory as well."""

_LARGEST = 10**6
"""Of channels, layers and sides: libraries make lists of so many entries before they make any weights."""


@contextmanager
def building(folder: Path, name: str, arguments: Mapping[str, Any], files: Sequence[Path]) -> Iterator[None]:
    """Have a library build a network, with its errors as one line.

    A network that gets more weights than its files have bytes is refused before they take memory: each takes
    a byte at least, and what a file may lack, such as a head that serves training alone, is a small part.

    Args:
        folder: with the network, for messages.
        name: of its class.
        arguments: plain values that it is built from.
        files: of its weights; those that are missing hold nothing.

    Raises:
        CheckpointError: it cannot be built, or is too large.
    """
    _check_numbers(arguments, folder)
    try:
        with _no_larger_than(files, folder):
            yield
    except CheckpointError:
        raise
    except Exception as error:
        # Values of a file that nobody checked can make the library raise anything.
        raise CheckpointError(f"'{folder}' is a {name} that cannot be built: {in_short(error)}") from error


@contextmanager
def _no_larger_than(files: Sequence[Path], folder: Path) -> Iterator[None]:
    held = sum(path.stat().st_size for path in files if path.is_file())
    most = max(held, _FEW)
    left = most

    def count(owner: torch.nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        nonlocal left
        left -= 0 if tensor is None else max(tensor.numel(), _LEAST)
        if left < 0:
            raise CheckpointError(
                f"'{folder}' describes a network of more than {most:,} weights and holds {held / 1e6:.1f} MB "
                "of them: give it the configuration that they were saved with"
            )

    hooks = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_numbers(arguments: Mapping[str, Any], folder: Path) -> None:
    """Refuse a number that no size of a network can be. Raises CheckpointError."""
    for name, value in arguments.items():
        largest = max(_numbers(value), default=0)
        if largest > _LARGEST:
            raise CheckpointError(f"'{folder}' has {largest} for {name}, expected {_LARGEST} at most")


def _numbers(value: Any) -> Iterator[int]:
    """All whole numbers in a value."""
    if isinstance(value, int):
        yield value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _numbers(part)
