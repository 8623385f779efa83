"""Where a Mask R-CNN's weights come from: torchvision's own files, and files of one's own in its format."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path
from typing import Any

from seg_export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from seg_export.checkpoints.download import OnBytes, cache_folder, download
from seg_export.families.maskrcnn.network import ARCHITECTURES
from seg_runtime.errors import BadInputError, CheckpointError

__all__ = ["OFFICIAL", "check_architecture", "download_official", "load_maskrcnn_checkpoint"]

_SOURCE = "https://download.pytorch.org/models/"

OFFICIAL = {
    "maskrcnn_resnet50_fpn": (f"{_SOURCE}maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "bf2d0c1e"),
    "maskrcnn_resnet50_fpn_v2": (f"{_SOURCE}maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", "73cbd019"),
}
"""Address of torchvision's COCO weights and how their SHA-256 begins, which is all that torchvision says."""


def check_architecture(arch: str) -> str:
    """An architecture that is known. Raises BadInputError, naming the nearest."""
    if arch not in ARCHITECTURES:
        near = difflib.get_close_matches(arch, ARCHITECTURES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadInputError(f"unknown architecture '{arch}': {hint}known are {', '.join(ARCHITECTURES)}")
    return arch


def download_official(arch: str, *, folder: Path | None = None, on_bytes: OnBytes | None = None) -> Path:
    """Fetch torchvision's COCO weights, or go on with a download that broke off, and check their hash.

    Args:
        arch: a key of `OFFICIAL`.
        folder: where they go; None for edgeseg's cache folder. A file that is there is not fetched again.
        on_bytes: called with the bytes at hand and the total.

    Raises:
        BadInputError: torchvision has no such weights, or the server refuses the address.
        ServerUnavailableError: nobody answers.
        EdgesegError: the file cannot be written or has another hash.
    """
    if check_architecture(arch) not in OFFICIAL:
        raise BadInputError(f"torchvision has no weights for {arch}: it has them for {', '.join(OFFICIAL)}")
    url, sha256 = OFFICIAL[arch]
    path = (folder or cache_folder()) / url.rpartition("/")[2]
    return download(url, path, sha256=sha256, on_bytes=on_bytes, option="--checkpoint").path


def load_maskrcnn_checkpoint(
    path: Path, arch: str | None = None, *, weights: str | None = None, **changes: Any
) -> Checkpoint:
    """Load a Mask R-CNN's weights, which say by their names and shapes what they are.

    Args:
        path: torchvision's state dict, or a checkpoint of edgeseg.
        arch: what the file must be; None for whatever it is.
        weights: as in `load_checkpoint`.
        changes: arguments of `build_maskrcnn` that no weight shows, such as `max_detections` or `norm_eps`.

    Raises:
        CheckpointError: the file cannot be used, is no Mask R-CNN's, or another one's (it says which).
        BadInputError: an unknown architecture.
    """
    if arch is not None:
        check_architecture(arch)
    checkpoint = load_checkpoint(path, weights)
    if checkpoint.family != "maskrcnn":
        raise CheckpointError(f"checkpoint {path} is a {checkpoint.family}, not a Mask R-CNN")
    given = checkpoint.arguments["arch"]
    if arch is not None and arch != given:
        raise CheckpointError(
            f"checkpoint {path} is a {given}, not a {arch}: pass --arch {given}, or leave it out"
        )
    return replace(checkpoint, arguments={**checkpoint.arguments, **changes})
