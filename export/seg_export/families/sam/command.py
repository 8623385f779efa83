"""`seg-export sam`: a SAM checkpoint into the repository: encoder, decoder and the ensemble of both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seg_export.checkpoints.licences import SAM
from seg_export.cli.exporting import export, show
from seg_export.cli.fetching import fetch
from seg_export.cli.given import refuse_without
from seg_export.cli.options import (
    CalibrateOption,
    CheckpointOption,
    ImagesOption,
    JsonOption,
    PrecisionOption,
    RepoOption,
    WeightsNameOption,
    require_torch,
)
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ServingSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint

__all__ = ["sam"]


def sam(
    context: typer.Context,
    *,
    variant: Annotated[
        str | None,
        typer.Option(
            help="vit_b, vit_l or vit_h. Default: what the checkpoint is, or vit_b without a checkpoint."
        ),
    ] = None,
    variant_config: Annotated[
        Path | None,
        typer.Option("--variant-config", help="JSON file with the constructor arguments of another size."),
    ] = None,
    checkpoint: CheckpointOption = None,
    weights_name: WeightsNameOption = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the official checkpoint; its SHA-256 is checked.")
    ] = False,
    pretrained: Annotated[
        bool, typer.Option("--tiny", help="The small SAM for X-rays and nuclei that comes with edgeseg.")
    ] = False,
    random: Annotated[
        bool, typer.Option("--random", help="Untrained weights, marked as such; for timing and tests.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of --random.")] = 0,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None,
        typer.Option(help="What the names of the models begin with. Default: sam_vit_b and so on."),
    ] = None,
    images: ImagesOption = None,
    precision: PrecisionOption = "fp32",
    calibrate: CalibrateOption = None,
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 20.")] = 18,
    instances: Annotated[int, typer.Option(min=1, help="Copies of each model that run at once.")] = 1,
    no_warm_up: Annotated[
        bool, typer.Option("--no-warm-up", help="Do not run a first request before a model is ready.")
    ] = False,
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

    NAME, an ensemble for Triton, runs both in one request. Nothing is published
    unless both graphs follow PyTorch; else the exit code is 3.

    Examples:

      seg-export sam --tiny --repo triton_repo

      seg-export sam --variant vit_b --download

      seg-export sam --checkpoint sam_vit_h_4b8939.pth --name sam_h --images photographs/ --embeddings fp16

      seg-export sam --checkpoint sam-vit-base/ --name sam_b

      seg-export sam --checkpoint sam_vit_b_01ec64.pth --precision int8 --calibrate photographs/

      seg-export sam --variant-config small.json --random --name sam_small --json
    """
    if [checkpoint is not None, download, pretrained, random].count(True) != 1:
        raise BadInputError(
            "name the weights with exactly one of --checkpoint FILE, --download, --tiny and --random"
        )
    if variant is not None and variant_config is not None:
        raise BadInputError("--variant and --variant-config both say which SAM it is: pass one of them")
    if download and variant_config is not None:
        raise BadInputError(
            "--download fetches official checkpoints: pass --variant vit_b, vit_l or vit_h instead of "
            "--variant-config"
        )
    refuse_without(context, "checkpoint", "weights_name")
    refuse_without(context, "random", "seed")
    require_torch()
    arguments = _arguments(variant, variant_config)
    if random:
        weights = _random(arguments, seed)
    else:
        source = _download(variant or "vit_b") if download else checkpoint
        weights = _load(source, arguments, weights_name)
    serving = ServingSpec(instances=instances, warm_up=not no_warm_up)
    name = name or _default_name(weights, pretrained, variant_config)
    exported = export(
        weights,
        repo,
        name,
        images=images,
        opset=opset,
        precision=precision,
        calibrate=calibrate,
        serving=serving,
        embeddings=embeddings,
    )
    show(exported, as_json, SAM if download else None)


def _arguments(variant: str | None, variant_config: Path | None) -> dict[str, Any] | None:
    from seg_export.families.sam.checkpoints import read_variant_config, variant_arguments

    if variant_config is not None:
        return read_variant_config(variant_config)
    return variant_arguments(variant) if variant is not None else None


def _random(arguments: dict[str, Any] | None, seed: int) -> Checkpoint:
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.families.sam.checkpoints import variant_arguments

    return random_checkpoint("sam", arguments or variant_arguments("vit_b"), seed)


def _load(path: Path | None, arguments: dict[str, Any] | None, weights_name: str | None) -> Checkpoint:
    """The weights of a file, or of the package where there is none."""
    from seg_export.checkpoints.pretrained import pretrained_path
    from seg_export.families.sam.checkpoints import load_sam_checkpoint

    return load_sam_checkpoint(path or pretrained_path("sam_tiny"), arguments, weights_name)


def _download(variant: str) -> Path:
    from seg_export.families.sam.checkpoints import download_official

    return fetch(variant, download_official, SAM)


def _default_name(weights: Checkpoint, tiny: bool, variant_config: Path | None) -> str:
    from seg_export.families.sam.network import variant_name

    if tiny:
        return "sam_tiny"
    official = variant_name(weights.arguments)
    if official:
        return f"sam_{official}"
    return variant_config.stem if variant_config else "sam"
