"""SAM's two graphs: an image encoder, and a mask decoder for many prompts on one encoded image."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seg_export.checkpoints.checkpoint import Checkpoint, build_model
from seg_export.families.sam.cases import decoder_cases, encoder_case, encoder_cases
from seg_export.families.sam.decoder import SamDecoderGraph
from seg_export.families.sam.encoder import SamEncoderGraph
from seg_export.families.sam.reference import DecoderReference, EncoderReference
from seg_export.tracing.traceable import TraceableModel
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["sam_models"]


def sam_models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int]
) -> tuple[TraceableModel, TraceableModel]:
    """Build `NAME_encoder` and `NAME_decoder` of one checkpoint; both carry its hash.

    Args:
        checkpoint: of the family "sam".
        name: what both names begin with.
        size_hw: must be the size the checkpoint was trained with.

    Raises:
        BadInputError: another size.
        CheckpointError: weights that do not fit their constructor arguments.
        MissingExtraError: segment_anything is not installed.
    """
    sam: Any = build_model(checkpoint)
    side = sam.image_encoder.img_size
    if size_hw != (side, side):
        raise BadInputError(
            f"input size {size_hw[0]}x{size_hw[1]}: this SAM takes {side}x{side} and no other size"
        )
    if sam.mask_decoder.num_mask_tokens != 4:
        raise CheckpointError(
            f"this SAM makes {sam.mask_decoder.num_mask_tokens} masks per prompt; clients expect 4"
        )
    encoder_spec, decoder_spec = (_spec(checkpoint, sam, name, part) for part in ("encoder", "decoder"))
    encoder = TraceableModel(
        encoder_spec,
        lambda outputs: _labels_of_embedding(sam, outputs),
        SamEncoderGraph(sam).eval(),
        EncoderReference(sam).eval(),
        cases=encoder_cases,
        image_case=encoder_case,
        dynamic_batch=False,
    )
    decoder = TraceableModel(
        decoder_spec,
        _labels_of_logits,
        SamDecoderGraph(sam).eval(),
        DecoderReference(sam).eval(),
        cases=lambda spec, images: decoder_cases(sam, spec, images),
    )
    return encoder, decoder


def _spec(checkpoint: Checkpoint, sam: Any, name: str, part: str) -> ModelSpec:
    side = sam.image_encoder.img_size
    modules = (sam.image_encoder,) if part == "encoder" else (sam.prompt_encoder, sam.mask_decoder)
    inputs, outputs = _tensors(sam, part)
    return ModelSpec(
        name=f"{name}_{part}",
        version=1,
        task="sam-encoder" if part == "encoder" else "sam-decoder",
        family=checkpoint.family,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=1 if part == "encoder" else 0,
        input_size_hw=(side, side),
        resize="longest-side",
        channels=3,
        mean=tuple(sam.pixel_mean.flatten().tolist()),
        std=tuple(sam.pixel_std.flatten().tolist()),
        scale=1.0,
        class_names=checkpoint.class_names,
        threshold=float(sam.mask_threshold),
        checkpoint_sha256=checkpoint.sha256,
        weights="random" if checkpoint.metadata.get("weights") == "random" else "trained",
        parameter_count=sum(tensor.numel() for module in modules for tensor in module.parameters()),
        toolkit_version=version("edgeseg"),
    )


def _tensors(sam: Any, part: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the encoder or the decoder."""
    side, grid = sam.image_encoder.img_size, sam.prompt_encoder.image_embedding_size[0]
    embedding = (sam.prompt_encoder.embed_dim, grid, grid)
    if part == "encoder":
        image = (TensorSpec("image", "uint8", (side, side, 3)), TensorSpec("valid_hw", "int32", (2,)))
        return image, (TensorSpec("image_embeddings", "float32", embedding),)
    prompts = (
        TensorSpec("image_embeddings", "float32", (1, *embedding)),
        TensorSpec("point_coords", "float32", (-1, -1, 2), ("prompts", "points")),
        TensorSpec("point_labels", "int32", (-1, -1), ("prompts", "points")),
        # One mask for all prompts, or one for each.
        TensorSpec("mask_input", "float32", (-1, 1, 4 * grid, 4 * grid), ("masks",)),
        TensorSpec("has_mask_input", "float32", (-1,), ("prompts",)),
    )
    masks = (
        TensorSpec("low_res_masks", "float32", (-1, 4, 4 * grid, 4 * grid), ("prompts",)),
        TensorSpec("iou_predictions", "float32", (-1, 4), ("prompts",)),
    )
    return prompts, masks


def _labels_of_logits(outputs: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    return np.asarray(outputs["low_res_masks"] > 0, dtype=np.uint8)


def _labels_of_embedding(sam: Any, outputs: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """What segment_anything's own decoder makes of an embedding at four points."""
    side = sam.image_encoder.img_size
    points = torch.tensor([(x * side / 3, y * side / 3) for y in (1, 2) for x in (1, 2)])[:, None]
    labels = torch.ones(len(points), 1)
    logits = []
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder(points=(points, labels), boxes=None, masks=None)
        for embedding in torch.from_numpy(outputs["image_embeddings"]).float():
            masks, _ = sam.mask_decoder.predict_masks(
                embedding[None], sam.prompt_encoder.get_dense_pe(), sparse, dense
            )
            logits.append(masks)
    return np.asarray(torch.stack(logits).numpy() > 0, dtype=np.uint8)
