"""torchvision's own ONNX export of its Mask R-CNN, to compare ours with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from seg_runtime.spec import ModelSpec

__all__ = ["OFFICIAL_FILE", "export_official_maskrcnn", "torchvision_model"]

OFFICIAL_FILE = "torchvision.onnx"


def torchvision_model(
    checkpoint: Path, size_hw: tuple[int, int] | None = None, contract: ModelSpec | None = None
) -> Any:
    """torchvision's `MaskRCNN` of a checkpoint, in eval mode.

    Args:
        checkpoint: its file.
        size_hw: (height, width) in pixels of images that keep their size; None for the checkpoint's scaling.
        contract: of the published model, whose mean and std count where the checkpoint holds weights alone.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
    """
    from seg_export.checkpoints.checkpoint import load_checkpoint
    from seg_export.checkpoints.claims import as_published
    from seg_export.families.maskrcnn.model import build_detector

    loaded = load_checkpoint(checkpoint)
    model = build_detector(as_published(loaded, contract) if contract else loaded)
    if size_hw is not None:
        model.transform.min_size, model.transform.max_size = (min(size_hw),), max(size_hw)
    return model


def export_official_maskrcnn(
    checkpoint: Path,
    folder: Path,
    *,
    size_hw: tuple[int, int] | None = None,
    score_threshold: float | None = None,
    contract: ModelSpec | None = None,
) -> None:
    """Write `OFFICIAL_FILE` for (3, H, W) float32 images of any size; only the older exporter can.

    Args:
        checkpoint: its file.
        folder: is made.
        size_hw: as for `torchvision_model`.
        score_threshold: instead of the checkpoint's.
        contract: as for `torchvision_model`.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model = torchvision_model(checkpoint, size_hw, contract)
    if score_threshold is not None:
        model.roi_heads.score_thresh = score_threshold
    image = torch.rand(3, *(size_hw or (256, 320)), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which torchvision takes care of
        torch.onnx.export(
            model,
            ([image],),
            folder / OFFICIAL_FILE,
            opset_version=17,
            dynamo=False,
            input_names=["image"],
            output_names=["boxes", "labels", "scores", "masks"],
            dynamic_axes={"image": {1: "height", 2: "width"}},
        )
