"""`seg-export unetpp`: a U-Net++ checkpoint into the model repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from seg_export.cli.options import RepoOption, parse_size_hw
from seg_export.cli.preprocessing import PreprocessingOptions
from seg_export.families.semantic.command import (
    PublishOptions,
    SizeOption,
    WeightsOptions,
    check_options,
    publish_semantic,
    semantic_weights,
)
from seg_export.families.semantic.unet_command import FeaturesOption, UNetOptions
from seg_runtime.option_groups import expand_option_groups

__all__ = ["unetpp"]


@dataclass(frozen=True, kw_only=True)
class UNetPPOptions(UNetOptions):
    """The U-Net++ of --random."""

    features: FeaturesOption = "32,64,128,256,512"


@expand_option_groups
def unetpp(
    context: typer.Context,
    *,
    weights: WeightsOptions,
    network: UNetPPOptions,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Publish it pruned to this depth, with _d1, _d2, ... after its name."),
    ] = None,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None, typer.Option(help="Model name; by default unetpp, or unetpp_lung for --pretrained lung.")
    ] = None,
    size: SizeOption = None,
    preprocessing: PreprocessingOptions,
    publish: PublishOptions,
) -> None:
    """Export a U-Net++, whole or pruned: load, trace, optimise, verify against PyTorch, publish.

    A network that was trained with deep supervision can be published at each
    depth as a separate model, smaller and faster: depth 1 has two levels of
    resolution.

    Examples:

      seg-export unetpp --pretrained lung

      seg-export unetpp --pretrained lung --depth 2

      seg-export unetpp --checkpoint nested.pth --mean 0.5,0.5,0.5 \\
        --std 0.5,0.5,0.5 --scale 255 --channel-order rgb --no-clahe \\
        --class-names nucleus --threshold 0.5 --size 256 --precision fp16

      seg-export unetpp --random --transposed --name unetpp_9m --json
    """
    check_options(context, network, publish)
    size_hw = parse_size_hw(size) if size else None
    checkpoint = semantic_weights("unetpp", weights, network)
    default_name = weights.model_name("unetpp")
    if depth is not None:
        from seg_export.families.semantic.pruning import pruned

        checkpoint = pruned(checkpoint, depth)
        default_name += f"_d{depth}"
    publish_semantic(checkpoint, repo, name or default_name, publish, preprocessing, size_hw)
