"""What each step of post-processing adds in Dice and costs in milliseconds.

Run with `python -m microbench.postprocess --data FOLDER --out FILE`.

The model runs once per image; then every step treats the same probabilities, in an order that is new for
each image, through `seg_runtime.postprocess`, as `SemanticSegmenter(postprocess=...)` would.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from seg_bench.data.check import check_truths
from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.samples import Sample
from seg_bench.data.splits import montgomery_split, select
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.metrics import dice_score, hausdorff_95
from seg_bench.metrics.summary import MetricSummary, summarize
from seg_bench.records import Machine
from seg_runtime.console import run_app
from seg_runtime.crf import CrfSpec
from seg_runtime.postprocess import PostProcess, apply_postprocess
from seg_runtime.semantic import SemanticSegmenter

__all__ = ["STEPS", "PostprocessBenchmark", "SetResult", "StepResult", "measure_postprocess", "to_markdown"]

SCHEMA = "edgeseg-postprocess/1"
_RADIUS_PX = 5
_LUNGS = 2

STEPS: dict[str, PostProcess] = {
    "closing": PostProcess(closing_radius_px=_RADIUS_PX),
    "opening": PostProcess(opening_radius_px=_RADIUS_PX),
    "two largest regions": PostProcess(keep_largest=_LUNGS),
    "morphology and two largest": PostProcess(
        closing_radius_px=_RADIUS_PX, opening_radius_px=_RADIUS_PX, keep_largest=_LUNGS
    ),
    "dense CRF": PostProcess(crf=CrfSpec()),
    "all": PostProcess(
        crf=CrfSpec(), closing_radius_px=_RADIUS_PX, opening_radius_px=_RADIUS_PX, keep_largest=_LUNGS
    ),
}
"""By what tables call them."""


@dataclass(frozen=True)
class StepResult:
    """One step on one set; lists hold a value per image.

    Attributes:
        name: as in `STEPS`.
        dice: after the step.
        hd95: likewise, in pixels; infinite when a mask is empty.
        milliseconds: of the step alone.
        dice_change: of Dice by the step, image by image; its interval tells whether it is one at all.
        mean_dice, mean_hd95: of the images, infinite distances left out.
        median_ms: of the milliseconds.
    """

    name: str
    dice: tuple[float, ...]
    hd95: tuple[float, ...]
    milliseconds: tuple[float, ...]
    dice_change: MetricSummary
    mean_dice: float | None
    mean_hd95: float | None
    median_ms: float


@dataclass(frozen=True)
class SetResult:
    """All steps on one set, and the masks as the threshold leaves them."""

    data: str
    images: tuple[str, ...]
    dice: tuple[float, ...]
    hd95: tuple[float, ...]
    mean_dice: float | None
    mean_hd95: float | None
    steps: tuple[StepResult, ...]


@dataclass(frozen=True)
class PostprocessBenchmark:
    """All sets, with what is needed to repeat it.

    Attributes:
        model: its name; `checkpoint_sha256` of what it was exported from.
        engine: what computed it.
        settings: parameters of each step, by its name.
    """

    schema: str
    command: str
    machine: Machine
    model: str
    checkpoint_sha256: str
    engine: str
    settings: dict[str, str]
    sets: tuple[SetResult, ...]


def measure_postprocess(
    segmenter: SemanticSegmenter, sets: Mapping[str, Sequence[Sample]], command: str = "", seed: int = 0
) -> PostprocessBenchmark:
    """Score and time every step on every image.

    Args:
        segmenter: the model, without post-processing.
        sets: images, by the name of their set.
        command: the command line, for the record.
        seed: of the order of the steps.

    Raises:
        BadInputError: a mask is of another size than its image, or all masks of a set are empty.
    """
    generator = np.random.default_rng(seed)
    results = tuple(_measure_set(segmenter, name, samples, generator) for name, samples in sets.items())
    return PostprocessBenchmark(
        SCHEMA,
        command,
        describe_machine(),
        segmenter.spec.name,
        segmenter.spec.checkpoint_sha256,
        segmenter.engine,
        {name: str(step) for name, step in STEPS.items()},
        results,
    )


def _measure_set(
    segmenter: SemanticSegmenter, name: str, samples: Sequence[Sample], generator: np.random.Generator
) -> SetResult:
    check_truths(samples)
    plain: list[tuple[float, float]] = []
    found: dict[str, list[tuple[float, float, float]]] = {step: [] for step in STEPS}
    for sample in samples:
        image, truth = sample.load_image(), sample.load_truth()
        target = truth.mask
        sample.check_size(image.shape, target.shape)
        result = segmenter.segment(image)
        found_mask = truth.judged(result.mask > 0)
        plain.append((dice_score(found_mask, target), hausdorff_95(found_mask, target)))
        for position in generator.permutation(len(STEPS)):
            step = list(STEPS)[position]
            start = time.perf_counter()
            mask = apply_postprocess(
                STEPS[step], result.probabilities, result.mask, image, threshold=segmenter.threshold
            )
            spent_ms = 1000 * (time.perf_counter() - start)
            after = truth.judged(mask > 0)
            found[step].append((dice_score(after, target), hausdorff_95(after, target), spent_ms))
    dice, hd95 = zip(*plain, strict=True)
    return SetResult(
        name,
        tuple(sample.name for sample in samples),
        dice,
        hd95,
        summarize(dice).mean,
        summarize(hd95).mean,
        tuple(_step_result(step, dice, values) for step, values in found.items()),
    )


def _step_result(
    name: str, before: Sequence[float], values: Sequence[tuple[float, float, float]]
) -> StepResult:
    dice, hd95, spent_ms = zip(*values, strict=True)
    return StepResult(
        name,
        dice,
        hd95,
        spent_ms,
        summarize(np.subtract(dice, before)),
        summarize(dice).mean,
        summarize(hd95).mean,
        float(np.median(spent_ms)),
    )


def to_markdown(result: PostprocessBenchmark) -> str:
    """A table of all sets, as docs/measuring.md has it."""
    lines = [
        "| step | images | Dice | change of Dice (95 % interval) | HD95 (px) | p50 (ms) |",
        "|---|---|---|---|---|---|",
    ]
    for each in result.sets:
        data = f"{each.data} ({len(each.images)})"
        lines.append(f"| none | {data} | {each.mean_dice:.4f} | | {each.mean_hd95:.1f} | |")
        for step in each.steps:
            change = step.dice_change
            interval = f"{change.mean:+.4f} [{change.ci_low:+.4f}, {change.ci_high:+.4f}]"
            scores = f"{step.mean_dice:.4f} | {interval} | {step.mean_hd95:.1f}"
            lines.append(f"| {step.name} | {data} | {scores} | {step.median_ms:.1f} |")
    return "\n".join(lines)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def postprocess(
    data: Annotated[
        Path, typer.Option(help="Montgomery X-rays; the test part of the shipped split is used.")
    ],
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    other: Annotated[
        Path | None, typer.Option(help="X-rays of another hospital with images/ and masks/; all are used.")
    ] = None,
    repo: Annotated[Path, typer.Option(help="Model repository.")] = Path("triton_repo"),
    model: Annotated[str, typer.Option(help="A semantic model in it.")] = "unet_lung",
    limit: Annotated[int | None, typer.Option(help="At most so many images of each set.", min=1)] = None,
) -> None:
    """Measure what morphology, largest regions and a dense CRF add in Dice and cost in ms.

    Examples:

        python -m microbench.postprocess --data data/montgomery --out bench/results/postprocess.json
    """
    from seg_runtime import connect

    names = montgomery_split().test
    sets = {"Montgomery, test": select(load_montgomery(data), names)[:limit]}
    if other is not None:
        sets[other.resolve().name.capitalize()] = load_montgomery(other)[:limit]
    command = shown_command(["python", "-m", "microbench.postprocess", *sys.argv[1:]])
    with connect(repo, threads=1) as session:
        result = measure_postprocess(SemanticSegmenter(session, model), sets, command)
    write_json(out, result)
    typer.echo(to_markdown(result))


if __name__ == "__main__":
    run_app(app)
