"""The tiny SAM run by segment_anything's own modules, behind the session that graphs are run with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam

from seg_export.models.sam import build_sam, sam_arguments
from seg_runtime.handles import ArrayHandle, usable_handle
from seg_runtime.repository import model_not_found
from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec, TensorSpec

WEIGHTS = Path(__file__).parents[1] / "export" / "seg_export" / "weights" / "sam_tiny.pth"
PADDING = -10


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


class TorchSamSession(Session):
    """Encoder and decoder of one SAM, computed by torch as the graphs' contract says."""

    where = "in-process"

    def __init__(self, sam: Sam) -> None:
        self._sam = sam
        self._owner = object()
        self.specs = sam_specs()
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

    def close(self) -> None:
        for handle in self.handles:
            handle.release()

    @torch.inference_mode()
    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        arrays = {
            name: usable_handle(value, self._owner).numpy() if isinstance(value, Handle) else value
            for name, value in inputs.items()
        }
        if spec.task == "sam-decoder":
            return self._decode({name: torch.from_numpy(value) for name, value in arrays.items()})
        height, width = arrays["valid_hw"][0]
        pixels = torch.from_numpy(np.ascontiguousarray(arrays["image"][:, :height, :width]))
        features = self._sam.image_encoder(self._sam.preprocess(pixels.permute(0, 3, 1, 2).float()))
        self.handles.append(ArrayHandle(spec, "image_embeddings", features.numpy(), self._owner))
        return {"image_embeddings": self.handles[-1]}

    def _decode(self, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
        labels = inputs["point_labels"]
        self.decoder_calls.append(len(labels))
        low_res, scores = torch.empty(len(labels), 4, 256, 256), torch.empty(len(labels), 4)
        # Prompts with padding in the same places go together; the padding itself is left out.
        patterns, members = torch.unique(labels != PADDING, dim=0, return_inverse=True)
        for index, live in enumerate(patterns):
            rows = torch.nonzero(members == index)[:, 0]
            low_res[rows], scores[rows] = self._decode_alike(inputs, rows, live)
        return {"low_res_masks": low_res.numpy(), "iou_predictions": scores.numpy()}

    def _decode_alike(
        self, inputs: dict[str, torch.Tensor], rows: torch.Tensor, live: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        encoder, decoder = self._sam.prompt_encoder, self._sam.mask_decoder
        points = inputs["point_coords"][rows][:, live]
        labels = inputs["point_labels"][rows][:, live]
        sparse = encoder._embed_points(points, labels, pad=False)
        for corner in (2, 3):
            sparse[labels == corner] += encoder.point_embeddings[corner].weight
        has_mask = inputs["has_mask_input"][rows] > 0
        masks = inputs["mask_input"][rows] if bool(has_mask.all()) else None
        _, dense = encoder(None, torch.zeros(len(rows), 4), masks)
        low_res, scores = decoder.predict_masks(
            inputs["image_embeddings"], encoder.get_dense_pe(), sparse, dense
        )
        return low_res, scores
