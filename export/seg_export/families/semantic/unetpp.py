"""U-Net++ (Zhou et al., 2018 and 2020): a U-Net whose skip connections are dense blocks of their own.

The tensors are named as in the widespread PyTorch version (github.com/4uiiurz1/pytorch-nested-unet),
whose weights load: `conv{level}_{step}.conv1`, `.bn1`, ..., and `final`, or `final1`..`final4` with
deep supervision. The paper's own code (Keras) upsamples with transposed convolutions, which
`bilinear=False` builds, named `up{level}_{step}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from seg_export.families.semantic.unet import padded_to
from seg_runtime.errors import BadInputError

__all__ = ["NestedBlock", "UNetPlusPlus", "pruned_unetpp", "unetpp_arguments"]


class NestedBlock(nn.Module):
    """Conv-BN-ReLU twice, 3x3 with padding 1: keeps height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        out: torch.Tensor = self.relu(self.bn2(self.conv2(x)))
        return out


class UNetPlusPlus(nn.Module):
    """U-Net++ for binary or multi-class segmentation, of any number of levels.

    Node (i, j) is at resolution 1 / 2 ** i. Column 0 is the encoder; node (i, j) takes all nodes
    (i, 0) to (i, j - 1) and the upsampled (i + 1, j - 1). Node (0, d) depends on nodes with
    i + j <= d alone: it ends a U-Net++ of depth d, and with deep supervision a head of its own makes
    it segment. That is what `pruned_unetpp` cuts out.

    Args:
        in_channels: 1 (gray) or 3 (RGB).
        num_classes: output channels; 1 for a binary mask.
        bilinear: bilinear upsampling (9.16M parameters with the default features) instead of
            transposed convolutions (9.04M, as the paper counts).
        features: channels per level, from full resolution down; at least two.
        deep_supervision: one 1x1 head per depth instead of the deepest one alone.

    Raises:
        BadInputError: a channel count that cannot be built.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 1,
        bilinear: bool = True,
        features: Sequence[int] = (32, 64, 128, 256, 512),
        deep_supervision: bool = True,
    ) -> None:
        super().__init__()
        _check(in_channels, num_classes, features)
        self.depth = len(features) - 1
        self.bilinear = bilinear
        self.deep_supervision = deep_supervision
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        for level, width in enumerate(features):
            taken = features[level - 1] if level else in_channels
            self.add_module(f"conv{level}_0", NestedBlock(taken, width))
        for step in range(1, self.depth + 1):
            for level in range(self.depth - step + 1):
                self._add_node(level, step, features[level], features[level + 1])
        for name in self._head_names():
            self.add_module(name, nn.Conv2d(features[0], num_classes, kernel_size=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Segment a batch.

        Args:
            x: (N, in_channels, H, W) float32, normalised; H and W at least 2 ** depth.

        Returns:
            (N, num_classes, H, W) logits of the deepest head, which is the paper's "fast mode"; with
            deep supervision in training mode a list of every head's, from depth 1 on.
        """
        row = self._first_row(x)
        if self.training and self.deep_supervision:
            return [self.get_submodule(f"final{step}")(row[step]) for step in range(1, self.depth + 1)]
        logits: torch.Tensor = self.get_submodule(self._head_names()[-1])(row[self.depth])
        return logits

    def _first_row(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The nodes (0, 0) to (0, depth), all at full resolution."""
        rows: list[list[torch.Tensor]] = []
        for level in range(self.depth + 1):
            x = self.get_submodule(f"conv{level}_0")(self.pool(x) if level else x)
            rows.append([x])
            # Each encoder node completes one diagonal of the triangle, from the bottom up.
            for above in range(level - 1, -1, -1):
                rows[above].append(self._node(above, level - above, rows[above], rows[above + 1][-1]))
        return rows[0]

    def _node(self, level: int, step: int, skips: list[torch.Tensor], below: torch.Tensor) -> torch.Tensor:
        up = self.up if self.bilinear else self.get_submodule(f"up{level}_{step}")
        joined = torch.cat([*skips, padded_to(up(below), skips[0])], dim=1)
        out: torch.Tensor = self.get_submodule(f"conv{level}_{step}")(joined)
        return out

    def _add_node(self, level: int, step: int, width: int, width_below: int) -> None:
        if not self.bilinear:
            up = nn.ConvTranspose2d(width_below, width, kernel_size=2, stride=2)
            self.add_module(f"up{level}_{step}", up)
        upsampled = width_below if self.bilinear else width
        self.add_module(f"conv{level}_{step}", NestedBlock(step * width + upsampled, width))

    def _head_names(self) -> list[str]:
        return [f"final{step}" for step in range(1, self.depth + 1)] if self.deep_supervision else ["final"]


def _check(in_channels: int, num_classes: int, features: Sequence[int]) -> None:
    if in_channels < 1 or num_classes < 1:
        raise BadInputError(
            f"U-Net++ got in_channels={in_channels} and num_classes={num_classes}: both must be at least 1"
        )
    if len(features) < 2 or any(count < 1 for count in features):
        raise BadInputError(
            f"U-Net++ got features={list(features)}: expected two or more channel counts above 0, "
            "for example 32,64,128,256,512"
        )


def pruned_unetpp(
    arguments: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor], depth: int
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The nodes, and the one head, that depth `depth` of a deeply supervised U-Net++ needs.

    Args:
        arguments: of the whole `UNetPlusPlus`.
        state_dict: its weights, which are shared, not copied.
        depth: 1 to the whole network's.

    Returns:
        Arguments and weights of a `UNetPlusPlus` without deep supervision, which gives the logits
        that the whole network's head of that depth gives.

    Raises:
        BadInputError: a depth that there is not, or a network that has no heads but the deepest.
    """
    whole = UNetPlusPlus.__init__.__defaults__ or ()
    features = list(arguments.get("features", whole[3]))
    if not 1 <= depth < len(features):
        raise BadInputError(f"depth {depth}: this U-Net++ has the depths 1 to {len(features) - 1}")
    if not arguments.get("deep_supervision", True):
        raise BadInputError(
            f"depth {depth}: this U-Net++ was built without deep supervision and has no head there; "
            "train one with deep supervision to prune it"
        )
    with torch.device("meta"):
        cut = {**arguments, "features": features[: depth + 1], "deep_supervision": False}
        wanted = UNetPlusPlus(**cut).state_dict()
    head = f"final{depth}."
    return cut, {name: state_dict[name.replace("final.", head)] for name in wanted}


def unetpp_arguments(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any] | None:
    """Read the constructor's arguments off the tensor names and shapes of a plain state dict.

    Returns:
        Keyword arguments of `UNetPlusPlus`, or None when the tensors are not those of a U-Net++.
    """
    first = state_dict.get("conv0_0.conv1.weight")
    deep = "final1.weight" in state_dict
    last = state_dict.get("final1.weight" if deep else "final.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 4:
        return None
    features: list[int] = []
    while (weight := state_dict.get(f"conv{len(features)}_0.conv2.weight")) is not None:
        features.append(int(weight.shape[0]))
    if len(features) < 2:
        return None
    return {
        "in_channels": int(first.shape[1]),
        "num_classes": int(last.shape[0]),
        "bilinear": "up0_1.weight" not in state_dict,
        "features": features,
        "deep_supervision": deep,
    }
