"""Times ONNX Runtime against OpenVINO on the CPU: graphs in fp32, in OpenVINO's own precision, and in int8.

    seg-bench train unet data/montgomery --out /tmp/unet_31m --transposed --no-clahe \\
        --size 256 --epochs 5 --batch-size 4 --learning-rate 0.001
    python -m microbench.engines prepare /tmp/engines --calibrate xrays/ \\
        --unet-31m /tmp/unet_31m/best.pth
    python -m microbench.engines measure /tmp/engines --out bench/results/engines.json

Engines take turns, each turn in a process of its own: their thread pools would disturb one another, and
peak memory is then theirs alone. Answers are compared with ONNX Runtime's, so that no ratio stands without
what it costs. The input is noise, on which int8, calibrated with images, differs more than on images.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.memory import peak_memory_mib
from seg_bench.records import Machine
from seg_bench.run.options import split_names
from seg_runtime.console import progress_bar, run_app
from seg_runtime.contract import one_of
from seg_runtime.engines import load_model
from seg_runtime.errors import BadInputError
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec, Precision

__all__ = ["WAYS", "EngineRow", "EngineTimes", "GraphTimes", "graph_inputs", "measure_engines", "prepare"]

SCHEMA = "edgeseg-engines/1"
THREADS = 2
PROMPTS = 8
MODELS: dict[str, str | None] = {
    "unet_lung": "unet_lung_int8",
    "unet_31m": "unet_31m_int8",
    "sam_tiny_encoder": "sam_tiny_int8_encoder",
    "sam_tiny_decoder": None,
    "sam_vit_b_encoder": "sam_vit_b_int8_encoder",
}
"""Models in fp32, each with its name in int8; a SAM's decoder stays in fp32."""
UNET_31M = "unet_31m"
"""The article's network at 512x512. It must be trained, be it little: random masks do not hold in int8."""


class Way(NamedTuple):
    """How a model is computed.

    Attributes:
        engine: its name.
        precision: what the engine is told of the graph: only fp32 holds OpenVINO to fp32.
    """

    engine: str
    precision: str


WAYS = {
    "onnxruntime": Way("onnxruntime", "fp32"),
    "openvino-fp32": Way("openvino", "fp32"),
    "openvino-own-precision": Way("openvino", "fp16"),
    "onnxruntime-int8": Way("onnxruntime", "int8"),
    "openvino-int8": Way("openvino", "int8"),
}


@dataclass(frozen=True)
class EngineRow:
    """One graph computed in one way.

    Attributes:
        way: a key of `WAYS`.
        engine: name, version and device, as `Session.engine`.
        load_s: seconds until the model is loaded, imports included; one per turn.
        samples_ms: one per call of all turns.
        median_ms, p10_ms, p90_ms: of them.
        times_as_fast: ONNX Runtime's median in fp32 over this one's.
        max_relative_difference: largest difference from ONNX Runtime's answers in fp32, relative to the
            largest value of each output.
        peak_memory_mib: highest resident memory of its processes; None where the system does not tell.
    """

    way: str
    engine: str
    load_s: tuple[float, ...]
    samples_ms: tuple[float, ...]
    median_ms: float
    p10_ms: float
    p90_ms: float
    times_as_fast: float
    max_relative_difference: float
    peak_memory_mib: float | None


@dataclass(frozen=True)
class GraphTimes:
    """One graph in all ways; its weights are "trained" or "random"."""

    model: str
    weights: str
    rows: tuple[EngineRow, ...]


@dataclass(frozen=True)
class EngineTimes:
    """All graphs, with what is needed to repeat it.

    Attributes:
        threads: of every engine.
        prompts: of one call of a SAM's decoder.
        openvino_own_precision: what OpenVINO computes in on this processor when it may choose.
    """

    schema: str
    command: str
    machine: Machine
    threads: int
    prompts: int
    openvino_own_precision: str
    graphs: tuple[GraphTimes, ...]


def prepare(
    folder: Path, calibrate: Path, models: Sequence[str] = tuple(MODELS), unet_31m: Path | None = None
) -> None:
    """Publish the models in fp32 and in int8: trained ones, and a ViT-B whose encoder has random weights.

    Args:
        folder: a model repository.
        calibrate: folder of gray images.
        models: names out of `MODELS`.
        unet_31m: checkpoint for the model of that name.

    Raises:
        BadInputError: that model is wanted and has no checkpoint; also all that `export_models` raises.
    """
    from seg_bench.random_sam import sam_with_trained_decoder
    from seg_export.checkpoints.pretrained import pretrained_path
    from seg_export.export import export_models

    if UNET_31M in models and unet_31m is None:
        raise BadInputError(f"train {UNET_31M} first and pass it as --unet-31m, or leave it out of --models")
    checkpoints: dict[str, Callable[[], Any]] = {
        UNET_31M: lambda: unet_31m,
        "unet_lung": lambda: pretrained_path("lung"),
        "sam_tiny": lambda: pretrained_path("sam_tiny"),
        "sam_vit_b": lambda: sam_with_trained_decoder("vit_b"),
    }
    for name, checkpoint in checkpoints.items():
        if any(model.startswith(name) for model in models):
            size_hw = (512, 512) if name == UNET_31M else None
            export_models(checkpoint(), folder, name, size_hw=size_hw)
            in_int8 = f"{name}_int8"
            export_models(
                checkpoint(), folder, in_int8, size_hw=size_hw, precision="int8", calibrate=calibrate
            )


def measure_engines(
    folder: Path,
    models: Mapping[str, str | None] = MODELS,
    rounds: int = 5,
    calls: int = 4,
    command: str = "",
) -> EngineTimes:
    """Time every way with every graph.

    Args:
        folder: what `prepare` published.
        models: names of semantic models, and of encoders and decoders of SAMs, each with that in int8.
        rounds: turns of each way.
        calls: timed calls per turn, after one that is not timed.
        command: the command line, for the record.

    Raises:
        RepositoryError: a model is not in the folder.
    """
    import openvino

    repository = Repository(folder)
    pairs = [(repository.spec(model), in_int8) for model, in_int8 in models.items()]
    for _, in_int8 in pairs:
        if in_int8 is not None:
            repository.spec(in_int8)
    with progress_bar() as bar:
        graphs = [
            GraphTimes(spec.name, spec.weights, _race(folder, spec.name, in_int8, rounds, calls))
            for spec, in_int8 in bar.track(pairs, description="engines")
        ]
    own_precision = openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT")
    return EngineTimes(
        schema=SCHEMA,
        command=command,
        machine=describe_machine(),
        threads=THREADS,
        prompts=PROMPTS,
        openvino_own_precision=own_precision.to_string(),
        graphs=tuple(graphs),
    )


def graph_inputs(spec: ModelSpec) -> dict[str, NDArray[Any]]:
    """Seeded noise for one call of a semantic model, or of a SAM's encoder or decoder."""
    generator = np.random.default_rng(0)
    if spec.task == "sam-decoder":
        points = generator.uniform(0, spec.input_size_hw[0], (PROMPTS, 2, 2))
        return {
            "image_embeddings": generator.standard_normal((1, 256, 64, 64), np.float32),
            "point_coords": points.astype(np.float32),
            "point_labels": np.tile(np.array([1, 0], np.int32), (PROMPTS, 1)),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(PROMPTS, np.float32),
        }
    inputs: dict[str, NDArray[Any]] = {
        "image": generator.integers(0, 256, (1, *spec.input_size_hw, spec.channels), np.uint8)
    }
    if spec.task == "sam-encoder":
        inputs["valid_hw"] = np.array([spec.input_size_hw], np.int32)
    return inputs


def _race(folder: Path, model: str, in_int8: str | None, rounds: int, calls: int) -> tuple[EngineRow, ...]:
    models = {way: in_int8 if WAYS[way].precision == "int8" else model for way in WAYS}
    ways = {way: name for way, name in models.items() if name is not None}
    turns: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with TemporaryDirectory(prefix="engines-") as answers:
        for _ in range(rounds):
            for way, name in ways.items():
                turns[way].append(_turn(folder, name, way, calls, Path(answers)))
        outputs = {way: dict(np.load(_answer_file(Path(answers), way))) for way in ways}
    base, *_ = ways
    base_ms = statistics.median(_samples_ms(turns[base]))
    return tuple(
        _row(way, turns[way], base_ms, _largest_difference(outputs[base], outputs[way])) for way in ways
    )


def _row(way: str, turns: Sequence[Mapping[str, Any]], base_ms: float, difference: float) -> EngineRow:
    samples = _samples_ms(turns)
    p10, median, p90 = (float(value) for value in np.percentile(samples, (10, 50, 90)))
    peaks = [turn["peak_memory_mib"] for turn in turns]
    return EngineRow(
        way=way,
        engine=turns[0]["engine"],
        load_s=tuple(turn["load_s"] for turn in turns),
        samples_ms=samples,
        median_ms=median,
        p10_ms=p10,
        p90_ms=p90,
        times_as_fast=base_ms / median,
        max_relative_difference=difference,
        peak_memory_mib=None if None in peaks else max(peaks),
    )


def _samples_ms(turns: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    return tuple(sample for turn in turns for sample in turn["samples_ms"])


def _largest_difference(expected: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> float:
    return max(
        float(np.abs(got[name] - values).max() / np.abs(values).max()) for name, values in expected.items()
    )


def _turn(folder: Path, model: str, way: str, calls: int, answers: Path) -> dict[str, Any]:
    call = [sys.executable, "-m", "microbench.engines", "turn"]
    arguments = [str(folder), model, way, str(calls), str(answers)]
    answer = subprocess.run([*call, *arguments], stdout=subprocess.PIPE, check=True)
    turn: dict[str, Any] = json.loads(answer.stdout)
    return turn


def _answer_file(answers: Path, way: str) -> Path:
    return answers / f"{way}.npz"


def _known(models: str) -> dict[str, str | None]:
    """Raises BadInputError for a name that is not in `MODELS`."""
    names = split_names(models)
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise BadInputError(f"unknown model '{unknown[0]}': choose from {', '.join(MODELS)}")
    return {name: MODELS[name] for name in names}


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
Folder = Annotated[Path, typer.Argument(help="Model repository of this benchmark.")]
Models = Annotated[str, typer.Option(help="Models in fp32, separated by commas.")]
ALL_MODELS = ",".join(MODELS)


@app.command("turn", hidden=True)
def turn_command(folder: Path, model: str, way: str, calls: int, answers: Path) -> None:
    """One way in this process: its answer goes to a file, its figures to stdout as JSON."""
    repository = Repository(folder)
    engine, precision = WAYS[way]
    spec = replace(repository.spec(model), precision=one_of(Precision, "precision", precision))
    inputs = graph_inputs(spec)
    start = time.perf_counter()
    loaded = load_model(engine, spec, repository.version_folder(spec), THREADS)
    load_s = time.perf_counter() - start
    np.savez(_answer_file(answers, way), **loaded.run(inputs))
    samples_ms = []
    for _ in range(calls):
        start = time.perf_counter()
        loaded.run(inputs)
        samples_ms.append(1000 * (time.perf_counter() - start))
    memory = peak_memory_mib(os.getpid())
    figures = {"engine": loaded.about, "load_s": load_s, "samples_ms": samples_ms, "peak_memory_mib": memory}
    sys.stdout.write(json.dumps(figures))


@app.command("prepare")
def prepare_command(
    folder: Folder,
    calibrate: Annotated[Path, typer.Option(help="Folder of gray images for int8.")],
    models: Models = ALL_MODELS,
    unet_31m: Annotated[
        Path | None, typer.Option("--unet-31m", help="Checkpoint of a trained U-Net of 31M parameters.")
    ] = None,
) -> None:
    """Publish the models that are measured.

    Examples:

        python -m microbench.engines prepare /tmp/engines --calibrate xrays/ --unet-31m best.pth

        python -m microbench.engines prepare /tmp/engines --calibrate xrays/ --models unet_lung
    """
    prepare(folder, calibrate, tuple(_known(models)), unet_31m)


@app.command("measure")
def measure_command(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    models: Models = ALL_MODELS,
    rounds: Annotated[int, typer.Option(help="Turns of each engine with each graph.", min=1)] = 5,
    calls: Annotated[int, typer.Option(help="Timed calls per turn.", min=1)] = 4,
) -> None:
    """Time the engines of a CPU, in turns.

    Examples:

        python -m microbench.engines measure /tmp/engines --out bench/results/engines.json
    """
    command = shown_command(["python", "-m", "microbench.engines", *sys.argv[1:]])
    result = measure_engines(folder, _known(models), rounds, calls, command)
    write_json(out, result)
    for graph in result.graphs:
        for row in graph.rows:
            typer.echo(
                f"{graph.model:18} {row.way:22} {row.median_ms:8.1f} ms  {row.times_as_fast:.2f} x  "
                f"differs by {row.max_relative_difference:.1e}"
            )


if __name__ == "__main__":
    run_app(app)
