"""Low-resolution logits to masks in the frame of the image, equal to `Sam.postprocess_masks`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MaskFrame"]


@dataclass(frozen=True)
class MaskFrame:
    """Where the masks of one image go: three frames and the way between them.

    Attributes:
        model_side: S, side of the square frame of the encoder, 1024 for SAM.
        input_size_hw: (height, width) that the image has inside that frame, at its top left.
        original_size_hw: (height, width) of the image itself.
    """

    model_side: int
    input_size_hw: tuple[int, int]
    original_size_hw: tuple[int, int]

    def upscale(self, low_res: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate the logits of one mask to the image, twice linearly, as the original does.

        OpenCV's INTER_LINEAR samples as torch's `interpolate(mode="bilinear", align_corners=False)`
        does, growing and shrinking, without antialiasing; the values differ by rounding only.

        Args:
            low_res: (S/4, S/4) float32 logits of the decoder.

        Returns:
            (H, W) float32 logits in the frame of the original image.
        """
        import cv2

        side, factor = low_res.shape[0], self.model_side // low_res.shape[0]
        height, width = self.input_size_hw
        # What lies below and right of the image is cut away unseen. One row and column more than are
        # kept, so that the kept ones are interpolated between the same neighbours.
        rows, columns = (min(side, -(-length // factor) + 1) for length in (height, width))
        part = np.ascontiguousarray(low_res[:rows, :columns])
        square = cv2.resize(part, (columns * factor, rows * factor), interpolation=cv2.INTER_LINEAR)
        valid = square[:height, :width]
        original_height, original_width = self.original_size_hw
        if (height, width) != (original_height, original_width):
            valid = cv2.resize(valid, (original_width, original_height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(valid, dtype=np.float32)

    def upscale_above(
        self, low_res: NDArray[np.float32], level: float
    ) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """As `upscale`, cut to a rectangle outside which no logit is above a level.

        An interpolated logit is above it only if one of those it is made of is. Masks are small, so
        most of the image need not be looked at.

        Args:
            low_res: (S/4, S/4) float32 logits of the decoder.
            level: of the logits.

        Returns:
            (h, w) float32 logits, empty where none is above, and the rectangle's top left (x, y).
        """
        above = low_res > np.float32(level)
        parts = []
        for axis, kept, length in zip((1, 0), self.input_size_hw, self.original_size_hw, strict=True):
            lines = np.flatnonzero(above.any(axis=axis))
            if not lines.size:
                return np.empty((0, 0), np.float32), (0, 0)
            # Two lines more on either side: each interpolation reaches less than one line far.
            per_line = self.model_side / low_res.shape[0] * length / kept
            start = int((lines[0] - 2) * per_line) - 1
            stop = int((lines[-1] + 3) * per_line) + 2
            parts.append(slice(*np.clip([start, stop], 0, length).tolist()))
        return self.upscale(low_res)[parts[0], parts[1]], (parts[1].start, parts[0].start)

    def logits(self, low_res: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., S/4, S/4) float32 logits of the decoder to (..., H, W) float32 logits of the image."""
        framed = np.empty((*low_res.shape[:-2], *self.original_size_hw), dtype=np.float32)
        for index in np.ndindex(low_res.shape[:-2]):
            framed[index] = self.upscale(low_res[index])
        return framed

    def masks(self, low_res: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
        """(..., S/4, S/4) float32 logits of the decoder to (..., H, W) bool: logits above `threshold`.

        One mask is interpolated at a time, so the logits of the whole image never exist at once.
        """
        masks = np.empty((*low_res.shape[:-2], *self.original_size_hw), dtype=np.bool_)
        for index in np.ndindex(low_res.shape[:-2]):
            target: NDArray[Any] = masks[index]
            np.greater(self.upscale(low_res[index]), np.float32(threshold), out=target)
        return masks
