"""Dense conditional random field: probabilities are pulled towards the edges of the image.

Mean-field inference with a smoothness and an appearance kernel and Potts compatibility (Krähenbühl
and Koltun 2011, "Efficient inference in fully connected CRFs with Gaussian edge potentials"). As in
the authors' own code, both kernels are normalised symmetrically, so that weights do not depend on
sigmas, and a pixel's own probability takes part. The appearance kernel is filtered in a bilateral
grid (Chen, Paris and Durand 2007) of y, x and intensity in place of the permutohedral lattice.

The Python packages of the authors' code (pydensecrf and its forks) are source-only and without a
release since 2024, hence this small one; tests hold it against brute force.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError

__all__ = ["CrfSpec", "refine"]

# Surer probabilities than this would never yield to their neighbours.
_SMALLEST_PROBABILITY = 1e-5
# Grid cells per sigma: at 3 the messages are within about 1 % of the exact kernel's.
_CELLS_PER_SIGMA = 3.0
_MAX_CELLS = 40_000_000

Array = NDArray[np.float32]


@dataclass(frozen=True)
class CrfSpec:
    """Parameters of the dense CRF.

    The defaults are mild. Where edges are weak, as around lungs in X-rays, a CRF mends poor masks but
    costs good ones some accuracy: measure before you use it.

    Attributes:
        iterations: mean-field updates.
        spatial_sigma_px: reach of the smoothness kernel, in pixels of the image.
        spatial_weight: its weight; removes small isolated regions.
        bilateral_sigma_px: reach of the appearance kernel, in pixels.
        intensity_sigma: gray levels (of 255) that count as alike in the appearance kernel.
        bilateral_weight: its weight; moves boundaries to the edges of the image.

    Raises:
        BadInputError: a sigma or the iterations are not positive, or a weight is negative.
    """

    iterations: int = 5
    spatial_sigma_px: float = 3.0
    spatial_weight: float = 3.0
    bilateral_sigma_px: float = 20.0
    intensity_sigma: float = 13.0
    bilateral_weight: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            weight = field.name.endswith("_weight")
            if not np.isfinite(value) or value < 0 or (value == 0 and not weight):
                wanted = "0 or more" if weight else "above 0"
                raise BadInputError(f"the CRF's {field.name} must be {wanted}; it is {value}")


def refine(
    probabilities: NDArray[np.float32], image: NDArray[np.uint8], spec: CrfSpec | None = None
) -> NDArray[np.float32]:
    """Refine a model's probabilities along the edges of the image.

    Args:
        probabilities: (C, H, W) float32 in [0, 1]; with one class it is the foreground's, with
            several they sum to 1 over the classes.
        image: (H, W) gray or (H, W, 3) RGB uint8, same size; colours are compared by their gray level.
        spec: parameters; None for the defaults.

    Returns:
        (C, H, W) float32, of the same kind as `probabilities`.

    Raises:
        BadInputError: shapes, types or values that do not fit, or sigmas so small for the image that
            the grid would not fit in memory.
    """
    spec = spec or CrfSpec()
    gray = _checked_gray(probabilities, image)
    binary = probabilities.shape[0] == 1
    classes = np.concatenate([1 - probabilities, probabilities]) if binary else probabilities
    log_unary = np.log(np.clip(classes, _SMALLEST_PROBABILITY, 1.0, dtype=np.float32))
    kernels = []
    if spec.spatial_weight:
        kernels.append((spec.spatial_weight, _Normalised(_SpatialKernel(spec.spatial_sigma_px), gray.shape)))
    if spec.bilateral_weight:
        grid = _BilateralGrid(gray, spec.bilateral_sigma_px, spec.intensity_sigma)
        kernels.append((spec.bilateral_weight, _Normalised(grid, gray.shape)))
    refined = _softmax(log_unary)
    for _ in range(spec.iterations):
        messages = sum((weight * kernel(refined) for weight, kernel in kernels), np.float32(0))
        refined = _softmax(log_unary + messages)
    return refined[1:] if binary else refined


class _SpatialKernel:
    """exp(-d^2 / 2 sigma^2) of the distance between pixels, nothing beyond the image."""

    def __init__(self, sigma_px: float) -> None:
        self._sigma_px = sigma_px

    def __call__(self, values: Array) -> Array:
        # OpenCV divides by the kernel's sum; the symmetric normalisation cancels that.
        blurred = cv2.GaussianBlur(values, (0, 0), self._sigma_px, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(blurred, np.float32)


class _BilateralGrid:
    """exp(-d^2 / 2 sigma_px^2 - di^2 / 2 sigma_intensity^2) for distances d and gray differences di.

    Pixels are spread over the eight cells around (y, x, intensity), the coarse grid is blurred along
    each axis, and pixels read the same eight cells again.
    """

    def __init__(self, gray: NDArray[np.uint8], sigma_px: float, sigma_intensity: float) -> None:
        height, width = gray.shape
        cell_px, cell_intensity = sigma_px / _CELLS_PER_SIGMA, sigma_intensity / _CELLS_PER_SIGMA
        self._y, self._y_rest = _cells(np.arange(height)[:, None], cell_px)
        self._x, self._x_rest = _cells(np.arange(width)[None, :], cell_px)
        self._z, self._z_rest = _cells(gray, cell_intensity)
        self._shape = tuple(int(axis.max()) + 2 for axis in (self._y, self._x, self._z))
        if np.prod(self._shape, dtype=np.float64) > _MAX_CELLS:
            raise BadInputError(
                f"a CRF with bilateral_sigma_px {sigma_px:g} and intensity_sigma {sigma_intensity:g} needs a "
                f"grid of {'x'.join(map(str, self._shape))} cells for this {width}x{height} image: "
                "choose larger sigmas"
            )
        self._blurs = tuple(_blur_matrix(length) for length in self._shape)

    def __call__(self, values: Array) -> Array:
        blur_y, blur_x, blur_z = self._blurs
        cells = np.zeros(self._shape, np.float64).ravel()
        for index, share in self._corners():
            cells += np.bincount(index.ravel(), (share * values).ravel(), cells.size)
        grid = cells.astype(np.float32).reshape(self._shape) @ blur_z
        grid = np.matmul(blur_x, grid)
        cells = (blur_y @ grid.reshape(len(blur_y), -1)).ravel()
        sliced = np.zeros_like(values)
        for index, share in self._corners():
            sliced += share * cells[index]
        return sliced

    def _corners(self) -> Iterator[tuple[NDArray[np.intp], Array]]:
        """For each of the eight cells around a pixel: its index in the flat grid and the pixel's share."""
        _, columns, levels = self._shape
        for dy in (0, 1):
            for dx in (0, 1):
                plane = ((self._y + dy) * columns + self._x + dx) * levels
                share_yx = _share(self._y_rest, dy) * _share(self._x_rest, dx)
                for dz in (0, 1):
                    yield plane + self._z + dz, share_yx * _share(self._z_rest, dz)


class _Normalised:
    """D^-1/2 K D^-1/2 for a kernel K with row sums D, applied to each class."""

    def __init__(self, kernel: _SpatialKernel | _BilateralGrid, shape_hw: tuple[int, ...]) -> None:
        self._kernel = kernel
        ones = np.ones(shape_hw, np.float32)
        self._root = 1.0 / np.sqrt(np.maximum(kernel(ones), np.finfo(np.float32).tiny))
        self._of_ones = self._root * kernel(self._root)

    def __call__(self, classes: Array) -> Array:
        filtered = np.empty_like(classes)
        for values, out in zip(classes[1:], filtered[1:], strict=True):
            out[...] = self._root * self._kernel(self._root * values)
        # The classes sum to 1, so the first one needs no filtering.
        filtered[0] = self._of_ones - filtered[1:].sum(axis=0)
        return filtered


def _cells(values: NDArray[Any], cell: float) -> tuple[NDArray[np.intp], Array]:
    """The cell below each value and how far the value lies towards the next one, 0 to 1."""
    position = values.astype(np.float32) / np.float32(cell)
    below = np.floor(position)
    return below.astype(np.intp), position - below


def _share(rest: Array, upper: int) -> Array:
    return rest if upper else 1 - rest


def _blur_matrix(length: int) -> Array:
    """(length, length) Gaussian; spreading and reading linearly blur too, by 1/6 cell^2 variance each."""
    variance = _CELLS_PER_SIGMA**2 - 1 / 3
    offsets = np.arange(length)[:, None] - np.arange(length)[None, :]
    return np.asarray(np.exp(-(offsets**2) / (2 * variance)), np.float32)


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=0))
    return np.asarray(shifted / shifted.sum(axis=0), np.float32)


def _checked_gray(probabilities: NDArray[Any], image: NDArray[Any]) -> NDArray[np.uint8]:
    """The gray image, once both arrays were found to fit."""
    size_hw = probabilities.shape[1:]
    if probabilities.ndim != 3 or image.shape not in (size_hw, (*size_hw, 3)) or image.dtype != np.uint8:
        raise BadInputError(
            "the CRF wants probabilities (C, H, W) and a uint8 image (H, W) or (H, W, 3) of the same size; "
            f"they are {probabilities.shape} and {image.dtype.name} {image.shape}"
        )
    if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1):
        raise BadInputError("the CRF wants probabilities between 0 and 1: apply sigmoid or softmax first")
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(gray, np.uint8)
