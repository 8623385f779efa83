"""`seg-bench reproduce`: the whole table of this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seg_bench.reproduce.driver import Reproduction

__all__ = ["reproduce"]


def reproduce(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("reproduced"),
    budget: Annotated[str, typer.Option(help="Time for all of it: 90s, 10m, 1.5h.")] = "10m",
    rows: Annotated[
        str,
        typer.Option(
            help="Networks, separated by commas: names, patterns such as sam*, or the groups shipped, "
            "article, more. All by default."
        ),
    ] = "",
    engines: Annotated[
        str,
        typer.Option(
            help="What computes, separated by commas: keys as of seg-bench run; auto takes all that suit "
            "the machine, on a GPU those of the GPU."
        ),
    ] = "auto",
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of labelled images, for true Dice: X-rays with masks/, cells with labels/. May be "
            "given again: a second one of a kind is another data set, for more Dice of what is trained. "
            "Without one, images are drawn, and only times are measured."
        ),
    ] = None,
    repo: Annotated[
        Path | None,
        typer.Option(help="Measure the models of this repository, which is left as it is, and export none."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Measure the models and images of a bundle that seg-export bundle wrote."),
    ] = None,
    train: Annotated[
        bool,
        typer.Option(
            "--train",
            help="First train the networks of the article that have no weights, on the Montgomery X-rays of "
            "--data. Needs a GPU.",
        ),
    ] = False,
    plan_only: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Measure the whole table on this device: look, export, verify, time, and write one folder.

    Every engine is compared with the fp32 graph before it is timed. The engines
    of a network and PyTorch take turns. Networks without trained weights have
    random ones, and every output says so.

    What does not fit into the budget is left out, and said; the same call again
    goes on with it. The exit code is 1 when anything is missing at the end.

    \b
    Examples:
      seg-bench reproduce
      seg-bench reproduce --budget 4m --rows shipped \\
        --data tests/data/montgomery --data tests/data/nuclei
      seg-bench reproduce --rows unet_31m,sam_vit_b --engines onnxruntime-cuda
      seg-bench reproduce --train --budget 30m --rows article \\
        --data data/montgomery --data data/shenzhen
      seg-bench reproduce --repo triton_repo --rows shipped
      seg-bench reproduce --bundle jetson.tar
    """
    import sys

    from seg_bench.machine import shown_command
    from seg_bench.reproduce.driver import Reproduction
    from seg_bench.reproduce.durations import seconds_of
    from seg_bench.reproduce.options import ReproduceOptions
    from seg_bench.reproduce.training import Training
    from seg_bench.run.options import engines_of, split_names
    from seg_runtime.console import progress_bar, working

    options = ReproduceOptions(
        out=out,
        budget_s=seconds_of("--budget", budget),
        rows=split_names(rows),
        engines=engines_of(engines),
        data=tuple(data or ()),
        repo=repo,
        bundle=bundle,
        train=Training() if train else None,
        command=shown_command(sys.argv),
    )
    with working("asking this machine"):
        work = Reproduction(options)
    _show_plan(work)
    if plan_only:
        return
    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)
        work.run(lambda what, done, total: bar.update(task, description=what, completed=done, total=total))
    _show_results(work, as_json)
    if work.missing:
        raise typer.Exit(1)


def _show_plan(work: Reproduction) -> None:
    from seg_bench.reproduce.screen import plan_text

    typer.echo(plan_text(work.plan, work.device, work.options.budget_s, work.cut), err=True)


def _show_results(work: Reproduction, as_json: bool) -> None:
    from seg_bench.report.json_report import to_json_report
    from seg_bench.reproduce.screen import results_text

    runs = work.folder.runs()
    if as_json:
        typer.echo(to_json_report(runs), nl=False)
    else:
        typer.echo(results_text(runs))
    for missing in work.missing:
        typer.echo(f"not measured: {missing}", err=True)
    if runs:
        typer.echo(f"wrote {work.folder.path}: table.md, report.html, records", err=True)
