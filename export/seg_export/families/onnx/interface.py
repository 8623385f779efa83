"""What a graph takes and gives, read off its file and off one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg_export.families.onnx.read import OriginalGraph
from seg_export.families.onnx.refusals import maker_of, refuse_detector, refuse_embedding, refuse_labels
from seg_runtime.errors import BadInputError, CheckpointError, ParityError

if TYPE_CHECKING:
    import onnx

__all__ = ["Activation", "Interface", "Layout", "Wishes", "read_interface"]

Layout: TypeAlias = Literal["nchw", "nhwc"]
Activation: TypeAlias = Literal["sigmoid", "softmax", "none"]

LARGEST_SIDE = 4096
_ELEMENTS = {"FLOAT": "float32", "FLOAT16": "float16", "UINT8": "uint8"}
_CHANNEL_AXIS: dict[Layout, int] = {"nchw": 1, "nhwc": 3}
_ENDINGS: dict[str, Activation] = {"Sigmoid": "sigmoid", "Softmax": "softmax"}


@dataclass(frozen=True)
class Wishes:
    """What a user says of a graph; None and "" for what the graph is to show.

    Attributes:
        layout: order of the input's axes.
        input: "uint8" for pixels of 0..255, "float" for prepared ones.
        output: name of the output with logits or probabilities.
        activation: what makes probabilities of it.
        size_hw: (height, width) in pixels that images are resized to.
    """

    layout: Layout | None = None
    input: Literal["uint8", "float"] | None = None
    output: str = ""
    activation: Activation | None = None
    size_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class Interface:
    """A graph's image input and its output of logits or probabilities.

    Attributes:
        input: name of the input.
        element: its NumPy type: "uint8", "float16" or "float32".
        layout: order of its axes.
        channels: 1 (gray) or 3 (color).
        size_hw: (height, width) in pixels that it is run with.
        single: whether it takes one image at a time.
        output: name of the output.
        output_layout: order of its axes.
        classes: how many maps it has.
        output_hw: (height, width) of its maps.
        activation: what makes probabilities of it.
        ends_in: the activation that the graph ends in itself, or "none".
    """

    input: str
    element: str
    layout: Layout
    channels: int
    size_hw: tuple[int, int]
    single: bool
    output: str
    output_layout: Layout
    classes: int
    output_hw: tuple[int, int]
    activation: Activation
    ends_in: Activation

    @property
    def takes_pixels(self) -> bool:
        """Whether the graph prepares pixels of 0..255 itself."""
        return self.element == "uint8"


def read_interface(original: OriginalGraph, wishes: Wishes) -> Interface:
    """Look at a graph and run it once.

    Raises:
        CheckpointError: a graph that is no semantic segmentation of one image, or cannot be run.
        BadInputError: a wish that the graph does not fit, or one that is needed.
    """
    value, element = _image_input(original)
    _check_input(wishes.input, value.name, element)
    shape = _lengths(value)
    layout = _layout(value.name, shape, wishes.layout)
    axis = _CHANNEL_AXIS[layout]
    size_hw = _size_hw(value.name, [shape[index] for index in (1, 2, 3) if index != axis], wishes.size_hw)
    if shape[0] not in (None, 1):
        raise CheckpointError(
            f"input '{value.name}' of {original.path} takes batches of {shape[0]} and no others: export it "
            "with an "
            "open batch axis, or with one of 1"
        )
    image_shape = (int(shape[axis] or 0), *size_hw) if layout == "nchw" else (*size_hw, int(shape[axis] or 0))
    outputs = _probe(original, value.name, element, (1, *image_shape))
    refuse_detector(original.path, outputs)
    output = _output(original, outputs, wishes.output)
    refuse_embedding(original.path, output, outputs[output], size_hw)
    refuse_labels(original.path, original.graph.graph, output, outputs[output])
    output_layout, classes, output_hw = _maps(original, output, outputs[output], layout, size_hw)
    single = shape[0] == 1 or not _batches(
        original, value.name, element, image_shape, outputs[output], output
    )
    ends_in = _ENDINGS.get(maker_of(original.graph.graph, output), "none")
    return Interface(
        input=value.name,
        element=element,
        layout=layout,
        channels=int(shape[axis] or 0),
        size_hw=size_hw,
        single=single,
        output=output,
        output_layout=output_layout,
        classes=classes,
        output_hw=output_hw,
        activation=_activation(wishes.activation, classes, ends_in),
        ends_in=ends_in,
    )


def _image_input(original: OriginalGraph) -> tuple[onnx.ValueInfoProto, str]:
    import onnx

    if len(original.inputs) != 1:
        names = ", ".join(value.name for value in original.inputs) or "none"
        raise CheckpointError(
            f"{original.path} has {len(original.inputs)} inputs ({names}), and this command takes graphs "
            "with one, "
            "an image: export it again with the others fixed"
        )
    (value,) = original.inputs
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    if kind not in _ELEMENTS or len(value.type.tensor_type.shape.dim) != 4:
        axes = "x".join("?" if length is None else str(length) for length in _lengths(value))
        raise CheckpointError(
            f"input '{value.name}' of {original.path} is {kind} {axes or 'of unknown shape'}: expected a "
            "batch of "
            "images, (N, C, H, W) or (N, H, W, C), in float32, float16 or uint8"
        )
    return value, _ELEMENTS[kind]


def _check_input(wanted: str | None, name: str, element: str) -> None:
    if wanted is None or (wanted == "uint8") == (element == "uint8"):
        return
    cure = (
        "leave --input out; for a graph that takes pixels of 0 to 255 as float pass --mean 0 --std 1 "
        "--scale 1"
        if wanted == "uint8"
        else "leave --input out"
    )
    raise BadInputError(f"--input {wanted}: the graph's input '{name}' is {element}; {cure}")


def _lengths(value: onnx.ValueInfoProto) -> list[int | None]:
    return [
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None
        for axis in value.type.tensor_type.shape.dim
    ]


def _layout(name: str, shape: Sequence[int | None], wanted: Layout | None) -> Layout:
    fitting = [layout for layout, axis in _CHANNEL_AXIS.items() if shape[axis] in (1, 3)]
    shown = "x".join("?" if length is None else str(length) for length in shape)
    if not fitting:
        raise CheckpointError(
            f"input '{name}' is {shown}, and neither its second nor its last axis is fixed to 1 or 3 "
            "channels: export "
            "it for gray or color images, with a fixed number of channels"
        )
    if wanted is None and len(fitting) > 1:
        raise BadInputError(
            f"input '{name}' is {shown}, which may be either order: pass --layout nchw or nhwc"
        )
    if wanted is not None and wanted not in fitting:
        raise BadInputError(f"--layout {wanted}: input '{name}' is {shown}, which has the order {fitting[0]}")
    return wanted or fitting[0]


def _size_hw(name: str, sides: Sequence[int | None], wanted: tuple[int, int] | None) -> tuple[int, int]:
    height, width = sides
    if wanted is None:
        if height is None or width is None:
            raise BadInputError(
                f"input '{name}' takes images of any size: pass the one it was trained with, as --size 512"
            )
        wanted = (height, width)
    if height not in (None, wanted[0]) or width not in (None, wanted[1]):
        raise BadInputError(
            f"--size {wanted[0]}x{wanted[1]}: input '{name}' takes {height or '?'}x{width or '?'} and no "
            "other size"
        )
    if not all(1 <= side <= LARGEST_SIDE for side in wanted):
        raise BadInputError(f"--size {wanted[0]}x{wanted[1]}: each side must be 1 to {LARGEST_SIDE} pixels")
    return wanted


def _probe(
    original: OriginalGraph, name: str, element: str, shape: tuple[int, ...]
) -> dict[str, NDArray[Any]]:
    """All outputs for noise. Raises CheckpointError."""
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = noise if element == "uint8" else (noise / 255).astype(element)
    try:
        return original.run({name: image})
    except ParityError as error:
        raise CheckpointError(
            f"{original.path} does not run with an input of {'x'.join(map(str, shape))}: choose another "
            "--size, of "
            f"which the network can take halves ({str(error).splitlines()[0]})"
        ) from error


def _batches(
    original: OriginalGraph,
    name: str,
    element: str,
    image_shape: tuple[int, ...],
    one: NDArray[Any],
    output: str,
) -> bool:
    """Whether a graph whose batch axis is open gives two answers for two images."""
    try:
        two = _probe(original, name, element, (2, *image_shape))[output]
    except CheckpointError:
        return False
    return two.shape == (2, *one.shape[1:])


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
            "expected a "
            "map per class, (N, classes, H, W) or (N, H, W, classes)"
        )
    fitting = list(_fitting(values.shape, size_hw)) or [layout]
    chosen = layout if layout in fitting else fitting[0]
    axis = _CHANNEL_AXIS[chosen]
    height, width = (values.shape[index] for index in (1, 2, 3) if index != axis)
    classes = int(values.shape[axis])
    if not 1 <= classes <= 255:
        raise CheckpointError(
            f"output '{output}' of {original.path} has {classes} classes; a mask can hold 1 to 255"
        )
    return chosen, classes, (int(height), int(width))


def _fitting(shape: Sequence[int], size_hw: tuple[int, int]) -> Iterator[Layout]:
    """Orders in which an output has the proportions of the input."""
    for layout, axis in _CHANNEL_AXIS.items():
        height, width = (shape[index] for index in (1, 2, 3) if index != axis)
        # Strides round: a map of 3x5 may belong to an image of 20x30.
        if abs(height / size_hw[0] - width / size_hw[1]) <= max(1 / size_hw[0], 1 / size_hw[1]):
            yield layout


def _activation(wanted: Activation | None, classes: int, ends_in: Activation) -> Activation:
    if ends_in != "none":
        if wanted not in (None, "none"):
            raise BadInputError(
                f"--activation {wanted}: the graph ends in a {ends_in} already; leave --activation out"
            )
        return "none"
    if wanted == "softmax" and classes == 1:
        raise BadInputError("--activation softmax: of one class it gives 1 everywhere; pass sigmoid")
    return wanted or ("sigmoid" if classes == 1 else "softmax")
