"""Small honest checkpoints of every family."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from seg_export.checkpoints.random_weights import random_checkpoint

__all__ = ["SOURCES", "Source", "contents", "honest", "written"]

_SAM = {
    "image_size": 64, "encoder_embed_dim": 32, "encoder_depth": 2, "encoder_num_heads": 2,
    "encoder_global_attn_indexes": [1], "window_size": 3, "prompt_embed_dim": 32, "decoder_mlp_dim": 32,
    "iou_head_hidden_dim": 32,
}  # fmt: skip
_TRANSUNET = {
    "image_size": 32, "width": 8, "units": [1, 1, 1], "hidden": 64, "layers": 1, "mlp": 64,
    "head_channels": 16, "decoder_channels": [16, 8, 8, 8],
}  # fmt: skip
_MODULE = (
    "torch.nn:Conv2d",
    "--args",
    '{"in_channels": 1, "out_channels": 1, "kernel_size": 3, "padding": 1}',
)
_PLAIN = ("--assume-defaults", "--size", "32")


@dataclass(frozen=True)
class Source:
    """How checkpoints of one kind are made and exported.

    Attributes:
        make: what the file holds: a document of edgeseg, or a plain state dict.
        command: the arguments of `seg-export` in front of `--checkpoint`.
        options: those after it.
        suffix: of the file; ".safetensors" ones are written as such.
    """

    make: Callable[[], dict[str, Any]]
    command: tuple[str, ...]
    options: tuple[str, ...] = ()
    suffix: str = ".pth"


def _document(family: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """As `save_checkpoint` writes it."""
    made = random_checkpoint(family, arguments)
    return {
        "format": "edgeseg/1",
        "family": family,
        "arguments": dict(made.arguments),
        "state_dict": dict(made.state_dict),
        "preprocessing": {
            "mean": list(made.preprocessing.mean),
            "std": list(made.preprocessing.std),
            "clahe": {"clip_limit": 2.0, "tile_grid_hw": [8, 8]} if family == "unet" else None,
            "input_size_hw": list(made.preprocessing.input_size_hw)
            if family in ("sam", "transunet")
            else [64, 64],
            "scale": 255.0,
            "channel_order": "rgb",
            "threshold": made.preprocessing.threshold,
            "resize": None,
        },
        "class_names": [],
        "metadata": {"weights": "random"},
    }


def _unet() -> dict[str, Any]:
    arguments = {"in_channels": 1, "num_classes": 1, "bilinear": True, "features": [4, 8]}
    return _document("unet", arguments)


def _weights() -> dict[str, Any]:
    return dict(_unet()["state_dict"])


def _convolution() -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return dict(nn.Conv2d(1, 1, 3, padding=1).state_dict())


SOURCES = {
    "unet": Source(_unet, ("unet",)),
    "unet, plain state dict": Source(_weights, ("unet",), _PLAIN),
    "unet, safetensors": Source(_weights, ("unet",), _PLAIN, ".safetensors"),
    "unetpp": Source(lambda: _document("unetpp", {"features": [4, 6]}), ("unetpp",)),
    "transunet": Source(lambda: _document("transunet", _TRANSUNET), ("transunet",)),
    "sam": Source(lambda: _document("sam", _SAM), ("sam",)),
    "maskrcnn": Source(
        lambda: _document("maskrcnn", {"arch": "maskrcnn_light_fpn", "num_classes": 2}), ("maskrcnn",)
    ),
    "module": Source(_convolution, ("module", *_MODULE), _PLAIN),
}


@cache
def _made(source: str) -> dict[str, Any]:
    return SOURCES[source].make()


def contents(source: str) -> dict[str, Any]:
    """What an honest file holds, to be changed at will; its tensors are shared."""
    return {name: dict(each) if isinstance(each, dict) else each for name, each in _made(source).items()}


@cache
def honest(source: str) -> bytes:
    """The file of a key of `SOURCES`, as it should be."""
    return written(contents(source), SOURCES[source].suffix)


def written(content: Any, suffix: str = ".pth") -> bytes:
    """A file of `torch.save`, or of safetensors, that holds this."""
    if suffix == ".safetensors":
        return save({name: each.contiguous() for name, each in content.items()})
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()
