"""Norms over the maps of an image, written so that no runtime sums a whole map in one go.

PyTorch exports instance and group norms as InstanceNormalization, for which ONNX Runtime adds up a map's
values one after the other in float32. On a flat map of 512x512 the mean is off by a share of 4e-4, and
divided by next to nothing that becomes up to 0.3 where it should be 0.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["RowwiseNorm", "with_rowwise_norms"]


class RowwiseNorm(nn.Module):
    """An instance or group norm whose means are taken of rows first, and then of these.

    Args:
        norm: what it is made of; the weights are shared.
    """

    def __init__(self, norm: nn.InstanceNorm2d | nn.GroupNorm) -> None:
        super().__init__()
        self.groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else norm.num_features
        self.eps = norm.eps
        self.weight: nn.Parameter | None = norm.weight
        self.bias: nn.Parameter | None = norm.bias

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to the same shape."""
        split = (maps.shape[0], self.groups, -1, *maps.shape[2:])
        grouped = maps.reshape(split) if self.groups < maps.shape[1] else maps
        centred = grouped - _mean(grouped)
        normed = (centred / (_mean(centred.pow(2)) + self.eps).sqrt()).reshape(maps.shape)
        shape = (-1, *[1] * (maps.ndim - 2))
        if self.weight is not None:
            normed = normed * self.weight.reshape(shape)
        return normed if self.bias is None else normed + self.bias.reshape(shape)


def with_rowwise_norms(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode with such norms in place of PyTorch's; its weights are shared.

    Example:
        >>> with_rowwise_norms(nn.Sequential(nn.InstanceNorm2d(2)))
        Sequential(
          (0): RowwiseNorm()
        )
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    copied = copy.deepcopy(network, shared)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            # A subclass may do more in its own forward.
            if type(child) is nn.GroupNorm or (
                type(child) is nn.InstanceNorm2d and not child.track_running_stats
            ):
                setattr(parent, name, RowwiseNorm(child))
    return copied


def _mean(grouped: torch.Tensor) -> torch.Tensor:
    """Of (N, groups, ...) over all but the first two axes, the last first."""
    for axis in reversed(range(2, grouped.ndim)):
        grouped = grouped.mean(axis, keepdim=True)
    return grouped
