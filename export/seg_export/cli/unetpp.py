"""`seg-export unetpp`: a U-Net++ checkpoint into the model repository."""

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

__all__ = ["unetpp"]


def unetpp(
    context: typer.Context,
    *,
    checkpoint: CheckpointOption = None,
    pretrained: SemanticPretrainedOption = None,
    random: RandomOption = False,
    seed: SeedOption = 0,
    features: Annotated[str, typer.Option(help="Channels per level of --random.")] = "32,64,128,256,512",
    channels: ChannelsOption = 1,
    classes: ClassesOption = 1,
    transposed: Annotated[
        bool, typer.Option("--transposed", help="Transposed convolutions in --random, not bilinear ones.")
    ] = False,
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Publish it pruned to this depth, with _d1, _d2, ... after its name."),
    ] = None,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None, typer.Option(help="Model name; by default unetpp, or unetpp_lung for --pretrained lung.")
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
    """Export a U-Net++, whole or pruned: load, trace, optimise, verify against PyTorch, publish.

    A network that was trained with deep supervision can be published at each depth as a model of its own,
    smaller and faster: depth 1 has two levels of resolution.

    Examples:

      seg-export unetpp --pretrained lung

      seg-export unetpp --pretrained lung --depth 2

      seg-export unetpp --checkpoint nested.pth --precision fp16 --size 512

      seg-export unetpp --random --transposed --name unetpp_9m --json
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
    weights = semantic_weights("unetpp", checkpoint, pretrained, (arguments, seed) if random else None)
    default_name = f"unetpp_{pretrained}" if pretrained else "unetpp"
    if depth is not None:
        from seg_export.families.semantic.pruning import pruned

        weights = pruned(weights, depth)
        default_name += f"_d{depth}"
    publish_semantic(
        weights,
        repo,
        name or default_name,
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
