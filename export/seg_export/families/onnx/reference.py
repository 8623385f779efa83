"""What a graph should answer: the original in ONNX Runtime, everything around it in NumPy and OpenCV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_export.families.onnx.interface import Interface
from seg_export.families.onnx.read import OriginalGraph
from seg_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Preprocessing

__all__ = ["Reference"]

_SLACK = 1e-3
"""How far probabilities may be outside of 0..1, for rounding."""


@dataclass(frozen=True)
class Reference:
    """Runs the original, one image after the other, so that a graph that mixes its batch is found.

    Attributes:
        original: the graph.
        interface: what it takes and gives.
        preprocessing: of its input.
    """

    original: OriginalGraph
    interface: Interface
    preprocessing: Preprocessing

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities.

        Args:
            images: (N, H, W, C) uint8, RGB or gray.

        Returns:
            (N, classes, H, W) float32.

        Raises:
            CheckpointError: they are no probabilities, and no activation was chosen.
            ParityError: the original does not run.
        """
        return np.stack([self._probabilities(image) for image in images])

    def _probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = self.interface
        raw = self.original.run({found.image.name: self._prepared(image)[None]})[found.output][0].astype(
            np.float32
        )
        if found.output_layout == "nhwc":
            raw = np.ascontiguousarray(raw.transpose(2, 0, 1))
        if found.output_hw != found.image.size_hw:
            height, width = found.image.size_hw
            raw = np.stack(
                [cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in raw]
            )
        return self._activated(raw.astype(np.float64)).astype(np.float32)

    def _prepared(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """(C, H, W) or (H, W, C), as the original takes it."""
        values: NDArray[Any] = image[..., ::-1] if self.preprocessing.channel_order == "bgr" else image
        if not self.interface.image.takes_pixels:
            scaled = values.astype(np.float64) / self.preprocessing.scale
            values = (scaled - self.preprocessing.mean) / self.preprocessing.std
        if self.interface.image.layout == "nchw":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values, self.interface.image.element)

    def _activated(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.interface.activation == "sigmoid":
            return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))
        if self.interface.activation == "softmax":
            powers = np.exp(logits - logits.max(axis=0))
            return np.asarray(powers / powers.sum(axis=0))
        if logits.min() < -_SLACK or logits.max() > 1 + _SLACK:
            raise CheckpointError(
                f"output '{self.interface.output}' of {self.original.path} has values from "
                f"{logits.min():.3g} to "
                f"{logits.max():.3g}, which are no probabilities: pass --activation sigmoid or softmax"
            )
        return logits
