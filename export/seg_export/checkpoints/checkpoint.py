"""Checkpoints: one file with the weights and everything needed to rebuild and feed the model.

The file is `torch.save` of a dict with tensors, strings, numbers, lists and dicts only. Plain state
dicts, such as the article's `best_unet.pth`, load too: the constructor's arguments are read off the
tensor shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seg_export.checkpoints.files import read_plain, write_atomically
from seg_export.checkpoints.huggingface import weights_file
from seg_export.checkpoints.nested import first_three
from seg_export.checkpoints.state_dicts import Recogniser, recognise
from seg_export.checkpoints.tensors import cast, check_finite, float32
from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, Preprocessing
from seg_export.families import FAMILIES, family_named
from seg_runtime.contract import one_of
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.hashing import file_sha256
from seg_runtime.spec import ChannelOrder, ClaheSpec, Resize

__all__ = [
    "FORMAT",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Checkpoint",
    "Preprocessing",
    "build_model",
    "load_checkpoint",
    "misfits",
    "save_checkpoint",
    "untrained_model",
    "write_checkpoint",
]

FORMAT = "edgeseg/1"


def save_checkpoint(
    path: Path,
    *,
    family: str,
    arguments: Mapping[str, Any],
    state_dict: Mapping[str, torch.Tensor],
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    metadata: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write a checkpoint; the file appears whole or not at all. The fields are `Checkpoint`'s.

    Args:
        path: the file; its folder is made where it is missing.
        half: store floating point tensors as float16, for half the size. They load as float32.

    Raises:
        CheckpointError: the folder is not writable or the disk is full.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    if half:
        tensors = {name: cast(tensor, torch.float16) for name, tensor in tensors.items()}
    document = {
        "format": FORMAT,
        "family": family,
        "arguments": _plain(arguments),
        "state_dict": tensors,
        "preprocessing": _plain(asdict(preprocessing)),
        "class_names": list(class_names),
        "metadata": _plain(metadata or {}),
    }
    write_atomically(document, path)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """`save_checkpoint` of one that is at hand, as random weights are."""
    save_checkpoint(
        path,
        family=checkpoint.family,
        arguments=checkpoint.arguments,
        state_dict=checkpoint.state_dict,
        preprocessing=checkpoint.preprocessing,
        class_names=checkpoint.class_names,
        metadata=checkpoint.metadata,
    )


def load_checkpoint(path: Path, weights: str | None = None, *, first: Recogniser | None = None) -> Checkpoint:
    """Read a checkpoint or a plain state dict (`.pth`, `.pt` or `.safetensors`) onto the CPU.

    A state dict may be anywhere in what the file holds, under the names of wrappers or with a prefix:
    `Checkpoint.steps` says what was done to get at it.

    Args:
        path: the file, or the folder that `save_pretrained` of transformers wrote.
        weights: which weights of a file with several: "ema", "raw" or their name in it.
        first: asked before the families whether it knows a state dict.

    Raises:
        CheckpointError: the file is missing, empty, truncated, holds code or no weights, has NaN or
            infinite ones, or is of an unknown family or format; or `weights` names none of it.
        MissingExtraError: a `.safetensors` file, and safetensors is not installed.
    """
    path = weights_file(path)
    document = read_plain(path)
    if not isinstance(document, Mapping) or not str(document.get("format")).startswith("edgeseg/"):
        checkpoint = recognise(document, path, weights, first)
    elif document["format"] != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {document['format']!r}, expected {FORMAT!r}: upgrade edgeseg"
        )
    elif weights is not None:
        raise CheckpointError(
            f"--weights {weights} has no effect: checkpoint {path} holds one set of weights; leave it out"
        )
    else:
        checkpoint = _from_document(document, path)
    check_finite(checkpoint.state_dict, path)
    return checkpoint


def build_model(checkpoint: Checkpoint) -> nn.Module:
    """Build the model in eval mode on the CPU with the checkpoint's weights, which are shared, not copied.

    Raises:
        CheckpointError: an unknown family, arguments that the constructor refuses, or weights that
            do not fit it (the first three are named).
    """
    try:
        model = untrained_model(checkpoint.family, checkpoint.arguments)
    except (BadInputError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"cannot build a {checkpoint.family} from the arguments {checkpoint.arguments}: {error}"
        ) from error
    wanted = model.state_dict()
    # Counters of batches, which files from before PyTorch 0.4 lack and evaluation never reads.
    counters = {
        name: tensor
        for name, tensor in wanted.items()
        if name.endswith("num_batches_tracked")
        and f"{name.removesuffix('num_batches_tracked')}running_var" in checkpoint.state_dict
    }
    state_dict = counters | checkpoint.state_dict
    _check_fit(wanted, replace(checkpoint, state_dict=state_dict))
    model.load_state_dict(state_dict, assign=True)
    return model.eval()


def untrained_model(family: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A family's model with the weights that its constructor draws.

    Raises:
        CheckpointError: an unknown family.
        BadInputError: arguments that the constructor refuses.
    """
    return family_named(family).build(**arguments)


def misfits(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps a state dict from being loaded strictly, a line per tensor.

    Example:
        >>> misfits({"weight": torch.zeros(1)}, {"bias": torch.zeros(1)})
        ['weight is missing', 'bias is not expected']
    """
    problems = [f"{name} is missing" for name in wanted if name not in given]
    problems += [f"{name} is not expected" for name in given if name not in wanted]
    problems += [
        f"{name} is {list(given[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems += [
        f"{name} is {given[name].dtype}, not {tensor.dtype}"
        for name, tensor in wanted.items()
        if name in given and given[name].is_floating_point() != tensor.is_floating_point()
    ]
    return problems


def _from_document(document: Mapping[str, Any], path: Path) -> Checkpoint:
    if document.get("family") not in FAMILIES:
        raise CheckpointError(
            f"checkpoint {path} is of the unknown model family {document.get('family')!r}: "
            f"this version knows {', '.join(sorted(FAMILIES))}"
        )
    try:
        return Checkpoint(
            family=document["family"],
            arguments=dict(document["arguments"]),
            state_dict=float32(document["state_dict"], path),
            preprocessing=_preprocessing(document["preprocessing"]),
            class_names=tuple(document["class_names"]),
            metadata=dict(document["metadata"]),
            sha256=file_sha256(path),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path} lacks a field or has a wrong one: {error!r}") from error


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    clahe = values["clahe"]
    height, width = values["input_size_hw"]
    return Preprocessing(
        mean=tuple(map(float, values["mean"])),
        std=tuple(map(float, values["std"])),
        clahe=clahe and ClaheSpec(float(clahe["clip_limit"]), tuple(clahe["tile_grid_hw"])),
        input_size_hw=(int(height), int(width)),
        # Checkpoints of earlier versions do not have these.
        scale=float(values.get("scale", 255.0)),
        channel_order=one_of(ChannelOrder, "channel order", values.get("channel_order", "rgb")),
        threshold=float(values.get("threshold", 0.5)),
        resize=values.get("resize") and one_of(Resize, "resize", values["resize"]),
    )


def _check_fit(wanted: Mapping[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    if problems := misfits(wanted, checkpoint.state_dict):
        raise CheckpointError(
            f"the weights do not fit a {checkpoint.family} with {checkpoint.arguments}: "
            f"{first_three(problems)}"
        )


def _plain(value: Any) -> Any:
    """Tuples become lists, and subclasses (torch's version string, NumPy's float64) their plain base.

    Anything else than plain values would make the file unreadable with `weights_only=True`.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)
