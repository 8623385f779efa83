"""A session whose five models are sam2's own PyTorch modules, by the contract of the exported graphs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch.nn import functional as F

from seg_runtime.handles import ArrayHandle, usable_handle
from seg_runtime.repository import model_not_found
from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec, TensorSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PADDING = -10


def sam2_specs(side: int, name: str = "sam2", checkpoint_sha256: str = "ab" * 32) -> dict[str, ModelSpec]:
    """The contracts of a SAM2's five models."""
    grid = side // 16
    levels = {
        "image_embeddings": (256, grid, grid),
        "high_res_features_0": (32, 4 * grid, 4 * grid),
        "high_res_features_1": (64, 2 * grid, 2 * grid),
    }
    image = TensorSpec("image_embeddings", "float32", (1, 256, grid, grid))
    single = TensorSpec("low_res_masks", "float32", (1, 1, 4 * grid, 4 * grid))
    memory = (64, grid, grid)
    tensors: dict[str, tuple[list[TensorSpec], list[TensorSpec]]] = {
        "image_encoder": (
            [TensorSpec("image", "uint8", (side, side, 3))],
            [TensorSpec(name, "float32", shape) for name, shape in levels.items()],
        ),
        "mask_decoder": (
            [
                *(TensorSpec(name, "float32", (1, *shape)) for name, shape in levels.items()),
                TensorSpec("point_coords", "float32", (-1, -1, 2), ("prompts", "points")),
                TensorSpec("point_labels", "int32", (-1, -1), ("prompts", "points")),
                TensorSpec("mask_input", "float32", (-1, 1, 4 * grid, 4 * grid), ("masks",)),
                TensorSpec("has_mask_input", "float32", (-1,), ("prompts",)),
                TensorSpec("no_memory", "float32", (1,)),
            ],
            [
                TensorSpec("low_res_masks", "float32", (-1, 4, 4 * grid, 4 * grid), ("prompts",)),
                TensorSpec("iou_predictions", "float32", (-1, 4), ("prompts",)),
                TensorSpec("object_score_logits", "float32", (-1, 1), ("prompts",)),
                TensorSpec("object_pointers", "float32", (-1, 4, 256), ("prompts",)),
            ],
        ),
        "mask_prompt": (
            [TensorSpec("mask", "uint8", (1, side, side))],
            [
                replace(single, name="mask_input"),
                single,
                TensorSpec("no_object_pointer", "float32", (1, 256)),
            ],
        ),
        "memory_attention": (
            [
                image,
                TensorSpec("memories", "float32", (-1, *memory), ("memories",)),
                TensorSpec("memory_slots", "int32", (-1,), ("memories",)),
                TensorSpec("object_pointers", "float32", (-1, 256), ("pointers",)),
                TensorSpec("pointer_distances", "float32", (-1,), ("pointers",)),
                TensorSpec("pointer_range", "float32", (1,)),
            ],
            [replace(image, name="image_embeddings_with_memory")],
        ),
        "memory_encoder": (
            [
                image,
                single,
                TensorSpec("from_prompt", "float32", (1,)),
                TensorSpec("object_score_logits", "float32", (1, 1)),
            ],
            [TensorSpec("memory", "float32", (1, *memory))],
        ),
    }
    return {
        f"{name}_{part}": ModelSpec(
            f"{name}_{part}",
            version=1,
            task=f"sam2-{part.replace('_', '-')}",
            family="sam2",
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            max_batch_size=int(part == "image_encoder"),
            input_size_hw=(side, side),
            channels=3,
            threshold=0.0,
            checkpoint_sha256=checkpoint_sha256,
        )
        for part, (inputs, outputs) in tensors.items()
    }


class TorchSam2Session(Session):
    """Runs the modules of a `SAM2Base` as the five models of a published SAM2.

    Attributes:
        specs: their contracts, to be changed by tests.
        handles: everything that was kept.
        calls: how often each model ran.
    """

    where = "in-process"

    def __init__(self, model: SAM2Base, name: str = "sam2") -> None:
        self._model = model
        self._owner = object()
        self._lock = threading.Lock()
        self._prefix = f"{name}_"
        self.specs = sam2_specs(model.image_size, name)
        self.handles: list[ArrayHandle] = []
        self.calls: Counter[str] = Counter()

    def replace_spec(self, model: str, **changes: Any) -> None:
        self.specs[model] = replace(self.specs[model], **changes)

    def models(self) -> tuple[str, ...]:
        return tuple(sorted(self.specs))

    def spec(self, model: str) -> ModelSpec:
        if model not in self.specs:
            raise model_not_found(model, self.specs, "in the test")
        return self.specs[model]

    def engine(self, model: str) -> str:
        return "PyTorch"

    def close(self) -> None:
        for handle in self.handles:
            handle.release()

    @torch.inference_mode()
    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        tensors = {name: torch.from_numpy(np.array(self._values(value))) for name, value in inputs.items()}
        part = spec.name.removeprefix(self._prefix)
        with self._lock:
            self.calls[part] += 1
            answer = getattr(self, f"_{part}")(**tensors)
        values = {name: np.array(tensor.numpy()) for name, tensor in answer.items()}
        for name in keep:
            values[name] = ArrayHandle(spec, name, values[name], self._owner)
            self.handles.append(values[name])
        return values

    def _values(self, value: NDArray[Any] | Handle) -> NDArray[Any]:
        if not isinstance(value, Handle):
            return value
        handle = usable_handle(value, self._owner)
        assert isinstance(handle, ArrayHandle)
        return handle.values

    def _image_encoder(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = (image.permute(0, 3, 1, 2).double() / 255).float()
        pixels = (pixels - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
        levels = self._model.forward_image(pixels)["backbone_fpn"]
        names = ("high_res_features_0", "high_res_features_1", "image_embeddings")
        return dict(zip(names, levels, strict=True))

    def _mask_decoder(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """One prompt at a time, so that padding can be left out."""
        count = len(inputs["point_labels"])
        masks = inputs["mask_input"].expand(count, -1, -1, -1)
        answers = [self._decode(index, masks[index : index + 1], inputs) for index in range(count)]
        return {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}

    def _decode(
        self, index: int, mask: torch.Tensor, inputs: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        model, decoder = self._model, self._model.sam_mask_decoder
        labels = inputs["point_labels"][index]
        live = labels != PADDING
        points = (inputs["point_coords"][index][live][None], labels[live][None]) if live.any() else None
        given = mask if inputs["has_mask_input"][index] > 0 else None
        sparse, dense = model.sam_prompt_encoder(points=points, boxes=None, masks=given)
        no_memory = inputs["no_memory"] * model.no_mem_embed.reshape(1, -1, 1, 1)
        masks, scores, tokens, appears = decoder.predict_masks(
            image_embeddings=inputs["image_embeddings"] + no_memory,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=[inputs["high_res_features_0"], inputs["high_res_features_1"]],
        )
        single, score = decoder._dynamic_multimask_via_stability(masks, scores)
        there = (appears > 0).float()
        pointers = there * model.obj_ptr_proj(tokens) + (1 - there) * model.no_obj_ptr
        return {
            "low_res_masks": torch.cat([single, masks[:, 1:]], dim=1),
            "iou_predictions": torch.cat([score, scores[:, 1:]], dim=1),
            "object_score_logits": appears,
            "object_pointers": pointers,
        }

    def _mask_prompt(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = mask[None].float()
        side = self._model.image_size // 4
        low_res = F.interpolate(
            pixels * 20 - 10, size=(side, side), align_corners=False, mode="bilinear", antialias=True
        )
        return {
            "mask_input": self._model.mask_downsample(pixels),
            "low_res_masks": low_res,
            "no_object_pointer": self._model.no_obj_ptr,
        }

    def _memory_attention(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        model, memories = self._model, inputs["memories"]
        positions = model.memory_encoder.position_encoding(memories[:1]).flatten(2).permute(2, 0, 1)
        tokens = list(memories.flatten(2).permute(0, 2, 1)[:, :, None])
        encodings = [positions + model.maskmem_tpos_enc[slot] for slot in inputs["memory_slots"].long()]
        pointers = inputs["object_pointers"].reshape(-1, 1, model.mem_dim)
        shape = inputs["image_embeddings"].shape
        flat = inputs["image_embeddings"].flatten(2).permute(2, 0, 1)
        attended = model.memory_attention(
            curr=[flat],
            curr_pos=[self._image_positions(shape)],
            memory=torch.cat([*tokens, pointers]),
            memory_pos=torch.cat([*encodings, self._pointer_positions(inputs)]),
            num_obj_ptr_tokens=len(pointers),
        )
        return {"image_embeddings_with_memory": attended.permute(1, 2, 0).reshape(shape)}

    def _image_positions(self, shape: tuple[int, ...]) -> torch.Tensor:
        neck = self._model.image_encoder.neck
        positions: torch.Tensor = neck.position_encoding(torch.zeros(shape))
        return positions.flatten(2).permute(2, 0, 1)

    def _pointer_positions(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        model = self._model
        per_pointer = model.hidden_dim // model.mem_dim
        distances = inputs["pointer_distances"]
        if not model.add_tpos_enc_to_obj_ptrs:
            return torch.zeros(len(distances) * per_pointer, 1, model.mem_dim)
        encoded = get_1d_sine_pe(distances / inputs["pointer_range"], dim=model.hidden_dim)
        projected: torch.Tensor = model.obj_ptr_tpos_proj(encoded)
        return projected.repeat_interleave(per_pointer, dim=0)[:, None]

    def _memory_encoder(
        self,
        image_embeddings: torch.Tensor,
        low_res_masks: torch.Tensor,
        from_prompt: torch.Tensor,
        object_score_logits: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        model = self._model
        size = (model.image_size, model.image_size)
        features, _ = model._encode_new_memory(
            current_vision_feats=[image_embeddings.flatten(2).permute(2, 0, 1)],
            feat_sizes=[tuple(image_embeddings.shape[-2:])],
            pred_masks_high_res=F.interpolate(low_res_masks, size, mode="bilinear", align_corners=False),
            object_score_logits=object_score_logits,
            is_mask_from_pts=bool(from_prompt.item()),
        )
        return {"memory": features.to(torch.bfloat16).float()}
