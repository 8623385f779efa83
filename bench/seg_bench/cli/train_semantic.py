"""`seg-bench train unet`, `unetpp` and `transunet`: one recipe, one command per family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from seg_bench.cli.train_options import (
    Amp,
    AmpOption,
    BatchSizeOption,
    ChannelsLastOption,
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
    show_folds,
    show_result,
)
from seg_runtime.errors import BadInputError, MissingExtraError

__all__ = ["transunet", "unet", "unetpp"]

_MODEL, _SCHEDULE, _LOSS = "Model and input", "Schedule", "Loss"

DataArgument = Annotated[Path, typer.Argument(help="Folder with the X-rays, official or merged layout.")]
FoldsOption = Annotated[
    int,
    typer.Option(
        help="Cross-validate over so many folds of the training and validation parts; 0 is off.",
        rich_help_panel=_SCHEDULE,
    ),
]
SizeOption = Annotated[int, typer.Option(help="Height and width in pixels.", rich_help_panel=_MODEL)]
FeaturesOption = Annotated[
    str, typer.Option(help="Channels per level, for example 32,64,128,256.", rich_help_panel=_MODEL)
]
BilinearOption = Annotated[
    bool, typer.Option("--bilinear/--transposed", help="Kind of upsampling.", rich_help_panel=_MODEL)
]
ClaheOption = Annotated[bool, typer.Option(help="Equalise contrast first.", rich_help_panel=_MODEL)]
LossOption = Annotated[str, typer.Option(help="bce-dice, focal or generalised-dice.", rich_help_panel=_LOSS)]
BceWeightOption = Annotated[float, typer.Option(help="Weight of cross entropy.", rich_help_panel=_LOSS)]
DiceWeightOption = Annotated[float, typer.Option(help="Weight of Dice.", rich_help_panel=_LOSS)]


def unet(
    data: DataArgument,
    out: OutOption,
    split: SplitOption = None,
    folds: FoldsOption = 0,
    resume: ResumeOption = False,
    init: InitOption = None,
    size: SizeOption = 512,
    features: FeaturesOption = "64,128,256,512,1024",
    bilinear: BilinearOption = True,
    clahe: ClaheOption = True,
    half: HalfOption = False,
    epochs: EpochsOption = 100,
    stop_after: StopAfterOption = 0,
    batch_size: BatchSizeOption = 8,
    learning_rate: LearningRateOption = 1e-4,
    weight_decay: WeightDecayOption = 1e-5,
    patience: PatienceOption = 15,
    ema_decay: EmaDecayOption = 0.0,
    loss: LossOption = "bce-dice",
    bce_weight: BceWeightOption = 0.5,
    dice_weight: DiceWeightOption = 0.5,
    amp: AmpOption = Amp.OFF,
    channels_last: ChannelsLastOption = True,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a lung U-Net; the best weights by validation Dice are kept.

    \b
    Examples:
      seg-bench train unet data/montgomery --out runs/lung
      seg-bench train unet data/montgomery --out runs/small --features 32,64,128,256
      seg-bench train unet data/montgomery --out runs/lung --resume
      seg-bench train unet data/montgomery --out runs/folds --folds 5
    """
    given = locals()
    arguments = _levels(features, bilinear)
    _train("unet", arguments, given)


def unetpp(
    data: DataArgument,
    out: OutOption,
    split: SplitOption = None,
    folds: FoldsOption = 0,
    resume: ResumeOption = False,
    init: InitOption = None,
    size: SizeOption = 512,
    features: FeaturesOption = "32,64,128,256,512",
    bilinear: BilinearOption = True,
    deep_supervision: Annotated[
        bool,
        typer.Option(
            help="A head per depth, each with a loss of its own, so that it can be pruned.",
            rich_help_panel=_MODEL,
        ),
    ] = True,
    clahe: ClaheOption = True,
    half: HalfOption = False,
    epochs: EpochsOption = 100,
    stop_after: StopAfterOption = 0,
    batch_size: BatchSizeOption = 8,
    learning_rate: LearningRateOption = 1e-4,
    weight_decay: WeightDecayOption = 1e-5,
    patience: PatienceOption = 15,
    ema_decay: EmaDecayOption = 0.0,
    loss: LossOption = "bce-dice",
    bce_weight: BceWeightOption = 0.5,
    dice_weight: DiceWeightOption = 0.5,
    amp: AmpOption = Amp.OFF,
    channels_last: ChannelsLastOption = True,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a lung U-Net++; the best weights by validation Dice of the deepest head are kept.

    \b
    Examples:
      seg-bench train unetpp data/montgomery --out runs/nested
      seg-bench train unetpp data/montgomery --out runs/nested --features 8,16,32,64,96 --size 256
      seg-bench train unetpp data/montgomery --out runs/folds --folds 5 --resume
    """
    given = locals()
    arguments = {**_levels(features, bilinear), "deep_supervision": deep_supervision}
    _train("unetpp", arguments, given)


def transunet(
    data: DataArgument,
    out: OutOption,
    split: SplitOption = None,
    folds: FoldsOption = 0,
    resume: ResumeOption = False,
    init: InitOption = None,
    size: SizeOption = 224,
    arch: Annotated[
        str, typer.Option(help="As for seg-export transunet: r50_vit_b16 or small.", rich_help_panel=_MODEL)
    ] = "small",
    clahe: ClaheOption = True,
    half: HalfOption = False,
    epochs: EpochsOption = 100,
    stop_after: StopAfterOption = 0,
    batch_size: BatchSizeOption = 8,
    learning_rate: LearningRateOption = 1e-4,
    weight_decay: WeightDecayOption = 1e-5,
    patience: PatienceOption = 15,
    ema_decay: EmaDecayOption = 0.0,
    loss: LossOption = "bce-dice",
    bce_weight: BceWeightOption = 0.5,
    dice_weight: DiceWeightOption = 0.5,
    amp: AmpOption = Amp.OFF,
    channels_last: ChannelsLastOption = True,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a lung TransUNet from scratch; the best weights by validation Dice are kept.

    \b
    Examples:
      seg-bench train transunet data/montgomery --out runs/trans --size 256
      seg-bench train transunet data/montgomery --out runs/trans105 --arch r50_vit_b16 --device cuda
      seg-bench train transunet data/montgomery --out runs/folds --folds 5
    """
    given = locals()
    try:
        from seg_export.families.semantic.transunet import VARIANTS
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name}, which training needs,", "bench") from error
    if arch not in VARIANTS:
        raise BadInputError(f"--arch '{arch}': there are {' and '.join(VARIANTS)}")
    arguments = {**VARIANTS[arch], "in_channels": 1, "num_classes": 1, "image_size": size}
    _train("transunet", arguments, given)


def _train(family: str, arguments: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Train once or once per fold. `given` are a command's options by name: `TrainSettings`' and others."""
    try:
        from seg_bench.data.montgomery import finding
        from seg_bench.data.splits import load_split, montgomery_split
        from seg_bench.train.folds import cross_validate
        from seg_bench.train.recipe import SemanticRecipe, train_semantic
        from seg_bench.train.settings import TrainSettings
        from seg_runtime.spec import ClaheSpec
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name}, which training needs,", "bench") from error

    size_hw = (given["size"], given["size"])
    clahe = ClaheSpec() if given["clahe"] else None
    recipe = SemanticRecipe(
        family, arguments, size_hw=size_hw, clahe=clahe, init=given["init"], half=given["half"]
    )
    settings = {field.name: given[field.name] for field in fields(TrainSettings) if field.name in given}
    plan = TrainSettings(**{**settings, "amp": given["amp"].value})
    chosen = load_split(given["split"]) if given["split"] else montgomery_split()
    where, resume, as_json = (given["data"], chosen, given["out"]), given["resume"], given["as_json"]
    if given["folds"]:
        result = cross_validate(*where, recipe, plan, count=given["folds"], stratum=finding, resume=resume)
        show_folds(result, given["out"], as_json)
    else:
        show_result(train_semantic(*where, recipe, plan, resume=resume), as_json)


def _levels(features: str, bilinear: bool) -> dict[str, Any]:
    try:
        widths = [int(count) for count in features.split(",")]
    except ValueError:
        raise BadInputError(
            f"--features got '{features}': expected channel counts such as 32,64,128,256"
        ) from None
    return {"in_channels": 1, "num_classes": 1, "bilinear": bilinear, "features": widths}
