"""`seg-export sam`: a SAM checkpoint into the repository: encoder, decoder and the ensemble of both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seg_export.checkpoints.licences import SAM
from seg_export.cli.exporting import export, show
from seg_export.cli.options import CalibrateOption, ImagesOption, JsonOption, PrecisionOption, RepoOption
from seg_export.families.variant_options import GraphOptions, VariantOptions
from seg_runtime.option_groups import expand_option_groups

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint

__all__ = ["sam"]

_DEFAULT = "vit_b"


@dataclass(frozen=True, kw_only=True)
class SamOptions(VariantOptions):
    """Which SAM to export."""

    variant: Annotated[
        str | None,
        typer.Option(
            help="vit_b, vit_l or vit_h. Default: what the checkpoint is, or vit_b without a checkpoint."
        ),
    ] = None
    pretrained: Annotated[
        bool, typer.Option("--tiny", help="The small SAM for X-rays and nuclei that comes with edgeseg.")
    ] = False

    def sources(self) -> dict[str, bool]:
        """Also the packaged SAM."""
        return {**super().sources(), "--tiny": self.pretrained}


@expand_option_groups
def sam(
    context: typer.Context,
    *,
    source: SamOptions,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None,
        typer.Option(help="What the names of the models begin with. Default: sam_vit_b and so on."),
    ] = None,
    images: ImagesOption = None,
    precision: PrecisionOption = "fp32",
    calibrate: CalibrateOption = None,
    graphs: GraphOptions,
    embeddings: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(
            help="Type of the embedding between the two graphs, which compute in fp32: fp16 halves what a "
            "server on another machine sends and is sent."
        ),
    ] = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Export a SAM: publish NAME_encoder and NAME_decoder, verified against segment_anything.

    NAME, an ensemble for Triton, runs both in one request. Nothing is
    published unless both graphs follow PyTorch; else the exit code is 3.

    Examples:

      seg-export sam --tiny --repo triton_repo

      seg-export sam --variant vit_b --download

      seg-export sam --checkpoint sam_vit_h_4b8939.pth --name sam_h \\
        --images photographs/ --embeddings fp16

      seg-export sam --checkpoint sam-vit-base/ --name sam_b

      seg-export sam --checkpoint sam_vit_b_01ec64.pth --precision int8 \\
        --calibrate photographs/

      seg-export sam --variant-config small.json --random --name sam_small --json
    """
    source.check(context, "SAM", "vit_b, vit_l or vit_h")
    weights = _weights(source)
    exported = export(
        weights,
        repo,
        name or _default_name(weights, source),
        images=images,
        opset=graphs.opset,
        precision=precision,
        calibrate=calibrate,
        serving=graphs.serving(),
        embeddings=embeddings,
    )
    show(exported, as_json, SAM if source.download else None)


def _weights(source: SamOptions) -> Checkpoint:
    from seg_export.checkpoints.pretrained import pretrained_path
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.families.sam.checkpoints import SIZES, load_sam_checkpoint

    arguments = source.arguments(SIZES)
    if source.random:
        return random_checkpoint("sam", arguments or SIZES.arguments(_DEFAULT), source.seed)
    path = pretrained_path("sam_tiny") if source.pretrained else source.file(SIZES, _DEFAULT, SAM)
    return load_sam_checkpoint(path, arguments, source.weights_name)


def _default_name(weights: Checkpoint, source: SamOptions) -> str:
    from seg_export.families.sam.network import variant_name

    if source.pretrained:
        return "sam_tiny"
    official = variant_name(weights.arguments)
    if official:
        return f"sam_{official}"
    return source.variant_config.stem if source.variant_config else "sam"
