"""`seg-export unet`: a U-Net checkpoint into the model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from seg_export.cli.options import (
    CalibrateOption,
    CheckpointOption,
    ImagesOption,
    JsonOption,
    PrecisionOption,
    RepoOption,
    parse_features,
    parse_size_hw,
)
from seg_export.cli.semantic import (
    ChannelsOption,
    ClassesOption,
    InstancesOption,
    MaxBatchOption,
    NoWarmUpOption,
    OpsetOption,
    QueueDelayOption,
    RandomOption,
    ResponseCacheOption,
    SeedOption,
    SemanticPretrainedOption,
    SizeOption,
    check_options,
    publish_semantic,
    semantic_weights,
)

__all__ = ["unet"]


def unet(
    context: typer.Context,
    *,
    checkpoint: CheckpointOption = None,
    pretrained: SemanticPretrainedOption = None,
    random: RandomOption = False,
    seed: SeedOption = 0,
    features: Annotated[str, typer.Option(help="Channels per level of --random.")] = "64,128,256,512,1024",
    channels: ChannelsOption = 1,
    classes: ClassesOption = 1,
    transposed: Annotated[
        bool, typer.Option("--transposed", help="Transposed convolutions in --random, not bilinear ones.")
    ] = False,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None, typer.Option(help="Model name; by default unet, or unet_lung for --pretrained lung.")
    ] = None,
    size: SizeOption = None,
    images: ImagesOption = None,
    precision: PrecisionOption = "fp32",
    calibrate: CalibrateOption = None,
    opset: OpsetOption = 18,
    max_batch: MaxBatchOption = 8,
    queue_delay_us: QueueDelayOption = 100,
    instances: InstancesOption = 1,
    response_cache: ResponseCacheOption = False,
    no_warm_up: NoWarmUpOption = False,
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
    check_options(context, max_batch, "seed", "features", "channels", "classes", "transposed")
    size_hw = parse_size_hw(size) if size else None
    widths = list(parse_features(features))
    arguments: dict[str, Any] = {
        "in_channels": channels,
        "num_classes": classes,
        "bilinear": not transposed,
        "features": widths,
    }
    weights = semantic_weights("unet", checkpoint, pretrained, (arguments, seed) if random else None)
    publish_semantic(
        weights,
        repo,
        name or (f"unet_{pretrained}" if pretrained else "unet"),
        size_hw=size_hw,
        images=images,
        opset=opset,
        precision=precision,
        calibrate=calibrate,
        max_batch_size=max_batch,
        queue_delay_us=queue_delay_us,
        instances=instances,
        response_cache=response_cache,
        no_warm_up=no_warm_up,
        as_json=as_json,
    )
