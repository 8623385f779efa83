"""The command `seg-bench`: one module per subcommand, heavy imports inside the functions."""

from __future__ import annotations

import typer

from seg_bench.cli import (
    calibrate,
    compare,
    data,
    doctor,
    report,
    reproduce,
    run,
    schema,
    suggest,
    track,
    train,
)
from seg_runtime.console import run_app

__all__ = ["app", "main"]

app = typer.Typer(
    name="seg-bench",
    help="Data sets, training and the Dice / latency table of deployed segmentation models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.command("run")(run.run)
app.command("reproduce")(reproduce.reproduce)
app.command("track")(track.track)
app.command("calibrate")(calibrate.calibrate)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("suggest")(suggest.suggest)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of `seg-bench`."""
    run_app(app)
