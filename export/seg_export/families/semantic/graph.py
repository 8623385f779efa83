"""Semantic segmentation graphs: a batch of uint8 images in, class probabilities out."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version

import torch
from torch import nn

from seg_export.checkpoints.checkpoint import Checkpoint, Preprocessing, build_model
from seg_export.families.semantic.engine import semantic_labels
from seg_export.tracing.traceable import TraceableModel
from seg_export.verification.cases import semantic_case
from seg_runtime.contract import MOST_CHANNELS
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["SemanticGraph", "semantic_model", "semantic_spec"]

MAX_SIDE = 4096


class SemanticGraph(nn.Module):
    """A segmentation network with its input's cast and normalisation and its output's activation.

    Args:
        model: (N, C, H, W) float32, normalised, to (N, num_classes, H, W) logits.
        preprocessing: what it expects of its input.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.reverse_channels = preprocessing.channel_order == "bgr"
        # (pixel / scale - mean) / std as one multiplication and one addition per pixel.
        means = torch.tensor(preprocessing.mean, dtype=torch.float64)[:, None, None]
        deviations = torch.tensor(preprocessing.std, dtype=torch.float64)[:, None, None]
        self.register_buffer("scale", (1 / (preprocessing.scale * deviations)).to(torch.float32))
        self.register_buffer("shift", (-means / deviations).to(torch.float32))

    def prepared(self, image: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) uint8 to the network's (N, C, H, W) float32, normalised."""
        pixels = image.to(torch.float32).permute(0, 3, 1, 2)
        if self.reverse_channels:
            pixels = pixels.flip(1)
        return pixels * self.scale + self.shift

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Segment a batch.

        Args:
            image: (N, H, W, C) uint8.

        Returns:
            (N, num_classes, H, W) float32 probabilities: a sigmoid for one class, a softmax over
            the class axis for several.
        """
        logits: torch.Tensor = self.model(self.prepared(image))
        return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


def semantic_model(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], min_side: int, max_batch_size: int
) -> TraceableModel:
    """Build the graph of a checkpoint whose network maps images to logits per class.

    Args:
        checkpoint: its `arguments` hold `in_channels` and `num_classes`, or leave them at 1.
        name: the model's name.
        size_hw: (height, width) in pixels of the graph's input.
        min_side: shortest side in pixels that the network can take.
        max_batch_size: largest batch that is served.

    Raises:
        BadInputError: a size that the network cannot take, or no batch at all.
        CheckpointError: weights that do not fit, or a preprocessing or class names that do not fit
            the network's channels.
    """
    network = build_model(checkpoint)
    spec = semantic_spec(checkpoint, network, name, size_hw, min_side, max_batch_size)
    graph = SemanticGraph(network, checkpoint.preprocessing).eval()
    return TraceableModel(spec, partial(semantic_labels, spec), graph, image_case=semantic_case)


def check_sides(size_hw: tuple[int, int], min_side: int) -> None:
    """Refuse an input that is too small or too large. Raises BadInputError.

    Args:
        size_hw: (height, width) in pixels.
        min_side: shortest side in pixels that the network can take.
    """
    if not all(min_side <= side <= MAX_SIDE for side in size_hw):
        raise BadInputError(
            f"input size {size_hw[0]}x{size_hw[1]}: each side must be {min_side} to {MAX_SIDE} pixels "
            "(the client cuts larger images into tiles)"
        )


def semantic_spec(
    checkpoint: Checkpoint,
    network: nn.Module,
    name: str,
    size_hw: tuple[int, int],
    min_side: int,
    max_batch_size: int,
) -> ModelSpec:
    """The contract of a network; arguments and errors as `semantic_model`."""
    check_sides(size_hw, min_side)
    if max_batch_size < 1:
        raise BadInputError(f"largest batch {max_batch_size}: it must be at least 1")
    channels = int(checkpoint.arguments.get("in_channels", 1))
    classes = int(checkpoint.arguments.get("num_classes", 1))
    _check_channels(checkpoint, channels, classes)
    preprocessing = checkpoint.preprocessing
    return ModelSpec(
        name=name,
        version=1,
        task="semantic",
        family=checkpoint.family,
        inputs=(TensorSpec("image", "uint8", (*size_hw, channels)),),
        outputs=(TensorSpec("probabilities", "float32", (classes, *size_hw)),),
        max_batch_size=max_batch_size,
        input_size_hw=size_hw,
        channels=channels,
        mean=preprocessing.mean,
        std=preprocessing.std,
        scale=preprocessing.scale,
        channel_order=preprocessing.channel_order,
        class_names=checkpoint.class_names or tuple(f"class_{index}" for index in range(classes)),
        threshold=preprocessing.threshold,
        clahe=preprocessing.clahe,
        checkpoint_sha256=checkpoint.sha256,
        weights="random" if checkpoint.metadata.get("weights") == "random" else "trained",
        parameter_count=sum(parameter.numel() for parameter in network.parameters()),
        toolkit_version=version("edgeseg"),
    )


def _check_channels(checkpoint: Checkpoint, channels: int, classes: int) -> None:
    if not 1 <= channels <= MOST_CHANNELS:
        raise CheckpointError(f"the network takes {channels} channels; images have 1 to {MOST_CHANNELS}")
    if not 1 <= classes <= 255:
        raise CheckpointError(f"the network has {classes} classes; a mask can hold 1 to 255")
    preprocessing = checkpoint.preprocessing
    for what, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) != channels:
            raise CheckpointError(
                f"the checkpoint's {what} has {len(values)} values and its network {channels} channels: "
                "save it with one value per channel"
            )
    if preprocessing.channel_order == "bgr" and channels != 3:
        raise CheckpointError(
            f"the checkpoint's channel order is bgr and its network takes {channels} channels"
        )
    if preprocessing.clahe and channels not in (1, 3):
        raise CheckpointError(
            f"the checkpoint equalises contrast (CLAHE), which is for gray and RGB images, and its network "
            f"takes {channels} bands"
        )
    if not all(value > 0 for value in preprocessing.std):
        raise CheckpointError(f"the checkpoint's std {preprocessing.std} must be above 0")
    if checkpoint.class_names and len(checkpoint.class_names) != classes:
        raise CheckpointError(
            f"the checkpoint names {len(checkpoint.class_names)} classes and its network has {classes}: "
            "save it with one name per class"
        )
