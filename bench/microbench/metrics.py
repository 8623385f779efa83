"""Times all metrics of pairs of masks, 512x512 as the X-rays that come with the tests.

Run with `python -m microbench.metrics --out FILE`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.data.find import AnySample, find_samples
from seg_bench.data.samples import Sample
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.metrics import (
    dice_score,
    hausdorff_95,
    hausdorff_distance,
    iou_score,
    mean_iou,
    surface_metrics,
)
from seg_bench.records import Machine
from seg_runtime.console import run_app
from seg_runtime.errors import BadInputError

__all__ = ["MetricTime", "MetricsSpeed", "measure_metrics"]

SCHEMA = "edgeseg-metrics/1"
Mask = NDArray[np.bool_]

METRICS: dict[str, Callable[[Mask, Mask], object]] = {
    "dice": dice_score,
    "iou": iou_score,
    "mean_iou": lambda predicted, target: mean_iou(predicted.astype(np.uint8), target.astype(np.uint8), 2),
    "hd95": hausdorff_95,
    "hausdorff": hausdorff_distance,
    "hd95 and average surface distance": surface_metrics,
}
ALL = ("dice", "iou", "mean_iou", "hausdorff", "hd95 and average surface distance")
SCORED = ("dice", "iou", "hd95")


@dataclass(frozen=True)
class MetricTime:
    """One metric; raw samples in milliseconds, every pair in every round, and their median."""

    name: str
    samples_ms: tuple[float, ...]
    median_ms: float


@dataclass(frozen=True)
class MetricsSpeed:
    """All metrics.

    `all_median_ms` and `all_max_ms` are of what a pair takes for `ALL` of them, `scored_median_ms` for those
    that `seg-bench run` scores every image with.
    """

    schema: str
    command: str
    machine: Machine
    pairs: int
    size_hw: tuple[int, ...]
    metrics: tuple[MetricTime, ...]
    all_median_ms: float
    all_max_ms: float
    scored_median_ms: float


def measure_metrics(data: Path, repeats: int = 20, command: str = "") -> MetricsSpeed:
    """Score each ground truth against itself moved by 5 pixels and grown by 3, a prediction's usual mistakes.

    Args:
        data: folder with images and masks.
        repeats: rounds over all pairs.
        command: the command line, for the record.

    Raises:
        BadInputError: no masks, or masks of several sizes.
    """
    targets = [_target(sample) for sample in find_samples(data)]
    if len({target.shape for target in targets}) != 1:
        raise BadInputError(f"the masks of {data} differ in size: prepare them with seg-bench data")
    pairs = [(_moved(target), target) for target in targets]
    samples: dict[str, list[float]] = {name: [] for name in METRICS}
    for turn in range(repeats + 1):
        for predicted, target in pairs:
            for name, metric in METRICS.items():
                start = time.perf_counter()
                metric(predicted, target)
                if turn:  # the first round is the warm-up
                    samples[name].append(1000 * (time.perf_counter() - start))
    scored = [sum(times) for times in zip(*(samples[name] for name in SCORED), strict=True)]
    together = [sum(times) for times in zip(*(samples[name] for name in ALL), strict=True)]
    return MetricsSpeed(
        schema=SCHEMA,
        command=command,
        machine=describe_machine(),
        pairs=len(pairs),
        size_hw=targets[0].shape,
        metrics=tuple(
            MetricTime(name, tuple(times), statistics.median(times)) for name, times in samples.items()
        ),
        all_median_ms=statistics.median(together),
        all_max_ms=max(together),
        scored_median_ms=statistics.median(scored),
    )


def _target(sample: AnySample) -> Mask:
    if not isinstance(sample, Sample):
        raise BadInputError(f"'{sample.name}' has a map of objects: give a folder with one mask per image")
    return np.asarray(sample.load_mask(), dtype=bool)


def _moved(target: Mask) -> Mask:
    grown = cv2.dilate(np.roll(target, (5, 5), (0, 1)).astype(np.uint8), np.ones((7, 7), np.uint8))
    return np.asarray(grown > 0)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def metrics(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    data: Annotated[Path, typer.Option(help="Folder with images/ and masks/.")] = Path(
        "tests/data/montgomery"
    ),
    repeats: Annotated[int, typer.Option(help="Rounds over all pairs.", min=1)] = 20,
) -> None:
    """Time all metrics of pairs of masks.

    Examples:

        python -m microbench.metrics --out bench/results/metrics.json
    """
    result = measure_metrics(
        data, repeats, shown_command(["python", "-m", "microbench.metrics", *sys.argv[1:]])
    )
    write_json(out, result)
    for metric in result.metrics:
        typer.echo(f"{metric.name}: {metric.median_ms:.3f} ms (median)")
    typer.echo(
        f"all of a pair: {result.all_median_ms:.2f} ms (median), {result.all_max_ms:.2f} ms at most; "
        f"{', '.join(SCORED)}: {result.scored_median_ms:.2f} ms (median)"
    )


if __name__ == "__main__":
    run_app(app)
