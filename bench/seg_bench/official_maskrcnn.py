"""torchvision's own ONNX export of its Mask R-CNN, to compare ours with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

__all__ = ["OFFICIAL_FILE", "export_official_maskrcnn", "torchvision_model"]

OFFICIAL_FILE = "torchvision.onnx"


def torchvision_model(checkpoint: Path) -> Any:
    """torchvision's `MaskRCNN` of a checkpoint, in eval mode. Raises CheckpointError as `load_checkpoint`."""
    from seg_export.checkpoint import build_model, load_checkpoint

    return build_model(load_checkpoint(checkpoint))


def export_official_maskrcnn(checkpoint: Path, folder: Path) -> None:
    """Write `OFFICIAL_FILE` for (3, H, W) float32 images of any size; only the older exporter can.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model = torchvision_model(checkpoint)
    image = torch.rand(3, 256, 320, generator=torch.Generator().manual_seed(0))
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
