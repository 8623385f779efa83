"""What the commands of all semantic families share: their options, their weights, and the export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seg_export.cli.exporting import export, show
from seg_export.cli.given import given, refuse_without
from seg_export.cli.options import load, require_torch
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ServingSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint

__all__ = [
    "ChannelsOption",
    "ClassesOption",
    "InstancesOption",
    "MaxBatchOption",
    "NoWarmUpOption",
    "OpsetOption",
    "QueueDelayOption",
    "RandomOption",
    "ResponseCacheOption",
    "SeedOption",
    "SemanticPretrainedOption",
    "SizeOption",
    "check_options",
    "publish_semantic",
    "semantic_weights",
]

SemanticPretrainedOption = Annotated[
    str | None, typer.Option("--pretrained", help="Weights that come with edgeseg: 'lung'.")
]
RandomOption = Annotated[
    bool, typer.Option("--random", help="Untrained weights, marked as such; for timing and tests.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of --random.")]
ChannelsOption = Annotated[int, typer.Option(help="Image channels of --random: 1 or 3.")]
ClassesOption = Annotated[int, typer.Option(help="Classes of --random.")]
SizeOption = Annotated[
    str | None, typer.Option(help="Input size in pixels: 512, or HEIGHTxWIDTH. Default: the checkpoint's.")
]
OpsetOption = Annotated[int, typer.Option(help="ONNX opset, 18 to 20.")]
MaxBatchOption = Annotated[int, typer.Option(min=1, help="Largest batch that is served.")]
QueueDelayOption = Annotated[
    int, typer.Option(min=0, help="How long a request may wait for others, in microseconds.")
]
InstancesOption = Annotated[int, typer.Option(min=1, help="Copies of the model that run at once.")]
ResponseCacheOption = Annotated[
    bool, typer.Option("--response-cache", help="Let the server answer repeated requests from its cache.")
]
NoWarmUpOption = Annotated[
    bool, typer.Option("--no-warm-up", help="Do not run a first batch before the model is ready.")
]


def check_options(context: typer.Context, max_batch: int, *random_only: str) -> None:
    """Refuse options that cannot take effect.

    Args:
        context: of the command.
        max_batch: largest batch that is served.
        random_only: parameters of the command that describe the network of --random.

    Raises:
        BadInputError: names the option, and what to do.
    """
    refuse_without(context, "random", *random_only)
    if max_batch == 1 and given(context, "queue_delay_us"):
        raise BadInputError(
            "--queue-delay-us has no effect with --max-batch 1, where nothing waits for others: leave it out"
        )


def semantic_weights(
    family: str,
    checkpoint: Path | None,
    pretrained: str | None,
    random: tuple[dict[str, Any], int] | None,
) -> Checkpoint:
    """The weights that were named, of this family.

    Args:
        family: "unet", "unetpp" or "transunet".
        checkpoint: a file.
        pretrained: what packaged weights segment.
        random: the network's arguments and the seed; None without --random.

    Raises:
        BadInputError: not exactly one was named, or a checkpoint of another family.
    """
    if [checkpoint is not None, pretrained is not None, random is not None].count(True) != 1:
        raise BadInputError(
            "name the weights with exactly one of --checkpoint FILE, --pretrained lung and --random"
        )
    require_torch()
    if random:
        from seg_export.checkpoints.random_weights import random_checkpoint

        return random_checkpoint(family, *random)
    # The first of the packaged lung models keeps its short name.
    packaged = f"{family}_lung" if pretrained == "lung" and family != "unet" else pretrained
    weights = load(checkpoint, packaged)
    if weights.family != family:
        raise BadInputError(
            f"{checkpoint or pretrained} is a {weights.family}: export it with  seg-export {weights.family}"
        )
    return weights


def publish_semantic(
    weights: Checkpoint,
    repo: Path,
    name: str,
    *,
    queue_delay_us: int,
    instances: int,
    response_cache: bool,
    no_warm_up: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Export with progress, and print what was published. `options` are `export_models`'."""
    serving = ServingSpec(
        max_queue_delay_us=queue_delay_us,
        instances=instances,
        warm_up=not no_warm_up,
        response_cache=response_cache,
    )
    show(export(weights, repo, name, serving=serving, **options), as_json)
