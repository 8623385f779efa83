"""What the exporting subcommands share: progress over the steps, tables or JSON of what was published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seg_export.cli.output import echo_json, report_table
from seg_runtime.console import progress_bar, stderr_console, stdout_console, working

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint
    from seg_export.checkpoints.licences import Licence
    from seg_export.export import ExportedModel
    from seg_export.verification.labelled import LabelledDice, LabelledImage
    from seg_runtime.spec import ModelSpec

__all__ = ["dice_of", "export", "export_progress", "show", "show_steps"]


def export(weights: Checkpoint, repo: Path, name: str, **options: Any) -> tuple[ExportedModel, ...]:
    """`export_models` with `export_progress`."""
    from seg_export.export import export_models

    with export_progress() as on_step:
        return export_models(weights, repo, name, on_step=on_step, **options)


@contextmanager
def export_progress() -> Iterator[Callable[[str], None]]:
    """A progress bar over the steps of an export; a graph that strays shows its figures on stderr."""
    from seg_export.verification.comparison import VerificationError

    try:
        with _steps() as on_step:
            yield on_step
    except VerificationError as error:
        stderr_console().print(report_table(error.report))
        raise


def show(
    exported: Sequence[ExportedModel],
    as_json: bool,
    licence: Licence | None = None,
    dice: LabelledDice | None = None,
) -> None:
    """Print what was published on stdout, and on stderr what was done to a file and assumed of it.

    Args:
        exported: what was published.
        as_json: print one JSON object, or a list of them.
        licence: of weights that were fetched.
        dice: of the published model on labelled images.
    """
    from seg_export.checkpoints.assumptions import assumptions_text

    if as_json:
        models = [_as_dict(model, licence, dice) for model in exported]
        echo_json(models[0] if len(models) == 1 else models)
    else:
        for model in exported:
            _show_model(model)
        stdout_console().print(_input_text(exported[0].published.spec), soft_wrap=True, highlight=False)
        if dice:
            stdout_console().print(dice.summary(), soft_wrap=True, markup=False)
    show_steps(exported[0].steps)
    if text := assumptions_text(exported[0].assumptions):
        typer.echo(text, err=True)


def dice_of(repo: Path, name: str, labelled: Sequence[LabelledImage]) -> LabelledDice | None:
    """The Dice of a published model on labelled images; None without any."""
    from seg_export.verification.labelled import labelled_dice

    if not labelled:
        return None
    with working(f"Dice of {name}"):
        return labelled_dice(repo, name, labelled)


def show_steps(steps: Sequence[str]) -> None:
    """Print on stderr what was done to a file to get at its weights, one line each."""
    for step in steps:
        typer.echo(f"checkpoint: {step}", err=True)


def _as_dict(
    exported: ExportedModel, licence: Licence | None, dice: LabelledDice | None = None
) -> dict[str, Any]:
    """For JSON: the contract, where it lies, and the figures of its verification (null for an ensemble)."""
    from dataclasses import asdict

    published = exported.published
    calibration = exported.precision.calibration if exported.precision else None
    return {
        "spec": asdict(published.spec),
        "folder": str(published.folder),
        "size_bytes": published.size_bytes,
        "verification": exported.report.as_dict() if exported.report else None,
        "nodes_in_fp32": dict(exported.precision.kept) if exported.precision else None,
        "calibration": asdict(calibration) if calibration else None,
        "assumptions": [asdict(each) for each in exported.assumptions],
        "steps": list(exported.steps),
        "licence": licence.as_dict() if licence else None,
        "labelled": asdict(dice) if dice else None,
    }


def _show_model(exported: ExportedModel) -> None:
    """Print the verification and what was published."""
    published = exported.published
    console = stdout_console()
    if exported.report:
        console.print(report_table(exported.report))
    if exported.precision and exported.precision.precision != "fp32":
        console.print(exported.precision.summary(), soft_wrap=True)
    console.print(
        f"published {published.spec.name} version {published.spec.version} "
        f"({published.size_bytes / 1e6:.1f} MB) as {published.folder}",
        soft_wrap=True,
    )


def _input_text(spec: ModelSpec) -> str:
    """How images are prepared, for example "images: 512x512, gray, pixels / 255, mean 0.485, std 0.229"."""
    from seg_export.checkpoints.assumption import size_text, text

    kinds = {1: "gray", 3: spec.channel_order.upper()}
    channels = kinds.get(spec.channels, f"{spec.channels} bands")
    clahe = ", CLAHE" if spec.clahe else ""
    return (
        f"images: {size_text(spec)} ({spec.resize}), {channels}, pixels / {spec.scale:g}, "
        f"mean {text(spec.mean)}, std {text(spec.std)}{clahe}"
    )


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """A progress bar over the steps of an export."""
    from seg_export.export import STEPS

    with progress_bar() as bar:
        task = bar.add_task(STEPS[0], total=len(STEPS))
        yield lambda step: bar.update(task, description=step, completed=STEPS.index(step.split(":")[0]))
