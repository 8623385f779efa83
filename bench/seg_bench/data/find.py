"""Which data set a folder holds, and its images on their way to another process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.nuclei import InstanceSample, has_instances, load_nuclei
from seg_bench.data.samples import Sample
from seg_bench.data.splits import Split, montgomery_split, nuclei_split

__all__ = ["AnySample", "find_samples", "shipped_split", "tell_sample", "told_sample"]

AnySample = Sample | InstanceSample


def find_samples(root: Path) -> tuple[AnySample, ...]:
    """The images of a folder, with one mask each or with a map of objects, whichever lies beside them.

    Raises:
        BadInputError: no layout that is known.
    """
    return load_nuclei(root) if has_instances(root) else load_montgomery(root)


def shipped_split(samples: tuple[AnySample, ...]) -> Split:
    """The fixed split of the data set that these are from."""
    return nuclei_split() if isinstance(samples[0], InstanceSample) else montgomery_split()


def tell_sample(sample: AnySample) -> dict[str, Any]:
    """Plain values for JSON, of which `told_sample` makes the same sample."""
    objects = isinstance(sample, InstanceSample)
    masks = sample.label_paths if isinstance(sample, InstanceSample) else sample.mask_paths
    return {
        "name": sample.name,
        "image": str(sample.image_path),
        "masks": [str(path) for path in masks],
        "objects": objects,
    }


def told_sample(told: Mapping[str, Any]) -> AnySample:
    """The sample that `tell_sample` told of."""
    kind = InstanceSample if told["objects"] else Sample
    return kind(told["name"], Path(told["image"]), tuple(map(Path, told["masks"])))
