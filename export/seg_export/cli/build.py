"""`seg-export build`: TensorRT engines of published graphs, on the machine that will run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seg_export.cli.check import builder_progress
from seg_export.cli.options import JsonOption, RepoOption
from seg_export.cli.output import echo_json, report_table
from seg_runtime.console import stderr_console, stdout_console

if TYPE_CHECKING:
    from seg_export.engines.build import BuiltEngine

__all__ = ["build"]


def build(
    models: Annotated[
        list[str] | None, typer.Argument(help="Names of models. Default: every built model.")
    ] = None,
    *,
    repo: RepoOption = Path("triton_repo"),
    backend: Annotated[
        Literal["tensorrt", "tensorrt-rtx"] | None,
        typer.Option(help="Default: full TensorRT where it is installed, else TensorRT for RTX."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build also what is there and fits.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build TensorRT engines and publish each as the next version of its model, if it proves right.

    An engine runs on the kind of GPU and the TensorRT that it was built with, so
    this is for the machine that will run it. Its answers are compared with the
    graph's there; beyond the tolerance of its precision nothing is published, and
    the exit code is 3. The graph stays next to the engine.

    Examples:

      seg-export build --repo triton_repo

      seg-export build unet_lung --backend tensorrt --force --json
    """
    from seg_export.engines.build import build_engines
    from seg_export.verification.comparison import VerificationError

    try:
        with builder_progress() as on_progress:
            built = build_engines(repo, models or (), backend=backend, force=force, on_progress=on_progress)
    except VerificationError as error:
        stderr_console().print(report_table(error.report))
        raise
    if as_json:
        echo_json([_as_dict(engine) for engine in built])
    else:
        _show(built)


def _as_dict(engine: BuiltEngine) -> dict[str, Any]:
    return {**asdict(engine), "report": engine.report.as_dict() if engine.report else None}


def _show(built: Sequence[BuiltEngine]) -> None:
    console = stdout_console()
    for engine in built:
        if engine.report:
            console.print(report_table(engine.report))
    for engine in built:
        what = "fits already" if engine.fresh else f"built in {engine.seconds:.0f} s"
        made = engine.fingerprint
        console.print(
            f"{engine.model} version {engine.version}: {what}, {engine.size_bytes / 1e6:.1f} MB, "
            f"{made.backend} {made.tensorrt_version}, {made.device}",
            soft_wrap=True,
        )
