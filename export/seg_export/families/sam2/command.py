"""`seg-export sam2`: a SAM2 checkpoint into the repository, as five models for images and videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seg_export.checkpoints.licences import SAM2
from seg_export.cli.exporting import export, show
from seg_export.cli.options import ImagesOption, JsonOption, RepoOption
from seg_export.families.variant_options import GraphOptions, VariantOptions
from seg_runtime.option_groups import expand_option_groups

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint

__all__ = ["sam2"]

_DEFAULT = "sam2.1_tiny"


@dataclass(frozen=True, kw_only=True)
class Sam2Options(VariantOptions):
    """Which SAM2 to export."""

    variant: Annotated[
        str | None,
        typer.Option(
            help="sam2.1_tiny, sam2.1_small, sam2.1_base_plus, sam2.1_large, or sam2_tiny and so on of the "
            "first release. Default: what the checkpoint is, or sam2.1_tiny without a checkpoint."
        ),
    ] = None


@expand_option_groups
def sam2(
    context: typer.Context,
    *,
    source: Sam2Options,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None,
        typer.Option(help="What the names of the models begin with. Default: the variant's name."),
    ] = None,
    images: ImagesOption = None,
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="What the graphs compute in; what would lose too much stays in fp32."),
    ] = "fp32",
    graphs: GraphOptions,
    as_json: JsonOption = False,
) -> None:
    """Export a SAM2: publish its five models, verified against sam2.

    They are NAME_image_encoder, NAME_mask_decoder, NAME_mask_prompt,
    NAME_memory_attention and NAME_memory_encoder. Three ensembles of them for
    Triton, NAME_prompt, NAME_track and NAME_remember, let a remote client send
    images and no features. Nothing is published unless all graphs follow
    PyTorch; else the exit code is 3.

    Examples:

      seg-export sam2 --variant sam2.1_tiny --download

      seg-export sam2 --checkpoint sam2.1_hiera_large.pt --precision fp16

      seg-export sam2 --checkpoint sam2.1-hiera-tiny/

      seg-export sam2 --variant sam2_small --random --name sam2_timing --json
    """
    source.check(context, "SAM2", "sam2.1_tiny and so on")
    weights = _weights(source)
    exported = export(
        weights,
        repo,
        name or _default_name(weights, source),
        images=images,
        opset=graphs.opset,
        precision=precision,
        serving=graphs.serving(),
    )
    show(exported, as_json, SAM2 if source.download else None)


def _weights(source: Sam2Options) -> Checkpoint:
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.families.sam2.checkpoints import SIZES, load_sam2_checkpoint

    arguments = source.arguments(SIZES)
    if source.random:
        return random_checkpoint("sam2", arguments or SIZES.arguments(_DEFAULT), source.seed)
    return load_sam2_checkpoint(source.file(SIZES, _DEFAULT, SAM2), arguments, source.weights_name)


def _default_name(weights: Checkpoint, source: Sam2Options) -> str:
    from seg_export.families.sam2.network import variant_name

    official = variant_name(weights.arguments)
    return official or (source.variant_config.stem if source.variant_config else "sam2")
