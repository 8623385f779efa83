"""`seg-export check`: graphs compiled with TensorRT for GPUs that are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seg_export.cli.given import given
from seg_export.cli.options import JsonOption, RepoOption
from seg_export.cli.output import echo_json
from seg_runtime.console import progress_bar, stdout_console
from seg_runtime.errors import BadInputError

if TYPE_CHECKING:
    from rich.table import Table

    from seg_export.engines.check import CheckedGraph

__all__ = ["builder_progress", "check"]


def check(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Names of models, or ONNX files. Default: every model of the repository."),
    ] = None,
    *,
    repo: RepoOption = Path("triton_repo"),
    compute_capability: Annotated[
        str,
        typer.Option(help="GPUs to compile for: 75 Turing, 80 and 86 Ampere, 89 Ada, 120 Blackwell."),
    ] = "75,80,86,89,120",
    as_json: JsonOption = False,
) -> None:
    """Compile graphs with TensorRT for RTX, for GPUs that need not be here; nothing is kept.

    It needs no GPU, so it can run on every commit. A graph that TensorRT refuses
    is shown with the node and what to do about it, and the exit code is 3.

    Examples:

      seg-export check

      seg-export check unet_lung --repo triton_repo --compute-capability 86,89

      seg-export check exported/model.onnx --json
    """
    from seg_export.engines.check import check_graphs, parse_capabilities, require_built

    if models and all(model.endswith(".onnx") for model in models) and given(context, "repo"):
        raise BadInputError(
            "--repo has no effect on ONNX files: leave it out, or name models of the repository"
        )
    capabilities = parse_capabilities(compute_capability)
    with builder_progress() as on_progress:
        results = check_graphs(models or [], repo, capabilities, on_progress=on_progress)
    if as_json:
        echo_json([_as_dict(result) for result in results])
    else:
        stdout_console().print(_table(results))
    require_built(results)


@contextmanager
def builder_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar over what TensorRT's builder does."""
    with progress_bar() as bar:
        task = bar.add_task("parsing", total=None)
        yield lambda phase, done, total: bar.update(task, description=phase, completed=done, total=total)


def _as_dict(result: CheckedGraph) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(result), "seconds": round(result.seconds, 3)}


def _table(results: Sequence[CheckedGraph]) -> Table:
    """One row per graph and compute capability."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for heading in ("model", "precision", "GPU", "seconds", "MB", "layers", "result"):
        justify: Literal["left", "right"] = "left" if heading in ("model", "precision", "result") else "right"
        table.add_column(heading, justify=justify, no_wrap=heading != "result")
    for item in results:
        state = Text("built", "green") if item.built else Text(item.reason, "red")
        size = f"{item.size_bytes / 1e6:.1f}" if item.built else ""
        figures = (item.compute_capability, f"{item.seconds:.1f}", size, str(item.layers or ""))
        table.add_row(item.model, item.precision, *figures, state)
    return table
