"""Where a SAM's weights come from: official files, files of one's own, constructor arguments in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from seg_export.families.sam.huggingface import check_sam_config, segment_anything_names
from seg_export.families.sam.network import VARIANTS, build_sam, sam_arguments
from seg_export.families.variants import Variants
from seg_runtime.errors import CheckpointError
from seg_runtime.hashing import file_sha256

__all__ = [
    "OFFICIAL",
    "SIZES",
    "download_official",
    "load_sam_checkpoint",
    "read_variant_config",
    "recognise_sam",
    "variant_arguments",
]

_SOURCE = "https://dl.fbaipublicfiles.com/segment_anything/"

OFFICIAL = {
    "vit_b": (
        f"{_SOURCE}sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": (
        f"{_SOURCE}sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": (
        f"{_SOURCE}sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}
"""Address and SHA-256 of Meta's checkpoints."""


_RENAMED = "renamed its tensors from transformers' names to segment_anything's"

SIZES = Variants("SAM", VARIANTS, OFFICIAL, build_sam)

variant_arguments, read_variant_config, download_official = SIZES.arguments, SIZES.read, SIZES.download


def load_sam_checkpoint(
    path: Path, arguments: Mapping[str, Any] | None = None, weights: str | None = None
) -> Checkpoint:
    """Load a SAM's weights, which say by their shapes what SAM they are.

    Args:
        path: a state dict of `segment_anything.modeling.Sam`, or the file or folder of a `SamModel` of
            transformers.
        arguments: of `build_sam`, what the file must be; None for whatever it is.
        weights: as in `load_checkpoint`.

    Raises:
        CheckpointError: the file cannot be used, is no SAM's, or another one's (it says which).
    """
    checkpoint = load_checkpoint(path, weights)
    if checkpoint.family != "sam":
        raise CheckpointError(f"checkpoint {path} is a {checkpoint.family}, not a SAM")
    if arguments is None:
        return checkpoint
    SIZES.check(path, arguments, checkpoint.arguments)
    return replace(checkpoint, arguments=dict(arguments))


def recognise_sam(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint | None:
    """The SAM that tensors are, in segment_anything's names or in those of transformers; None for others.

    Args:
        tensors: a state dict.
        path: its file, next to which transformers keeps the configuration.

    Raises:
        CheckpointError: a SAM of transformers whose configuration says something else than its weights.
    """
    renamed = segment_anything_names(tensors, path)
    state_dict = tensors if renamed is None else renamed
    if (arguments := sam_arguments(state_dict)) is None:
        return None
    if renamed is not None:
        check_sam_config(arguments, path)
    size_hw = (arguments["image_size"], arguments["image_size"])
    return Checkpoint(
        family="sam",
        arguments=arguments,
        state_dict=state_dict,
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, size_hw),
        sha256=file_sha256(path),
        described=False,
        steps=() if renamed is None else (_RENAMED,),
    )
