"""Times calls as `seg-bench run` records them against the same calls in a plain loop, in turns.

Run with `python -m microbench.harness --out FILE`.

A tiny U-Net in process: its own time is short, so that what the harness adds to a call shows.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.candidate import ENGINE, Candidate
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_bench.run.worker_process import WorkerProcess
from seg_runtime.console import run_app
from seg_runtime.files.images import write_png
from seg_runtime.semantic import SemanticSegmenter

__all__ = ["Harness", "measure_harness", "time_in_turns"]

SCHEMA = "edgeseg-harness/1"
_SIDE, _THREADS, _WARM_UP, _SETTLE_S = 64, 1, 20, 0.01


@dataclass(frozen=True)
class Harness:
    """Raw samples in milliseconds per call, with what is needed to repeat them.

    Attributes:
        plain_ms: `SemanticSegmenter.segment` in a loop, timed around.
        recorded_ms: the same image and model as the measuring process says, `Latency.total` of a record.
        turn_ms: the whole turn of such a call in the steering process, which no record holds.
        added_ms: median of `recorded_ms` less that of `plain_ms`.
    """

    schema: str
    command: str
    machine: Machine
    threads: int
    size_hw: tuple[int, ...]
    plain_ms: tuple[float, ...]
    recorded_ms: tuple[float, ...]
    turn_ms: tuple[float, ...]
    added_ms: float


def measure_harness(repeats: int = 200, command: str = "") -> Harness:
    """Publish a tiny U-Net in a temporary repository and time both ways in turns.

    Args:
        repeats: timed calls of each way.
        command: the command line, for the record.
    """
    from seg_export.export import export_model
    from seg_export.families.semantic.random import random_unet

    size_hw = (_SIDE, _SIDE)
    with tempfile.TemporaryDirectory() as repo:
        export_model(random_unet(features=(4, 8)), Path(repo), "unet_tiny", size_hw=size_hw)
        plain, recorded, turns = time_in_turns(Path(repo), "unet_tiny", size_hw, repeats)
    return Harness(
        schema=SCHEMA,
        command=command,
        machine=describe_machine(),
        threads=_THREADS,
        size_hw=size_hw,
        plain_ms=tuple(plain),
        recorded_ms=tuple(recorded),
        turn_ms=tuple(turns),
        added_ms=statistics.median(recorded) - statistics.median(plain),
    )


def time_in_turns(
    repo: Path, model: str, size_hw: tuple[int, int], repeats: int
) -> tuple[list[float], list[float], list[float]]:
    """Plain calls, recorded calls and whole turns of those of a gray model, in milliseconds."""
    from seg_runtime import connect

    image = np.random.default_rng(0).integers(0, 256, size_hw, dtype=np.uint8)
    with tempfile.TemporaryDirectory() as data, ExitStack() as stack:
        _write_sample(Path(data), image)
        candidate = Candidate(
            model, "in-process", ENGINE, str(repo), data, ("noise",), "auto", threads=_THREADS
        )
        worker = stack.enter_context(WorkerProcess(candidate))
        session = stack.enter_context(connect(repo, threads=_THREADS))
        return _in_turns(worker, SemanticSegmenter(session, model), image, repeats)


def _in_turns(
    worker: WorkerProcess, segmenter: SemanticSegmenter, image: NDArray[np.uint8], repeats: int
) -> tuple[list[float], list[float], list[float]]:
    plain, recorded, turns = [], [], []
    for turn in range(_WARM_UP + repeats):
        # Who goes first changes every turn; the pause gives both the same cold caches.
        for way in ("plain", "harness") if turn % 2 else ("harness", "plain"):
            time.sleep(_SETTLE_S)
            start = time.perf_counter()
            if way == "plain":
                segmenter.segment(image)
                plain.append(1000 * (time.perf_counter() - start))
            else:
                recorded.append(worker.time([0])["total"])
                turns.append(1000 * (time.perf_counter() - start))
    return plain[_WARM_UP:], recorded[_WARM_UP:], turns[_WARM_UP:]


def _write_sample(folder: Path, image: NDArray[np.uint8]) -> None:
    for part, pixels in (("images", image), ("masks", np.where(image > 127, np.uint8(255), np.uint8(0)))):
        (folder / part).mkdir(parents=True)
        write_png(folder / part / "noise.png", pixels)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def harness(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repeats: Annotated[int, typer.Option(help="Timed calls of each way.", min=1)] = 200,
) -> None:
    """Time recorded calls against the same calls in a plain loop, in process.

    Examples:

        python -m microbench.harness --out bench/results/harness.json
    """
    result = measure_harness(repeats, shown_command(["python", "-m", "microbench.harness", *sys.argv[1:]]))
    write_json(out, result)
    typer.echo(
        f"the harness adds {result.added_ms:.3f} ms to a recorded call (median); a whole turn takes "
        f"{statistics.median(result.turn_ms):.2f} ms"
    )


if __name__ == "__main__":
    run_app(app)
