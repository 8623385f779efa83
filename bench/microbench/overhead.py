"""Times `Session.infer` in process against bare ONNX Runtime on the same graph, call by call.

Run with `python -m microbench.overhead --out FILE`.

A tiny U-Net at two input sizes: its own time is short, so that what the session adds shows.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_runtime.console import run_app
from seg_runtime.session import Session

__all__ = ["Overhead", "SizeOverhead", "measure_overhead"]

SCHEMA = "edgeseg-overhead/1"
SIDES = (64, 512)


@dataclass(frozen=True)
class SizeOverhead:
    """One input size; raw samples in milliseconds per call.

    `overhead_ms` is the median of the session's calls less the median of the bare ones.
    """

    size_hw: tuple[int, ...]
    bare_ms: tuple[float, ...]
    session_ms: tuple[float, ...]
    overhead_ms: float


@dataclass(frozen=True)
class Overhead:
    """All sizes, with what is needed to repeat it."""

    schema: str
    command: str
    machine: Machine
    threads: int
    sizes: tuple[SizeOverhead, ...]


def measure_overhead(repeats: int = 200, command: str = "") -> Overhead:
    """Publish a tiny U-Net per size in a temporary repository and time both ways in turns.

    Args:
        repeats: timed calls of each way and size.
        command: the command line, for the record.
    """
    from seg_export.export import export_model
    from seg_export.families.semantic.random import random_unet
    from seg_runtime import connect

    # One thread: two pools that wait for work by spinning would disturb each other.
    threads = 1
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder)
        for side in SIDES:
            export_model(random_unet(features=(4, 8)), repo, f"unet_{side}", size_hw=(side, side))
        with connect(repo, threads=threads) as session:
            sizes = tuple(_measure_size(session, repo, side, threads, repeats) for side in SIDES)
    return Overhead(SCHEMA, command, describe_machine(), threads, sizes)


def _measure_size(session: Session, repo: Path, side: int, threads: int, repeats: int) -> SizeOverhead:
    model = f"unet_{side}"
    feed = {"image": np.random.default_rng(0).integers(0, 256, (1, side, side, 1), dtype=np.uint8)}
    bare_call = _bare(repo / model / "1" / "model.onnx", feed, threads)

    def session_call() -> object:
        return session.infer(model, feed)

    for call in (bare_call, session_call) * 5:
        call()
    bare, through = [], []
    for turn in range(repeats):
        # Who goes first changes every turn: the second finds the caches warm.
        for kind in ("bare", "session") if turn % 2 else ("session", "bare"):
            if kind == "bare":
                bare.append(_milliseconds(bare_call))
            else:
                through.append(_milliseconds(session_call))
    overhead_ms = float(np.median(through) - np.median(bare))
    return SizeOverhead((side, side), tuple(bare), tuple(through), overhead_ms)


def _bare(path: Path, feed: dict[str, NDArray[Any]], threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    runner = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: runner.run(None, feed)


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def overhead(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repeats: Annotated[int, typer.Option(help="Timed calls of each way and size.", min=1)] = 200,
) -> None:
    """Time Session.infer against bare ONNX Runtime, in process.

    Examples:

        python -m microbench.overhead --out bench/results/overhead.json
    """
    result = measure_overhead(repeats, shown_command(["python", "-m", "microbench.overhead", *sys.argv[1:]]))
    write_json(out, result)
    for size in result.sizes:
        height, width = size.size_hw
        typer.echo(f"{width}x{height}: Session.infer adds {size.overhead_ms:.3f} ms to a call (median)")


if __name__ == "__main__":
    run_app(app)
