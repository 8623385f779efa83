"""segment_anything's own modules behind the inputs of our graphs: what the graphs are verified against."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from seg_export.families.sam.prompts import PADDING_LABEL
from seg_runtime.sam.prompts import NOT_A_POINT

__all__ = ["DecoderReference", "EncoderReference"]

BOX_CORNERS = (2, 3)


class EncoderReference(nn.Module):
    """`Sam.preprocess` and `Sam.image_encoder` on the valid part of each image.

    Args:
        sam: a `segment_anything.modeling.Sam`.
    """

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, image: torch.Tensor, valid_hw: torch.Tensor) -> torch.Tensor:
        """Inputs and result as those of `SamEncoderGraph`."""
        prepared = [
            self.sam.preprocess(pixels[:height, :width].permute(2, 0, 1).to(torch.float32))
            for pixels, (height, width) in zip(image, valid_hw.tolist(), strict=True)
        ]
        embeddings: torch.Tensor = self.sam.image_encoder(torch.stack(prepared))
        return embeddings


class DecoderReference(nn.Module):
    """`Sam.prompt_encoder` and `Sam.mask_decoder`, called once per prompt as `SamPredictor` does.

    Args:
        sam: a `segment_anything.modeling.Sam`.
    """

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.sam = sam

    def forward(
        self,
        image_embeddings: torch.Tensor,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        mask_input: torch.Tensor,
        has_mask_input: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and result as those of `SamDecoderGraph`.

        Each prompt must be one that segment_anything can be given: with a box as two corners, or
        points that end in one "not a point", or a mask alone.
        """
        results = []
        for index, (coords, labels) in enumerate(zip(point_coords, point_labels, strict=True)):
            mask = mask_input[index % len(mask_input)][None] if has_mask_input[index] else None
            live = labels != PADDING_LABEL
            points, boxes = _split(coords[live], labels[live])
            sparse, dense = self.sam.prompt_encoder(points=points, boxes=boxes, masks=mask)
            encoding = self.sam.prompt_encoder.get_dense_pe()
            results.append(self.sam.mask_decoder.predict_masks(image_embeddings, encoding, sparse, dense))
        masks, scores = zip(*results, strict=True)
        return torch.cat(masks), torch.cat(scores)


def _split(
    coords: torch.Tensor, labels: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, torch.Tensor | None]:
    """The points and the box of one prompt, as `PromptEncoder` takes them."""
    corner = torch.isin(labels, torch.tensor(BOX_CORNERS, dtype=labels.dtype))
    boxes = coords[corner].reshape(1, 4) if bool(corner.any()) else None
    coords, labels = coords[~corner], labels[~corner]
    if boxes is None and len(labels):
        if labels[-1] != NOT_A_POINT:
            raise ValueError("points without a box must end in one 'not a point', label -1")
        # `PromptEncoder` adds it by itself where there is no box.
        coords, labels = coords[:-1], labels[:-1]
    return ((coords[None], labels[None]) if len(labels) else None), boxes
