"""The tiny SAM as segment_anything runs it, and a session whose SAM needs no model: it draws discs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam

from seg_export.families.sam.network import build_sam, sam_arguments
from seg_runtime.handles import ArrayHandle, usable_handle
from seg_runtime.repository import model_not_found
from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec, TensorSpec

WEIGHTS = Path(__file__).parents[1] / "export" / "seg_export" / "weights" / "sam_tiny.pth"
SMALL_SAM = {
    "image_size": 64,
    "encoder_embed_dim": 32,
    "encoder_depth": 2,
    "encoder_num_heads": 2,
    "encoder_global_attn_indexes": [1],
    "window_size": 3,
    "prompt_embed_dim": 32,
    "decoder_mlp_dim": 32,
    "iou_head_hidden_dim": 32,
}
"""Arguments of a SAM that exports in seconds: a grid of 4x4 tokens, in windows that do not divide it."""
PADDING = -10
RADII = (36.0, 20.0, 36.0, 60.0)
SCORES = (0.7, 0.8, 0.95, 0.9)
"""Of the disc around a point: the single mask and the three candidates; radii in pixels of 256."""


def sam_specs(name: str = "sam_tiny", checkpoint_sha256: str = "ab" * 32) -> dict[str, ModelSpec]:
    """The contracts of a SAM's two models."""
    low_res = TensorSpec("low_res_masks", "float32", (-1, 4, 256, 256))
    shared: dict[str, Any] = {
        "version": 1,
        "family": "sam",
        "input_size_hw": (1024, 1024),
        "resize": "longest-side",
        "channels": 3,
        "threshold": 0.0,
        "checkpoint_sha256": checkpoint_sha256,
    }
    encoder = ModelSpec(
        f"{name}_encoder",
        task="sam-encoder",
        inputs=(TensorSpec("image", "uint8", (1024, 1024, 3)), TensorSpec("valid_hw", "int32", (2,))),
        outputs=(TensorSpec("image_embeddings", "float32", (256, 64, 64)),),
        max_batch_size=1,
        **shared,
    )
    decoder = ModelSpec(
        f"{name}_decoder",
        task="sam-decoder",
        inputs=(
            TensorSpec("image_embeddings", "float32", (1, 256, 64, 64)),
            TensorSpec("point_coords", "float32", (-1, -1, 2)),
            TensorSpec("point_labels", "int32", (-1, -1)),
            TensorSpec("mask_input", "float32", (-1, 1, 256, 256)),
            TensorSpec("has_mask_input", "float32", (-1,)),
        ),
        outputs=(low_res, TensorSpec("iou_predictions", "float32", (-1, 4))),
        **shared,
    )
    return {encoder.name: encoder, decoder.name: decoder}


def load_tiny_sam() -> Sam:
    """segment_anything's model with the trained weights that the exporter ships."""
    state_dict = torch.load(WEIGHTS, weights_only=True)
    sam = build_sam(**(sam_arguments(state_dict) or {}))
    sam.load_state_dict(state_dict)
    return sam.float()


class DiscSamSession(Session):
    """A SAM that answers a point with discs around it and a box with the ellipse in it.

    Attributes:
        specs: the contracts of its two models, to be changed by tests.
        handles: every embedding it made.
        decoder_calls: number of prompts of every run of the decoder.
    """

    where = "in-process"

    def __init__(self, name: str = "sam_tiny") -> None:
        self._owner = object()
        self.specs = sam_specs(name)
        self.handles: list[ArrayHandle] = []
        self.decoder_calls: list[int] = []

    def replace_spec(self, model: str, **changes: Any) -> None:
        self.specs[model] = replace(self.specs[model], **changes)

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self.specs))

    def spec(self, model: str) -> ModelSpec:
        if model not in self.specs:
            raise model_not_found(model, self.specs, "in the test")
        return self.specs[model]

    def engine(self, model: str) -> str:
        return "discs"

    def close(self) -> None:
        for handle in self.handles:
            handle.release()

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        if spec.task == "sam-encoder":
            embedding = np.zeros((1, 256, 64, 64), np.float32)
            embedding[0, :2, 0, 0] = np.asarray(inputs["valid_hw"])[0]
            self.handles.append(ArrayHandle(spec, "image_embeddings", embedding, self._owner))
            return {"image_embeddings": self.handles[-1]}
        handle = inputs["image_embeddings"]
        assert isinstance(handle, Handle)
        usable_handle(handle, self._owner)
        return self.decode(np.asarray(inputs["point_coords"]), np.asarray(inputs["point_labels"]))

    def decode(self, coords: NDArray[np.float32], labels: NDArray[np.int32]) -> dict[str, Any]:
        self.decoder_calls.append(len(labels))
        return {
            "low_res_masks": np.stack([_shapes(*prompt) for prompt in zip(coords, labels, strict=True)]),
            "iou_predictions": np.tile(np.array(SCORES, np.float32), (len(labels), 1)),
        }


def _shapes(coords: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """(4, 256, 256) logits: about the distance to the edge of the shape, in pixels of 256."""
    y, x = np.mgrid[:256, :256].astype(np.float32)
    points = coords / 4
    corners = points[np.isin(labels, (2, 3))]
    middle = corners.mean(axis=0) if len(corners) else points[labels == 1].mean(axis=0)
    radii = np.array(RADII, np.float32)[:, None, None]
    half_xy = (corners[1] - corners[0]) / 2 if len(corners) else None
    if half_xy is None:
        return np.asarray(radii - np.hypot(x - middle[0], y - middle[1]), dtype=np.float32)
    distance = np.hypot((x - middle[0]) / half_xy[0], (y - middle[1]) / half_xy[1])
    return np.asarray((1 - distance) * half_xy.min() * radii / radii[0], dtype=np.float32)
