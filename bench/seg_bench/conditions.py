"""The phase of a run that asks how well models do on what they were not trained for.

Each condition is images for the very pipeline that the run measures: corrupted copies of the run's own
images, or those of another data set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seg_bench.corruptions import CORRUPTIONS, corrupt
from seg_bench.data.check import check_masks, check_sizes
from seg_bench.data.find import AnySample, find_samples
from seg_bench.metrics.summary import summarize
from seg_bench.options import RunOptions
from seg_bench.records import Condition
from seg_bench.rows import Progress, Row, failing_alone, live_rows
from seg_runtime.images import read_image, write_png

if TYPE_CHECKING:
    from seg_bench.plan import Plan

__all__ = ["Case", "make_cases", "score_conditions"]


@dataclass(frozen=True)
class Case:
    """One condition before it was measured.

    Attributes:
        name, kind: as those of `seg_bench.records.Condition`.
        samples: the images, not yet corrupted.
    """

    name: str
    kind: str
    samples: tuple[AnySample, ...]


def make_cases(options: RunOptions, samples: tuple[AnySample, ...], boxes: bool) -> tuple[Case, ...]:
    """The conditions that a run asks for.

    Args:
        options: which, and at most how many images of the other data set.
        samples: the images that the run measures on.
        boxes: whether ground truth becomes prompts, so that none may be empty.

    Raises:
        BadInputError: the other data set holds no images or lacks masks, or a mask is empty or of another
            size than its image.
    """
    cases: list[Case] = []
    if options.robustness:
        cases += [Case(name, "corruption", samples) for name in CORRUPTIONS]
    if options.ood is not None:
        others = find_samples(options.ood)[: options.limit]
        check_sizes(others)
        if boxes:
            check_masks(others)
        cases.append(Case(options.ood.resolve().name, "data set", others))
    return tuple(cases)


def score_conditions(plan: Plan, rows: Sequence[Row], step: Progress) -> None:
    """Fill in the conditions of every trained row that gives masks of its own, condition by condition.

    Raises:
        KeyboardInterrupt: rows keep the conditions that were measured on all their images.
    """
    trained = _distinct([row for row in live_rows(rows).values() if plan.trained(row.candidate)])
    done, total = 0, sum(len(case.samples) for case in plan.cases)
    with TemporaryDirectory(prefix="seg-bench-") as folder:
        for case in plan.cases:
            dice: dict[str, list[float]] = {row.name: [] for row in trained}
            for sample in _shown(case, Path(folder)):
                step(f"robustness, {case.name}", done, total)
                for name, row in live_rows(trained).items():
                    with failing_alone(row):
                        dice[name].append(row.worker.dice(sample))
                done += 1
            for name, row in live_rows(trained).items():
                row.conditions = (*(row.conditions or ()), _condition(case, dice[name]))


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Of rows that give the same masks, the first: one model in one engine, wherever it is called from."""
    firsts: dict[tuple[str, str, str | None], Row] = {}
    for row in rows:
        firsts.setdefault((row.candidate.model, row.candidate.runtime, row.engine), row)
    return list(firsts.values())


def _condition(case: Case, dice: Sequence[float]) -> Condition:
    images = tuple(sample.name for sample in case.samples)
    return Condition(case.name, case.kind, images, tuple(dice), summarize(dice))


def _shown(case: Case, folder: Path) -> Iterator[AnySample]:
    """The samples of a case with the files that a model is to read, each until the next is asked for."""
    if case.kind == "data set":
        yield from case.samples
        return
    path = folder / "corrupted.png"
    for sample in case.samples:
        write_png(path, corrupt(_read(sample.image_path), case.name, sample.name))
        yield replace(sample, image_path=path)
    path.unlink(missing_ok=True)


def _read(path: Path) -> NDArray[np.uint8]:
    """(H, W) where all channels are equal, so that they stay so; else (H, W, 3) RGB."""
    image = read_image(path, 3, gray=True)
    return image[:, :, 0] if (image == image[:, :, :1]).all() else image
