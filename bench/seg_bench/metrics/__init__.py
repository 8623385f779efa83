"""Segmentation metrics in NumPy and OpenCV; `seg_bench.metrics.torch_metrics` has them for training."""

from seg_bench.metrics.classes import (
    ClassResult,
    ClassScore,
    class_confusion,
    class_distances,
    class_scores,
    pooled_mean_iou,
)
from seg_bench.metrics.overlap import dice_score, iou_score, mean_iou
from seg_bench.metrics.summary import MetricSummary, summarize, worst_decile
from seg_bench.metrics.surface import (
    HD95_DEFINITIONS,
    Hd95Definition,
    SurfaceMetrics,
    average_surface_distance,
    hausdorff_95,
    hausdorff_distance,
    surface_metrics,
)

__all__ = [
    "HD95_DEFINITIONS",
    "ClassResult",
    "ClassScore",
    "Hd95Definition",
    "MetricSummary",
    "SurfaceMetrics",
    "average_surface_distance",
    "class_confusion",
    "class_distances",
    "class_scores",
    "dice_score",
    "hausdorff_95",
    "hausdorff_distance",
    "iou_score",
    "mean_iou",
    "pooled_mean_iou",
    "summarize",
    "surface_metrics",
    "worst_decile",
]
