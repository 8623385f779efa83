"""From a graph in fp32 and images to one in int8 whose masks hold: ranges, then the layers to leave out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from seg_export.precision.int8 import METHODS, Method, layers, quantised, ranges_of, sampled_values
from seg_export.precision.sensitivity import layer_errors
from seg_export.tracing.exportable import ExportableModel
from seg_export.verification.cases import VerificationCase, extreme_cases
from seg_export.verification.comparison import compare
from seg_export.verification.graph_runner import GraphRunner
from seg_export.verification.tolerances import TOLERANCES
from seg_runtime.errors import BadInputError, ParityError
from seg_runtime.files.images import list_images

__all__ = [
    "WANTED_IOU",
    "Calibrated",
    "CalibrationImages",
    "calibrate",
    "calibration_images",
    "real_cases",
    "verification_cases",
]

WANTED_IOU: Mapping[str, float] = {"semantic": 0.99, "sam-encoder": 0.97}
"""Per task, the mean intersection over union of masks in int8 with those in fp32. 0.99 is a Dice of 0.995."""

RANGES_FROM, JUDGED_ON = 16, 8
"""Images that are used at most; of a larger folder, some at equal distances."""


@dataclass(frozen=True)
class CalibrationImages:
    """A model's inputs, a case per image.

    Attributes:
        ranges_from: those whose values decide the ranges.
        judged_on: others, on which masks are compared.
    """

    ranges_from: tuple[VerificationCase, ...]
    judged_on: tuple[VerificationCase, ...]


@dataclass(frozen=True)
class Calibrated:
    """A graph in int8 and how it was found.

    Attributes:
        graph: the graph.
        method: of the ranges.
        layers: how many could be in int8.
        left_out: those that stayed in fp32, each with the reason; the most harmful first.
        mask_iou: mean over the images that it was judged on, against fp32.
        images: how many decided the ranges, and on how many it was judged.
    """

    graph: onnx.ModelProto
    method: Method
    layers: int
    left_out: Mapping[str, str]
    mask_iou: float
    images: tuple[int, int]


def calibration_images(model: ExportableModel, folder: Path) -> CalibrationImages | None:
    """Read the images of a folder; every third is kept for judging. None for a model that takes no images.

    Raises:
        BadInputError: no folder, or fewer than two images in it.
        BadImageError: one of them cannot be read.
    """
    if model.image_case is None:
        return None
    if not folder.is_dir():
        raise BadInputError(f"{folder} is no folder: name one with images to calibrate int8 with")
    if len(list_images([folder])) < 2:
        raise BadInputError(
            f"{folder} has one image: int8 needs at least 2 to calibrate, and is better with 24 or more"
        )
    cases = real_cases(model, folder, RANGES_FROM + JUDGED_ON)
    # The second, fifth, ... so that of two images one is for judging.
    judged_on = tuple(cases[1::3])
    ranges_from = tuple(case for index, case in enumerate(cases) if index % 3 != 1)
    return CalibrationImages(ranges_from, judged_on)


def real_cases(model: ExportableModel, folder: Path, most: int = JUDGED_ON) -> tuple[VerificationCase, ...]:
    """A case per image of a folder; of many, some at equal distances. None for a model that takes no images.

    Raises:
        BadInputError: the folder has no images.
        BadImageError: one of them cannot be read.
    """
    if model.image_case is None:
        return ()
    files = list_images([folder])
    if len(files) > most:
        files = tuple(files[round(index)] for index in np.linspace(0, len(files) - 1, most))
    return tuple(model.image_case(model.spec, file) for file in files)


def verification_cases(
    model: ExportableModel, images: Path | None, calibration: CalibrationImages | None = None
) -> tuple[VerificationCase, ...]:
    """What a precision is verified with.

    Half precision is tried on extreme images as well, which drive values to their ends; not for a detector,
    whose boxes are all equally good there, so that any order is as right as another. Int8 is made for
    images like those it was calibrated with, and noise is none of them.

    Raises:
        BadInputError: no images for a model in int8, or none that can be used.
    """
    if model.spec.precision == "int8":
        judged_on = calibration.judged_on if calibration else ()
        if not judged_on and images is None:
            raise BadInputError(
                f"model '{model.spec.name}' is in int8, which holds for images like those it was made for: "
                "name a folder of some with --images"
            )
        return (*judged_on, *(real_cases(model, images) if images else ()))
    cases = model.cases(model.spec, images)
    return cases if model.spec.precision == "fp32" or model.align else (*cases, *extreme_cases(cases[0]))


def calibrate(
    graph: onnx.ModelProto,
    model: ExportableModel,
    images: CalibrationImages,
    on_step: Callable[[str], None] = lambda what: None,
) -> Calibrated:
    """Write int8 into as many layers as the masks allow.

    The method of the ranges is the one whose masks come closest to those in fp32 with every layer in int8.
    If they are not close enough, layers are left out, the one with the largest error of its own first; how
    many it takes is found by halving.

    Args:
        graph: in fp32, its weights inside it.
        model: whose masks count.
        images: of `calibration_images`.
        on_step: told what is tried.

    Raises:
        ParityError: the masks hold with no layer in int8 only, or the graph cannot be run.
    """
    on_step("reference")
    judge = _Judge(graph, model, images.judged_on)
    on_step("ranges")
    samples = sampled_values(graph, [case.inputs for case in images.ranges_from])
    tried = {}
    for method in METHODS:
        on_step(f"all layers, {method}")
        ranges = ranges_of(samples, method)
        tried[method] = (*judge(quantised(graph, ranges)), ranges)
    method = max(METHODS, key=lambda name: tried[name][:2])
    passes, mask_iou, ranges = tried[method]
    count = len(layers(graph))
    left_out: dict[str, str] = {}
    if not passes:
        on_step("error of each layer")
        inputs = [case.inputs for case in images.judged_on]
        errors = layer_errors(graph, quantised(graph, ranges), inputs)
        order = sorted(errors, key=lambda name: -errors[name])
        fewest, mask_iou = _fewest(order, lambda out: judge(quantised(graph, ranges, out)), on_step)
        left_out = {name: f"loses {100 * errors[name] ** 0.5:.1f} % alone" for name in order[:fewest]}
    sizes = len(images.ranges_from), len(images.judged_on)
    return Calibrated(quantised(graph, ranges, left_out), method, count, left_out, mask_iou, sizes)


def _fewest(
    order: list[str],
    judge: Callable[[Collection[str]], tuple[bool, float]],
    on_step: Callable[[str], None],
) -> tuple[int, float]:
    """How many of the first must be left out for the rest to pass, and the mask IoU that leaves."""
    low, high, reached = 1, len(order), 0.0
    while low < high:
        middle = (low + high) // 2
        on_step(f"{middle} of {len(order)} layers in fp32")
        passes, mask_iou = judge(order[:middle])
        if passes:
            high, reached = middle, mask_iou
        else:
            low = middle + 1
    if low == len(order):
        raise ParityError(
            "no layer can be in int8 without losing too much of the masks: calibrate with images like those "
            "of use, or publish --precision fp16"
        )
    return low, reached


class _Judge:
    """Whether a graph's masks are close enough to those in fp32, and their mean IoU."""

    def __init__(
        self, graph: onnx.ModelProto, model: ExportableModel, cases: tuple[VerificationCase, ...]
    ) -> None:
        self._model = model
        run = GraphRunner(graph, "the graph in fp32")
        self._expected = [(case, run(case.inputs)) for case in cases]

    def __call__(self, graph: onnx.ModelProto) -> tuple[bool, float]:
        run, tolerance = GraphRunner(graph, "the graph in int8"), TOLERANCES["int8"]
        rows = [
            row
            for case, want in self._expected
            for row in compare(case, want, run(case.inputs), self._model.labels, tolerance)
        ]
        mask_iou = float(np.mean([row.mask_iou for row in rows]))
        return all(row.passed for row in rows) and mask_iou >= WANTED_IOU[self._model.spec.task], mask_iou
