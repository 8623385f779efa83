"""The resident memory of a process that tracks objects through a long video.

    python -m microbench.sam2_memory --out bench/results/sam2_memory.json
    python -m microbench.sam2_memory --variant sam2.1_tiny --frames 100 --out FILE

The frames are drawn when asked for, the weights are random, and the tracking is `Sam2VideoPredictor`'s on the
exported graphs in ONNX Runtime, in a process that does nothing else. Figures do not depend on its speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from microbench.sam2_models import MODEL, SMALL, MovingShapes, publish_random
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.memory import memory_mib
from seg_bench.records import Machine
from seg_runtime.console import progress_bar, run_app
from seg_runtime.errors import EdgesegError

__all__ = ["MemoryCurve", "MemoryPoint", "measure_memory", "track_shapes"]

SCHEMA = "edgeseg-sam2-memory/1"


@dataclass(frozen=True)
class MemoryPoint:
    """Resident memory in MiB after so many frames were tracked."""

    frames: int
    resident_mib: float


@dataclass(frozen=True)
class MemoryCurve:
    """The record.

    Attributes:
        variant: an official size, or "small" for one of 256 pixels.
        frame_size_hw: (height, width) of the video in pixels.
        loaded_mib: resident memory once the graphs have each run, before the tracking.
        points: at the beginning, every so many frames, and at the end.
        growth_mib: the highest of the points above `loaded_mib`.
        growth_of_second_half_mib: the last point above the one in the middle.
        seconds: of the tracking, on a machine that may have been busy.
    """

    schema: str
    command: str
    machine: Machine
    variant: str
    weights: str
    objects: int
    frame_size_hw: tuple[int, int]
    threads: int
    loaded_mib: float
    points: list[MemoryPoint]
    growth_mib: float
    growth_of_second_half_mib: float
    seconds: float


def measure_memory(
    variant: str,
    frames: int,
    *,
    every: int = 50,
    objects: int = 1,
    frame_size_hw: tuple[int, int] = (480, 640),
    threads: int = 1,
    command: str = "",
    on_frames: Callable[[int], object] = lambda frames: None,
) -> MemoryCurve:
    """Export a random SAM2 and track shapes in a process of their own.

    Args:
        variant: "small", or an official size.
        frames: of the video.
        every: frames between two points.
        objects: 1 or 2: the disc, and the square.
        frame_size_hw: (height, width) in pixels.
        threads: of ONNX Runtime.
        command: for the record.
        on_frames: told how many frames are done.

    Raises:
        BadInputError: an unknown variant.
        EdgesegError: the process failed; says what it said.
    """
    with TemporaryDirectory() as folder:
        publish_random(_arguments(variant), Path(folder))
        numbers = [str(number) for number in (frames, every, objects, *frame_size_hw, threads)]
        lines = _child([folder, *numbers], on_frames)
    loaded, *points = (MemoryPoint(line["frames"], line["resident_mib"]) for line in lines)
    last, middle = points[-1], min(points, key=lambda point: abs(point.frames - frames // 2))
    return MemoryCurve(
        schema=SCHEMA,
        command=command,
        machine=describe_machine(),
        variant=variant,
        weights="random",
        objects=objects,
        frame_size_hw=frame_size_hw,
        threads=threads,
        loaded_mib=loaded.resident_mib,
        points=points,
        growth_mib=max(point.resident_mib for point in points) - loaded.resident_mib,
        growth_of_second_half_mib=last.resident_mib - middle.resident_mib,
        seconds=lines[-1]["seconds"],
    )


def track_shapes(
    folder: Path,
    frames: int,
    every: int,
    objects: int,
    size_hw: tuple[int, int],
    threads: int,
    say: Callable[[Mapping[str, Any]], object],
) -> None:
    """Track in this process; say how much memory it has once all is loaded, and after so many frames."""
    from seg_runtime import connect
    from seg_runtime.sam2 import Sam2VideoPredictor

    with connect(folder / "repo", threads=threads, engine="onnxruntime") as session:
        predictor = Sam2VideoPredictor(session, MODEL)
        _track(predictor, MovingShapes(4, size_hw), objects, lambda done: None)
        say({"frames": 0, "resident_mib": memory_mib()})
        start = time.perf_counter()

        def tell(done: int) -> None:
            if done in (1, frames) or done % every == 0:
                seconds = time.perf_counter() - start
                say({"frames": done, "resident_mib": memory_mib(), "seconds": seconds})

        _track(predictor, MovingShapes(frames, size_hw), objects, tell)


def _track(predictor: Any, source: MovingShapes, objects: int, tell: Callable[[int], object]) -> None:
    with predictor.init_state(source) as state:
        x, y, radius = source.disc(0)
        predictor.add_new_points_or_box(state, 0, 1, points=[[x, y]], labels=[1])
        if objects > 1:
            left, top = source.size_hw[1] - x - radius, source.size_hw[0] // 8
            predictor.add_new_points_or_box(state, 0, 2, box=[left, top, left + radius, top + radius])
        for frame, _, _ in predictor.propagate_in_video(state):
            tell(frame + 1)


def _arguments(variant: str) -> dict[str, Any]:
    from seg_export.families.sam2.checkpoints import variant_arguments

    return SMALL if variant == "small" else variant_arguments(variant)


def _child(arguments: list[str], on_frames: Callable[[int], object]) -> list[dict[str, Any]]:
    """Run `track_shapes` in a process of its own; what it says."""
    command = [sys.executable, "-m", "microbench.sam2_memory", "track", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": arguments[-1]}
    lines = []
    with (
        TemporaryDirectory() as folder,
        (Path(folder) / "errors").open("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        for line in process.stdout or ():
            lines.append(json.loads(line))
            on_frames(lines[-1]["frames"])
        if process.wait():
            errors.seek(0)
            raise EdgesegError(f"tracking failed: {errors.read().strip().splitlines()[-1]}")
    return lines


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def sam2_memory(
    *,
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    variant: Annotated[str, typer.Option(help="small (256 pixels), or an official size.")] = "small",
    frames: Annotated[int, typer.Option(help="Frames of the video.", min=2)] = 2000,
    every: Annotated[int, typer.Option(help="Frames between two points.", min=1)] = 50,
    objects: Annotated[int, typer.Option(help="Objects that are tracked.", min=1, max=2)] = 1,
    threads: Annotated[int, typer.Option(help="Threads of ONNX Runtime.", min=1)] = 1,
) -> None:
    """Record the resident memory over a long video that a SAM2 tracks.

    Examples:

        python -m microbench.sam2_memory --out bench/results/sam2_memory.json
    """
    command = shown_command(["python", "-m", "microbench.sam2_memory", *sys.argv[1:]])
    with progress_bar() as bar:
        task = bar.add_task("export, then frames", total=frames)
        result = measure_memory(
            variant,
            frames,
            every=every,
            objects=objects,
            threads=threads,
            command=command,
            on_frames=lambda done: bar.update(task, completed=done),
        )
    write_json(out, result)
    typer.echo(
        f"{frames} frames: {result.loaded_mib:.0f} MiB with all models loaded, at most "
        f"{result.growth_mib:.0f} MiB more while tracking, {result.growth_of_second_half_mib:.0f} MiB of it "
        "in the second half"
    )


def _track_here(arguments: list[str]) -> None:
    """`track FOLDER FRAMES EVERY OBJECTS HEIGHT WIDTH THREADS`: a line of JSON per point."""
    folder, *numbers = arguments
    frames, every, objects, height, width, threads = map(int, numbers)

    def say(point: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(point) + "\n")
        sys.stdout.flush()

    track_shapes(Path(folder), frames, every, objects, (height, width), threads, say)


if __name__ == "__main__":
    if sys.argv[1:2] == ["track"]:
        _track_here(sys.argv[2:])
    else:
        run_app(app)
