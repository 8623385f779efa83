"""`seg-bench train`: one command per model family."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from seg_runtime.errors import BadInputError, MissingExtraError

__all__ = ["Amp", "app"]


class Amp(str, Enum):
    """Automatic mixed precision of the training."""

    OFF = "off"
    BF16 = "bf16"
    FP16 = "fp16"


app = typer.Typer(help="Train a model on a data set.", no_args_is_help=True, rich_markup_mode="rich")

_MODEL, _SCHEDULE, _LOSS, _MACHINE = "Model and input", "Schedule", "Loss", "Machine"


@app.callback()
def families() -> None:
    """Train a model on a data set; each command is a model family."""


@app.command("unet")
def unet(
    data: Annotated[Path, typer.Argument(help="Folder with the X-rays, official or merged layout.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the run: best.pth, last.pt, history.json, history.png.")
    ],
    split: Annotated[
        Path | None, typer.Option(help="Split file; without it the fixed Montgomery split.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed.")] = False,
    init: Annotated[
        Path | None, typer.Option(help="Checkpoint of the same architecture to start from.")
    ] = None,
    size: Annotated[int, typer.Option(help="Height and width in pixels.", rich_help_panel=_MODEL)] = 512,
    features: Annotated[
        str, typer.Option(help="Channels per level, for example 32,64,128,256.", rich_help_panel=_MODEL)
    ] = "64,128,256,512,1024",
    bilinear: Annotated[
        bool,
        typer.Option("--bilinear/--transposed", help="Kind of upsampling.", rich_help_panel=_MODEL),
    ] = True,
    clahe: Annotated[bool, typer.Option(help="Equalise contrast first.", rich_help_panel=_MODEL)] = True,
    half: Annotated[
        bool, typer.Option("--half", help="Store best.pth as float16.", rich_help_panel=_MODEL)
    ] = False,
    epochs: Annotated[
        int, typer.Option(help="Length of the cosine schedule.", rich_help_panel=_SCHEDULE)
    ] = 100,
    stop_after: Annotated[
        int, typer.Option(help="Pause after this many epochs; 0 goes to the end.", rich_help_panel=_SCHEDULE)
    ] = 0,
    batch_size: Annotated[int, typer.Option(help="Images per step.", rich_help_panel=_SCHEDULE)] = 8,
    learning_rate: Annotated[float, typer.Option(help="AdamW's rate.", rich_help_panel=_SCHEDULE)] = 1e-4,
    weight_decay: Annotated[float, typer.Option(help="AdamW's decay.", rich_help_panel=_SCHEDULE)] = 1e-5,
    patience: Annotated[
        int, typer.Option(help="Epochs without a better Dice before stopping.", rich_help_panel=_SCHEDULE)
    ] = 15,
    ema_decay: Annotated[
        float, typer.Option(help="Decay of the weights' moving average; 0 is off.", rich_help_panel=_SCHEDULE)
    ] = 0.0,
    loss: Annotated[
        str, typer.Option(help="bce-dice, focal or generalised-dice.", rich_help_panel=_LOSS)
    ] = "bce-dice",
    bce_weight: Annotated[float, typer.Option(help="Weight of cross entropy.", rich_help_panel=_LOSS)] = 0.5,
    dice_weight: Annotated[float, typer.Option(help="Weight of Dice.", rich_help_panel=_LOSS)] = 0.5,
    amp: Annotated[
        Amp, typer.Option(help="Mixed precision; fp16 needs a GPU.", rich_help_panel=_MACHINE)
    ] = Amp.OFF,
    channels_last: Annotated[bool, typer.Option(help="NHWC memory order.", rich_help_panel=_MACHINE)] = True,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_MACHINE)] = "auto",
    workers: Annotated[int, typer.Option(help="Processes that load images.", rich_help_panel=_MACHINE)] = 0,
    seed: Annotated[
        int, typer.Option(help="Of weights, order and augmentation.", rich_help_panel=_MACHINE)
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
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
    history = result.history
    if as_json:
        facts = {
            "checkpoint": str(result.checkpoint),
            "val_dice": history.best_score,
            "epoch": history.best_epoch,
        }
        typer.echo(json.dumps({**facts, "epochs": history.epochs, "seconds": round(sum(history.seconds), 1)}))
    else:
        typer.echo(
            f"best validation {history.metric} {history.best_score:.4f} in epoch {history.best_epoch}: "
            f"{result.checkpoint}"
        )


def _channel_counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(count) for count in text.split(","))
    except ValueError:
        raise BadInputError(
            f"--features got '{text}': expected channel counts such as 32,64,128,256"
        ) from None
