"""Which data set a folder holds, and its images on their way to another process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg_bench.data.annotators import annotated_samples, annotators
from seg_bench.data.class_truths import truth_from_json
from seg_bench.data.classes import ClassSample, class_samples, has_classes
from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.nuclei import InstanceSample, has_instances, load_nuclei
from seg_bench.data.samples import Sample
from seg_bench.data.splits import Split, load_split, montgomery_split, nuclei_split
from seg_bench.data.views import ViewSample
from seg_runtime.errors import BadInputError

__all__ = [
    "AnySample",
    "ShownSample",
    "find_samples",
    "names_of_part",
    "sample_from_json",
    "sample_to_json",
    "shipped_split",
]

AnySample = Sample | InstanceSample | ClassSample
ShownSample = AnySample | ViewSample


def find_samples(root: Path, truth: str | None = None) -> tuple[AnySample, ...]:
    """The images of a folder, with one mask each, or with a map of objects or classes, whichever is there.

    Args:
        root: the folder.
        truth: where several annotators made masks, a key of `seg_bench.data.consensus.CONSENSUS` or one of
            them.

    Raises:
        BadInputError: no layout that is known, or a truth that the folder cannot give.
        MissingExtraError: STAPLE without SimpleITK.
    """
    if truth is not None:
        return annotated_samples(root, truth)
    if names := annotators(root):
        raise BadInputError(
            f"{root / 'masks'} has masks of {', '.join(names)}: choose with --truth staple, majority, union "
            "or one of them"
        )
    if has_instances(root):
        return load_nuclei(root)
    return class_samples(root) if has_classes(root) else load_montgomery(root)


def shipped_split(samples: tuple[AnySample, ...]) -> Split:
    """The fixed split of the data set that these are from."""
    return nuclei_split() if isinstance(samples[0], InstanceSample) else montgomery_split()


def names_of_part(
    samples: tuple[AnySample, ...], part: str, split_file: Path | None
) -> tuple[tuple[str, ...], str]:
    """The names in a part of a split, and what to call it.

    Args:
        samples: of a data set.
        part: "train", "val" or "test".
        split_file: as `seg_bench.data.splits` writes it, or None for the shipped one.

    Raises:
        BadInputError: the file is no split.
    """
    split = load_split(split_file) if split_file else shipped_split(samples)
    names: tuple[str, ...] = getattr(split, part)
    return names, f"{split.data_set}, {part}"


def sample_to_json(sample: ShownSample) -> dict[str, Any]:
    """Plain values, of which `sample_from_json` makes the same sample."""
    values: dict[str, Any] = {"name": sample.name, "image": str(sample.image_path)}
    if isinstance(sample, ViewSample):
        return values | {"view": sample.view, "whole": sample_to_json(sample.whole)}
    if isinstance(sample, InstanceSample):
        return values | {"labels": [str(path) for path in sample.label_paths]}
    if isinstance(sample, ClassSample):
        return values | {"classes": sample.truth.to_json()}
    masks = {"masks": [str(path) for path in sample.mask_paths], "consensus": sample.consensus}
    return values | masks | {"weights": list(sample.weights)}


def sample_from_json(values: Mapping[str, Any]) -> ShownSample:
    """The sample of what `sample_to_json` made."""
    if "view" in values:
        return ViewSample(values["view"], _whole_from_json(values["whole"]), Path(values["image"]))
    return _whole_from_json(values)


def _whole_from_json(values: Mapping[str, Any]) -> AnySample:
    name, image = values["name"], Path(values["image"])
    if "labels" in values:
        return InstanceSample(name, image, tuple(map(Path, values["labels"])))
    if "classes" in values:
        return ClassSample(name, image, truth_from_json(values["classes"]))
    masks = tuple(map(Path, values["masks"]))
    return Sample(name, image, masks, values["consensus"], tuple(values["weights"]))
