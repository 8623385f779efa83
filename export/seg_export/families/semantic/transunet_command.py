"""`seg-export transunet`: a TransUNet checkpoint into the model repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from seg_export.cli.options import RepoOption, require_torch
from seg_export.cli.preprocessing import PreprocessingOptions
from seg_export.families.semantic.command import (
    ChannelsOption,
    ClassesOption,
    NetworkOptions,
    PublishOptions,
    WeightsOptions,
    check_options,
    publish_semantic,
    semantic_weights,
)
from seg_runtime.errors import BadInputError
from seg_runtime.option_groups import expand_option_groups

__all__ = ["transunet"]


@dataclass(frozen=True, kw_only=True)
class TransUNetOptions(NetworkOptions):
    """The TransUNet of --random."""

    arch: Annotated[str, typer.Option(help="Network of --random: r50_vit_b16, the paper's, or small.")] = (
        "r50_vit_b16"
    )
    size: Annotated[
        int, typer.Option(help="Height and width in pixels of --random; a checkpoint has its own.")
    ] = 224
    channels: ChannelsOption = 1
    classes: ClassesOption = 1

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `TransUNet`. Raises BadInputError."""
        require_torch()
        from seg_export.families.semantic.transunet import VARIANTS

        if self.arch not in VARIANTS:
            raise BadInputError(f"--arch '{self.arch}': there are {' and '.join(VARIANTS)}")
        return {
            **VARIANTS[self.arch],
            "in_channels": self.channels,
            "num_classes": self.classes,
            "image_size": self.size,
        }


@expand_option_groups
def transunet(
    context: typer.Context,
    *,
    weights: WeightsOptions,
    network: TransUNetOptions,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None,
        typer.Option(help="Model name; by default transunet, or transunet_lung of --pretrained."),
    ] = None,
    preprocessing: PreprocessingOptions,
    publish: PublishOptions,
) -> None:
    """Export a TransUNet: load, trace, optimise, verify against PyTorch, publish as the next version.

    It takes images of one size, for which it learned the positions of its tokens.

    Examples:

      seg-export transunet --pretrained lung

      seg-export transunet --checkpoint transunet_epoch_149.pth --mean 0 --std 1 \\
        --scale 255 --no-clahe --class-names background,liver --precision fp16

      seg-export transunet --random --name transunet_105m --json

      seg-export transunet --random --arch small --size 256
    """
    check_options(context, network, publish)
    checkpoint = semantic_weights("transunet", weights, network)
    publish_semantic(checkpoint, repo, name or weights.model_name("transunet"), publish, preprocessing)
