"""Options of `seg-bench train unet`, `unetpp` and `transunet`, in groups that the commands share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seg_bench.cli.train_options import (
    Amp,
    AmpOption,
    BatchSizeOption,
    DeviceOption,
    EmaDecayOption,
    EpochsOption,
    HalfOption,
    InitOption,
    JsonOption,
    LearningRateOption,
    OutOption,
    PatienceOption,
    ResumeOption,
    SeedOption,
    SplitOption,
    StopAfterOption,
    WeightDecayOption,
    WorkersOption,
)
from seg_runtime.errors import BadInputError

if TYPE_CHECKING:
    from seg_bench.train.settings import TrainSettings

__all__ = ["NetworkOptions", "RunOptions", "TrainOptions", "TransUNetOptions", "UNetOptions", "UNetPPOptions"]

_MODEL, _SCHEDULE, _LOSS, _MACHINE = "Model and input", "Schedule", "Loss", "Machine"

SizeOption = Annotated[
    str, typer.Option(help="Height and width in pixels, 512 or 384x512.", rich_help_panel=_MODEL)
]
FeaturesOption = Annotated[
    str, typer.Option(help="Channels per level, for example 32,64,128,256.", rich_help_panel=_MODEL)
]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The data, and the folder of the run."""

    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with images/ and masks/ (one kind of thing) or classes/ (several): see "
            "docs/measuring.md; or Montgomery's X-rays as they are distributed."
        ),
    ]
    out: OutOption
    split: SplitOption = None
    folds: Annotated[
        int,
        typer.Option(
            help="Cross-validate over so many folds of the training and validation parts; 0 is off.",
            rich_help_panel=_SCHEDULE,
        ),
    ] = 0
    resume: ResumeOption = False
    init: InitOption = None


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(ABC):
    """The network and the size of its images: a subclass per family."""

    size: SizeOption = "512"
    channels: Annotated[
        int | None,
        typer.Option(
            help="1 for gray, 3 for colour; by default as the images are.",
            min=1,
            max=3,
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None

    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels. Raises BadInputError."""
        from seg_export.cli.options import parse_size_hw

        return parse_size_hw(self.size)

    @abstractmethod
    def arguments(self, channels: int, classes: int) -> dict[str, Any]:
        """Keyword arguments of the family's constructor. Raises BadInputError."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How it is trained."""

    class_names: Annotated[
        str,
        typer.Option(
            help="From class 0 on, separated by commas, where the data has no classes.txt.",
            rich_help_panel=_MODEL,
        ),
    ] = ""
    clahe: Annotated[
        bool | None,
        typer.Option(
            "--clahe/--no-clahe",
            help="Equalise contrast first; by default for gray images.",
            rich_help_panel=_MODEL,
            show_default=False,
        ),
    ] = None
    augmentation: Annotated[
        str,
        typer.Option(
            help="article, careful; or strong: noise, exposure, inversion, JPEG, parts and turns as well.",
            rich_help_panel=_MODEL,
        ),
    ] = "article"
    half: HalfOption = False
    epochs: EpochsOption = 100
    stop_after: StopAfterOption = 0
    batch_size: BatchSizeOption = 8
    learning_rate: LearningRateOption = 1e-4
    weight_decay: WeightDecayOption = 1e-5
    patience: PatienceOption = 15
    ema_decay: EmaDecayOption = 0.0
    loss: Annotated[str, typer.Option(help="bce-dice, focal or generalised-dice.", rich_help_panel=_LOSS)] = (
        "bce-dice"
    )
    bce_weight: Annotated[float, typer.Option(help="Weight of cross entropy.", rich_help_panel=_LOSS)] = 0.5
    dice_weight: Annotated[float, typer.Option(help="Weight of Dice.", rich_help_panel=_LOSS)] = 0.5
    boundary_weight: Annotated[
        float,
        typer.Option(
            help="Weight of the boundary loss (Kervadec et al., 2019), for example 0.01; 0 is off.",
            rich_help_panel=_LOSS,
        ),
    ] = 0.0
    class_weights: Annotated[
        str,
        typer.Option(
            help="Of several classes in the loss: frequency (the rarer, the more), or a number for each.",
            metavar="frequency|W0,W1,...",
            rich_help_panel=_LOSS,
        ),
    ] = ""
    truth: Annotated[
        str | None,
        typer.Option(
            help="Of masks of several annotators: staple, majority, union or one of them.",
            rich_help_panel=_LOSS,
            show_default=False,
        ),
    ] = None
    annotator_weights: Annotated[
        str,
        typer.Option(
            help="Their weighted majority, in which a pixel counts as they agree.",
            metavar="NAME=W,...",
            rich_help_panel=_LOSS,
        ),
    ] = ""
    oversample: Annotated[
        bool,
        typer.Option("--oversample", help="Draw images with rare classes more often.", rich_help_panel=_LOSS),
    ] = False
    amp: AmpOption = Amp.OFF
    channels_last: Annotated[bool, typer.Option(help="NHWC memory order.", rich_help_panel=_MACHINE)] = True
    device: DeviceOption = "auto"
    workers: WorkersOption = 0
    seed: SeedOption = 0
    as_json: JsonOption = False

    def weights_of_annotators(self) -> dict[str, float]:
        """What --annotator-weights says. Raises BadInputError."""
        try:
            pairs = [pair.rsplit("=", 1) for pair in self.annotator_weights.split(",") if pair]
            weights = {name.strip(): float(weight) for name, weight in pairs}
        except ValueError:
            raise BadInputError(
                f"--annotator-weights got '{self.annotator_weights}': expected NAME=WEIGHT,..., such as "
                "anna=1,boris=0.5"
            ) from None
        if len(weights) < len(pairs):
            raise BadInputError(
                f"--annotator-weights {self.annotator_weights} names one twice: name each once"
            )
        return weights

    def settings(self) -> TrainSettings:
        """The settings of the loop. Raises BadInputError."""
        from seg_bench.train.settings import TrainSettings

        return TrainSettings(
            epochs=self.epochs,
            stop_after=self.stop_after,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            patience=self.patience,
            loss=self.loss,
            bce_weight=self.bce_weight,
            dice_weight=self.dice_weight,
            boundary_weight=self.boundary_weight,
            class_weights=_class_weights(self.class_weights),
            oversample=self.oversample,
            ema_decay=self.ema_decay,
            amp=self.amp.value,
            channels_last=self.channels_last,
            device=self.device,
            seed=self.seed,
            workers=self.workers,
        )


@dataclass(frozen=True, kw_only=True)
class UNetOptions(NetworkOptions):
    """A U-Net."""

    features: FeaturesOption = "64,128,256,512,1024"
    bilinear: Annotated[
        bool, typer.Option("--bilinear/--transposed", help="Kind of upsampling.", rich_help_panel=_MODEL)
    ] = True

    def arguments(self, channels: int, classes: int) -> dict[str, Any]:
        """Keyword arguments of `UNet`. Raises BadInputError."""
        try:
            widths = [int(count) for count in self.features.split(",")]
        except ValueError:
            raise BadInputError(
                f"--features got '{self.features}': expected channel counts such as 32,64,128,256"
            ) from None
        return {
            "in_channels": channels,
            "num_classes": classes,
            "bilinear": self.bilinear,
            "features": widths,
        }


@dataclass(frozen=True, kw_only=True)
class UNetPPOptions(UNetOptions):
    """A U-Net++."""

    features: FeaturesOption = "32,64,128,256,512"
    deep_supervision: Annotated[
        bool,
        typer.Option(
            help="A head per depth, each with its own loss, so that it can be pruned.",
            rich_help_panel=_MODEL,
        ),
    ] = True

    def arguments(self, channels: int, classes: int) -> dict[str, Any]:
        """Keyword arguments of `UNetPlusPlus`. Raises BadInputError."""
        return {**super().arguments(channels, classes), "deep_supervision": self.deep_supervision}


@dataclass(frozen=True, kw_only=True)
class TransUNetOptions(NetworkOptions):
    """A TransUNet for images of one channel."""

    size: SizeOption = "224"
    arch: Annotated[
        str, typer.Option(help="As for seg-export transunet: r50_vit_b16 or small.", rich_help_panel=_MODEL)
    ] = "small"

    def arguments(self, channels: int, classes: int) -> dict[str, Any]:
        """Keyword arguments of `TransUNet`. Raises BadInputError."""
        from seg_export.families.semantic.transunet import VARIANTS

        if self.arch not in VARIANTS:
            raise BadInputError(f"--arch '{self.arch}': there are {' and '.join(VARIANTS)}")
        height, width = self.size_hw()
        if height != width:
            raise BadInputError(
                f"--size {self.size}: a TransUNet has learned positions of a square: give one side"
            )
        return {
            **VARIANTS[self.arch],
            "in_channels": channels,
            "num_classes": classes,
            "image_size": height,
        }


def _class_weights(text: str) -> tuple[float, ...] | Literal["frequency"]:
    """What --class-weights says. Raises BadInputError."""
    if text == "frequency":
        return "frequency"
    try:
        return tuple(float(weight) for weight in text.split(",")) if text else ()
    except ValueError:
        raise BadInputError(
            f"--class-weights got '{text}': give  frequency  or a number for each class, such as 0.5,1,4"
        ) from None
