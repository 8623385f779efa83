"""One call for each of SAM2's graphs: arrays in, arrays or handles out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.sam2.models import sam2_models
from seg_runtime.sam2.on_server import ServerImage, server_ensembles
from seg_runtime.session import Handle, Session, check_same_checkpoint, engine_of_models

__all__ = ["Attention", "Decoded", "Features", "ImageFeatures", "Sam2Graphs"]

Inputs = dict[str, NDArray[Any] | Handle]

_EMBEDDINGS = "image_embeddings"
_HIGH_RES = ("high_res_features_0", "high_res_features_1")
_ATTENDED = "image_embeddings_with_memory"
_PADDING = -10


@dataclass(frozen=True)
class ImageFeatures:
    """The three levels of one image's features, where the encoder left them."""

    image_embeddings: Handle
    high_res: tuple[Handle, Handle]

    def release(self) -> None:
        """Free all three; calling it again does nothing."""
        for handle in (self.image_embeddings, *self.high_res):
            handle.release()


Features = ImageFeatures | ServerImage
"""Of one image: handles to them, or the image for a server that has them in its cache."""


@dataclass(frozen=True)
class Attention:
    """What an image looks at.

    Attributes:
        memories: (1, M, G, G) float32 each, with its slot.
        pointers: (1, C) float32 each, with its distance in frames.
        pointer_range: the largest distance, by which the graph divides.
    """

    memories: Sequence[tuple[NDArray[np.float32], int]]
    pointers: Sequence[tuple[NDArray[np.float32], int]]
    pointer_range: int

    def inputs(self, channels: int) -> Inputs:
        """As the graph takes them; C channels are those of pointers."""
        rows = [pointer for pointer, _ in self.pointers]
        return {
            "memories": np.concatenate([memory for memory, _ in self.memories]),
            "memory_slots": np.array([slot for _, slot in self.memories], np.int32),
            "object_pointers": np.concatenate(rows) if rows else np.zeros((0, channels), np.float32),
            "pointer_distances": np.array([distance for _, distance in self.pointers], np.float32),
            "pointer_range": np.array([self.pointer_range], np.float32),
        }


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
        encoder = self._specs["image_encoder"]
        self._ensembles = server_ensembles(session, name, parts, encoder)
        self._pointer_channels = self._specs["mask_decoder"].outputs[-1].shape[-1]
        self.side = encoder.input_size_hw[0]
        self.low_res_side = self.side // 4
        self.mask_threshold = self._specs["mask_decoder"].threshold

    @property
    def engine(self) -> str:
        """What computes the models, as `Session.engine`."""
        return engine_of_models(self.session, (spec.name for spec in self._specs.values()))

    def encode(self, square: NDArray[np.uint8], ahead: bool = True) -> Features:
        """Features of a (S, S, 3) uint8 RGB image; the caller releases them.

        Args:
            square: the image.
            ahead: encode it now, also where the server keeps the features and could do so with the first
                request for a mask, which saves sending the image once.
        """
        image = square[None]
        if self._ensembles:
            on_server = ServerImage(image)
            if ahead:
                self.decode(on_server, np.zeros((1, 1, 2), np.float32), np.full((1, 1), _PADDING, np.int32))
            return on_server
        kept = (_EMBEDDINGS, *_HIGH_RES)
        answer = self._run("image_encoder", {"image": image}, kept)
        return ImageFeatures(answer[_EMBEDDINGS], (answer[_HIGH_RES[0]], answer[_HIGH_RES[1]]))

    def embedding(self, features: Features) -> NDArray[np.float32]:
        """A copy of the lowest level, (1, C, G, G)."""
        if isinstance(features, ServerImage):
            fetched: NDArray[np.float32] = self._run("image_encoder", {"image": features.pixels})[_EMBEDDINGS]
            return fetched
        return features.image_embeddings.numpy()

    def decode(
        self,
        features: Features,
        coords: NDArray[np.float32],
        labels: NDArray[np.int32],
        masks: NDArray[np.float32] | None = None,
        *,
        attention: Attention | None = None,
        add_no_memory: bool = False,
    ) -> Decoded:
        """Masks for N prompts.

        Args:
            features: of the image.
            coords: (N, P, 2), (x, y) in pixels of the encoder's input.
            labels: (N, P): 1, 0, 2 and 3 for the corners of a box, -1 for "not a point", -10 for padding.
            masks: (N, 1, 4G, 4G) logits of earlier masks, or None.
            attention: what the image looks at first.
            add_no_memory: tell the decoder that no memory was looked at, as for single images.
        """
        side = self.low_res_side
        empty = np.zeros((1, 1, side, side), np.float32)
        prompts: Inputs = {
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": empty if masks is None else masks,
            "has_mask_input": np.full(len(labels), masks is not None, np.float32),
            "no_memory": np.array([add_no_memory], np.float32),
        }
        answer = self._decode(features, prompts, attention)
        return Decoded(
            answer["low_res_masks"],
            answer["iou_predictions"],
            answer["object_score_logits"],
            answer["object_pointers"],
        )

    def _decode(self, features: Features, prompts: Inputs, attention: Attention | None) -> dict[str, Any]:
        memory: Inputs = attention.inputs(self._pointer_channels) if attention else {}
        if isinstance(features, ServerImage):
            if not attention:
                return self._run("prompt", {"image": features.pixels, **prompts})
            # The ensemble's answer has pointers as well.
            memory["past_object_pointers"] = memory.pop("object_pointers")
            return self._run("track", {"image": features.pixels, **memory, **prompts})
        levels: Inputs = dict(zip(_HIGH_RES, features.high_res, strict=True))
        lowest = features.image_embeddings
        with ExitStack() as until_decoded:
            if attention:
                made = self._run("memory_attention", {_EMBEDDINGS: lowest, **memory}, (_ATTENDED,))
                lowest = until_decoded.enter_context(made[_ATTENDED])
            return self._run("mask_decoder", {_EMBEDDINGS: lowest, **levels, **prompts})

    def remember(
        self,
        features: Features,
        low_res: NDArray[np.floating[Any]],
        object_score: NDArray[np.float32],
        from_prompt: bool,
    ) -> NDArray[np.float32]:
        """(1, M, G, G) float32 memory of a mask (1, 1, 4G, 4G) on an image, rounded to bfloat16."""
        found: Inputs = {
            "low_res_masks": low_res.astype(np.float32, copy=False),
            "from_prompt": np.array([from_prompt], np.float32),
            "object_score_logits": object_score,
        }
        if isinstance(features, ServerImage):
            answer = self._run("remember", {"image": features.pixels, **found})
        else:
            answer = self._run("memory_encoder", {_EMBEDDINGS: features.image_embeddings, **found})
        memory: NDArray[np.float32] = answer["memory"]
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
        model = (self._ensembles.get(part) or self._specs[part]).name
        answer = self.session.infer(model, inputs, keep)
        # A server may exchange a model while it runs; what is chained must be of one checkpoint.
        check_same_checkpoint(self.session.spec(model), self._specs["image_encoder"])
        return answer
