"""Between an image's own frame and the square frame of SAM's encoder, exactly as segment_anything does it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_runtime.errors import BadImageError

__all__ = ["ResizeLongestSide"]


class ResizeLongestSide:
    """Scales images so that their longest side has `target_length` pixels, and coordinates with them.

    The counterpart of `segment_anything.utils.transforms.ResizeLongestSide` without torch: the same
    Pillow resampling, so the same bytes.
    """

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize an image with antialiasing (Pillow's BILINEAR).

        Args:
            image: (H, W, 3) uint8.

        Returns:
            (h, w, 3) uint8 with max(h, w) = `target_length`; the image itself when it has this size.

        Raises:
            BadImageError: the image is so narrow that nothing would be left of its short side.
        """
        from PIL import Image

        height, width = image.shape[:2]
        new_height, new_width = self.get_preprocess_shape(height, width, self.target_length)
        if min(new_height, new_width) < 1:
            raise BadImageError(
                f"an image of {width}x{height} pixels scaled to {self.target_length} on its longest side "
                "loses its short side: crop it into wider pieces"
            )
        if (new_height, new_width) == (height, width):
            return image
        resized = Image.fromarray(np.ascontiguousarray(image)).resize(
            (new_width, new_height), Image.Resampling.BILINEAR
        )
        return np.asarray(resized, dtype=np.uint8)

    def apply_coords(self, coords: ArrayLike, original_size: tuple[int, ...]) -> NDArray[np.float64]:
        """Scale coordinates.

        Args:
            coords: (..., 2), (x, y) in pixels of the original image.
            original_size: its (height, width).

        Returns:
            (..., 2) float64, (x, y) in pixels of the resized image.
        """
        old_height, old_width = original_size
        new_height, new_width = self.get_preprocess_shape(old_height, old_width, self.target_length)
        scale_xy = np.array([new_width / old_width, new_height / old_height])
        return np.asarray(np.asarray(coords, dtype=np.float64) * scale_xy)

    def apply_boxes(self, boxes: ArrayLike, original_size: tuple[int, ...]) -> NDArray[np.float64]:
        """Scale boxes (B, 4), x0 y0 x1 y1 in pixels of an original image of (height, width); float64."""
        corners: NDArray[Any] = np.asarray(boxes).reshape(-1, 2, 2)
        return self.apply_coords(corners, original_size).reshape(-1, 4)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """(height, width) of an image of `oldh` x `oldw` pixels after resizing, rounded half up."""
        scale = long_side_length * 1.0 / max(oldh, oldw)
        return int(oldh * scale + 0.5), int(oldw * scale + 0.5)
