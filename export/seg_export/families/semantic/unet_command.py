"""`seg-export unet`: a U-Net checkpoint into the model repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from seg_export.cli.options import RepoOption, parse_features, parse_size_hw
from seg_export.cli.preprocessing import PreprocessingOptions
from seg_export.families.semantic.command import (
    ChannelsOption,
    ClassesOption,
    NetworkOptions,
    PublishOptions,
    SizeOption,
    WeightsOptions,
    check_options,
    publish_semantic,
    semantic_weights,
)
from seg_runtime.option_groups import expand_option_groups

__all__ = ["FeaturesOption", "UNetOptions", "unet"]

FeaturesOption = Annotated[str, typer.Option(help="Channels per level of --random.")]


@dataclass(frozen=True, kw_only=True)
class UNetOptions(NetworkOptions):
    """The U-Net of --random."""

    features: FeaturesOption = "64,128,256,512,1024"
    channels: ChannelsOption = 1
    classes: ClassesOption = 1
    transposed: Annotated[
        bool, typer.Option("--transposed", help="Transposed convolutions in --random, not bilinear ones.")
    ] = False

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `UNet`, and of `UNetPlusPlus` alike. Raises BadInputError."""
        return {
            "in_channels": self.channels,
            "num_classes": self.classes,
            "bilinear": not self.transposed,
            "features": list(parse_features(self.features)),
        }


@expand_option_groups
def unet(
    context: typer.Context,
    *,
    weights: WeightsOptions,
    network: UNetOptions,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None, typer.Option(help="Model name; by default unet, or unet_lung for --pretrained lung.")
    ] = None,
    size: SizeOption = None,
    preprocessing: PreprocessingOptions,
    publish: PublishOptions,
) -> None:
    """Export a U-Net: load, trace, optimise, verify against PyTorch, publish as the next version.

    A graph that strays from PyTorch is not published, and the exit code is 3.

    Examples:

      seg-export unet --pretrained lung --repo triton_repo

      seg-export unet --checkpoint best_unet.pth --mean 0.485 --std 0.229 \\
        --scale 255 --no-clahe --class-names lung --threshold 0.5 --size 512 \\
        --images xrays/ --masks masks/

      seg-export unet --checkpoint best_unet.pth --assume-defaults \\
        --name unet_lung

      seg-export unet --pretrained lung --name unet_lung_int8 --precision int8 \\
        --calibrate xrays/

      seg-export unet --random --transposed --name unet_31m --json
    """
    check_options(context, network, publish)
    size_hw = parse_size_hw(size) if size else None
    checkpoint = semantic_weights("unet", weights, network)
    publish_semantic(checkpoint, repo, name or weights.model_name("unet"), publish, preprocessing, size_hw)
