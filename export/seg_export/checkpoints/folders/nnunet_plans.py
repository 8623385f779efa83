"""Networks as the plans of nnU-Net v2 describe them, of this version and of those before 2.4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from seg_export.checkpoints.folders.building import building
from seg_export.checkpoints.folders.folder import library, part
from seg_runtime.errors import CheckpointError

__all__ = ["build", "configuration"]

_PACKAGE = "dynamic_network_architectures"
_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
_BLOCKS = ("BasicBlockD", "BottleneckD")


def configuration(plans: Mapping[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """One configuration of the plans, with what it inherits.

    Args:
        plans: of `plans.json`.
        name: for example "2d".
        folder: of the result, for messages.

    Raises:
        CheckpointError: there is none of that name, or it is of 3-D networks.
    """
    path = folder / "plans.json"
    there = part(plans, "configurations", path)
    found: dict[str, Any] = {}
    wanted: str | None = name
    for _ in there:
        parent = part(there, str(wanted), path)
        found, wanted = {**parent, **found}, parent.get("inherits_from")
    patch = found.get("patch_size")
    if not isinstance(patch, list) or not all(type(side) is int for side in patch) or wanted is not None:
        raise CheckpointError(
            f"'{path}' does not describe the configuration '{name}'; there are {', '.join(there)}"
        )
    if len(patch) != 2:
        raise CheckpointError(
            f"'{folder}' is of the configuration '{name}', a 3-D network: only 2-D ones, such as 2d, can be "
            "exported"
        )
    return found


def build(
    settings: Mapping[str, Any], channels: int, classes: int, folder: Path, weights: Path
) -> tuple[str, nn.Module]:
    """The name of a network and the network, without deep supervision.

    Args:
        settings: one configuration of the plans.
        channels: of the images.
        classes: its outputs.
        folder: for messages.
        weights: the file of its weights, which are not loaded.

    Raises:
        CheckpointError: a network or a layer that is not known, or arguments that it refuses.
        MissingExtraError: dynamic-network-architectures is not installed.
    """
    unets = library(f"{_PACKAGE}.architectures.unet", "dynamic-network-architectures")
    architecture = part(settings, "architecture", folder / "plans.json") or _of_old_plans(settings, folder)
    path = str(architecture.get("network_class_name"))
    name = path.rpartition(".")[2]
    if name not in _NETWORKS or not path.startswith(f"{_PACKAGE}."):
        raise CheckpointError(
            f"'{folder}' is a {path}, expected {' or '.join(_NETWORKS)}: name a factory, as "
            "PACKAGE.MODULE:FACTORY"
        )
    arguments = dict(part(architecture, "arch_kwargs", folder / "plans.json"))
    for key in architecture.get("_kw_requires_import") or ():
        if arguments.get(key) is not None:
            arguments[key] = _layer(str(arguments[key]), folder)
    arguments |= {"input_channels": channels, "num_classes": classes, "deep_supervision": False}
    with building(folder, name, arguments, [weights]):
        network = getattr(unets, name)(**arguments)
    return name, network


def _layer(path: str, folder: Path) -> type:
    """A layer of torch.nn, or a block of residual networks. Raises CheckpointError."""
    package, _, name = path.rpartition(".")
    if package == "torch.nn" or package.startswith("torch.nn.modules."):
        layer = getattr(nn, name, None)
        if isinstance(layer, type) and issubclass(layer, nn.Module):
            return layer
    if package == f"{_PACKAGE}.building_blocks.residual" and name in _BLOCKS:
        block: type = getattr(library(package, "dynamic-network-architectures"), name)
        return block
    raise CheckpointError(f"'{folder}' has '{path}' in its plans.json, expected a layer of torch.nn")


def _of_old_plans(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What nnU-Net 2.4 and later make of plans that name no architecture. Raises CheckpointError."""
    try:
        name, stages = settings["UNet_class_name"], len(settings["n_conv_per_stage_encoder"])
        first, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
        blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
        arguments = {
            "n_stages": stages,
            "features_per_stage": [min(first * 2**stage, most) for stage in range(stages)],
            "conv_op": nn.Conv2d,
            "kernel_sizes": settings["conv_kernel_sizes"],
            "strides": settings["pool_op_kernel_sizes"],
            blocks: settings["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": settings["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": nn.InstanceNorm2d,
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": nn.LeakyReLU,
            "nonlin_kwargs": {"inplace": True},
        }
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"'{folder}': its plans.json describes no network: no {error}") from error
    return {"network_class_name": f"{_PACKAGE}.architectures.unet.{name}", "arch_kwargs": arguments}
