"""Where a SAM2's weights come from: official files, files of one's own, constructor arguments in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from seg_export.families.sam2.huggingface import config_arguments, sam2_names
from seg_export.families.sam2.network import (
    VARIANTS,
    build_sam2,
    is_sam2,
    readable_arguments,
    sam2_arguments,
)
from seg_export.families.variants import Variants
from seg_runtime.errors import CheckpointError
from seg_runtime.hashing import file_sha256

__all__ = [
    "OFFICIAL",
    "SIZES",
    "download_official",
    "load_sam2_checkpoint",
    "read_variant_config",
    "recognise_sam2",
    "variant_arguments",
]

_SOURCE = "https://dl.fbaipublicfiles.com/segment_anything_2/"

OFFICIAL = {
    "sam2.1_tiny": (
        f"{_SOURCE}092824/sam2.1_hiera_tiny.pt",
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    "sam2.1_small": (
        f"{_SOURCE}092824/sam2.1_hiera_small.pt",
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    "sam2.1_base_plus": (
        f"{_SOURCE}092824/sam2.1_hiera_base_plus.pt",
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    "sam2.1_large": (
        f"{_SOURCE}092824/sam2.1_hiera_large.pt",
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
    "sam2_tiny": (
        f"{_SOURCE}072824/sam2_hiera_tiny.pt",
        "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
    ),
    "sam2_small": (
        f"{_SOURCE}072824/sam2_hiera_small.pt",
        "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
    ),
    "sam2_base_plus": (
        f"{_SOURCE}072824/sam2_hiera_base_plus.pt",
        "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
    ),
    "sam2_large": (
        f"{_SOURCE}072824/sam2_hiera_large.pt",
        "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
    ),
}
"""Address and SHA-256 of Meta's checkpoints, of SAM 2.1 and of the first release."""


SIZES = Variants("SAM2", VARIANTS, OFFICIAL, build_sam2)

variant_arguments, read_variant_config, download_official = SIZES.arguments, SIZES.read, SIZES.download


def load_sam2_checkpoint(
    path: Path, arguments: Mapping[str, Any] | None = None, weights: str | None = None
) -> Checkpoint:
    """Load a SAM2's weights, which say by their shapes which official SAM2 they are.

    Args:
        path: Meta's file, a state dict of `SAM2Base`, the file or folder of a `Sam2VideoModel` of
            transformers, or a checkpoint of ours.
        arguments: of `build_sam2`, what the file must be; None for whatever official size it is, or for
            what transformers' configuration says.
        weights: as in `load_checkpoint`.

    Raises:
        CheckpointError: the file cannot be used, is no SAM2's, or another one's (it says which).
    """
    first = partial(recognise_sam2, arguments=arguments) if arguments else None
    checkpoint = load_checkpoint(path, weights, first=first)
    if checkpoint.family != "sam2":
        raise CheckpointError(f"checkpoint {path} is a {checkpoint.family}, not a SAM2")
    if arguments is None:
        return checkpoint
    found = readable_arguments(checkpoint.state_dict)
    if SIZES.complete(checkpoint.arguments) != SIZES.complete(arguments):
        # The file is not weights alone, and says the rest too.
        found = checkpoint.arguments | found
    SIZES.check(path, arguments, found)
    return replace(checkpoint, arguments=dict(arguments))


def recognise_sam2(
    tensors: dict[str, torch.Tensor], path: Path, arguments: Mapping[str, Any] | None = None
) -> Checkpoint | None:
    """The SAM2 that tensors are, in sam2's names or in those of transformers; None for others.

    Args:
        tensors: a state dict.
        path: its file, next to which transformers keeps the configuration.
        arguments: of `build_sam2`, where the configuration does not say them.

    Raises:
        CheckpointError: of no official size and not described, or a SAM2 of transformers that is not sam2's
            or whose configuration says something else than its weights.
    """
    renamed = sam2_names(tensors, path)
    state_dict = tensors if renamed is None else renamed
    if not is_sam2(state_dict):
        return None
    configured = None if renamed is None else config_arguments(path)
    if configured is not None:
        _check_sizes(configured, state_dict, path)
    known = configured or arguments or sam2_arguments(state_dict)
    if known is None:
        raise CheckpointError(
            f"checkpoint {path} is a SAM2 of no official size, whose windows and heads leave no trace in its "
            "weights: describe it with seg-export sam2 --variant-config FILE.json"
        )
    official = SIZES.named(SIZES.complete(known))
    side = known.get("image_size", 1024)
    return Checkpoint(
        family="sam2",
        arguments=dict(VARIANTS[official] if official else known),
        state_dict=state_dict,
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, (side, side)),
        sha256=file_sha256(path),
        described=False,
        carried=frozenset() if configured is None else frozenset({"size_hw"}),
        steps=() if renamed is None else ("renamed its tensors from transformers' names to sam2's",),
    )


def _check_sizes(configured: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise CheckpointError where a configuration has other sizes than weights."""
    for name, value in readable_arguments(tensors).items():
        if configured[name] != value:
            raise CheckpointError(
                f"checkpoint {path} is a SAM2 with {name} {value}, and its config.json says "
                f"{configured[name]}: name the weights' own folder"
            )
