"""`seg-bench train`: one command per model family."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seg_bench.cli import train_semantic
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
    show_result,
)
from seg_runtime.errors import MissingExtraError

__all__ = ["app"]


app = typer.Typer(help="Train a model on a data set.", no_args_is_help=True, rich_markup_mode="rich")

_MODEL = "Model and input"


@app.callback()
def families() -> None:
    """Train a model on a data set; each command is a model family."""


app.command("unet")(train_semantic.unet)
app.command("unetpp")(train_semantic.unetpp)
app.command("transunet")(train_semantic.transunet)


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
      seg-bench train maskrcnn cells/ --split split.json --class-name cell \\
        --out runs/cells
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
