"""GELU in the order of operations that ONNX Runtime recognises and runs as one."""

from __future__ import annotations

import math

import torch

__all__ = ["gelu"]


def gelu(values: torch.Tensor) -> torch.Tensor:
    """`torch.nn.functional.gelu`, which opset 18 has no operator for.

    The exporter's own five operators come in an order that ONNX Runtime does not fuse, and each is
    a pass over the largest tensors of a transformer.
    """
    return values * (1 + torch.erf(values / math.sqrt(2))) * 0.5
