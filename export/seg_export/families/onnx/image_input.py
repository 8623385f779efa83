"""What a graph takes: one image input, read off its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg_export.families.onnx.read import OriginalGraph
from seg_runtime.contract import MOST_CHANNELS
from seg_runtime.errors import BadInputError, CheckpointError, ParityError

if TYPE_CHECKING:
    import onnx

__all__ = ["CHANNEL_AXIS", "Activation", "ImageInput", "Layout", "Wishes", "read_image_input"]

Layout: TypeAlias = Literal["nchw", "nhwc"]
Activation: TypeAlias = Literal["sigmoid", "softmax", "none"]

CHANNEL_AXIS: dict[Layout, int] = {"nchw": 1, "nhwc": 3}

LARGEST_SIDE = 4096
_ELEMENTS = {"FLOAT": "float32", "FLOAT16": "float16", "UINT8": "uint8"}


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
class ImageInput:
    """A graph's image input.

    Attributes:
        name: in the graph.
        element: its NumPy type: "uint8", "float16" or "float32".
        layout: order of its axes.
        channels: 1 (gray), 3 (color), or bands up to 16.
        size_hw: (height, width) in pixels that it is run with.
        open_batch: whether its file leaves the number of images open.
    """

    name: str
    element: str
    layout: Layout
    channels: int
    size_hw: tuple[int, int]
    open_batch: bool

    @property
    def takes_pixels(self) -> bool:
        """Whether the graph prepares pixels of 0..255 itself."""
        return self.element == "uint8"

    def probe(self, original: OriginalGraph, batch: int = 1) -> dict[str, NDArray[Any]]:
        """All outputs of the graph for noise. Raises CheckpointError."""
        image = (self.channels, *self.size_hw) if self.layout == "nchw" else (*self.size_hw, self.channels)
        shape = (batch, *image)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        values = noise if self.takes_pixels else (noise / 255).astype(self.element)
        try:
            return original.run({self.name: values})
        except ParityError as error:
            raise CheckpointError(
                f"{original.path} does not run with an input of {'x'.join(map(str, shape))}: choose another "
                f"--size that the network can take ({str(error).splitlines()[0]})"
            ) from error


def read_image_input(original: OriginalGraph, wishes: Wishes) -> ImageInput:
    """The one input of a graph.

    Raises:
        CheckpointError: a graph without an image input, or with others.
        BadInputError: a wish that the graph does not fit, or one that is needed.
    """
    value, element = _image_input(original)
    _check_input(wishes.input, value.name, element)
    batch, *_ = shape = _lengths(value)
    if batch not in (None, 1):
        raise CheckpointError(
            f"input '{value.name}' of {original.path} takes batches of {batch} and no others: export it with "
            "an open batch axis, or with one of 1"
        )
    layout = _layout(value.name, shape, wishes.layout)
    axis = CHANNEL_AXIS[layout]
    sides = [shape[index] for index in (1, 2, 3) if index != axis]
    size_hw = _size_hw(value.name, sides, wishes.size_hw)
    return ImageInput(value.name, element, layout, int(shape[axis] or 0), size_hw, batch is None)


def _image_input(original: OriginalGraph) -> tuple[onnx.ValueInfoProto, str]:
    import onnx

    if len(original.inputs) != 1:
        names = ", ".join(value.name for value in original.inputs) or "none"
        raise CheckpointError(
            f"{original.path} has {len(original.inputs)} inputs ({names}), and this command takes graphs "
            "with one, an image: export it again with the others fixed"
        )
    (value,) = original.inputs
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
    shape = _lengths(value)
    if kind not in _ELEMENTS or len(shape) != 4:
        raise CheckpointError(
            f"input '{value.name}' of {original.path} is {kind} {_shown(shape) or 'of unknown shape'}: "
            "expected a batch of images, (N, C, H, W) or (N, H, W, C), in float32, float16 or uint8"
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
    fitting = [layout for layout, axis in CHANNEL_AXIS.items() if 1 <= (shape[axis] or 0) <= MOST_CHANNELS]
    # An axis of 1 or 3 is more likely the channels than a side as short as bands are many.
    usual = [layout for layout in fitting if shape[CHANNEL_AXIS[layout]] in (1, 3)]
    fitting = usual if wanted is None and usual else fitting
    shown = _shown(shape)
    if not fitting:
        raise CheckpointError(
            f"input '{name}' is {shown}, and neither its second nor its last axis is fixed to 1 to "
            f"{MOST_CHANNELS} channels: export it with a fixed number of channels"
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


def _shown(shape: Sequence[int | None]) -> str:
    return "x".join("?" if length is None else str(length) for length in shape)
