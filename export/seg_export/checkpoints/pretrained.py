"""Weights that come with the package."""

from __future__ import annotations

from pathlib import Path

from seg_runtime.errors import CheckpointError

__all__ = ["PRETRAINED", "pretrained_path"]

PRETRAINED = {
    "lung": "unet_lung.pth",
    "nuclei": "maskrcnn_nuclei.pth",
    "sam_tiny": "sam_tiny.pth",
    "transunet_lung": "transunet_lung.pth",
    "unetpp_lung": "unetpp_lung.pth",
}
"""What they segment, and their file in `seg_export/weights`."""


def pretrained_path(name: str) -> Path:
    """The file of packaged weights. Raises CheckpointError when there is none of that name."""
    if name not in PRETRAINED:
        raise CheckpointError(f"no packaged weights '{name}': there are {', '.join(sorted(PRETRAINED))}")
    path = Path(__file__).parents[1] / "weights" / PRETRAINED[name]
    if not path.is_file():
        raise CheckpointError(f"the packaged weights {path} are missing: install edgeseg again")
    return path
