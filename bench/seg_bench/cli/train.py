"""`seg-bench train`: one command per model family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    show_result,
)
from seg_runtime.errors import BadInputError, MissingExtraError

__all__ = ["app"]


app = typer.Typer(help="Train a model on a data set.", no_args_is_help=True, rich_markup_mode="rich")

_MODEL, _SCHEDULE, _LOSS, _MACHINE = "Model and input", "Schedule", "Loss", "Machine"


@app.callback()
def families() -> None:
    """Train a model on a data set; each command is a model family."""


@app.command("unet")
def unet(
    data: Annotated[Path, typer.Argument(help="Folder with the X-rays, official or merged layout.")],
    out: OutOption,
    split: SplitOption = None,
    resume: ResumeOption = False,
    init: InitOption = None,
    size: Annotated[int, typer.Option(help="Height and width in pixels.", rich_help_panel=_MODEL)] = 512,
    features: Annotated[
        str, typer.Option(help="Channels per level, for example 32,64,128,256.", rich_help_panel=_MODEL)
    ] = "64,128,256,512,1024",
    bilinear: Annotated[
        bool,
        typer.Option("--bilinear/--transposed", help="Kind of upsampling.", rich_help_panel=_MODEL),
    ] = True,
    clahe: Annotated[bool, typer.Option(help="Equalise contrast first.", rich_help_panel=_MODEL)] = True,
    half: HalfOption = False,
    epochs: EpochsOption = 100,
    stop_after: StopAfterOption = 0,
    batch_size: BatchSizeOption = 8,
    learning_rate: LearningRateOption = 1e-4,
    weight_decay: WeightDecayOption = 1e-5,
    patience: PatienceOption = 15,
    ema_decay: EmaDecayOption = 0.0,
    loss: Annotated[
        str, typer.Option(help="bce-dice, focal or generalised-dice.", rich_help_panel=_LOSS)
    ] = "bce-dice",
    bce_weight: Annotated[float, typer.Option(help="Weight of cross entropy.", rich_help_panel=_LOSS)] = 0.5,
    dice_weight: Annotated[float, typer.Option(help="Weight of Dice.", rich_help_panel=_LOSS)] = 0.5,
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
    """
    try:
        from seg_bench.data.splits import load_split, montgomery_split
        from seg_bench.train.recipe import UNetRecipe, train_unet
        from seg_bench.train.settings import TrainSettings
        from seg_runtime.spec import ClaheSpec
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name}, which training needs,", "bench") from error

    recipe = UNetRecipe(
        features=_channel_counts(features),
        bilinear=bilinear,
        size_hw=(size, size),
        clahe=ClaheSpec() if clahe else None,
        init=init,
        half=half,
    )
    settings = TrainSettings(
        epochs=epochs,
        stop_after=stop_after,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        patience=patience,
        loss=loss,
        bce_weight=bce_weight,
        dice_weight=dice_weight,
        ema_decay=ema_decay,
        amp=amp.value,
        channels_last=channels_last,
        device=device,
        seed=seed,
        workers=workers,
    )
    chosen = load_split(split) if split else montgomery_split()
    result = train_unet(data, chosen, out, recipe, settings, resume=resume)
    show_result(result, as_json)


@app.command("maskrcnn")
def maskrcnn(
    data: Annotated[
        Path,
        typer.Argument(help="Folder with images/ and labels/ (maps of ids), or ID/masks folders."),
    ],
    out: OutOption,
    split: SplitOption = None,
    resume: ResumeOption = False,
    init: InitOption = None,
    arch: Annotated[
        str, typer.Option(help="As for seg-export maskrcnn.", rich_help_panel=_MODEL)
    ] = "maskrcnn_light_fpn",
    size: Annotated[
        int, typer.Option(help="Side in pixels that images are scaled to fit.", rich_help_panel=_MODEL)
    ] = 512,
    crop: Annotated[
        int, typer.Option(help="Side in pixels of the crops it learns from.", rich_help_panel=_MODEL)
    ] = 256,
    class_name: Annotated[str, typer.Option(help="Of the objects.", rich_help_panel=_MODEL)] = "nucleus",
    max_detections: Annotated[
        int, typer.Option(min=1, help="The most objects in an image.", rich_help_panel=_MODEL)
    ] = 300,
    half: HalfOption = False,
    epochs: EpochsOption = 40,
    stop_after: StopAfterOption = 0,
    batch_size: BatchSizeOption = 4,
    learning_rate: LearningRateOption = 1e-3,
    weight_decay: WeightDecayOption = 1e-4,
    patience: PatienceOption = 30,
    ema_decay: EmaDecayOption = 0.99,
    amp: AmpOption = Amp.OFF,
    device: DeviceOption = "auto",
    workers: WorkersOption = 0,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a Mask R-CNN on objects of one class; the best weights by validation mask AP are kept.

    \b
    Examples:
      seg-bench train maskrcnn data/nuclei --out runs/nuclei
      seg-bench train maskrcnn data/nuclei --out runs/nuclei --resume
      seg-bench train maskrcnn cells/ --split split.json --class-name cell --out runs/cells
    """
    try:
        from seg_bench.data.splits import load_split, nuclei_split
        from seg_bench.train.detection_dataset import CropSettings
        from seg_bench.train.maskrcnn_recipe import MaskRcnnRecipe, train_maskrcnn
        from seg_bench.train.settings import TrainSettings
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name}, which training needs,", "bench") from error

    recipe = MaskRcnnRecipe(
        arch=arch,
        size_hw=(size, size),
        class_name=class_name,
        max_detections=max_detections,
        crops=CropSettings(size=crop),
        init=init,
        half=half,
    )
    settings = TrainSettings(
        epochs=epochs,
        stop_after=stop_after,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        patience=patience,
        ema_decay=ema_decay,
        amp=amp.value,
        device=device,
        seed=seed,
        workers=workers,
    )
    chosen = load_split(split) if split else nuclei_split()
    show_result(train_maskrcnn(data, chosen, out, recipe, settings, resume=resume), as_json)


def _channel_counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(count) for count in text.split(","))
    except ValueError:
        raise BadInputError(
            f"--features got '{text}': expected channel counts such as 32,64,128,256"
        ) from None
