"""SAM2's five graphs: image encoder, mask decoder, mask prompt, memory attention and memory encoder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from seg_export.checkpoints.checkpoint import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, build_model
from seg_export.families.sam2.align import align_single_masks
from seg_export.families.sam2.attention import Sam2MemoryAttentionGraph
from seg_export.families.sam2.cases import (
    decoder_cases,
    encode_frame,
    encoder_cases,
    mask_prompt_cases,
    memory_attention_cases,
    memory_encoder_cases,
)
from seg_export.families.sam2.decoder import Sam2DecoderGraph
from seg_export.families.sam2.encoder import Sam2EncoderGraph
from seg_export.families.sam2.memory import Sam2MaskPromptGraph, Sam2MemoryEncoderGraph
from seg_export.families.sam2.reference import (
    DecoderReference,
    EncoderReference,
    MaskPromptReference,
    MemoryAttentionReference,
    MemoryEncoderReference,
)
from seg_export.families.sam2.tensors import sam2_tensors
from seg_export.tracing.traceable import TraceableModel
from seg_runtime.contract import one_of
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ModelSpec, Task

__all__ = ["PARTS", "sam2_models"]

PARTS = ("image_encoder", "mask_decoder", "mask_prompt", "memory_attention", "memory_encoder")
"""What the names of the models end in."""

Outputs = Mapping[str, NDArray[Any]]


def sam2_models(checkpoint: Checkpoint, name: str, size_hw: tuple[int, int]) -> tuple[TraceableModel, ...]:
    """Build the five models of one checkpoint, `NAME_image_encoder` and so on; all carry its hash.

    Args:
        checkpoint: of the family "sam2".
        name: what the names begin with.
        size_hw: must be the size the checkpoint was trained with.

    Raises:
        BadInputError: another size.
        CheckpointError: weights that do not fit their constructor arguments.
        MissingExtraError: sam2 is not installed.
    """
    sam2: Any = build_model(checkpoint)
    side = sam2.image_size
    if size_hw != (side, side):
        raise BadInputError(
            f"input size {size_hw[0]}x{size_hw[1]}: this SAM2 takes {side}x{side} and no other size"
        )
    specs = {part: _spec(checkpoint, sam2, name, part) for part in PARTS}
    masks = _Masks(sam2, specs["image_encoder"])

    def model(
        part: str, graph: nn.Module, reference: nn.Module, cases: Any, labels: Any = _logits, **options: Any
    ) -> TraceableModel:
        return TraceableModel(specs[part], labels, graph.eval(), reference.eval(), cases=cases, **options)

    frame = cache(lambda images: encode_frame(sam2, specs["image_encoder"], images))
    return (
        model(
            "image_encoder",
            Sam2EncoderGraph(sam2),
            EncoderReference(sam2),
            encoder_cases,
            masks.of_image,
            dynamic_batch=False,
        ),
        model(
            "mask_decoder",
            Sam2DecoderGraph(sam2),
            DecoderReference(sam2),
            lambda spec, images: decoder_cases(frame(images), spec),
            align=align_single_masks,
        ),
        model(
            "mask_prompt",
            Sam2MaskPromptGraph(sam2),
            MaskPromptReference(sam2),
            lambda spec, images: mask_prompt_cases(spec),
        ),
        model(
            "memory_attention",
            Sam2MemoryAttentionGraph(sam2),
            MemoryAttentionReference(sam2),
            lambda spec, images: memory_attention_cases(sam2, frame(images)),
            masks.of_embedding,
        ),
        model(
            "memory_encoder",
            Sam2MemoryEncoderGraph(sam2),
            MemoryEncoderReference(sam2),
            lambda spec, images: memory_encoder_cases(frame(images)),
            masks.of_memory,
        ),
    )


class _Masks:
    """The masks that sam2's own decoder makes of what the graphs give."""

    def __init__(self, sam2: Any, encoder: ModelSpec) -> None:
        self.sam2, self.encoder = sam2, encoder
        self.frame = cache(lambda: encode_frame(sam2, encoder, None))

    def of_image(self, outputs: Outputs) -> NDArray[np.uint8]:
        levels = ("image_embeddings", "high_res_features_0", "high_res_features_1")
        return self._decoded(*(torch.from_numpy(outputs[name]).float() for name in levels))

    def of_embedding(self, outputs: Outputs) -> NDArray[np.uint8]:
        embedding = torch.from_numpy(outputs["image_embeddings_with_memory"]).float()
        return self._decoded(embedding, self.frame().fine, self.frame().middle)

    @torch.inference_mode()
    def of_memory(self, outputs: Outputs) -> NDArray[np.uint8]:
        memory, frame = torch.from_numpy(outputs["memory"]).float(), self.frame()
        attended = MemoryAttentionReference(self.sam2)(
            frame.embedding,
            memory,
            torch.zeros(1, dtype=torch.int32),
            torch.ones(1, frame.embedding.shape[1]),
            torch.ones(1),
            torch.ones(1),
        )
        return self._decoded(attended, frame.fine, frame.middle)

    @torch.inference_mode()
    def _decoded(
        self, embedding: torch.Tensor, fine: torch.Tensor, middle: torch.Tensor
    ) -> NDArray[np.uint8]:
        """All masks at four points."""
        decoder, prompt, side = self.sam2.sam_mask_decoder, self.sam2.sam_prompt_encoder, self.sam2.image_size
        points = torch.tensor([(x * side / 3, y * side / 3) for y in (1, 2) for x in (1, 2)])[:, None]
        sparse, dense = prompt(points=(points, torch.ones(len(points), 1)), boxes=None, masks=None)
        logits, *_ = decoder.predict_masks(
            embedding,
            prompt.get_dense_pe(),
            sparse,
            dense,
            repeat_image=True,
            high_res_features=[fine, middle],
        )
        return _positive(logits.numpy())


def _spec(checkpoint: Checkpoint, sam2: Any, name: str, part: str) -> ModelSpec:
    inputs, outputs = sam2_tensors(part, sam2.image_size)
    modules = {
        "image_encoder": (sam2.image_encoder, sam2.sam_mask_decoder.conv_s0, sam2.sam_mask_decoder.conv_s1),
        "mask_decoder": (sam2.sam_prompt_encoder, sam2.sam_mask_decoder, sam2.obj_ptr_proj),
        "mask_prompt": (sam2.mask_downsample,),
        "memory_attention": (sam2.memory_attention, sam2.obj_ptr_tpos_proj),
        "memory_encoder": (sam2.memory_encoder,),
    }[part]
    return ModelSpec(
        name=f"{name}_{part}",
        version=1,
        task=one_of(Task, "task", f"sam2-{part.replace('_', '-')}"),
        family=checkpoint.family,
        inputs=inputs,
        outputs=outputs,
        max_batch_size=1 if part == "image_encoder" else 0,
        input_size_hw=(sam2.image_size, sam2.image_size),
        resize="stretch",
        channels=3,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        class_names=checkpoint.class_names,
        threshold=0.0,
        checkpoint_sha256=checkpoint.sha256,
        weights="random" if checkpoint.metadata.get("weights") == "random" else "trained",
        parameter_count=sum(tensor.numel() for module in modules for tensor in module.parameters()),
        toolkit_version=version("edgeseg"),
    )


def _logits(outputs: Outputs) -> NDArray[np.uint8]:
    return _positive(outputs["low_res_masks"])


def _positive(logits: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(logits > 0, dtype=np.uint8)
