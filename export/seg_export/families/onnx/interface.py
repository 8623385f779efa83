"""What a graph takes and gives, read off its file and off one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from seg_export.families.onnx.image_input import (
    CHANNEL_AXIS,
    Activation,
    ImageInput,
    Layout,
    Wishes,
    read_image_input,
)
from seg_export.families.onnx.read import OriginalGraph
from seg_export.families.onnx.refusals import maker_of, refuse_detector, refuse_embedding, refuse_labels
from seg_export.families.semantic.activation import activation_of
from seg_export.families.semantic.maps import is_proportional
from seg_runtime.errors import BadInputError, CheckpointError

__all__ = ["Interface", "Wishes", "read_interface"]

_ENDINGS: dict[str, Activation] = {"Sigmoid": "sigmoid", "Softmax": "softmax"}


@dataclass(frozen=True)
class Interface:
    """A graph's image input and its output of logits or probabilities.

    Attributes:
        image: the input.
        single: whether it takes one image at a time.
        output: name of the output.
        output_layout: order of its axes.
        classes: how many maps it has.
        output_hw: (height, width) of its maps.
        activation: what makes probabilities of it.
        ends_in: the activation that the graph ends in itself, or "none".
    """

    image: ImageInput
    single: bool
    output: str
    output_layout: Layout
    classes: int
    output_hw: tuple[int, int]
    activation: Activation
    ends_in: Activation


def read_interface(original: OriginalGraph, wishes: Wishes) -> Interface:
    """Look at a graph and run it once.

    Raises:
        CheckpointError: a graph that is no semantic segmentation of one image, or cannot be run.
        BadInputError: a wish that the graph does not fit, or one that is needed.
    """
    image, body = read_image_input(original, wishes), original.graph.graph
    outputs = image.probe(original)
    refuse_detector(original.path, outputs)
    output = _output(original, outputs, wishes.output)
    values = outputs[output]
    refuse_embedding(original.path, output, values, image.size_hw)
    refuse_labels(original.path, body, output, values)
    output_layout, classes, output_hw = _maps(original, output, values, image.layout, image.size_hw)
    ends_in = _ENDINGS.get(maker_of(body, output), "none")
    return Interface(
        image=image,
        single=not (image.open_batch and _batches(original, image, output, values.shape)),
        output=output,
        output_layout=output_layout,
        classes=classes,
        output_hw=output_hw,
        activation=_activation(wishes.activation, classes, ends_in, output, values),
        ends_in=ends_in,
    )


def _batches(original: OriginalGraph, image: ImageInput, output: str, shape: Sequence[int]) -> bool:
    """Whether a graph whose batch axis is open gives two answers for two images."""
    try:
        two = image.probe(original, batch=2)[output]
    except CheckpointError:
        return False
    return two.shape == (2, *shape[1:])


def _output(original: OriginalGraph, outputs: dict[str, NDArray[Any]], wanted: str) -> str:
    shown = ", ".join(f"{name} {'x'.join(map(str, values.shape))}" for name, values in outputs.items())
    if wanted and wanted not in outputs:
        raise BadInputError(f"--output {wanted}: {original.path} has the outputs {shown}")
    if not wanted and len(outputs) > 1:
        raise BadInputError(f"{original.path} has several outputs ({shown}): choose one with --output NAME")
    return wanted or next(iter(outputs))


def _maps(
    original: OriginalGraph, output: str, values: NDArray[Any], layout: Layout, size_hw: tuple[int, int]
) -> tuple[Layout, int, tuple[int, int]]:
    """Order, classes and (height, width) of an output of maps."""
    if values.ndim != 4 or values.dtype.kind != "f" or values.shape[0] != 1:
        raise CheckpointError(
            f"output '{output}' of {original.path} is {values.dtype} {'x'.join(map(str, values.shape))}: "
            "expected a map per class, (N, classes, H, W) or (N, H, W, classes)"
        )
    fitting = list(_fitting(values.shape, size_hw)) or [layout]
    chosen = layout if layout in fitting else fitting[0]
    axis = CHANNEL_AXIS[chosen]
    height, width = (values.shape[index] for index in (1, 2, 3) if index != axis)
    classes = int(values.shape[axis])
    if not 1 <= classes <= 255:
        raise CheckpointError(
            f"output '{output}' of {original.path} has {classes} classes; a mask can hold 1 to 255"
        )
    return chosen, classes, (int(height), int(width))


def _fitting(shape: Sequence[int], size_hw: tuple[int, int]) -> Iterator[Layout]:
    """Orders in which an output has the proportions of the input."""
    for layout, axis in CHANNEL_AXIS.items():
        height, width = (shape[index] for index in (1, 2, 3) if index != axis)
        if is_proportional((height, width), size_hw):
            yield layout


def _activation(
    wanted: Activation | None, classes: int, ends_in: Activation, output: str, values: NDArray[Any]
) -> Activation:
    if ends_in != "none":
        if wanted not in (None, "none"):
            raise BadInputError(
                f"--activation {wanted}: the graph ends in a {ends_in} already; leave --activation out"
            )
        return "none"
    return activation_of(wanted, classes, float(values.min()), float(values.max()), f"output '{output}'")
