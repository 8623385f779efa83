"""What a network for pixels is trained on: the images of a folder, and the names of their classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from seg_bench.data.annotators import weighted_samples
from seg_bench.data.class_names import BACKGROUND, FOREGROUND, check_names, read_class_names
from seg_bench.data.classes import ClassSample, class_names
from seg_bench.data.confidence import FOLDER, confidence_maps
from seg_bench.data.find import find_samples
from seg_bench.data.montgomery import finding
from seg_bench.data.nuclei import InstanceSample
from seg_bench.data.samples import Sample
from seg_bench.data.splits import Split, make_split, montgomery_split, nuclei_split
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image

__all__ = ["TrainingData", "training_data"]

_XRAY = re.compile(r"(MCUCXR|CHNCXR)_\d+_[01]")
_LOOKED_AT = 8


@dataclass(frozen=True)
class TrainingData:
    """The images of a folder with their ground truth.

    Attributes:
        name: of the folder.
        samples: sorted by name.
        class_names: one for masks of one kind of thing, else of all classes, from 0 on.
        confidence: maps of confidence by the names of their images, see `seg_bench.data.confidence`.
    """

    name: str
    samples: tuple[Sample | ClassSample, ...]
    class_names: tuple[str, ...]
    confidence: Mapping[str, Path] = field(default_factory=dict)

    def split(self, seed: int = 0) -> Split:
        """The fixed split of Montgomery's X-rays or the nuclei; else one at random, by the seed."""
        names = {sample.name for sample in self.samples}
        for shipped in (montgomery_split(), nuclei_split()):
            if names >= {*shipped.train, *shipped.val, *shipped.test}:
                return shipped
        return make_split(names, data_set=self.name, seed=seed, stratum=self.stratum)

    def stratum(self, name: str) -> str:
        """The group of a name, of which each part of a split gets its share: the finding of an X-ray."""
        return finding(name) if self._xrays() else ""

    def channels(self) -> int:
        """1 when the images are gray, 3 when one of a few of them has colours. Raises BadImageError."""
        step = max(1, len(self.samples) // _LOOKED_AT)
        for sample in self.samples[::step]:
            pixels = read_image(sample.image_path, 3, gray=True)
            if (pixels != pixels[..., :1]).any():
                return 3
        return 1

    def _xrays(self) -> bool:
        return all(_XRAY.fullmatch(sample.name) for sample in self.samples)


def training_data(
    root: Path,
    names: Sequence[str] = (),
    truth: str | None = None,
    annotator_weights: Mapping[str, float] | None = None,
) -> TrainingData:
    """Find what there is to train on, see `seg_bench.data.find.find_samples`.

    Args:
        root: the folder.
        names: of the classes, where the folder names none; one for masks of one kind of thing.
        truth: which ground truth of several annotators, as `find_samples`.
        annotator_weights: of each annotator, for their weighted majority, instead of `truth`.

    Raises:
        BadInputError: no layout that is known, objects in place of classes, names that are missing,
            superfluous or not those of the folder, or a map of confidence that belongs to no image.
        MissingExtraError: STAPLE without SimpleITK.
    """
    if truth and annotator_weights:
        raise BadInputError("--truth and --annotator-weights each say what the ground truth is: give one")
    samples = weighted_samples(root, annotator_weights) if annotator_weights else find_samples(root, truth)
    masks = tuple(sample for sample in samples if not isinstance(sample, InstanceSample))
    if len(masks) < len(samples):
        raise BadInputError(
            f"'{root}' has maps of single objects: train  seg-bench train maskrcnn, or put masks into masks/"
        )
    given = check_names(names, "--class-names") if names else ()
    confidence = confidence_maps(root, (sample.name for sample in samples))
    if confidence and annotator_weights:
        raise BadInputError(
            f"'{root / FOLDER}' and --annotator-weights each say how much pixels count: keep one of them"
        )
    if any(isinstance(sample, ClassSample) for sample in masks):
        return TrainingData(root.name, masks, _several(root, given), confidence)
    data = TrainingData(root.name, masks, ())
    return TrainingData(root.name, masks, (_one(root, given, is_xray=data._xrays()),), confidence)


def _several(root: Path, given: tuple[str, ...]) -> tuple[str, ...]:
    found = class_names(root)
    if found and given and given != found:
        raise BadInputError(
            f"--class-names are {', '.join(given)}, and '{root}' names {', '.join(found)}: "
            "leave the option out"
        )
    names = found or given
    if not names:
        raise BadInputError(
            f"the maps in '{root / 'classes'}' have numbers and no names: write classes.txt, a line for each "
            "class from 0 on, or give  --class-names background,..."
        )
    if len(names) < 2:
        raise BadInputError(f"'{root}' has one class, {names[0]}: put masks into masks/ instead of classes/")
    return names


def _one(root: Path, given: tuple[str, ...], *, is_xray: bool) -> str:
    """The name of what masks show."""
    names = given or read_class_names(root) or (("lung",) if is_xray else (FOREGROUND,))
    if names[0] == BACKGROUND:
        names = names[1:]
    if len(names) != 1:
        raise BadInputError(
            f"'{root}' has masks of one kind of thing, and {len(names)} names for it: give one, or maps of "
            "several classes in classes/"
        )
    return names[0]
