"""What the commands of all semantic families share: their options, their weights, and the export."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seg_export.cli.exporting import dice_of, export, show
from seg_export.cli.given import given, refuse_without
from seg_export.cli.options import (
    CalibrateOption,
    CheckpointOption,
    ImagesOption,
    JsonOption,
    OpsetOption,
    PrecisionOption,
    RandomOption,
    SeedOption,
    WeightsNameOption,
    load,
    require_torch,
)
from seg_export.cli.preprocessing import PreprocessingOptions, claimed
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ServingSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint
    from seg_export.verification.labelled import LabelledImage

__all__ = [
    "ChannelsOption",
    "ClassesOption",
    "NetworkOptions",
    "OpsetOptions",
    "ProofOptions",
    "PublishOptions",
    "ServingOptions",
    "SizeOption",
    "WeightsOptions",
    "check_batching",
    "check_options",
    "publish_semantic",
    "semantic_weights",
]

ChannelsOption = Annotated[int, typer.Option(help="Image channels of --random, 1 to 16.")]
ClassesOption = Annotated[int, typer.Option(help="Classes of --random.")]
SizeOption = Annotated[
    str | None, typer.Option(help="Input size in pixels: 512, or HEIGHTxWIDTH. Default: the checkpoint's.")
]


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Which weights to export: a file's, packaged ones, or random ones."""

    checkpoint: CheckpointOption = None
    weights_name: WeightsNameOption = None
    pretrained: Annotated[
        str | None, typer.Option("--pretrained", help="Weights that come with edgeseg: 'lung'.")
    ] = None
    random: RandomOption = False
    seed: SeedOption = 0

    def model_name(self, family: str) -> str:
        """What the model is called by default, for example "unet_lung"."""
        return f"{family}_{self.pretrained}" if self.pretrained else family


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(ABC):
    """The network of --random, without which none of these options has an effect: a subclass per family."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the family's constructor. Raises BadInputError."""


@dataclass(frozen=True, kw_only=True)
class ProofOptions:
    """What the graph computes in, and what it is verified with."""

    images: ImagesOption = None
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the masks of --images, named alike: print the Dice of what was published."
        ),
    ] = None
    precision: PrecisionOption = "fp32"
    calibrate: CalibrateOption = None

    def labelled(self, channels: int, classes: int) -> tuple[LabelledImage, ...]:
        """The labelled images that were named, for a model; none without --masks. Raises BadInputError."""
        from seg_export.verification.labelled import labelled_images

        if self.images is None or self.masks is None:
            return ()
        return labelled_images(self.images, self.masks, channels=channels, classes=classes)


@dataclass(frozen=True, kw_only=True)
class OpsetOptions:
    """How the graph is written."""

    opset: OpsetOption = 18


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """How Triton serves the model, and what is printed of it."""

    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch that is served.")] = 8
    queue_delay_us: Annotated[
        int, typer.Option(min=0, help="How long a request may wait for others, in microseconds.")
    ] = 100
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model that run at once.")] = 1
    response_cache: Annotated[
        bool,
        typer.Option("--response-cache", help="Let the server answer repeated requests from its cache."),
    ] = False
    no_warm_up: Annotated[
        bool, typer.Option("--no-warm-up", help="Do not run a first batch before the model is ready.")
    ] = False
    as_json: JsonOption = False

    def serving(self) -> ServingSpec:
        """For the model's configuration."""
        return ServingSpec(
            max_queue_delay_us=self.queue_delay_us,
            instances=self.instances,
            warm_up=not self.no_warm_up,
            response_cache=self.response_cache,
        )


@dataclass(frozen=True, kw_only=True)
class PublishOptions(ServingOptions, OpsetOptions, ProofOptions):
    """How a graph that is traced is made and verified, and how Triton serves it.

    The fields of the last base come first.
    """


def check_options(context: typer.Context, network: NetworkOptions, publish: PublishOptions) -> None:
    """Refuse options that cannot take effect.

    Raises:
        BadInputError: names the option, and what to do.
    """
    refuse_without(context, "checkpoint", "weights_name")
    refuse_without(context, "random", "seed", *(field.name for field in fields(network)))
    refuse_without(context, "images", "masks")
    check_batching(context, publish.max_batch)


def check_batching(context: typer.Context, max_batch_size: int) -> None:
    """Refuse a delay of requests where none are put together. Raises BadInputError."""
    if max_batch_size == 1 and given(context, "queue_delay_us"):
        raise BadInputError(
            "--queue-delay-us has no effect with --max-batch 1, where nothing waits for others: leave it out"
        )


def semantic_weights(family: str, weights: WeightsOptions, network: NetworkOptions) -> Checkpoint:
    """The weights that were named, of this family.

    Args:
        family: "unet", "unetpp" or "transunet".
        weights: names one source.
        network: what random weights are of.

    Raises:
        BadInputError: not exactly one was named, or a checkpoint of another family.
    """
    arguments = network.arguments() if weights.random else None
    if [weights.checkpoint is not None, weights.pretrained is not None, weights.random].count(True) != 1:
        raise BadInputError(
            "name the weights with exactly one of --checkpoint FILE, --pretrained lung and --random"
        )
    require_torch()
    if arguments is not None:
        from seg_export.checkpoints.random_weights import random_checkpoint

        return random_checkpoint(family, arguments, weights.seed)
    # The first of the packaged lung models keeps its short name.
    packaged = f"{family}_lung" if weights.pretrained == "lung" and family != "unet" else weights.pretrained
    loaded = load(weights.checkpoint, packaged, weights.weights_name)
    if loaded.family != family:
        raise BadInputError(
            f"{weights.checkpoint or weights.pretrained} is a {loaded.family}: export it with  "
            f"seg-export {loaded.family}"
        )
    return loaded


def publish_semantic(
    weights: Checkpoint,
    repo: Path,
    name: str,
    options: PublishOptions,
    preprocessing: PreprocessingOptions,
    size_hw: tuple[int, int] | None = None,
) -> None:
    """Export with progress, and print what was published, with its Dice where there are masks.

    Args:
        preprocessing: what the user says of the images, where the weights do not.
        size_hw: (height, width) in pixels of the input; None for the checkpoint's.
    """
    assume = preprocessing.assume_defaults
    weights = claimed(weights, preprocessing.claims(), assume_defaults=assume, size_given=size_hw is not None)
    channels, classes = (int(weights.arguments.get(what, 1)) for what in ("in_channels", "num_classes"))
    labelled = options.labelled(channels, classes)
    exported = export(
        weights,
        repo,
        name,
        size_hw=size_hw,
        images=options.images,
        opset=options.opset,
        precision=options.precision,
        calibrate=options.calibrate,
        max_batch_size=options.max_batch,
        serving=options.serving(),
        assume_defaults=assume,
    )
    show(exported, options.as_json, dice=dice_of(repo, name, labelled))
