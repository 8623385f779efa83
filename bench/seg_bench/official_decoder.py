"""segment_anything's own ONNX export of its decoder, `SamOnnxModel`, to compare ours with."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seg_runtime.sam.transforms import ResizeLongestSide

__all__ = ["decoder_file", "export_official_decoder", "export_official_decoders"]


def decoder_file(folder: Path, size_hw: tuple[int, int], side: int) -> Path:
    """The graph for images of (height, width), scaled to `side` pixels on their longer side.

    The export writes the size of the scaled image into the graph as a constant; for an image of
    another shape its masks are cropped wrongly.
    """
    height, width = ResizeLongestSide.get_preprocess_shape(*size_hw, side)
    return folder / f"decoder_{height}x{width}.onnx"


def export_official_decoders(checkpoint: Path, sizes_hw: Iterable[tuple[int, int]], folder: Path) -> None:
    """Write the decoder of a checkpoint for images of these sizes, as segment_anything's notebook does.

    It returns a single mask, so that the graph upscales one and not four. For a box alone that is the
    one of its three candidates that scores best.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
    """
    from seg_export.checkpoints.checkpoint import build_model, load_checkpoint

    sam: Any = build_model(load_checkpoint(checkpoint))
    side = sam.image_encoder.img_size
    folder.mkdir(parents=True, exist_ok=True)
    for path, size_hw in {decoder_file(folder, size_hw, side): size_hw for size_hw in sizes_hw}.items():
        export_official_decoder(sam, path, size_hw, single_mask=True)


def export_official_decoder(sam: Any, path: Path, size_hw: tuple[int, int], *, single_mask: bool) -> None:
    """Write one graph with the older exporter, which everybody used for it.

    Args:
        sam: a `segment_anything.modeling.Sam`.
        path: the file.
        size_hw: (height, width) of images it is right for, and of others of their shape.
        single_mask: return the mask that suits the number of points instead of all four.
    """
    import torch
    from segment_anything.utils.onnx import SamOnnxModel

    grid, side = sam.prompt_encoder.image_embedding_size[0], sam.image_encoder.img_size
    arguments = {
        "image_embeddings": torch.zeros(1, sam.prompt_encoder.embed_dim, grid, grid),
        "point_coords": torch.tensor([[[0.25, 0.25], [0.75, 0.75]]]) * side,
        "point_labels": torch.tensor([[2.0, 3.0]]),
        "mask_input": torch.zeros(1, 1, 4 * grid, 4 * grid),
        "has_mask_input": torch.zeros(1),
        "orig_im_size": torch.tensor(size_hw, dtype=torch.float32),
    }
    with warnings.catch_warnings(), torch.inference_mode():
        # The exporter warns about itself and about the constants it makes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            SamOnnxModel(sam, return_single_mask=single_mask),
            tuple(arguments.values()),
            str(path),
            input_names=list(arguments),
            output_names=["masks", "iou_predictions", "low_res_masks"],
            dynamic_axes={"point_coords": {1: "points"}, "point_labels": {1: "points"}},
            opset_version=17,
            dynamo=False,
        )
