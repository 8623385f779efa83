"""The phase of a run that asks how well models do on what they were not trained for.

Each condition is images for the very pipeline that the run measures: corrupted copies of the run's own
images, or those of another data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from seg_bench.corruptions import CORRUPTIONS, corrupt
from seg_bench.data.check import check_masks, check_sizes
from seg_bench.data.find import AnySample, find_samples
from seg_bench.metrics.summary import summarize
from seg_bench.options import RunOptions
from seg_bench.records import Condition
from seg_bench.worker_process import WorkerProcess
from seg_runtime.images import read_image, write_png

__all__ = ["Case", "make_cases", "score_conditions"]

Progress = Callable[[str, int, int], object]


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


def score_conditions(
    cases: Sequence[Case], workers: Mapping[str, WorkerProcess], step: Progress
) -> tuple[dict[str, tuple[Condition, ...]], bool]:
    """Measure every condition on every row that gives masks of its own, condition by condition.

    Args:
        cases: the conditions.
        workers: the rows, by name.
        step: told about progress.

    Returns:
        What was measured on all images of a condition, by the name of the row, and whether Ctrl-C did not
        end it early.

    Raises:
        EdgesegError: a row cannot run an image.
    """
    rows = _distinct(workers)
    found: dict[str, tuple[Condition, ...]] = dict.fromkeys(rows, ())
    done, total = 0, sum(len(case.samples) for case in cases)
    try:
        with TemporaryDirectory(prefix="seg-bench-") as folder:
            for case in cases:
                dice: dict[str, list[float]] = {name: [] for name in rows}
                for sample in _shown(case, Path(folder)):
                    step(f"robustness, {case.name}", done, total)
                    for name, worker in rows.items():
                        dice[name].append(worker.dice(sample))
                    done += 1
                found = {name: (*found[name], _condition(case, dice[name])) for name in rows}
    except KeyboardInterrupt:
        return found, False
    return found, True


def _distinct(workers: Mapping[str, WorkerProcess]) -> dict[str, WorkerProcess]:
    """Of rows that give the same masks, the first: one model in one engine, wherever it is called from."""
    firsts: dict[tuple[str, str, str], str] = {}
    for name, worker in workers.items():
        firsts.setdefault((worker.candidate.model, worker.candidate.runtime, worker.engine), name)
    return {name: workers[name] for name in firsts.values()}


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
