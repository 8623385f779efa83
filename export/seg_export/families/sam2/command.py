"""`seg-export sam2`: a SAM2 checkpoint into the repository, as five models for images and videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seg_export.checkpoints.licences import SAM2
from seg_export.cli.exporting import export, show
from seg_export.cli.fetching import fetch
from seg_export.cli.given import refuse_without
from seg_export.cli.options import (
    CheckpointOption,
    ImagesOption,
    JsonOption,
    RepoOption,
    WeightsNameOption,
    require_torch,
)
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ServingSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint

__all__ = ["sam2"]

DEFAULT = "sam2.1_tiny"


def sam2(
    context: typer.Context,
    *,
    variant: Annotated[
        str | None,
        typer.Option(
            help="sam2.1_tiny, sam2.1_small, sam2.1_base_plus, sam2.1_large, or sam2_tiny and so on of the "
            "first release. Default: what the checkpoint is, or sam2.1_tiny without a checkpoint."
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
    random: Annotated[
        bool, typer.Option("--random", help="Untrained weights, marked as such; for timing and tests.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of --random.")] = 0,
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
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 20.")] = 18,
    instances: Annotated[int, typer.Option(min=1, help="Copies of each model that run at once.")] = 1,
    no_warm_up: Annotated[
        bool, typer.Option("--no-warm-up", help="Do not run a first request before a model is ready.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Export a SAM2: publish its five models, verified against sam2.

    They are NAME_image_encoder, NAME_mask_decoder, NAME_mask_prompt, NAME_memory_attention and
    NAME_memory_encoder. Three ensembles of them for Triton, NAME_prompt, NAME_track and NAME_remember, let a
    remote client send images and no features. Nothing is published unless all graphs follow PyTorch; else
    the exit code is 3.

    Examples:

      seg-export sam2 --variant sam2.1_tiny --download

      seg-export sam2 --checkpoint sam2.1_hiera_large.pt --precision fp16

      seg-export sam2 --checkpoint sam2.1-hiera-tiny/

      seg-export sam2 --variant sam2_small --random --name sam2_timing --json
    """
    if [checkpoint is not None, download, random].count(True) != 1:
        raise BadInputError("name the weights with exactly one of --checkpoint FILE, --download and --random")
    if variant is not None and variant_config is not None:
        raise BadInputError("--variant and --variant-config both say which SAM2 it is: pass one of them")
    if download and variant_config is not None:
        raise BadInputError(
            "--download fetches official checkpoints: pass --variant sam2.1_tiny and so on instead of "
            "--variant-config"
        )
    refuse_without(context, "checkpoint", "weights_name")
    refuse_without(context, "random", "seed")
    require_torch()
    arguments = _arguments(variant, variant_config)
    if random:
        weights = _random(arguments, seed)
    else:
        source = _download(variant or DEFAULT) if download else checkpoint or Path()
        weights = _load(source, arguments, weights_name)
    exported = export(
        weights,
        repo,
        name or _default_name(weights, variant_config),
        images=images,
        opset=opset,
        precision=precision,
        serving=ServingSpec(instances=instances, warm_up=not no_warm_up),
    )
    show(exported, as_json, SAM2 if download else None)


def _arguments(variant: str | None, variant_config: Path | None) -> dict[str, Any] | None:
    from seg_export.families.sam2.checkpoints import read_variant_config, variant_arguments

    if variant_config is not None:
        return read_variant_config(variant_config)
    return variant_arguments(variant) if variant is not None else None


def _random(arguments: dict[str, Any] | None, seed: int) -> Checkpoint:
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.families.sam2.checkpoints import variant_arguments

    return random_checkpoint("sam2", arguments or variant_arguments(DEFAULT), seed)


def _load(path: Path, arguments: dict[str, Any] | None, weights_name: str | None) -> Checkpoint:
    from seg_export.families.sam2.checkpoints import load_sam2_checkpoint

    return load_sam2_checkpoint(path, arguments, weights_name)


def _download(variant: str) -> Path:
    from seg_export.families.sam2.checkpoints import download_official

    return fetch(variant, download_official, SAM2)


def _default_name(weights: Checkpoint, variant_config: Path | None) -> str:
    from seg_export.families.sam2.network import variant_name

    official = variant_name(weights.arguments)
    return official or (variant_config.stem if variant_config else "sam2")
