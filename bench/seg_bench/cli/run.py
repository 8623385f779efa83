"""`seg-bench run`: measure deployed models."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seg_bench.records import Run

__all__ = ["Baseline", "Part", "run"]


class Baseline(str, Enum):
    """What to compare deployed models with."""

    TORCH = "torch"
    TORCH_CHANNELS_LAST = "torch-channels-last"
    OFFICIAL = "official"


class Part(str, Enum):
    """Part of a split."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


def run(
    *,
    data: Annotated[
        Path,
        typer.Option(
            help="Folder with images/ and masks/, or Montgomery as it is distributed; for objects, with "
            "images/ and labels/ (maps of ids), or the Data Science Bowl 2018."
        ),
    ],
    repo: Annotated[Path, typer.Option(help="Model repository.")] = Path("triton_repo"),
    models: Annotated[
        str | None,
        typer.Option(
            help="Models, separated by commas, a SAM by its name (sam_tiny); all that are built by default."
        ),
    ] = None,
    where: Annotated[
        str,
        typer.Option(help="Places, separated by commas: in-process, grpc, http, shared-memory."),
    ] = "in-process",
    engines: Annotated[
        str,
        typer.Option(
            help="What computes in process, separated by commas, a row for each: auto, onnxruntime, "
            "openvino, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt."
        ),
    ] = "auto",
    url: Annotated[
        str | None,
        typer.Option(help="Measure this running server (grpc://HOST:PORT, http://HOST:PORT) and start none."),
    ] = None,
    baseline: Annotated[
        list[Baseline] | None,
        typer.Option(
            help="Also measure, in the same rounds: the original model in PyTorch (one of the first two), "
            "a SAM with segment_anything's own exported decoder, a Mask R-CNN as torchvision's own export "
            "(official). May be given twice."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The baseline's checkpoint, when it does not ship with edgeseg.")
    ] = None,
    part: Annotated[
        Part | None,
        typer.Option(help="Only this part of a split, of the shipped one without --split-file."),
    ] = None,
    split_file: Annotated[Path | None, typer.Option(help="JSON split file for --part.")] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="Ground truth of several annotators (masks/ANNOTATOR/NAME.png): staple, majority, union, or "
            "the name of one."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most this many images.")] = None,
    repeats: Annotated[int, typer.Option(help="Timed calls per row.")] = 20,
    warm_up: Annotated[int, typer.Option(help="Calls per row before the timed ones.")] = 3,
    threads: Annotated[
        int | None, typer.Option(help="Threads per model, everywhere; the runtimes choose by default.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images per call.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the order in which rows take turns.")] = 0,
    energy: Annotated[
        bool,
        typer.Option(help="Also measure joules per image, about 3 s per row, where the machine has a meter."),
    ] = True,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the records to this file (.json).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Measure Dice, IoU, HD95, latency and memory of deployed models, all in turns on one machine.

    A SAM is prompted with a box around each object of the ground truth, all in one call; the union of
    the masks is scored, and the times of its encoder and its decoder are shown besides the whole call.

    Of a model that finds objects, all masks are pasted into the image, and the table also shows mask AP and
    AP50, how many objects it found too many or too few at a score of 0.5, and the Dice of those found.

    Where the machine has a power meter (NVML, tegrastats, jtop, RAPL: see  seg-bench doctor ), each row then
    runs alone for some seconds, and the records hold its joules per image and its GPU memory.

    Without --url, a server is started for the places that need one. Ctrl-C keeps what was measured.

    \b
    Examples:
      seg-bench run --data tests/data/montgomery --out results/run.json
      seg-bench run --data data/montgomery --part test --where in-process,grpc,http,shared-memory
      seg-bench run --data data/montgomery --models unet_lung --baseline torch --threads 2
      seg-bench run --data data/montgomery --models unet_lung --engines onnxruntime,openvino
      seg-bench run --data data/montgomery --models sam_tiny --baseline torch --baseline official
      seg-bench run --data data/nuclei --part test --models maskrcnn_nuclei --baseline torch
      seg-bench run --data data/readers --models unet_lung --truth staple
      seg-bench run --data data/montgomery --url grpc://jetson:8001 --where grpc
    """
    import sys

    from seg_bench.machine import shown_command
    from seg_bench.options import RunOptions, engines_of, places_of, split_names
    from seg_bench.runner import measure
    from seg_runtime.console import progress_bar

    options = RunOptions(
        repo=repo,
        data=data,
        split_file=split_file,
        part=part.value if part else None,
        truth=truth,
        limit=limit,
        models=split_names(models or ""),
        where=places_of(where),
        engines=engines_of(engines),
        url=url,
        **_baselines(baseline or []),
        checkpoint=checkpoint,
        repeats=repeats,
        warm_up=warm_up,
        threads=threads,
        batch=batch,
        seed=seed,
        energy=energy,
    )
    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)
        measured = measure(
            options,
            shown_command(sys.argv),
            lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    _show(measured, out, as_json)
    if not measured.complete:
        raise KeyboardInterrupt


def _baselines(chosen: list[Baseline]) -> dict[str, bool]:
    """The options of `RunOptions` that stand for them. Raises BadInputError for PyTorch in both orders."""
    from seg_runtime.errors import BadInputError

    channels_last = Baseline.TORCH_CHANNELS_LAST in chosen
    if channels_last and Baseline.TORCH in chosen:
        raise BadInputError("--baseline torch and torch-channels-last are one row: choose one of them")
    return {
        "baseline": channels_last or Baseline.TORCH in chosen,
        "channels_last": channels_last,
        "official": Baseline.OFFICIAL in chosen,
    }


def _show(measured: Run, out: Path | None, as_json: bool) -> None:
    from seg_bench.records import write_run
    from seg_bench.report.json_report import to_json_report
    from seg_bench.report.terminal import print_report
    from seg_runtime.console import stdout_console

    if out is not None:
        write_run(measured, out)
        typer.echo(f"wrote {out}", err=True)
    if as_json:
        typer.echo(to_json_report([measured]), nl=False)
    else:
        print_report([measured], stdout_console())
