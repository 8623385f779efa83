"""Dice, IoU and mean IoU of torch tensors for training, on the tensor's own device.

The same definitions as `seg_bench.metrics.overlap`; areas are counted as integers, so large batches
lose nothing to float32.
"""

from __future__ import annotations

import torch

from seg_runtime.errors import BadInputError

__all__ = ["dice_score", "iou_score", "mean_iou"]


def dice_score(
    pred: torch.Tensor, target: torch.Tensor, threshold: float = 0.5, smooth: float = 1.0
) -> float:
    """Dice coefficient over all pixels of the batch together, not differentiable.

    Args:
        pred: mask or probabilities in [0, 1], any shape; a value >= `threshold` is foreground.
        target: mask of the same shape; a value other than 0 is foreground.
        threshold: the probability at which foreground begins.
        smooth: keeps the quotient defined for empty masks.

    Raises:
        BadInputError: the shapes differ.
    """
    both, pred_area, target_area = _areas(pred, target, threshold)
    total = pred_area + target_area + smooth
    return (2.0 * both + smooth) / total if total else 1.0


def iou_score(pred: torch.Tensor, target: torch.Tensor, threshold: float = 0.5) -> float:
    """Intersection over union; 1 when both masks are empty. Arguments and errors as `dice_score`."""
    both, pred_area, target_area = _areas(pred, target, threshold)
    union = pred_area + target_area - both
    return both / union if union else 1.0


def mean_iou(
    pred_logits: torch.Tensor, targets: torch.Tensor, num_classes: int, ignore_index: int = 255
) -> float:
    """Mean IoU over the classes that occur; the prediction is the class with the largest logit.

    Args:
        pred_logits: (B, C, H, W) logits or probabilities.
        targets: (B, H, W) integer classes, 0 to num_classes - 1.
        num_classes: how many classes there are.
        ignore_index: pixels with this target are left out.

    Returns:
        The mean; 0 when no class occurs at all, as in the article.

    Raises:
        BadInputError: the shapes do not fit.
    """
    if pred_logits.ndim != 4 or targets.shape != pred_logits.shape[:1] + pred_logits.shape[2:]:
        raise BadInputError(
            "mean_iou wants logits (B, C, H, W) and targets (B, H, W); "
            f"they are {tuple(pred_logits.shape)} and {tuple(targets.shape)}"
        )
    valid = targets != ignore_index
    pred, target = pred_logits.argmax(dim=1)[valid], targets[valid]
    both = _class_counts(pred[pred == target], num_classes)
    union = _class_counts(pred, num_classes) + _class_counts(target, num_classes) - both
    present = union > 0
    return float((both[present].double() / union[present]).mean()) if present.any() else 0.0


@torch.no_grad()
def _areas(pred: torch.Tensor, target: torch.Tensor, threshold: float) -> tuple[int, int, int]:
    """Pixels in both, in the prediction and in the target."""
    if pred.shape != target.shape:
        raise BadInputError(
            "prediction and target must have one shape; "
            f"they are {tuple(pred.shape)} and {tuple(target.shape)}"
        )
    pred_mask, target_mask = pred >= threshold, target != 0
    # One transfer from the device instead of three.
    counts = torch.stack([(pred_mask & target_mask).sum(), pred_mask.sum(), target_mask.sum()])
    both, pred_area, target_area = counts.tolist()
    return both, pred_area, target_area


def _class_counts(classes: torch.Tensor, num_classes: int) -> torch.Tensor:
    known = classes[(classes >= 0) & (classes < num_classes)]
    return torch.bincount(known.long(), minlength=num_classes)
