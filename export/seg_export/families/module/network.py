"""A user's module as a checkpoint: its weights, which of its outputs counts, and what becomes of it."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, get_args

import torch
from torch import nn

from seg_export.checkpoints.checkpoint import load_checkpoint, misfits
from seg_export.checkpoints.containers import read_weights
from seg_export.checkpoints.files import read_plain
from seg_export.checkpoints.near_misses import impostor
from seg_export.checkpoints.nested import Weights, first_three
from seg_export.checkpoints.random_weights import tensors_sha256
from seg_export.checkpoints.tensors import check_finite, float32
from seg_export.checkpoints.types import Checkpoint, Preprocessing, WeightsFile
from seg_export.families.module.outputs import chosen, named_outputs, shape_text
from seg_export.families.semantic.activation import Activation, activation_of
from seg_export.families.semantic.graph import check_sides
from seg_export.families.semantic.maps import is_proportional
from seg_runtime.contract import MOST_CHANNELS
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.hashing import file_sha256
from seg_runtime.preprocess import check_clahe

__all__ = ["MIN_SIDE", "Activation", "input_channels", "module_checkpoint"]

MIN_SIDE = 8
"""Shortest side in pixels of an input."""


def input_channels(module: nn.Module) -> int:
    """Of its first convolution; 3 without one."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return first.in_channels if first else 3


def module_checkpoint(
    module: nn.Module,
    preprocessing: Preprocessing,
    *,
    weights: WeightsFile | None = None,
    class_names: Sequence[str] = (),
    activation: Activation | None = None,
    output: str | int | None = None,
    made: str = "as the module has them",
    described: bool = True,
) -> Checkpoint:
    """Run a module once and note what it makes. The module itself is left as it is.

    Args:
        module: (N, C, H, W) float32, normalised, to (N, classes, h, w) logits, or to several outputs.
        preprocessing: what it expects of its input, one mean and std per channel.
        weights: a file with a state dict to load into it, strictly; None for those that it has.
        class_names: one per class; none for "class_0" and so on.
        activation: None for a sigmoid of one class and a softmax over several.
        output: name or index of the output that counts, of a module that has several.
        made: where its own weights are from, for people.
        described: whether all of `preprocessing` was said of the module, and nothing is assumed.

    Raises:
        BadInputError: a module of another kind, or settings that do not fit it.
        CheckpointError: weights that cannot be read or do not fit.
    """
    channels = len(preprocessing.mean)
    if not 1 <= channels <= MOST_CHANNELS:
        raise BadInputError(f"mean has {channels} values, expected 1 to {MOST_CHANNELS}, one per channel")
    _check_settings(preprocessing, activation)
    size_hw = preprocessing.input_size_hw
    check_sides(size_hw, MIN_SIDE)
    network = copy.deepcopy(module).cpu().float().eval()
    steps = _load(network, weights) if weights else ()
    noise = torch.randn(1, channels, *size_hw, generator=torch.Generator().manual_seed(0))
    outputs, plain = named_outputs(_probe(network, noise))
    name = chosen(outputs, output, plain)
    shape = tuple(outputs[name].shape)
    classes = shape[1]
    if not is_proportional(shape[2:], size_hw):
        raise BadInputError(
            f"the output is {shape_text(shape)} for images of {shape_text(size_hw)}, which looks like (N, "
            "height, width, classes): return (N, classes, height, width)"
        )
    lowest, highest = float(outputs[name].min()), float(outputs[name].max())
    stated_activation = activation is not None
    activation = activation_of(activation, classes, lowest, highest, "the output")
    if class_names and len(class_names) != classes:
        raise BadInputError(
            f"--class-names names {len(class_names)} classes and the output has {classes}: name each"
        )
    names = ("foreground",) if classes == 1 else tuple(f"class_{index}" for index in range(classes))
    return Checkpoint(
        family="module",
        arguments={
            "in_channels": channels,
            "num_classes": classes,
            "outputs": () if plain else tuple(outputs),
            "output": name,
            "output_hw": shape[2:],
            "activation": activation,
        },
        state_dict={},
        preprocessing=preprocessing,
        class_names=tuple(class_names) or names,
        metadata={
            "source": str(weights.path) if weights else made,
            "origins": {"--activation": "option"} if stated_activation else {},
        },
        sha256=file_sha256(weights.path) if weights else tensors_sha256(network.state_dict()),
        described=described,
        steps=steps,
        network=network,
    )


def _check_settings(preprocessing: Preprocessing, activation: str | None) -> None:
    channels = len(preprocessing.mean)
    if activation is not None and activation not in get_args(Activation):
        raise BadInputError(f"activation '{activation}': expected {', '.join(get_args(Activation))}")
    if preprocessing.channel_order == "bgr" and channels != 3:
        raise BadInputError(f"--channel-order bgr is for 3 channels, and the mean is of {channels}")
    if not 0 <= preprocessing.threshold <= 1:
        raise BadInputError(f"--threshold {preprocessing.threshold:g}: expected 0 to 1")
    check_clahe(channels, preprocessing.clahe)


def _load(network: nn.Module, weights: WeightsFile) -> tuple[str, ...]:
    """Load weights strictly, and say what was done to get at them. Raises CheckpointError."""
    path, wanted = weights.path, network.state_dict()
    document = read_plain(path)
    if isinstance(document, Mapping) and str(document.get("format")).startswith("edgeseg/"):
        document = dict(load_checkpoint(path).state_dict)
    problems: list[list[str]] = []
    seen: list[dict[str, torch.Tensor]] = []

    def read(candidate: Weights) -> dict[str, torch.Tensor] | None:
        seen.append(candidate.tensors)
        problems.append(misfits(wanted, candidate.tensors))
        return None if problems[-1] else candidate.tensors

    found = read_weights(document, path, weights.chosen, read, lambda tensors: float32(tensors, path))
    if found is None:
        if text := next(filter(None, map(impostor, seen)), None):
            raise CheckpointError(f"checkpoint {path} {text}")
        fewest = min(problems, key=len)
        raise CheckpointError(
            f"checkpoint {path} does not fit a {type(network).__name__}: {first_three(fewest)}"
        )
    tensors, candidate = found
    check_finite(tensors, path)
    network.load_state_dict(tensors)
    return candidate.steps


def _probe(network: nn.Module, image: torch.Tensor) -> Any:
    """What it makes of an image, (1, C, H, W) float32. Raises BadInputError."""
    channels, size_hw = image.shape[1], tuple(image.shape[2:])
    kinds = [type(part) for part in network.modules()]
    if nn.Conv3d in kinds and nn.Conv2d not in kinds:
        raise BadInputError(
            f"{type(network).__name__} is a 3-D network, from (N, C, D, H, W): only 2-D ones, from "
            "(N, C, H, W), can be exported"
        )
    try:
        # What a user's code prints is not the command's answer.
        with torch.inference_mode(), redirect_stdout(sys.stderr):
            return network(image)
    except (Exception, SystemExit) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        takes = input_channels(network)
        hint = (
            f"; its first convolution takes {takes} channels, and the mean is of {channels}: give one mean "
            "and std per channel"
            if takes != channels
            else "; choose another --size if that is the reason"
        )
        shape = shape_text((1, channels, *size_hw))
        raise BadInputError(
            f"{type(network).__name__} cannot take float32 {shape}: {reason}{hint}"
        ) from error
