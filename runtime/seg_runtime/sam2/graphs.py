"""One call for each of SAM2's graphs: arrays in, arrays or handles out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.sam2.models import sam2_models
from seg_runtime.session import Handle, Session, check_same_checkpoint, engine_of_models

__all__ = ["Decoded", "ImageFeatures", "Sam2Graphs"]

_EMBEDDINGS = "image_embeddings"
_HIGH_RES = ("high_res_features_0", "high_res_features_1")
_ATTENDED = "image_embeddings_with_memory"


@dataclass(frozen=True)
class ImageFeatures:
    """The three levels of one image's features, where the encoder left them."""

    image_embeddings: Handle
    high_res: tuple[Handle, Handle]

    def release(self) -> None:
        """Free all three; calling it again does nothing."""
        for handle in (self.image_embeddings, *self.high_res):
            handle.release()


@dataclass(frozen=True)
class Decoded:
    """The decoder's answer to N prompts. Index 0 of four is the single mask, 1 to 3 the candidates.

    Attributes:
        low_res: (N, 4, 4G, 4G) float32 logits.
        scores: (N, 4) float32, estimates of each mask's IoU.
        object_scores: (N, 1) float32 logits: whether the object appears.
        pointers: (N, 4, C) float32 object pointers.
    """

    low_res: NDArray[np.float32]
    scores: NDArray[np.float32]
    object_scores: NDArray[np.float32]
    pointers: NDArray[np.float32]


class Sam2Graphs:
    """The models of one SAM2 in a session. Has no state: any number of threads may use it.

    Args:
        session: where they run.
        name: the published SAM2; its models are `<name>_image_encoder` and so on.
        parts: those that will be run.

    Attributes:
        side: S, pixels of a side of the encoder's input.
        low_res_side: S / 4, of the decoder's masks.
        mask_threshold: a pixel belongs to a mask when its logit is above it.

    Raises:
        ModelNotFoundError, BadInputError: as from `sam2_models`.
    """

    def __init__(self, session: Session, name: str, parts: Collection[str]) -> None:
        self.session = session
        self._specs = sam2_models(session, name, parts)
        self.side = self._specs["image_encoder"].input_size_hw[0]
        self.low_res_side = self.side // 4
        self.mask_threshold = self._specs["mask_decoder"].threshold

    @property
    def engine(self) -> str:
        """What computes the models, as `Session.engine`."""
        return engine_of_models(self.session, (spec.name for spec in self._specs.values()))

    def encode(self, square: NDArray[np.uint8]) -> ImageFeatures:
        """Features of a (S, S, 3) uint8 RGB image; the caller releases them."""
        kept = (_EMBEDDINGS, *_HIGH_RES)
        answer = self._run("image_encoder", {"image": square[None]}, kept)
        return ImageFeatures(answer[_EMBEDDINGS], (answer[_HIGH_RES[0]], answer[_HIGH_RES[1]]))

    def decode(
        self,
        features: ImageFeatures,
        coords: NDArray[np.float32],
        labels: NDArray[np.int32],
        masks: NDArray[np.float32] | None = None,
        *,
        attended: Handle | None = None,
        add_no_memory: bool = False,
    ) -> Decoded:
        """Masks for N prompts.

        Args:
            features: of the image.
            coords: (N, P, 2), (x, y) in pixels of the encoder's input.
            labels: (N, P): 1, 0, 2 and 3 for the corners of a box, -1 for "not a point", -10 for padding.
            masks: (N, 1, 4G, 4G) logits of earlier masks, or None.
            attended: from `attend`, to be used in place of the features' lowest level.
            add_no_memory: tell the decoder that no memory was looked at, as for single images.
        """
        side = self.low_res_side
        empty = np.zeros((1, 1, side, side), np.float32)
        inputs: dict[str, NDArray[Any] | Handle] = {
            _EMBEDDINGS: features.image_embeddings if attended is None else attended,
            **dict(zip(_HIGH_RES, features.high_res, strict=True)),
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": empty if masks is None else masks,
            "has_mask_input": np.full(len(labels), masks is not None, np.float32),
            "no_memory": np.array([add_no_memory], np.float32),
        }
        answer = self._run("mask_decoder", inputs)
        return Decoded(
            answer["low_res_masks"],
            answer["iou_predictions"],
            answer["object_score_logits"],
            answer["object_pointers"],
        )

    def attend(
        self,
        features: ImageFeatures,
        memories: Sequence[tuple[NDArray[np.float32], int]],
        pointers: Sequence[tuple[NDArray[np.float32], int]],
        pointer_range: int,
    ) -> Handle:
        """The image's lowest level after it has looked at memories; the caller releases it.

        Args:
            features: of the image.
            memories: (1, M, G, G) float32 each, with its slot.
            pointers: (1, C) float32 each, with its distance in frames.
            pointer_range: the largest distance, by which the graph divides.
        """
        channels = features.image_embeddings.shape[1]
        rows = [pointer for pointer, _ in pointers]
        inputs: dict[str, NDArray[Any] | Handle] = {
            _EMBEDDINGS: features.image_embeddings,
            "memories": np.concatenate([memory for memory, _ in memories]),
            "memory_slots": np.array([slot for _, slot in memories], np.int32),
            "object_pointers": np.concatenate(rows) if rows else np.zeros((0, channels), np.float32),
            "pointer_distances": np.array([distance for _, distance in pointers], np.float32),
            "pointer_range": np.array([pointer_range], np.float32),
        }
        handle: Handle = self._run("memory_attention", inputs, (_ATTENDED,))[_ATTENDED]
        return handle

    def remember(
        self,
        features: ImageFeatures,
        low_res: NDArray[np.floating[Any]],
        object_score: NDArray[np.float32],
        from_prompt: bool,
    ) -> NDArray[np.float32]:
        """(1, M, G, G) float32 memory of a mask (1, 1, 4G, 4G) on an image, rounded to bfloat16."""
        inputs: dict[str, NDArray[Any] | Handle] = {
            _EMBEDDINGS: features.image_embeddings,
            "low_res_masks": low_res.astype(np.float32, copy=False),
            "from_prompt": np.array([from_prompt], np.float32),
            "object_score_logits": object_score,
        }
        memory: NDArray[np.float32] = self._run("memory_encoder", inputs)["memory"]
        return memory

    def mask_prompt(
        self, mask: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """A mask given by the user as the graphs take it.

        Args:
            mask: (S, S), 0 or 1.

        Returns:
            mask_input: (1, 1, 4G, 4G) float32 for `decode`.
            low_res: (1, 1, 4G, 4G) float32 logits.
            no_object_pointer: (1, C) float32, the pointer of an object that does not appear.
        """
        answer = self._run("mask_prompt", {"mask": mask[None]})
        return answer["mask_input"], answer["low_res_masks"], answer["no_object_pointer"]

    def _run(
        self, part: str, inputs: Mapping[str, NDArray[Any] | Handle], keep: Collection[str] = ()
    ) -> dict[str, Any]:
        model = self._specs[part].name
        answer = self.session.infer(model, inputs, keep)
        # A server may exchange a model while it runs; what is chained must be of one checkpoint.
        check_same_checkpoint(self.session.spec(model), self._specs["image_encoder"])
        return answer
