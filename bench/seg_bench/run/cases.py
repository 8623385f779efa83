"""Images that models were not trained for: changed copies of a run's own, or those of another data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_bench.corruptions import CORRUPTIONS, corrupt
from seg_bench.data.check import check_masks, check_sizes, check_truths
from seg_bench.data.find import AnySample, ShownSample, find_samples
from seg_bench.data.views import VIEWS, ViewSample
from seg_bench.run.options import RunOptions
from seg_runtime.files.images import read_image, write_png

__all__ = ["Case", "make_cases", "shown_samples"]


@dataclass(frozen=True)
class Case:
    """One condition before it was measured.

    Attributes:
        name, kind: as those of `seg_bench.records.Condition`.
        samples: the images, not yet changed.
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
        cases += [case for name in VIEWS if (case := _view(name, samples)).samples]
    if options.ood is not None:
        others = _spread(find_samples(options.ood), options.limit)
        check_sizes(others)
        if boxes:
            check_masks(others)
        check_truths(others)
        cases.append(Case(options.ood.resolve().name, "data set", others))
    return tuple(cases)


def shown_samples(case: Case, folder: Path) -> Iterator[ShownSample]:
    """The samples of a case with the files that a model is to read, each until the next is asked for."""
    if case.kind == "data set":
        yield from case.samples
        return
    path = folder / "changed.png"
    for sample in case.samples:
        image = _read(sample.image_path)
        if case.kind == "view":
            write_png(path, np.ascontiguousarray(VIEWS[case.name](image)))
            yield ViewSample(case.name, sample, path)
        else:
            write_png(path, corrupt(image, case.name, sample.name))
            yield replace(sample, image_path=path)
    path.unlink(missing_ok=True)


def _view(name: str, samples: tuple[AnySample, ...]) -> Case:
    """Of the images that have anything to find in it."""
    return Case(name, "view", tuple(sample for sample in samples if VIEWS[name](sample.load_mask()).any()))


def _spread(samples: tuple[AnySample, ...], limit: int | None) -> tuple[AnySample, ...]:
    """At most `limit` of them, evenly over their names: the first ones may all have the same finding."""
    count = len(samples)
    taken = min(limit or count, count)
    return tuple(samples[place * count // taken] for place in range(taken))


def _read(path: Path) -> NDArray[np.uint8]:
    """(H, W) where all channels are equal, so that they stay so; else (H, W, 3) RGB."""
    image = read_image(path, 3, gray=True)
    return image[:, :, 0] if (image == image[:, :, :1]).all() else image
