"""`seg-export onnx`: a graph that was exported elsewhere into the model repository."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seg_export.cli.exporting import dice_of, export_progress, show
from seg_export.cli.given import given, refuse_without
from seg_export.cli.options import RepoOption, parse_size_hw
from seg_export.cli.preprocessing import PreprocessingOptions
from seg_export.families.semantic.command import ProofOptions, ServingOptions, check_batching
from seg_runtime.option_groups import expand_option_groups

if TYPE_CHECKING:
    from seg_export.checkpoints.assumption import Assumption
    from seg_export.families.onnx.interface import Interface, Wishes

__all__ = ["onnx"]


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """What the file does not show of itself."""

    layout: Annotated[
        Literal["nchw", "nhwc"] | None,
        typer.Option(help="Order of the input's axes. Default: as its shape shows."),
    ] = None
    input: Annotated[
        Literal["uint8", "float"] | None,
        typer.Option(help="Whether the graph takes pixels or prepared values. Default: the input's type."),
    ] = None
    output: Annotated[str, typer.Option(help="Name of the output, where there are several.")] = ""
    activation: Annotated[
        Literal["sigmoid", "softmax", "none"] | None,
        typer.Option(help="What makes probabilities. Default: sigmoid of one class, softmax of several."),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(help="Input size in pixels, where the graph takes any: 512, or HEIGHTxWIDTH."),
    ] = None

    def wishes(self) -> Wishes:
        """For `read_interface`. Raises BadInputError."""
        from seg_export.families.onnx.interface import Wishes

        size_hw = parse_size_hw(self.size) if self.size else None
        return Wishes(self.layout, self.input, self.output, self.activation, size_hw)


@dataclass(frozen=True, kw_only=True)
class PublishOptions(ServingOptions, ProofOptions):
    """How the graph is verified and served; the fields of the last base come first."""


@expand_option_groups
def onnx(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The ONNX file.")],
    *,
    graph: GraphOptions,
    images_are: PreprocessingOptions,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[str | None, typer.Option(help="Model name; by default the file's.")] = None,
    publish: PublishOptions,
) -> None:
    """Publish an ONNX file: wrap it with preprocessing and activation, verify it against the original.

    The file has one image input and maps of logits or probabilities. PyTorch is
    not needed. A graph that strays from the original is not published, and the
    exit code is 3.

    Examples:

      seg-export onnx lungs.onnx --mean 0.5 --std 0.25 --scale 255 --no-clahe \\
        --class-names lung

      seg-export onnx organs.onnx --size 512x384 --output logits \\
        --assume-defaults --images slices/

      seg-export onnx keras.onnx --input uint8 --no-clahe --class-names sky,road \\
        --channel-order rgb
    """
    from seg_export.families.onnx.interface import read_interface
    from seg_export.families.onnx.model import onnx_model, publish_onnx_model
    from seg_export.families.onnx.read import read_original
    from seg_export.families.onnx.stated import stated

    wishes = graph.wishes()
    original = read_original(file)
    found = read_interface(original, wishes)
    preprocessing, class_names, assumed = stated(images_are, found)
    max_batch = publish.max_batch if given(context, "max_batch") else None
    model = onnx_model(original, found, preprocessing, class_names, name or "", max_batch)
    check_batching(context, model.spec.max_batch_size)
    refuse_without(context, "images", "masks")
    labelled = publish.labelled(model.spec.channels, len(model.spec.class_names))
    with export_progress() as on_step:
        exported = publish_onnx_model(
            model,
            repo,
            images=publish.images,
            precision=publish.precision,
            calibrate=publish.calibrate,
            serving=publish.serving(),
            assumed=(*_read_off(found, wishes), *assumed),
            on_step=on_step,
        )
    show((exported,), publish.as_json, dice=dice_of(repo, model.spec.name, labelled))


def _read_off(found: Interface, wishes: Wishes) -> Iterator[Assumption]:
    """What was read off the graph, and what was assumed of it."""
    from seg_export.checkpoints.assumption import Assumption

    height, width = found.image.size_hw
    yield Assumption("input", f"{found.image.name}, {found.image.element}", "file", "--input")
    yield Assumption("layout", found.image.layout, "option" if wishes.layout else "file", "--layout")
    size_origin: Literal["option", "file"] = "option" if wishes.size_hw else "file"
    yield Assumption("input size", f"{height}x{width}", size_origin, "--size")
    yield Assumption("batch", "one image" if found.single else "any", "file")
    yield Assumption(
        "output", f"{found.output}, {found.output_layout}", "option" if wishes.output else "file"
    )
    yield Assumption("classes", str(found.classes), "file")
    if found.output_hw != found.image.size_hw:
        yield Assumption("output size", f"{found.output_hw[0]}x{found.output_hw[1]}, resized", "file")
    if found.ends_in != "none":
        yield Assumption("activation", f"{found.ends_in}, in the graph", "file")
    else:
        origin: Literal["option", "assumed"] = "option" if wishes.activation else "assumed"
        yield Assumption("activation", found.activation, origin, "--activation")
