"""`seg-export transunet`: a TransUNet checkpoint into the model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seg_export.cli.options import (
    CalibrateOption,
    CheckpointOption,
    ImagesOption,
    JsonOption,
    PrecisionOption,
    RepoOption,
    require_torch,
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
    check_options,
    publish_semantic,
    semantic_weights,
)
from seg_runtime.errors import BadInputError

__all__ = ["transunet"]


def transunet(
    context: typer.Context,
    *,
    checkpoint: CheckpointOption = None,
    pretrained: SemanticPretrainedOption = None,
    random: RandomOption = False,
    seed: SeedOption = 0,
    arch: Annotated[
        str, typer.Option(help="Network of --random: r50_vit_b16, the paper's, or small.")
    ] = "r50_vit_b16",
    size: Annotated[
        int, typer.Option(help="Height and width in pixels of --random; a checkpoint has its own.")
    ] = 224,
    channels: ChannelsOption = 1,
    classes: ClassesOption = 1,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None,
        typer.Option(help="Model name; by default transunet, or transunet_lung of --pretrained."),
    ] = None,
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
    """Export a TransUNet: load, trace, optimise, verify against PyTorch, publish as the next version.

    It takes images of one size, for which it learned the positions of its tokens.

    Examples:

      seg-export transunet --pretrained lung

      seg-export transunet --checkpoint transunet_epoch_149.pth --precision fp16

      seg-export transunet --random --name transunet_105m --json

      seg-export transunet --random --arch small --size 256
    """
    check_options(context, max_batch, "seed", "arch", "size", "channels", "classes")
    chosen = (_arguments(arch, size, channels, classes), seed) if random else None
    weights = semantic_weights("transunet", checkpoint, pretrained, chosen)
    publish_semantic(
        weights,
        repo,
        name or (f"transunet_{pretrained}" if pretrained else "transunet"),
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


def _arguments(arch: str, size: int, channels: int, classes: int) -> dict[str, object]:
    require_torch()
    from seg_export.families.semantic.transunet import VARIANTS

    if arch not in VARIANTS:
        raise BadInputError(f"--arch '{arch}': there are {' and '.join(VARIANTS)}")
    return {**VARIANTS[arch], "in_channels": channels, "num_classes": classes, "image_size": size}
