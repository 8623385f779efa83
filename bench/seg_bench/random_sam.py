"""A SAM of official size whose masks have shapes, though nobody trained its encoder.

    python -m seg_bench.random_sam /tmp/sam

writes `prepare`'s folder.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint
from seg_export.checkpoints.pretrained import pretrained_path
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.export import export_models
from seg_export.families.sam.checkpoints import load_sam_checkpoint, variant_arguments

__all__ = ["original_sam", "prepare", "sam_with_trained_decoder"]

_ENCODER, _LAST_NORM = "image_encoder.", "image_encoder.neck.3."


def sam_with_trained_decoder(variant: str) -> Checkpoint:
    """Random weights in the encoder; the prompt encoder and decoder are the shipped tiny SAM's.

    A decoder of random weights hardly looks at its prompt, and its logits are all near 0: no filter
    of the automatic mask generator would mean anything, and masks of two engines differ by chance.

    Args:
        variant: "vit_b", "vit_l" or "vit_h".

    Returns:
        A checkpoint that counts as random. Where the tiny SAM's layers are narrower, zeros fill the rest,
        which costs as much time as any other weights.

    Raises:
        BadInputError: an unknown variant.
        MissingExtraError: segment_anything is not installed.
    """
    checkpoint = random_checkpoint("sam", variant_arguments(variant))
    trained = load_checkpoint(pretrained_path("sam_tiny")).state_dict
    state_dict = {
        name: _widened(trained[name], tensor)
        if not name.startswith(_ENCODER) or name.startswith(_LAST_NORM)
        else tensor
        for name, tensor in checkpoint.state_dict.items()
    }
    digest = hashlib.sha256(f"{checkpoint.sha256} with the decoder of sam_tiny".encode())
    return replace(checkpoint, state_dict=state_dict, sha256=digest.hexdigest())


def prepare(folder: Path, variant: str = "vit_b", name: str = "sam") -> None:
    """Publish it as `name` in `triton_repo`, and write `weights.pth`, which segment_anything loads."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = sam_with_trained_decoder(variant)
    torch.save(checkpoint.state_dict, folder / "weights.pth")
    export_models(checkpoint, folder / "triton_repo", name)


def original_sam(folder: Path) -> Any:
    """segment_anything's model with the weights of a folder from `prepare`."""
    return build_model(load_sam_checkpoint(folder / "weights.pth"))


def _widened(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    widened = torch.zeros_like(like)
    widened[tuple(slice(length) for length in tensor.shape)] = tensor
    return widened


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
