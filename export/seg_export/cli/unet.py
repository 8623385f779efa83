"""`seg-export unet`: a U-Net checkpoint into the model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seg_export.cli.exporting import export, exported_as_dict, show
from seg_export.cli.options import (
    CalibrateOption,
    CheckpointOption,
    ImagesOption,
    JsonOption,
    PrecisionOption,
    PretrainedOption,
    RepoOption,
    load,
    parse_features,
    parse_size_hw,
    require_torch,
)
from seg_export.cli.output import echo_json
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ServingSpec

__all__ = ["unet"]


def unet(
    *,
    checkpoint: CheckpointOption = None,
    pretrained: PretrainedOption = None,
    random: Annotated[
        bool, typer.Option("--random", help="Untrained weights, marked as such; for timing and tests.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of --random.")] = 0,
    features: Annotated[str, typer.Option(help="Channels per level of --random.")] = "64,128,256,512,1024",
    channels: Annotated[int, typer.Option(help="Image channels of --random: 1 or 3.")] = 1,
    classes: Annotated[int, typer.Option(help="Classes of --random.")] = 1,
    transposed: Annotated[
        bool, typer.Option("--transposed", help="Transposed convolutions in --random, not bilinear ones.")
    ] = False,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None, typer.Option(help="Model name; by default unet, or unet_lung for --pretrained lung.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Input size in pixels: 512, or HEIGHTxWIDTH. Default: the checkpoint's."),
    ] = None,
    images: ImagesOption = None,
    precision: PrecisionOption = "fp32",
    calibrate: CalibrateOption = None,
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 20.")] = 18,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch that is served.")] = 8,
    queue_delay_us: Annotated[
        int, typer.Option(min=0, help="How long a request may wait for others, in microseconds.")
    ] = 100,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model that run at once.")] = 1,
    response_cache: Annotated[
        bool, typer.Option("--response-cache", help="Let the server answer repeated requests from its cache.")
    ] = False,
    no_warm_up: Annotated[
        bool, typer.Option("--no-warm-up", help="Do not run a first batch before the model is ready.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Export a U-Net: load, trace, optimise, verify against PyTorch, publish as the next version.

    A graph that strays from PyTorch is not published, and the exit code is 3.

    Examples:

      seg-export unet --pretrained lung --repo triton_repo

      seg-export unet --checkpoint best_unet.pth --name unet_lung --size 512 --images xrays/

      seg-export unet --pretrained lung --name unet_lung_int8 --precision int8 --calibrate xrays/

      seg-export unet --random --transposed --name unet_31m --json
    """
    if [checkpoint is not None, pretrained is not None, random].count(True) != 1:
        raise BadInputError(
            "name the weights with exactly one of --checkpoint FILE, --pretrained lung and --random"
        )
    size_hw = parse_size_hw(size) if size else None
    widths = parse_features(features)
    require_torch()
    if random:
        from seg_export.random_weights import random_unet

        weights = random_unet(
            in_channels=channels, num_classes=classes, bilinear=not transposed, features=widths, seed=seed
        )
    else:
        weights = load(checkpoint, pretrained)
    serving = ServingSpec(
        max_queue_delay_us=queue_delay_us,
        instances=instances,
        warm_up=not no_warm_up,
        response_cache=response_cache,
    )
    name = name or (f"unet_{pretrained}" if pretrained else "unet")
    (exported,) = export(
        weights,
        repo,
        name,
        size_hw=size_hw,
        images=images,
        opset=opset,
        precision=precision,
        calibrate=calibrate,
        max_batch_size=max_batch,
        serving=serving,
    )
    if as_json:
        echo_json(exported_as_dict(exported))
    else:
        show(exported)
