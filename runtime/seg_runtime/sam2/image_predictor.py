"""One encoding of an image, then any number of prompts: sam2's `SAM2ImagePredictor` on a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.preprocess import check_image
from seg_runtime.sam2.graphs import Features, Sam2Graphs
from seg_runtime.sam2.masks import clean_small_parts, resize_image, resize_logits
from seg_runtime.sam2.models import IMAGE_PARTS
from seg_runtime.sam2.prompts import NOTHING, Points, box_points, click_points, join
from seg_runtime.session import Session

__all__ = ["Prediction", "Sam2ImagePredictor"]

Prediction = tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32]]
"""Masks, scores and low-resolution logits, as `Sam2ImagePredictor.predict` returns them."""

_LOGIT_LIMIT = 32.0
_FILLED, _REMOVED = 10.0, -10.0


@dataclass(frozen=True)
class _Image:
    features: Features
    size_hw: tuple[int, int]


class Sam2ImagePredictor:
    """Masks for prompts on images, with the methods of `sam2.SAM2ImagePredictor` (1.1.0).

    The image's features stay where the encoder made them: an OrtValue in process, shared memory with a
    server on this machine. `reset_predictor`, `close`, the next image or the end of a `with` block frees
    them. A predictor is for one thread; any number of them may share a session.

    Args:
        session: from `seg_runtime.connect`.
        model: the published SAM2; its models are `<model>_image_encoder` and `<model>_mask_decoder`.
        mask_threshold: a pixel belongs to a mask when its logit is above it; None for the model's own, 0.
        max_hole_area: fill holes of at most so many pixels in the low-resolution masks.
        max_sprinkle_area: remove parts of at most so many pixels from them. (sam2 does both on a GPU only.)
        prompts_per_call: largest number of prompts in one run of the decoder; answers do not depend on it.

    Attributes:
        mask_threshold: as above.

    Raises:
        ModelNotFoundError: one of the two models is missing.
        BadInputError: they are of different checkpoints, or no SAM2.
    """

    def __init__(
        self,
        session: Session,
        model: str = "sam2.1_tiny",
        mask_threshold: float | None = None,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        *,
        prompts_per_call: int = 16,
    ) -> None:
        if prompts_per_call < 1:
            raise BadInputError(f"prompts_per_call is {prompts_per_call}: run 1 or more prompts at once")
        self.session = session
        self._graphs = Sam2Graphs(session, model, IMAGE_PARTS)
        self.mask_threshold = self._graphs.mask_threshold if mask_threshold is None else mask_threshold
        self._max_hole_area = max_hole_area
        self._max_sprinkle_area = max_sprinkle_area
        self._prompts_per_call = prompts_per_call
        self._images: list[_Image] = []
        self._is_batch = False

    @property
    def engine(self) -> str:
        """What computes encoder and decoder, as `Session.engine`."""
        return self._graphs.engine

    @property
    def is_image_set(self) -> bool:
        """Whether `predict` can be called."""
        return bool(self._images)

    def set_image(self, image: NDArray[np.uint8] | Any) -> None:
        """Encode an image, (H, W, 3) uint8 RGB or Pillow's; the one before is forgotten.

        Raises:
            BadInputError: another dtype or shape.
            InferenceError, ServerError: as from `Session.infer`; no image is set then.
        """
        self._set([image])

    def set_image_batch(self, image_list: Sequence[NDArray[np.uint8]]) -> None:
        """Encode several images, for `predict_batch`; those before are forgotten. Raises as `set_image`."""
        if not len(image_list):
            raise BadInputError("there are no images: give a list of at least one")
        self._set(image_list)
        self._is_batch = True

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Prediction:
        """Masks for one prompt or several, in pixels of the image.

        Args:
            point_coords: (P, 2), or (N, P, 2) for N prompts, (x, y) in pixels of the image.
            point_labels: (P,) or (N, P): 1 foreground, 0 background, and -10 where a prompt has fewer points.
            box: (4,) or (N, 4), x0 y0 x1 y1 in pixels of the image.
            mask_input: (1, S/4, S/4) or (N, 1, S/4, S/4) logits that an earlier call returned.
            multimask_output: give three candidates, as is best for one ambiguous point; else one.
            return_logits: give logits instead of masks.
            normalize_coords: False for coordinates that are shares (0 to 1) of the image's sides.

        Returns:
            masks: (C, H, W) bool, or float32 logits; C is 3 or 1. For N > 1 prompts (N, C, H, W).
            scores: (C,) or (N, C) float32, the model's own estimate of each mask's IoU.
            low_res: (C, S/4, S/4) or (N, C, S/4, S/4) float32 logits within -32 to 32, to refine.

        Raises:
            BadInputError: no image is set; no prompt; labels that do not match the points; a point or
                box outside the image.
            InferenceError, ServerError: as from `Session.infer`; the image stays set.
        """
        if not self._images:
            raise BadInputError("no image is set: call set_image(image) before asking for masks")
        # As in sam2, the last one after `set_image_batch`.
        image = self._images[-1]
        points, masks = self._prompts(
            image, point_coords, point_labels, box, mask_input, normalize_coords=normalize_coords
        )
        return self._predict(image, points, masks, multimask_output, return_logits)

    def predict_batch(
        self,
        point_coords_batch: Sequence[ArrayLike | None] | None = None,
        point_labels_batch: Sequence[ArrayLike | None] | None = None,
        box_batch: Sequence[ArrayLike | None] | None = None,
        mask_input_batch: Sequence[ArrayLike | None] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[NDArray[Any]], list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """`predict` for each image of `set_image_batch`; each argument has one entry per image.

        Returns:
            lists of masks, scores and low_res, one entry per image.

        Raises:
            BadInputError: no batch is set, lists of another length, or as from `predict`.
        """
        if not self._is_batch:
            raise BadInputError("no batch is set: call set_image_batch(images) before predict_batch")
        count = len(self._images)
        batches = [point_coords_batch, point_labels_batch, box_batch, mask_input_batch]
        wrong = [len(batch) for batch in batches if batch is not None and len(batch) != count]
        if wrong:
            raise BadInputError(f"a list has {wrong[0]} entries for {count} images: give one for each image")
        results = []
        for index, image in enumerate(self._images):
            given = [None if batch is None else batch[index] for batch in batches]
            points, masks = self._prompts(image, *given, normalize_coords=normalize_coords)
            results.append(self._predict(image, points, masks, multimask_output, return_logits))
        return [r[0] for r in results], [r[1] for r in results], [r[2] for r in results]

    def get_image_embedding(self) -> NDArray[np.float32]:
        """A copy of the lowest level of the features: (N, C, S/16, S/16) float32 of all images that are set.

        sam2 gives it with its `no_mem_embed` added, one constant per channel; here the decoder adds that.
        Raises BadInputError without an image.
        """
        if not self._images:
            raise BadInputError("no image is set: call set_image(image) to generate an embedding")
        return np.concatenate([self._graphs.embedding(image.features) for image in self._images])

    def reset_predictor(self) -> None:
        """Forget the images and free their features."""
        images, self._images, self._is_batch = self._images, [], False
        for image in images:
            image.features.release()

    def close(self) -> None:
        """Free the features; the session stays open."""
        self.reset_predictor()

    def __enter__(self) -> Sam2ImagePredictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _set(self, images: Sequence[Any]) -> None:
        pixels = [np.asarray(image) for image in images]
        for image in pixels:
            check_image(image, 3)
        self.reset_predictor()
        try:
            for image in pixels:
                features = self._graphs.encode(resize_image(image, self._graphs.side))
                self._images.append(_Image(features, (image.shape[0], image.shape[1])))
        except BaseException:
            self.reset_predictor()
            raise

    def _prompts(
        self,
        image: _Image,
        coords: ArrayLike | None,
        labels: ArrayLike | None,
        box: ArrayLike | None,
        mask: ArrayLike | None,
        *,
        normalize_coords: bool,
    ) -> tuple[Points, NDArray[np.float32] | None]:
        side = self._graphs.side
        corners = None if box is None else box_points(box, image.size_hw, normalize_coords, side)
        points = join(corners, click_points(coords, labels, image.size_hw, normalize_coords, side))
        masks = None if mask is None else self._mask(mask)
        if points is None and masks is None:
            raise BadInputError("there is no prompt: give points, a box or a mask")
        if points is None:
            points = NOTHING
        if masks is not None and len(masks) not in (1, len(points)):
            raise BadInputError(
                f"{len(masks)} masks do not fit {len(points)} prompts: give 1 or {len(points)}"
            )
        return points, masks

    def _mask(self, mask: ArrayLike) -> NDArray[np.float32]:
        logits, side = np.asarray(mask, dtype=np.float32), self._graphs.low_res_side
        logits = logits[None] if logits.ndim == 3 else logits
        if logits.ndim != 4 or logits.shape[1:] != (1, side, side) or not np.isfinite(logits).all():
            raise BadInputError(
                f"mask_input has the shape {np.shape(mask)}; it is finite logits (1, {side}, {side}) of an "
                f"earlier prediction, or (N, 1, {side}, {side}) for N prompts"
            )
        return logits

    def _predict(
        self,
        image: _Image,
        points: Points,
        masks: NDArray[np.float32] | None,
        multimask: bool,
        return_logits: bool,
    ) -> Prediction:
        wanted = slice(1, 4) if multimask else slice(0, 1)
        parts = []
        for start in range(0, len(points), self._prompts_per_call):
            part = slice(start, start + self._prompts_per_call)
            shared = masks is None or len(masks) == 1
            decoded = self._graphs.decode(
                image.features,
                points.coords[part],
                points.labels[part],
                masks if shared or masks is None else masks[part],
                add_no_memory=True,
            )
            parts.append((decoded.low_res[:, wanted], decoded.scores[:, wanted]))
        low_res = np.concatenate([part[0] for part in parts])
        scores = np.concatenate([part[1] for part in parts])
        framed = self._to_image(image, low_res, return_logits)
        limited = np.clip(low_res, -_LOGIT_LIMIT, _LOGIT_LIMIT)
        return (framed, scores, limited) if len(points) > 1 else (framed[0], scores[0], limited[0])

    def _to_image(self, image: _Image, low_res: NDArray[np.float32], return_logits: bool) -> NDArray[Any]:
        level = self.mask_threshold
        holes, parts = low_res <= level, low_res > level
        low_res = clean_small_parts(low_res, holes, self._max_hole_area, level + _FILLED)
        low_res = clean_small_parts(low_res, parts, self._max_sprinkle_area, level + _REMOVED)
        if return_logits:
            return resize_logits(low_res, image.size_hw)
        masks = np.empty((*low_res.shape[:2], *image.size_hw), np.bool_)
        for index in np.ndindex(low_res.shape[:2]):
            masks[index] = resize_logits(low_res[index], image.size_hw) > level
        return masks
