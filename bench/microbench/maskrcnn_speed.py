"""Times a Mask R-CNN in three forms: our graph, torchvision's own ONNX export, and torchvision eager.

    python -m microbench.maskrcnn_speed --out bench/results/maskrcnn_speed.json

Equal work: 1000 proposals and 0, 10 or 100 detections with masks pasted into the image, on the CPU, batch 1.
Weights are random, of the kind that finds as many as there may be; the score threshold sets how many, which
torchvision leaves out before it computes masks and ours after it. The forms take turns, each turn in a
process of its own with PyTorch's allocator tuned, and the peak memory is that of the process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from microbench.children import run_child
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_runtime.console import progress_bar, run_app

__all__ = ["FormTimes", "MaskRcnnSpeed", "measure_maskrcnn"]

SCHEMA = "edgeseg-maskrcnn-speed/2"
_CHILD = "microbench.maskrcnn_forms"
FORMS = ("torchvision eager", "torchvision's ONNX export", "edgeseg")
COUNTS = (0, 10, 100)


@dataclass(frozen=True)
class FormTimes:
    """One form of the model that finds so many objects.

    Attributes:
        form: one of `FORMS`.
        detections: how many it found.
        samples_ms: from a uint8 image to pasted masks, all turns in order.
        median_ms: of those.
        peak_memory_mib: of the process, the largest of all turns.
    """

    form: str
    detections: int
    samples_ms: list[float]
    median_ms: float
    peak_memory_mib: float


@dataclass(frozen=True)
class MaskRcnnSpeed:
    """The record: machine, settings and every form with every number of objects.

    `times_as_fast_as_...` are ratios of the medians, by the number of objects.
    """

    schema: str
    command: str
    machine: Machine
    arch: str
    size_hw: tuple[int, int]
    threads: int
    forms: list[FormTimes]
    times_as_fast_as_eager: dict[str, float]
    times_as_fast_as_torchvision_export: dict[str, float]


def measure_maskrcnn(
    arch: str,
    size_hw: tuple[int, int],
    *,
    counts: Sequence[int] = COUNTS,
    threads: int = 2,
    turns: int = 3,
    repeats: int = 4,
    command: str = "",
    on_turn: Callable[[str, int, int], object] = lambda what, done, total: None,
) -> MaskRcnnSpeed:
    """Export a random Mask R-CNN twice and time the three forms.

    Args:
        arch: as for `build_maskrcnn`.
        size_hw: (height, width) in pixels of graph and image.
        counts: numbers of objects, no two alike.
        threads: of each runtime.
        turns: processes per form.
        repeats: timed calls per turn, after one to warm up.
        command: for the record.
        on_turn: told what begins, how many turns are done and how many there are.

    Raises:
        EdgesegError: a process failed; says what it said.
        ParityError: our graph strays from torchvision.
    """
    rows = [(form, count) for count in counts for form in FORMS]
    samples: dict[tuple[str, int], list[float]] = {row: [] for row in rows}
    peaks, found = dict.fromkeys(rows, 0.0), dict.fromkeys(rows, 0)
    size = [str(side) for side in size_hw]
    with TemporaryDirectory() as folder:
        on_turn("export", 0, turns * len(rows))
        run_child(_CHILD, "prepare", folder, arch, ",".join(map(str, counts)), *size, threads=threads)
        for turn in range(turns):
            for index, row in enumerate(rows):
                form, count = row
                on_turn(f"{form}, {count} objects", turn * len(rows) + index, turns * len(rows))
                said = run_child(
                    _CHILD, "time", folder, form, str(count), str(repeats), *size, threads=threads
                )
                answer = json.loads(said)
                samples[row] += answer["samples_ms"]
                peaks[row] = max(peaks[row], answer["peak_memory_mib"])
                found[row] = answer["detections"]
    forms = [FormTimes(row[0], found[row], samples[row], median(samples[row]), peaks[row]) for row in rows]
    eager, exported, ours = ({str(count): median(samples[form, count]) for count in counts} for form in FORMS)
    return MaskRcnnSpeed(
        SCHEMA,
        command,
        describe_machine(),
        arch,
        size_hw,
        threads,
        forms,
        {count: eager[count] / ours[count] for count in ours},
        {count: exported[count] / ours[count] for count in ours},
    )


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def maskrcnn_speed(
    *,
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    arch: Annotated[str, typer.Option(help="Architecture.")] = "maskrcnn_resnet50_fpn",
    size: Annotated[int, typer.Option(help="Height and width in pixels.", min=64)] = 800,
    threads: Annotated[int, typer.Option(help="Threads of each runtime.")] = 2,
    turns: Annotated[int, typer.Option(help="Processes of each form.", min=1)] = 3,
    repeats: Annotated[int, typer.Option(help="Timed calls per process.", min=1)] = 4,
) -> None:
    """Time a Mask R-CNN: our graph against torchvision eager and torchvision's own export.

    Examples:

        python -m microbench.maskrcnn_speed --out bench/results/maskrcnn_speed.json
    """
    command = shown_command(["python", "-m", "microbench.maskrcnn_speed", *sys.argv[1:]])
    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)
        result = measure_maskrcnn(
            arch,
            (size, size),
            threads=threads,
            turns=turns,
            repeats=repeats,
            command=command,
            on_turn=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    write_json(out, result)
    for form in result.forms:
        typer.echo(
            f"{form.form}: {form.median_ms:.0f} ms, {form.detections} detections, "
            f"{form.peak_memory_mib:.0f} MiB"
        )
    for count, ratio in result.times_as_fast_as_eager.items():
        exported = result.times_as_fast_as_torchvision_export[count]
        typer.echo(
            f"{count} detections: {ratio:.2f} times as fast as eager, {exported:.2f} as torchvision's export"
        )


if __name__ == "__main__":
    run_app(app)
