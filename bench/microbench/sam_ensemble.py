"""Times the first and the second click on an image through SAM's one-shot ensemble on a Triton server.

Run with `python -m microbench.sam_ensemble REPO MODEL... --out FILE`.

Every first click is on an image that the server has not seen. What the response cache adds to an encode,
and what it takes to answer, are the server's own figures.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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

__all__ = ["EnsembleClicks", "ModelClicks", "measure_clicks"]

SCHEMA = "edgeseg-sam-ensemble/1"
SECOND_CLICKS = 3
_PAUSE_S = 0.1
"""ONNX Runtime's threads wait for more work by spinning, for longer than a call lasts."""


@dataclass(frozen=True)
class ModelClicks:
    """One SAM; raw samples in milliseconds per call.

    Attributes:
        first_ms: ensemble, one point on an image that is new to the server.
        second_ms: ensemble, another point on the same image: `SECOND_CLICKS` for each image.
        predict_ms: `SamPredictor.predict` of the same clicks: the embedding stays on the server, and masks
            are scaled up to the image, which the others leave to the caller.
        speedup: median of the first clicks over the median of the second.
        cache_miss_ms: mean time of the encoder's response cache to look up and store a new image.
        cache_hit_ms: mean time to look up and answer a known one.
        encoder_runs: how often the encoder ran for all of these calls.
    """

    model: str
    weights: str
    where: str
    first_ms: tuple[float, ...]
    second_ms: tuple[float, ...]
    predict_ms: tuple[float, ...]
    speedup: float
    cache_miss_ms: float
    cache_hit_ms: float
    encoder_runs: int


@dataclass(frozen=True)
class EnsembleClicks:
    """All models, with what is needed to repeat it."""

    schema: str
    command: str
    machine: Machine
    models: tuple[ModelClicks, ...]


def measure_clicks(repo: Path, models: Sequence[str], images: int = 5, command: str = "") -> EnsembleClicks:
    """Serve each model alone, with the server's defaults, and click on `images` images of noise.

    Args:
        repo: has the models, published by `seg-export sam`.
        models: names of ensembles, such as "sam_vit_b".
        images: number of first clicks of each model.
        command: the command line, for the record.
    """
    return EnsembleClicks(
        SCHEMA, command, describe_machine(), tuple(_measure_model(repo, name, images) for name in models)
    )


def _measure_model(repo: Path, model: str, images: int) -> ModelClicks:
    from seg_runtime import SamPredictor, connect
    from seg_runtime.server import ServerOptions, TritonServer

    options = ServerOptions(models=(model,), http_port=0, grpc_port=0, metrics_port=0)
    first, second, predict = [], [], []
    with (
        TritonServer(repo, options) as server,
        connect(server.grpc_url, timeout_s=600) as session,
        SamPredictor(session, model) as predictor,
    ):
        session.infer(model, _request(session, model, images, (9, 9)))
        before = _encoder_statistics(server.grpc_url, model)
        for seed in range(images):
            points = np.random.default_rng(seed).integers(0, 1024, (1 + SECOND_CLICKS, 2)).tolist()
            first.append(_click(session, model, seed, points[0]))
            second += [_click(session, model, seed, point) for point in points[1:]]
            predictor.set_image(_image(session, model, seed))
            predict += [_milliseconds(partial(predictor.predict, [point], [1])) for point in points[1:]]
        after = _encoder_statistics(server.grpc_url, model)
        spec, where = session.spec(model), session.where
    return ModelClicks(
        model=model,
        weights=spec.weights,
        where=where,
        first_ms=tuple(first),
        second_ms=tuple(second),
        predict_ms=tuple(predict),
        speedup=statistics.median(first) / statistics.median(second),
        cache_miss_ms=_mean_ms(before.inference_stats.cache_miss, after.inference_stats.cache_miss),
        cache_hit_ms=_mean_ms(before.inference_stats.cache_hit, after.inference_stats.cache_hit),
        encoder_runs=after.execution_count - before.execution_count,
    )


def _click(session: Session, model: str, seed: int, point_xy: Sequence[float]) -> float:
    request = _request(session, model, seed, point_xy)
    return _milliseconds(partial(session.infer, model, request))


def _request(session: Session, model: str, seed: int, point_xy: Sequence[float]) -> dict[str, NDArray[Any]]:
    """One point on an image of noise that fills the encoder's frame."""
    image = _image(session, model, seed)
    mask = next(tensor for tensor in session.spec(model).inputs if tensor.name == "mask_input")
    return {
        "image": image[None],
        "valid_hw": np.array([image.shape[:2]], np.int32),
        "point_coords": np.array([[point_xy, (0, 0)]], np.float32),
        "point_labels": np.array([[1, -1]], np.int32),
        "mask_input": np.zeros((1, *mask.shape[1:]), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def _image(session: Session, model: str, seed: int) -> NDArray[np.uint8]:
    height, width = session.spec(model).input_size_hw
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _encoder_statistics(grpc_url: str, model: str) -> Any:
    from tritonclient import grpc

    with grpc.InferenceServerClient(grpc_url.removeprefix("grpc://")) as client:
        return client.get_inference_statistics(f"{model}_encoder").model_stats[0]


def _mean_ms(before: Any, after: Any) -> float:
    return float((after.ns - before.ns) / max(1, after.count - before.count) / 1e6)


def _milliseconds(call: Callable[[], object]) -> float:
    time.sleep(_PAUSE_S)
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def sam_ensemble(
    repo: Annotated[Path, typer.Argument(help="Model repository.", exists=True, file_okay=False)],
    models: Annotated[list[str], typer.Argument(help="SAMs to measure, such as sam_vit_b.")],
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    images: Annotated[int, typer.Option(help="First clicks of each model.", min=1)] = 5,
) -> None:
    """Time the first and the second click on an image, on a Triton server of this machine.

    Examples:

        seg-export sam --variant vit_b --random --repo /tmp/sam

        python -m microbench.sam_ensemble /tmp/sam sam_vit_b --out bench/results/sam_ensemble.json
    """
    command = shown_command(["python", "-m", "microbench.sam_ensemble", *sys.argv[1:]])
    result = measure_clicks(repo, models, images, command)
    write_json(out, result)
    for clicks in result.models:
        typer.echo(
            f"{clicks.model}: first click {statistics.median(clicks.first_ms):.0f} ms, "
            f"second {statistics.median(clicks.second_ms):.1f} ms ({clicks.speedup:.0f} times faster), "
            f"predictor {statistics.median(clicks.predict_ms):.1f} ms; the cache adds "
            f"{clicks.cache_miss_ms:.1f} ms to an encode and answers in {clicks.cache_hit_ms:.1f} ms"
        )


if __name__ == "__main__":
    run_app(app)
