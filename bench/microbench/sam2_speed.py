"""Times a SAM2's graphs in two engines against sam2's own modules in PyTorch eager: time, memory, masks.

    python -m microbench.sam2_speed --out bench/results/sam2_speed.json

Random weights, on the CPU, batch 1: the image encoder; the mask decoder for some prompts at once, as
`SAM2ImagePredictor` runs it; one tracked frame of one object that was encoded before (attend, decode,
remember), as `SAM2VideoPredictor` runs it, with some memories and the object pointers that go with them. The
forms take turns, each turn in a process of its own with PyTorch's allocator tuned; their masks are compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from microbench.children import run_child
from microbench.sam2_forms import EAGER, ENGINES, answer_file
from microbench.sam2_models import SMALL
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_runtime.console import progress_bar, run_app
from seg_runtime.errors import EdgesegError

__all__ = ["FORMS", "Equality", "PartTimes", "Sam2Speed", "compare_answers", "measure_sam2"]

SCHEMA = "edgeseg-sam2-speed/2"
_CHILD = "microbench.sam2_forms"
FORMS = (EAGER, *ENGINES)
PROMPTS = (1, 8)
MEMORIES = (1, 2, 4, 7)
MIN_IOU = 0.999


@dataclass(frozen=True)
class PartTimes:
    """One form at one part.

    Attributes:
        form: one of `FORMS`.
        part: "encode", "decode" or "track".
        count: of prompts (decode) or memories (track); 1 for encode.
        samples_ms: of whole calls, all turns in order.
        median_ms: of those.
        peak_memory_mib: of the process, the largest of all turns; it also encoded the image.
    """

    form: str
    part: str
    count: int
    samples_ms: list[float]
    median_ms: float
    peak_memory_mib: float


@dataclass(frozen=True)
class Equality:
    """How far our answer is from sam2's.

    Attributes:
        form, part, count: as in `PartTimes`.
        max_relative_difference: largest difference of an output in shares of its largest value, by output.
        lowest_mask_iou: of all masks; None where there are none.
        foreground: share of sam2's mask pixels above 0; masks of all or nothing would be equal by chance.
    """

    form: str
    part: str
    count: int
    max_relative_difference: dict[str, float]
    lowest_mask_iou: float | None
    foreground: float | None


@dataclass(frozen=True)
class Sam2Speed:
    """The record. `times_as_fast_as_sam2` are ratios of the medians, by form, part and count ("track 7")."""

    schema: str
    command: str
    machine: Machine
    variant: str
    weights: str
    threads: int
    forms: list[PartTimes]
    equality: list[Equality]
    times_as_fast_as_sam2: dict[str, dict[str, float]]


def measure_sam2(
    variant: str,
    *,
    prompts: Sequence[int] = PROMPTS,
    memories: Sequence[int] = MEMORIES,
    threads: int = 2,
    turns: int = 3,
    repeats: int = 5,
    command: str = "",
    on_turn: Callable[[str, int, int], object] = lambda what, done, total: None,
) -> Sam2Speed:
    """Export a random SAM2 and time all forms.

    Args:
        variant: an official size, or "small" for one of 256 pixels.
        prompts: how many at once, no two alike.
        memories: how many the tracked frame attends to, 1 to 7, no two alike.
        threads: of each runtime.
        turns: processes per form, part and count.
        repeats: timed calls per turn, after one to warm up.
        command: for the record.
        on_turn: told what begins, how many turns are done and how many there are.

    Raises:
        BadInputError: an unknown variant.
        EdgesegError: a process failed (it says what that said), or the masks differ.
    """
    from seg_export.families.sam2.checkpoints import variant_arguments

    arguments = SMALL if variant == "small" else variant_arguments(variant)
    parts = [
        ("encode", 1),
        *(("decode", count) for count in prompts),
        *(("track", count) for count in memories),
    ]
    rows = [(form, *part) for part in parts for form in FORMS]
    answers: dict[tuple[str, str, int], list[dict[str, Any]]] = {row: [] for row in rows}
    with TemporaryDirectory() as folder:
        on_turn("export", 0, turns * len(rows))
        run_child(_CHILD, "prepare", folder, json.dumps(arguments), threads=threads)
        for turn in range(turns):
            for index, row in enumerate(rows):
                form, part, count = row
                on_turn(f"{form}, {part} {count}", turn * len(rows) + index, turns * len(rows))
                said = run_child(
                    _CHILD, "time", folder, form, part, str(count), str(repeats), threads=threads
                )
                answers[row].append(json.loads(said))
        equality = [_compare(Path(folder), form, *part) for form in ENGINES for part in parts]
    forms = [_times(row, answers[row]) for row in rows]
    medians = {(row.form, row.part, row.count): row.median_ms for row in forms}
    return Sam2Speed(
        SCHEMA,
        command,
        describe_machine(),
        variant,
        "random",
        threads,
        forms,
        equality,
        {
            form: {
                f"{part} {count}": medians[EAGER, part, count] / medians[form, part, count]
                for part, count in parts
            }
            for form in ENGINES
        },
    )


def compare_answers(
    form: str, part: str, count: int, theirs: Mapping[str, NDArray[Any]], ours: Mapping[str, NDArray[Any]]
) -> Equality:
    """Differences of all outputs, and the IoU of each mask (..., H, W) in "low_res_masks".

    Raises:
        EdgesegError: a mask has an IoU below `MIN_IOU`.
    """
    relative = {
        name: float(np.abs(ours[name] - value).max() / np.abs(value).max()) for name, value in theirs.items()
    }
    if "low_res_masks" not in theirs:
        return Equality(form, part, count, relative, None, None)
    expected, got = theirs["low_res_masks"] > 0, ours["low_res_masks"] > 0
    union, both = (np.count_nonzero(pixels, axis=(-2, -1)) for pixels in (expected | got, expected & got))
    lowest = float(np.where(union, both / np.maximum(union, 1), 1.0).min())
    # One pixel on the threshold is more than that of a small mask.
    if lowest < MIN_IOU and (union - both).max() > 1:
        raise EdgesegError(
            f"{form}, {part} {count}: the masks differ from sam2's, IoU {lowest:.4f} is below {MIN_IOU}: "
            "times of different answers are not compared"
        )
    return Equality(form, part, count, relative, lowest, float(expected.mean()))


def _compare(folder: Path, form: str, part: str, count: int) -> Equality:
    theirs, ours = (dict(np.load(answer_file(folder, which, part, count))) for which in (EAGER, form))
    return compare_answers(form, part, count, theirs, ours)


def _times(row: tuple[str, str, int], turns: Sequence[Mapping[str, Any]]) -> PartTimes:
    samples = [sample for turn in turns for sample in turn["samples_ms"]]
    return PartTimes(*row, samples, median(samples), max(turn["peak_memory_mib"] for turn in turns))


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def sam2_speed(
    *,
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    variant: Annotated[str, typer.Option(help="An official size, or small (256 pixels).")] = "sam2.1_tiny",
    threads: Annotated[int, typer.Option(help="Threads of each runtime.", min=1)] = 2,
    turns: Annotated[int, typer.Option(help="Processes of each form and part.", min=1)] = 3,
    repeats: Annotated[int, typer.Option(help="Timed calls per process.", min=1)] = 5,
) -> None:
    """Time a SAM2: our graphs in ONNX Runtime and OpenVINO against sam2's own modules in PyTorch.

    Examples:

        python -m microbench.sam2_speed --out bench/results/sam2_speed.json
    """
    command = shown_command(["python", "-m", "microbench.sam2_speed", *sys.argv[1:]])
    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)
        result = measure_sam2(
            variant,
            threads=threads,
            turns=turns,
            repeats=repeats,
            command=command,
            on_turn=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    write_json(out, result)
    for form in result.forms:
        what = f"{form.form}, {form.part} {form.count}"
        typer.echo(f"{what}: {form.median_ms:.1f} ms, {form.peak_memory_mib:.0f} MiB")
    for name, ratios in result.times_as_fast_as_sam2.items():
        for part, ratio in ratios.items():
            typer.echo(f"{name}, {part}: {ratio:.2f} times as fast as sam2 in PyTorch")


if __name__ == "__main__":
    run_app(app)
