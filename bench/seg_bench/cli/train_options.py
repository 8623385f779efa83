"""Options that training any model takes, and how its result is told."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seg_bench.train.folds import CrossValidation
    from seg_bench.train.recipe import TrainResult

__all__ = [
    "Amp",
    "AmpOption",
    "BatchSizeOption",
    "DeviceOption",
    "EmaDecayOption",
    "EpochsOption",
    "HalfOption",
    "InitOption",
    "JsonOption",
    "LearningRateOption",
    "OutOption",
    "PatienceOption",
    "ResumeOption",
    "SeedOption",
    "SplitOption",
    "StopAfterOption",
    "WeightDecayOption",
    "WorkersOption",
    "show_folds",
    "show_result",
]

_MODEL, _SCHEDULE, _MACHINE = "Model and input", "Schedule", "Machine"


class Amp(str, Enum):
    """Automatic mixed precision of the training."""

    OFF = "off"
    BF16 = "bf16"
    FP16 = "fp16"


OutOption = Annotated[
    Path, typer.Option(help="Folder of the run: best.pth, last.pt, history.json, history.png.")
]
SplitOption = Annotated[
    Path | None, typer.Option(help="Split file; without it the fixed one of the data set.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with a run that was killed.")]
InitOption = Annotated[Path | None, typer.Option(help="Checkpoint of the same architecture to start from.")]
HalfOption = Annotated[
    bool, typer.Option("--half", help="Store best.pth as float16.", rich_help_panel=_MODEL)
]
EpochsOption = Annotated[int, typer.Option(help="Length of the cosine schedule.", rich_help_panel=_SCHEDULE)]
StopAfterOption = Annotated[
    int, typer.Option(help="Pause after this many epochs; 0 goes to the end.", rich_help_panel=_SCHEDULE)
]
BatchSizeOption = Annotated[int, typer.Option(help="Images per step.", rich_help_panel=_SCHEDULE)]
LearningRateOption = Annotated[float, typer.Option(help="AdamW's rate.", rich_help_panel=_SCHEDULE)]
WeightDecayOption = Annotated[float, typer.Option(help="AdamW's decay.", rich_help_panel=_SCHEDULE)]
PatienceOption = Annotated[
    int, typer.Option(help="Epochs without a better score before stopping.", rich_help_panel=_SCHEDULE)
]
EmaDecayOption = Annotated[
    float, typer.Option(help="Decay of the weights' moving average; 0 is off.", rich_help_panel=_SCHEDULE)
]
AmpOption = Annotated[Amp, typer.Option(help="Mixed precision; fp16 needs a GPU.", rich_help_panel=_MACHINE)]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_MACHINE)]
WorkersOption = Annotated[int, typer.Option(help="Processes that load images.", rich_help_panel=_MACHINE)]
SeedOption = Annotated[
    int, typer.Option(help="Of weights, order and augmentation.", rich_help_panel=_MACHINE)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def show_result(result: TrainResult, as_json: bool) -> None:
    """Print the best epoch and its checkpoint, for people or as JSON."""
    history = result.history
    if not as_json:
        typer.echo(
            f"best validation {history.metric} {history.best_score:.4f} in epoch {history.best_epoch}: "
            f"{result.checkpoint}"
        )
        return
    typer.echo(
        json.dumps(
            {
                "checkpoint": str(result.checkpoint),
                "val_" + history.metric.lower().replace(" ", "_"): history.best_score,
                "epoch": history.best_epoch,
                "epochs": history.epochs,
                "seconds": round(sum(history.seconds), 1),
            }
        )
    )


def show_folds(result: CrossValidation, out: Path, as_json: bool) -> None:
    """Print the Dice of all folds, for people or as JSON."""
    if as_json:
        typer.echo(json.dumps(asdict(result)))
        return
    for number, fold in enumerate(result.folds, start=1):
        typer.echo(
            f"fold {number}: {len(fold.names)} images, validation Dice {fold.last:.4f} after {fold.epochs} "
            f"epochs, best {fold.best:.4f}"
        )
    typer.echo(
        f"{len(result.folds)} folds: validation Dice {result.last_mean:.4f} +/- {result.last_spread:.4f} "
        f"at the last epoch, {result.best_mean:.4f} +/- {result.best_spread:.4f} at the best one: {out}"
    )
