"""The one table of how far a graph may stray from its PyTorch model, per precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

from seg_export.families import family_named
from seg_runtime.spec import ModelSpec

__all__ = ["TOLERANCES", "Tolerance", "tolerance_row", "with_rounding"]


@dataclass(frozen=True)
class Tolerance:
    """A value passes when |graph - torch| <= atol * scale + rtol * |torch|, a mask when its IoU >= mask_iou.

    `scale` is the largest |torch| of the output, or 1 where that is smaller: rounding grows with the
    values, and those of logits and embeddings have no common size.
    """

    rtol: float
    atol: float
    mask_iou: float


# fp32: PyTorch's own probabilities of the lung U-Net are up to 9e-6 from their float64 values on real
# X-rays, and so are ONNX Runtime's; without the relative part, right graphs would fail by chance.
TOLERANCES = {
    "fp32": Tolerance(rtol=1e-5, atol=1e-5, mask_iou=0.9999),
    # Boxes count in units of the image's longer side: 0.04 pixels in 1333. Places on a map that are given as
    # shares of its width carry the rounding of fp32.
    "fp32, detections": Tolerance(rtol=1e-5, atol=3e-5, mask_iou=0.999),
    # Norms over one channel's map divide by next to nothing where an image is flat. PyTorch's own float32
    # probabilities of the lung TransUNet are up to 1.4e-5 from their float64 values on real X-rays and 4.0e-4
    # on black and white ones; ONNX Runtime's 1.3e-5 and 6.5e-4. On one processor the two are 1.1e-3 apart.
    "fp32, norms per channel": Tolerance(rtol=1e-5, atol=2e-3, mask_iou=0.995),
    # A value between two of bfloat16 may round to either: one step is 1/128 of the value.
    "fp32, bfloat16 memories": Tolerance(rtol=2.0**-7, atol=1e-5, mask_iou=0.999),
    # TensorRT multiplies fp32 as TF32 where the GPU can, which has the 10 bits of half precision.
    "fp32, TF32": Tolerance(rtol=1e-2, atol=2e-2, mask_iou=0.995),
    "fp32, fp16 tensors": Tolerance(rtol=1e-3, atol=1e-3, mask_iou=0.995),
    "fp16": Tolerance(rtol=1e-2, atol=2e-2, mask_iou=0.995),
    # Masks decide: where an edge moves by a pixel, a probability changes by up to 1.
    "int8": Tolerance(rtol=0.0, atol=1.0, mask_iou=0.97),
}


def tolerance_row(spec: ModelSpec, in_fp32: str = "") -> str:
    """The row of `TOLERANCES` of a model: by its precision, its family, or what its tensors travel in.

    Args:
        spec: its contract.
        in_fp32: the row of this very model, where its family has several.
    """
    if spec.precision != "fp32":
        return spec.precision
    own = in_fp32 or family_named(spec.family).tolerances.get(spec.task)
    travels_in_half = any(tensor.dtype == "float16" for tensor in (*spec.inputs, *spec.outputs))
    return own or ("fp32, fp16 tensors" if travels_in_half else "fp32")


_MARGIN = 8
"""Times the rounding of a few images: others, and another order of sums, round differently."""

_MOST = 2e-2
"""What fp16 may stray: beyond it, float32 is too coarse for a network."""


def with_rounding(tolerance: Tolerance, rounding: float) -> Tolerance:
    """A tolerance of fp32 for a network whose outputs change by that much with the rounding of its layers.

    Args:
        tolerance: of networks whose rounding is usual.
        rounding: largest difference that was measured.

    Returns:
        The same for a network that rounds less than it allows. A network that amplifies rounding, such as
        one that was never trained, also has pixels between two classes, which may fall to either.

    Example:
        >>> with_rounding(TOLERANCES["fp32"], 2e-4).atol
        0.0016
    """
    if _MARGIN * rounding <= tolerance.atol:
        return tolerance
    return replace(tolerance, atol=min(_MARGIN * rounding, _MOST), mask_iou=min(tolerance.mask_iou, 0.999))
