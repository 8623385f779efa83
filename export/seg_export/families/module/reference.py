"""A user's own module between normalisation and activation as its author would write them."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import nn

from seg_export.checkpoints.types import Preprocessing

__all__ = ["ModuleReference"]


class ModuleReference(nn.Module):
    """What the graph of a module is verified against.

    Args:
        network: the user's own, in eval mode.
        preprocessing: what it expects of its input.
        output: name of the output that counts, or its index in a tuple or list; "" for a tensor alone.
        activation: "sigmoid", "softmax" or "none".
    """

    def __init__(
        self, network: nn.Module, preprocessing: Preprocessing, output: str, activation: str
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.output = output
        self.activation = activation

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) uint8 to (N, num_classes, H, W) float32 probabilities."""
        prepared = self.preprocessing
        pixels = image.double() / prepared.scale
        if prepared.channel_order == "bgr":
            pixels = pixels[..., [2, 1, 0]]
        mean, std = (torch.tensor(each, dtype=torch.float64) for each in (prepared.mean, prepared.std))
        normalised = ((pixels - mean) / std).permute(0, 3, 1, 2).float()
        # One channel would count as channels-last, where PyTorch's GroupNorm is off by 4e-2 on flat maps.
        normalised = normalised.clone(memory_format=torch.contiguous_format)
        # What a module prints would stand before the JSON on stdout.
        with redirect_stdout(sys.stderr):
            result: Any = self.network(normalised)
        if self.output:
            result = result[int(self.output)] if isinstance(result, list | tuple) else result[self.output]
        logits = nn.Upsample(tuple(image.shape[1:3]), mode="bilinear")(result)
        probabilities: torch.Tensor = {
            "sigmoid": nn.Sigmoid(),
            "softmax": nn.Softmax(dim=1),
            "none": nn.Identity(),
        }[self.activation](logits)
        return probabilities
