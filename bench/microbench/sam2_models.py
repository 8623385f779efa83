"""A SAM2 with random weights in a repository of its own, and a video for it, both made on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.video import FrameSource

__all__ = ["CHECKPOINT", "MODEL", "SMALL", "MovingShapes", "publish_random"]

MODEL = "sam2"
CHECKPOINT = "weights.pth"

SMALL: dict[str, Any] = {
    "embed_dim": 16,
    "num_heads": 1,
    "stages": [1, 1, 2, 1],
    "global_att_blocks": [3],
    "window_pos_embed_bkg_spatial_size": [7, 7],
    "image_size": 256,
    "memory_layers": 2,
}
"""Arguments of `build_sam2`: an image of 256 pixels, a sixteenth of the work of tiny and less."""


def publish_random(arguments: Mapping[str, Any], folder: Path) -> None:
    """Write `weights.pth`, and its five verified graphs into `repo`.

    Args:
        arguments: of `seg_export.families.sam2.network.build_sam2`.
        folder: exists.

    Raises:
        ParityError: a graph strays from sam2.
        MissingExtraError: sam2 is not installed.
    """
    from seg_bench.random_sam2 import random_sam2_that_finds
    from seg_export.checkpoints.checkpoint import load_checkpoint, write_checkpoint
    from seg_export.export import export_models

    write_checkpoint(folder / CHECKPOINT, random_sam2_that_finds(arguments))
    export_models(load_checkpoint(folder / CHECKPOINT), folder / "repo", MODEL)


class MovingShapes(FrameSource):
    """A disc and a square that go back and forth over a textured ground, drawn when asked for.

    Args:
        count: of frames.
        size_hw: (height, width) in pixels, at least 64.
    """

    def __init__(self, count: int, size_hw: tuple[int, int] = (480, 640)) -> None:
        super().__init__()
        self.name, self.frame_count, self.size_hw, self.fps = "moving shapes", count, size_hw, 24.0
        y, x = np.mgrid[: size_hw[0], : size_hw[1]]
        ground = 90 + 50 * np.sin(x / 9) * np.cos(y / 7)
        self._ground = np.repeat(ground[..., None], 3, axis=2).astype(np.uint8)

    def disc(self, index: int) -> tuple[int, int, int]:
        """(x, y) of its centre and its radius, in pixels."""
        height, width = self.size_hw
        radius = height // 6
        at = 0.5 - 0.5 * np.cos(index / 25)
        return int(radius + at * (width - 2 * radius)), height // 2, radius

    def close(self) -> None:
        """Nothing to give back."""

    def _read(self, index: int) -> NDArray[np.uint8]:
        import cv2

        frame = self._ground.copy()
        x, y, radius = self.disc(index)
        cv2.circle(frame, (x, y), radius, (220, 40, 30), -1)
        left, top = self.size_hw[1] - x - radius, self.size_hw[0] // 8
        cv2.rectangle(frame, (left, top), (left + radius, top + radius), (30, 200, 60), -1)
        return frame
