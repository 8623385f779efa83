"""What a checkpoint is once it is loaded: weights, how to build the model, what it expects of its input."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_runtime.spec import ChannelOrder, ClaheSpec, Resize

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Checkpoint",
    "Preprocessing",
    "WeightsFile",
    "loaded",
    "usual_preprocessing",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """What the model expects of its input.

    Attributes:
        mean: per channel, of pixels divided by `scale`; the default is the article's.
        std: per channel, of pixels divided by `scale`; the default is the article's.
        clahe: contrast equalisation of the 8-bit image after resizing, or None.
        input_size_hw: (height, width) in pixels that images are resized to.
        scale: what pixels of 0..255 are divided by before, 1 for statistics of the pixels themselves.
        channel_order: that the network was trained with; images are read as RGB.
        threshold: a probability at or above it is foreground, where there is one class.
        score_threshold: of a network that finds objects: one counts from this score on.
        resize: how images are brought to `input_size_hw`, where the family leaves a choice; None for its own.
    """

    mean: tuple[float, ...] = (0.485,)
    std: tuple[float, ...] = (0.229,)
    clahe: ClaheSpec | None = None
    input_size_hw: tuple[int, int] = (512, 512)
    scale: float = 255.0
    channel_order: ChannelOrder = "rgb"
    threshold: float = 0.5
    score_threshold: float = 0.5
    resize: Resize | None = None


def usual_preprocessing(channels: int) -> Preprocessing:
    """ImageNet's statistics for RGB, the article's for every channel of others."""
    if channels == 3:
        return Preprocessing(IMAGENET_MEAN, IMAGENET_STD)
    return Preprocessing(Preprocessing.mean * channels, Preprocessing.std * channels)


@dataclass(frozen=True)
class WeightsFile:
    """A file with weights for a network that is at hand.

    Attributes:
        path: the file.
        chosen: which of several sets of weights, as `seg_export.checkpoints.containers.choose` takes it.
    """

    path: Path
    chosen: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A model's weights and all that is needed to rebuild and feed it.

    Attributes:
        family: model family, for example "unet".
        arguments: keyword arguments of the family's constructor.
        state_dict: parameters and buffers, floating point ones as float32.
        preprocessing: what the model expects of its input.
        class_names: one per output channel.
        metadata: free-form facts about the training run.
        sha256: hex SHA-256 of the file it was loaded from; else empty.
        described: False for a plain state dict, of which `preprocessing` and `class_names` are assumed.
        stated: which of them somebody said, by the names of `seg_export.checkpoints.claims.Claims`.
        carried: which of them, and "size_hw", the folder that it is from says.
        network: the module itself, of a family that cannot build it from `arguments`; else None.
        steps: what was done to a file to get at its weights, for people; nothing for most.
    """

    family: str
    arguments: dict[str, Any]
    state_dict: dict[str, torch.Tensor]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    class_names: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    described: bool = True
    stated: frozenset[str] = frozenset()
    carried: frozenset[str] = frozenset()
    network: nn.Module | None = None
    steps: tuple[str, ...] = ()


def loaded(checkpoint: Checkpoint | Path) -> Checkpoint:
    """A checkpoint, or that of a file. Raises CheckpointError, as `checkpoint.load_checkpoint`."""
    if not isinstance(checkpoint, Path):
        return checkpoint
    # It imports PyTorch, which the file of a graph does without.
    from seg_export.checkpoints.checkpoint import load_checkpoint

    return load_checkpoint(checkpoint)
