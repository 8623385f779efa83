"""The rows of U-Net, U-Net++ and TransUNet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_export.families.family import Family
from seg_export.families.semantic.assumptions import left_open, semantic_assumptions
from seg_export.families.semantic.engine import semantic_engine_check
from seg_export.precision.kept import NORMS, SOFTMAX, KeptInFp32
from seg_runtime.errors import BadInputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seg_export.checkpoints.types import Checkpoint, Preprocessing
    from seg_export.tracing.traceable import TraceableModel

__all__ = ["TRANSUNET", "UNET", "UNETPP"]


def _build_unet(**arguments: Any) -> nn.Module:
    from seg_export.families.semantic.unet import UNet

    return UNet(**arguments)


def _build_unetpp(**arguments: Any) -> nn.Module:
    from seg_export.families.semantic.unetpp import UNetPlusPlus

    return UNetPlusPlus(**arguments)


def _build_transunet(**arguments: Any) -> nn.Module:
    from seg_export.families.semantic.transunet import TransUNet

    return TransUNet(**arguments)


def _unet_models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> tuple[TraceableModel, ...]:
    from seg_export.families.semantic.graph import semantic_model

    # U-Net and U-Net++ have five levels unless their arguments say otherwise.
    levels = len(checkpoint.arguments.get("features", range(5))) - 1
    return (semantic_model(checkpoint, name, size_hw, max(2**levels, 8), max_batch_size),)


def _transunet_models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> tuple[TraceableModel, ...]:
    from seg_export.families.semantic.graph import semantic_model

    side = int(checkpoint.arguments.get("image_size", 224))
    if size_hw != (side, side):
        raise BadInputError(
            f"input size {size_hw[0]}x{size_hw[1]}: this TransUNet has learned positions for {side}x{side} "
            "alone; leave --size out"
        )
    return (semantic_model(checkpoint, name, size_hw, side, max_batch_size),)


def _preprocessing(network: Any, arguments: Mapping[str, Any]) -> Preprocessing:
    from seg_export.checkpoints.types import Preprocessing

    default, channels = Preprocessing(), int(arguments.get("in_channels", 1))
    side = getattr(network, "image_size", default.input_size_hw[0])
    return Preprocessing(default.mean * channels, default.std * channels, None, (side, side))


def _spread(network: nn.Module) -> None:
    """Keep activations at one scale through all layers.

    PyTorch's own initialisation lets them fade, so that every probability is 0.5 and a wrong graph
    looks right.
    """
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _spread_transunet(network: Any) -> None:
    from torch import nn

    _spread(network)
    # It begins with zeros here, and a graph that forgot the positions would look right.
    nn.init.normal_(network.transformer.embeddings.position_embeddings, std=0.3)


def _recognise_unet(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint | None:
    from seg_export.families.semantic.unet import unet_arguments

    # github.com/milesial/Pytorch-UNet has the same network, whose last layer is in a module.
    renamed = {re.sub(r"^outc\.conv\.", "out.", name): tensor for name, tensor in tensors.items()}
    checkpoint = _recognised("unet", unet_arguments, renamed, path)
    if checkpoint is None or renamed.keys() == tensors.keys():
        return checkpoint
    return replace(checkpoint, steps=("renamed 'outc.conv.' to 'out.'",))


def _recognise_unetpp(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint | None:
    from seg_export.families.semantic.unetpp import unetpp_arguments

    return _recognised("unetpp", unetpp_arguments, tensors, path)


def _recognise_transunet(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint | None:
    from seg_export.families.semantic.transunet import transunet_arguments

    return _recognised("transunet", transunet_arguments, tensors, path)


def _recognised(
    family: str,
    read_arguments: Callable[[Mapping[str, torch.Tensor]], dict[str, Any] | None],
    tensors: dict[str, torch.Tensor],
    path: Path,
) -> Checkpoint | None:
    """A network of one output per class, of whose data the weights say nothing."""
    from seg_export.checkpoints.types import Checkpoint, Preprocessing
    from seg_runtime.hashing import file_sha256

    if (arguments := read_arguments(tensors)) is None:
        return None
    classes, channels = arguments["num_classes"], arguments["in_channels"]
    names = ("foreground",) if classes == 1 else tuple(f"class_{index}" for index in range(classes))
    side = arguments.get("image_size", Preprocessing.input_size_hw[0])
    preprocessing = Preprocessing(
        Preprocessing.mean * channels, Preprocessing.std * channels, None, (side, side)
    )
    return Checkpoint(
        family, arguments, tensors, preprocessing, names, sha256=file_sha256(path), described=False
    )


def _prune_unetpp(checkpoint: Checkpoint, depth: int) -> Checkpoint:
    from seg_export.families.semantic.pruning import pruned

    return pruned(checkpoint, depth)


def _unet_command() -> Callable[..., None]:
    from seg_export.families.semantic.unet_command import unet

    return unet


def _unetpp_command() -> Callable[..., None]:
    from seg_export.families.semantic.unetpp_command import unetpp

    return unetpp


def _transunet_command() -> Callable[..., None]:
    from seg_export.families.semantic.transunet_command import transunet

    return transunet


UNET = Family(
    name="unet",
    title="U-Net",
    build=_build_unet,
    models=_unet_models,
    engine_check=semantic_engine_check,
    preprocessing=_preprocessing,
    spread=_spread,
    recognise=_recognise_unet,
    tensors="inc.double_conv.0.weight, down1..., up1..., out.weight",
    assumptions=semantic_assumptions,
    left_open=left_open,
    command=_unet_command,
)

UNETPP = Family(
    name="unetpp",
    title="U-Net++",
    build=_build_unetpp,
    models=_unet_models,
    engine_check=semantic_engine_check,
    preprocessing=_preprocessing,
    spread=_spread,
    recognise=_recognise_unetpp,
    tensors="conv0_0.conv1.weight, conv0_1..., final...",
    assumptions=semantic_assumptions,
    left_open=left_open,
    command=_unetpp_command,
    prune=_prune_unetpp,
)

TRANSUNET = Family(
    name="transunet",
    title="TransUNet",
    build=_build_transunet,
    models=_transunet_models,
    engine_check=semantic_engine_check,
    preprocessing=_preprocessing,
    spread=_spread_transunet,
    recognise=_recognise_transunet,
    tensors="transformer..., decoder..., segmentation_head...",
    assumptions=semantic_assumptions,
    left_open=left_open,
    command=_transunet_command,
    tolerances={"semantic": "fp32, norms per channel"},
    # Its stem's projections are normalised per channel: on a flat image a map's deviation is next to nothing,
    # and dividing by it makes what half precision rounds off in the layers before it the signal.
    kept={"semantic": KeptInFp32(NORMS | SOFTMAX, leading_to=frozenset({"InstanceNormalization"}))},
)
