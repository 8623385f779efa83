"""One encoding of an image, then any number of prompts: segment_anything's `SamPredictor` on a session."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.preprocess import check_image
from seg_runtime.sam.decoder import EMBEDDINGS, decode, find_sam, sam_pair
from seg_runtime.sam.masks import MaskFrame
from seg_runtime.sam.memory import check_memory
from seg_runtime.sam.prompts import Prompts, prompt_of_image, prompts_of_model
from seg_runtime.sam.transforms import ResizeLongestSide
from seg_runtime.session import Handle, Session, engine_of_models
from seg_runtime.spec import ModelSpec

__all__ = ["Prediction", "SamPredictor", "best_first"]

Prediction = tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]
"""Masks, scores and low-resolution logits, as `SamPredictor.predict` returns them."""


class SamPredictor:
    """Masks for prompts on one image at a time, with the methods of `segment_anything.SamPredictor`.

    The image embedding stays where the encoder made it: an OrtValue in process, shared memory with a
    server on this machine. `reset_image`, `close`, the next image or the end of a `with` block frees
    it. A predictor is for one thread; any number of them may share a session.

    Args:
        session: from `seg_runtime.connect`.
        name: the published SAM; its models are `<name>_encoder` and `<name>_decoder`. None for the only one.
        prompts_per_call: largest number of prompts in one run of the decoder; the answers do not
            depend on it. Much more than 16 is slower on a CPU and may be faster on a GPU.

    Attributes:
        transform: the way from the image to the encoder's frame.
        mask_threshold: a pixel belongs to a mask when its logit is above it.

    Raises:
        ModelNotFoundError: encoder or decoder is missing.
        BadInputError: they are of different checkpoints, or no SAM; or there are several and no name.
    """

    def __init__(self, session: Session, name: str | None = None, *, prompts_per_call: int = 16) -> None:
        if prompts_per_call < 1:
            raise BadInputError(f"prompts_per_call is {prompts_per_call}: run 1 or more prompts at once")
        self.session = session
        self._encoder, self._decoder = sam_pair(session, name or find_sam(session))
        self._prompts_per_call = prompts_per_call
        self.transform = ResizeLongestSide(self._encoder.input_size_hw[0])
        self.mask_threshold = self._decoder.threshold
        self._embedding: Handle | None = None
        self._frame: MaskFrame | None = None

    @property
    def encoder(self) -> ModelSpec:
        """The encoder's contract."""
        return self._encoder

    @property
    def engine(self) -> str:
        """What computes encoder and decoder, as `Session.engine`."""
        return engine_of_models(self.session, (self._encoder.name, self._decoder.name))

    @property
    def is_image_set(self) -> bool:
        """Whether `predict` can be called."""
        return self._embedding is not None

    @property
    def frame(self) -> MaskFrame:
        """The sizes of the image and the way of its masks. Raises BadInputError without an image."""
        return self._image()[1]

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode an image; the one before is forgotten.

        Args:
            image: (H, W, 3) uint8.
            image_format: order of its channels, "RGB" or "BGR".

        Raises:
            BadInputError: another dtype, shape or format.
            BadImageError: the image is too narrow, for example 1x5000 pixels.
            InferenceError, ServerError: as from `Session.infer`; no image is set then.
        """
        if image_format not in ("RGB", "BGR"):
            raise BadInputError(f"image_format is 'RGB' or 'BGR', not {image_format!r}")
        check_image(image, 3)
        resized = self.transform.apply_image(image[..., ::-1] if image_format == "BGR" else image)
        self.reset_image()
        height, width = resized.shape[:2]
        side = self.transform.target_length
        square = np.zeros((1, side, side, 3), np.uint8)
        square[0, :height, :width] = resized
        valid_hw = np.array([[height, width]], np.int32)
        inputs: dict[str, NDArray[Any]] = {"image": square, "valid_hw": valid_hw}
        self._embedding = self.session.infer(self._encoder.name, inputs, keep=(EMBEDDINGS,))[EMBEDDINGS]
        self._frame = MaskFrame(side, (height, width), (image.shape[0], image.shape[1]))

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Prediction:
        """Masks for one prompt, in pixels of the original image.

        Args:
            point_coords: (P, 2), (x, y) in pixels of the image.
            point_labels: (P,), 1 for foreground and 0 for background.
            box: (4,) or (1, 4), x0 y0 x1 y1 in pixels of the image.
            mask_input: (1, 256, 256) logits, usually one of those that an earlier call returned.
            multimask_output: give three candidates, as is best for one ambiguous point; else one.
            return_logits: give logits instead of masks.

        Returns:
            masks: (C, H, W) bool in the frame of the image, or float32 logits; C is 3 or 1.
            scores: (C,) float32, the model's own estimate of each mask's IoU; `best_first` sorts by it.
            low_res: (C, 256, 256) float32 logits, for a next call to refine.

        Raises:
            BadInputError: no image is set; no prompt; labels that do not match the points; a point or
                box outside the image; a box with x1 <= x0.
            InferenceError, ServerError: as from `Session.infer`; the image stays set.
        """
        _, frame = self._image()
        prompts = prompt_of_image(
            point_coords, point_labels, box, mask_input, self.transform, frame.original_size_hw
        )
        masks, scores, low_res = self._collect(prompts, multimask_output, return_logits)
        return masks[0], scores[0], low_res[0]

    def predict_batch(
        self,
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        boxes: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Prediction:
        """Masks for N prompts on the image: segment_anything's `predict_torch` on NumPy arrays.

        As there, coordinates are in the encoder's frame: pass those of the image through
        `transform.apply_coords` or `transform.apply_boxes` first. The decoder runs on
        `prompts_per_call` prompts at a time. For more masks than fit into memory see `predict_chunks`.

        Args:
            point_coords: (N, P, 2), (x, y), or None.
            point_labels: (N, P): 1 foreground, 0 background, and -10 where a prompt has fewer points.
            boxes: (N, 4), x0 y0 x1 y1, or None.
            mask_input: (N, 1, 256, 256) logits, or None.
            multimask_output: give three candidates for each prompt; else one.
            return_logits: give logits instead of masks.

        Returns:
            masks: (N, C, H, W) bool in the frame of the image, or float32 logits; C is 3 or 1.
            scores: (N, C) float32.
            low_res: (N, C, 256, 256) float32 logits.

        Raises:
            BadInputError: as from `predict`, or the masks would not fit into memory.
            InferenceError, ServerError: as from `Session.infer`; the image stays set.
        """
        prompts = self._prompts(point_coords, point_labels, boxes, mask_input)
        return self._collect(prompts, multimask_output, return_logits)

    def predict_chunks(
        self,
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        boxes: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> Iterator[Prediction]:
        """`predict_batch` in parts of at most `prompts_per_call` prompts, in constant memory."""
        _, frame = self._image()
        prompts = self._prompts(point_coords, point_labels, boxes, mask_input)
        return (
            (self._to_image(frame, low_res, return_logits), scores, low_res)
            for low_res, scores in self._decode(prompts, multimask_output)
        )

    def predict_low_res(
        self,
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        boxes: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """(low_res, scores) of `predict_chunks`, for callers that look at scores before they upscale."""
        return self._decode(self._prompts(point_coords, point_labels, boxes, mask_input), multimask_output)

    def get_image_embedding(self) -> NDArray[np.float32]:
        """A copy of the embedding: (1, 256, S/16, S/16) float32. Raises BadInputError without image."""
        return np.asarray(self._image()[0].numpy(), dtype=np.float32)

    def reset_image(self) -> None:
        """Forget the image and free its embedding."""
        embedding, self._embedding, self._frame = self._embedding, None, None
        if embedding is not None:
            embedding.release()

    def close(self) -> None:
        """Free the embedding; the session stays open."""
        self.reset_image()

    def __enter__(self) -> SamPredictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _image(self) -> tuple[Handle, MaskFrame]:
        if self._embedding is None or self._frame is None:
            raise BadInputError("no image is set: call set_image(image) before asking for masks")
        return self._embedding, self._frame

    def _prompts(
        self,
        points: ArrayLike | None,
        labels: ArrayLike | None,
        boxes: ArrayLike | None,
        masks: ArrayLike | None,
    ) -> Prompts:
        return prompts_of_model(points, labels, boxes, masks, self._image()[1].input_size_hw)

    def _decode(
        self, prompts: Prompts, multimask: bool
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        embedding, _ = self._image()
        wanted = slice(1, None) if multimask else slice(0, 1)
        outputs = decode(self.session, self._decoder.name, embedding, prompts, self._prompts_per_call)
        return ((low_res[:, wanted], scores[:, wanted]) for low_res, scores in outputs)

    def _collect(self, prompts: Prompts, multimask: bool, logits: bool) -> Prediction:
        embedding, frame = self._image()
        (height, width), side = frame.original_size_hw, 4 * embedding.shape[-1]
        count, candidates = len(prompts), 3 if multimask else 1
        byte_size = count * candidates * (height * width * (4 if logits else 1) + 4 * side * side)
        check_memory(byte_size, f"masks of {count} prompts on an image of {width}x{height} pixels")
        masks = np.empty((count, candidates, height, width), np.float32 if logits else np.bool_)
        scores = np.empty((count, candidates), np.float32)
        low_res = np.empty((count, candidates, side, side), np.float32)
        start = 0
        for part_low_res, part_scores in self._decode(prompts, multimask):
            part = slice(start, start + len(part_scores))
            masks[part] = self._to_image(frame, part_low_res, logits)
            low_res[part], scores[part] = part_low_res, part_scores
            start = part.stop
        return masks, scores, low_res

    def _to_image(self, frame: MaskFrame, low_res: NDArray[np.float32], logits: bool) -> NDArray[Any]:
        return frame.logits(low_res) if logits else frame.masks(low_res, self.mask_threshold)


def best_first(masks: NDArray[Any], scores: NDArray[np.float32], low_res: NDArray[np.float32]) -> Prediction:
    """The candidates of one `predict`, the highest score first.

    Example:
        masks, scores, low_res = best_first(*predictor.predict(points, labels))
    """
    order = np.argsort(-scores, kind="stable")
    return masks[order], scores[order], low_res[order]
