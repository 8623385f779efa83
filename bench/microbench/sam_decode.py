"""Times one call of SAM's decoder on an encoded image, wherever the embedding is, and a second prompt.

Run with `python -m microbench.sam_decode --image PHOTOGRAPH --repo FOLDER --out FILE`.

All ways run in turns on the same prompts: in process, and on a server on this machine with shared memory
and with everything inside the messages, with embeddings in fp32 and in fp16.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_runtime import SamPredictor, connect
from seg_runtime.console import run_app
from seg_runtime.files.images import read_image
from seg_runtime.server import ServerOptions, TritonServer

__all__ = ["DecoderCalls", "SamDecode", "SecondPrompt", "measure_calls", "measure_second_prompt"]

SCHEMA = "edgeseg-sam-decode/1"
THREADS = 2
PROMPTS = (1, 8)
Embeddings = Literal["fp32", "fp16"]
EMBEDDINGS: tuple[Embeddings, ...] = ("fp32", "fp16")
TINY = "tiny"
_PAUSE_S = 0.06
"""Idle threads of ONNX Runtime look for work for some 30 ms, which would slow the next way down."""


@dataclass(frozen=True)
class DecoderCalls:
    """Calls with `prompts` prompts: raw milliseconds, their median, and how far they are above those in
    process with the same embeddings: the median of the differences, turn by turn.
    """

    where: str
    embeddings: str
    prompts: int
    milliseconds: tuple[float, ...]
    median_ms: float
    above_in_process_ms: float


@dataclass(frozen=True)
class SecondPrompt:
    """`SamPredictor` in process on one photograph, masks in its full size: seconds to encode, then raw
    milliseconds of further prompts, each a point with three masks."""

    variant: str
    weights: str
    size_hw: tuple[int, ...]
    set_image_s: float
    milliseconds: tuple[float, ...]
    median_ms: float


@dataclass(frozen=True)
class SamDecode:
    """All figures, with what is needed to repeat them."""

    schema: str
    command: str
    machine: Machine
    threads: int
    calls: tuple[DecoderCalls, ...]
    second_prompts: tuple[SecondPrompt, ...]


def measure_calls(
    repo: Path, image: NDArray[np.uint8], repeats: int = 60, variant: str = TINY
) -> tuple[DecoderCalls, ...]:
    """Time a SAM's decoder in every way, in turns; the server is started for it.

    Args:
        repo: where the SAMs are, or are published.
        image: (H, W, 3) uint8 RGB.
        repeats: timed calls of each way and number of prompts.
        variant: as for `measure_second_prompt`.
    """
    names = {embeddings: _published(repo, variant, embeddings) for embeddings in EMBEDDINGS}
    models = tuple(f"{name}_{part}" for name in names.values() for part in ("encoder", "decoder"))
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, models=models, threads=THREADS)
    with ExitStack() as stack:
        server = stack.enter_context(TritonServer(repo, options))
        predictors: dict[tuple[str, str], SamPredictor] = {}
        for where in ("in process", "shared memory", "messages"):
            session = stack.enter_context(
                connect(repo, threads=THREADS)
                if where == "in process"
                else connect(server.grpc_url, shared_memory=where == "shared memory")
            )
            for embeddings, name in names.items():
                predictor = stack.enter_context(SamPredictor(session, name))
                predictor.set_image(image)
                predictors[where, embeddings] = predictor
        return tuple(calls for count in PROMPTS for calls in _measure_count(predictors, count, repeats))


def measure_second_prompt(
    repo: Path, variant: str, image: NDArray[np.uint8], repeats: int = 30
) -> SecondPrompt:
    """Time prompts on an encoded photograph in process, masks scaled up to it.

    Args:
        repo: where the SAMs are, or are published.
        variant: "tiny", or an official size, which gets random weights.
        image: (H, W, 3) uint8 RGB.
        repeats: timed prompts.
    """
    height, width = image.shape[:2]
    points = np.random.default_rng(0).uniform((0, 0), (width, height), (repeats + 2, 1, 2))
    name = _published(repo, variant, "fp32")
    with connect(repo, threads=THREADS) as session, SamPredictor(session, name) as predictor:
        weights = session.spec(f"{name}_encoder").weights
        encode_ms = _milliseconds(partial(predictor.set_image, image))
        milliseconds = [_milliseconds(partial(predictor.predict, at, [1])) for at in points]
    timed = tuple(milliseconds[2:])
    return SecondPrompt(variant, weights, (height, width), encode_ms / 1000, timed, float(np.median(timed)))


def _published(repo: Path, variant: str, embeddings: Embeddings) -> str:
    """The name of a SAM in the repository; exported if need be."""
    from seg_export.checkpoints.pretrained import pretrained_path
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.export import export_models
    from seg_export.families.sam.checkpoints import load_sam_checkpoint, variant_arguments

    name = f"{variant}_{embeddings}"
    if not (repo / f"{name}_decoder").exists():
        checkpoint = (
            load_sam_checkpoint(pretrained_path("sam_tiny"))
            if variant == TINY
            else random_checkpoint("sam", variant_arguments(variant))
        )
        export_models(checkpoint, repo, name, embeddings=embeddings)
    return name


def _measure_count(
    predictors: dict[tuple[str, str], SamPredictor], count: int, repeats: int
) -> list[DecoderCalls]:
    side = next(iter(predictors.values())).transform.target_length
    points = np.random.default_rng(0).uniform(100, 400, (count, 1, 2)) * side / 1024
    labels = np.ones((count, 1))
    samples: dict[tuple[str, str], list[float]] = {way: [] for way in predictors}
    ways = list(predictors)
    for turn in range(-2, repeats):
        # Who goes first changes every turn.
        for index in range(len(ways)):
            way = ways[(turn + index) % len(ways)]
            time.sleep(_PAUSE_S)
            took = _milliseconds(partial(_decode, predictors[way], points, labels))
            if turn >= 0:
                samples[way].append(took)
    calls = []
    for (where, embeddings), taken in samples.items():
        above_ms = float(np.median(np.subtract(taken, samples["in process", embeddings])))
        calls.append(DecoderCalls(where, embeddings, count, tuple(taken), float(np.median(taken)), above_ms))
    return calls


def _decode(predictor: SamPredictor, points: NDArray[np.float64], labels: NDArray[np.float64]) -> object:
    return list(predictor.predict_low_res(points, labels))


def _milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def sam_decode(
    image: Annotated[Path, typer.Option(help="A photograph to encode.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repo: Annotated[
        Path, typer.Option(help="Repository for the SAMs; those that it has are used again.", file_okay=False)
    ],
    variants: Annotated[
        str, typer.Option(help="SAMs to time a second prompt on: tiny, vit_b and so on.")
    ] = "tiny,vit_b",
    repeats: Annotated[int, typer.Option(help="Timed calls of each way.", min=1)] = 60,
) -> None:
    """Time SAM's decoder on an encoded image: in process, over shared memory, inside messages.

    Examples:

        python -m microbench.sam_decode --image truck.jpg --repo /tmp/sams --out sam_decode.json
    """
    pixels = read_image(image, 3)
    calls = measure_calls(repo, pixels, repeats)
    seconds = tuple(measure_second_prompt(repo, name, pixels) for name in variants.split(","))
    command = shown_command(["python", "-m", "microbench.sam_decode", *sys.argv[1:]])
    result = SamDecode(SCHEMA, command, describe_machine(), THREADS, calls, seconds)
    write_json(out, result)
    for entry in calls:
        typer.echo(
            f"{entry.where:14} {entry.embeddings} embeddings, {entry.prompts} prompts: "
            f"{entry.median_ms:7.1f} ms, {entry.above_in_process_ms:+6.1f} ms"
        )
    for second in seconds:
        typer.echo(
            f"{second.variant}: encode {second.set_image_s:.1f} s, then {second.median_ms:.0f} ms a prompt"
        )


if __name__ == "__main__":
    run_app(app)
