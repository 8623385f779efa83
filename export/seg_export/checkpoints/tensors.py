"""The tensors of a file of weights: their type, and a refusal of those that nothing can compute with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.file_limits import check_tensor_bytes
from seg_runtime.errors import CheckpointError

__all__ = ["cast", "check_finite", "float32"]


def float32(state_dict: Any, path: Path) -> dict[str, torch.Tensor]:
    """A state dict with its floating point tensors as float32.

    Args:
        state_dict: what is expected to be one.
        path: the file it is from, for messages.

    Raises:
        CheckpointError: no dict of tensors, tensors that are sparse, quantised or have no values, or
            that repeat the few values of their file.
    """
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise CheckpointError(f"checkpoint {path} holds no weights: expected a dict of tensors")
    for name, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(f"checkpoint {path}: '{name}' is no tensor; expected a dict of tensors")
        if value.is_quantized or value.is_meta or value.layout != torch.strided:
            kind = "quantised" if value.is_quantized else "without values" if value.is_meta else "sparse"
            raise CheckpointError(
                f"checkpoint {path}: tensor '{name}' is {kind}; save the dense float tensors"
            )
    check_tensor_bytes(4 * sum(tensor.numel() for tensor in state_dict.values()), path)
    return {str(name): cast(tensor.detach(), torch.float32) for name, tensor in state_dict.items()}


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A floating point tensor of another type; any other as it is."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def check_finite(state_dict: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise CheckpointError for a tensor with values that are not finite, which it names."""
    for name, tensor in state_dict.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"checkpoint {path}: tensor '{name}' has NaN or infinite values; use an earlier checkpoint"
            )
