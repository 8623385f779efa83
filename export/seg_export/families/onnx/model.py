"""A graph that was exported elsewhere, as a model to be published and verified."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from seg_export.checkpoints.claims import published_preprocessing
from seg_export.checkpoints.types import Preprocessing
from seg_export.families.onnx.interface import Interface, Wishes, read_interface
from seg_export.families.onnx.read import OriginalGraph, read_original, tensors_of
from seg_export.families.onnx.reference import Reference
from seg_export.families.onnx.refusals import check_precision
from seg_export.families.semantic.engine import semantic_labels
from seg_export.publishing.publish import check_model_name
from seg_export.tracing.exportable import ExportableModel
from seg_export.tracing.trace import OWN_METADATA
from seg_export.verification.cases import VerificationCase, semantic_case, semantic_cases
from seg_export.verification.comparison import Tensors
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.preprocess import check_clahe
from seg_runtime.spec import ModelSpec, ServingSpec, TensorSpec

if TYPE_CHECKING:
    import onnx

    from seg_export.checkpoints.assumption import Assumption
    from seg_export.export import ExportedModel, Precision

__all__ = ["OnnxModel", "default_names", "onnx_model", "publish_onnx_model", "republished_model"]

LOWEST_OPSET = 13
"""The first with Softmax over one axis, and with half precision in every operator that matters."""

INT8_OPSET = 18
"""What the search for layers that int8 harms is written in."""

_NORMS = {"InstanceNormalization", "GroupNormalization"}
"""They make the last bit of a flat image's pixels a signal, and preprocessing rounds that bit."""

_WISHES = f"{OWN_METADATA}original"
"""Metadata of a published graph: what was made of the original's input and output."""


@dataclass(frozen=True)
class OnnxModel(ExportableModel):
    """The graph in its wrapper.

    Attributes:
        reference: the original, with all around it in NumPy.
    """

    reference_name = "its original"
    simplify = False

    reference: Reference

    def to_onnx(self, opset: int, weights_file: Path | None, external_data_above: int) -> onnx.ModelProto:
        """Wrap the original, which keeps its opset unless that is older than what is added."""
        from seg_export.families.onnx.wrap import wrapped
        from seg_export.tracing.external_weights import move_weights_of_graph

        found = self.reference.interface
        lowest = INT8_OPSET if self.spec.precision == "int8" else LOWEST_OPSET
        graph = wrapped(self.reference.original.with_weights(), found, self.reference.preprocessing, lowest)
        wishes = {"layout": found.image.layout, "output": found.output, "activation": found.activation}
        graph.metadata_props.add(key=_WISHES, value=json.dumps(wishes))
        if weights_file is not None:
            move_weights_of_graph(graph, weights_file, external_data_above)
        return graph

    def run_reference(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """What the original computes."""
        return {"probabilities": self.reference(inputs["image"])}


def onnx_model(
    original: OriginalGraph,
    interface: Interface,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] = (),
    name: str = "",
    max_batch_size: int | None = None,
) -> OnnxModel:
    """Build what is published of a graph.

    Args:
        original: the graph.
        interface: what it takes and gives.
        preprocessing: of its input; mean, std and scale are those of a graph that does not take pixels.
        class_names: one per class; none for "class_0" and so on, or "foreground" for a single one.
        name: of the model; "" for the file's.
        max_batch_size: largest batch that is served; None for 8, or 1 for a graph that takes one image.

    Raises:
        BadInputError: a preprocessing, class names or a batch that do not fit the graph.
    """
    _check_fit(interface, preprocessing, class_names, max_batch_size)
    channels, classes, size_hw = interface.image.channels, interface.classes, interface.image.size_hw
    prepared = not interface.image.takes_pixels
    spec = ModelSpec(
        name=name or original.path.stem,
        version=1,
        task="semantic",
        family="onnx",
        inputs=(TensorSpec("image", "uint8", (*size_hw, channels)),),
        outputs=(TensorSpec("probabilities", "float32", (classes, *size_hw)),),
        max_batch_size=max_batch_size or (1 if interface.single else 8),
        input_size_hw=size_hw,
        channels=channels,
        mean=preprocessing.mean if prepared else (),
        std=preprocessing.std if prepared else (),
        scale=preprocessing.scale if prepared else 255.0,
        channel_order=preprocessing.channel_order,
        class_names=class_names or default_names(classes),
        threshold=preprocessing.threshold,
        clahe=preprocessing.clahe,
        checkpoint_sha256=original.sha256(),
        parameter_count=_parameter_count(original.graph),
        toolkit_version=version("edgeseg"),
    )
    return OnnxModel(
        spec,
        partial(semantic_labels, spec),
        Reference(original, interface, preprocessing),
        cases=_single_cases if interface.single else semantic_cases,
        image_case=semantic_case,
        dynamic_batch=not interface.single,
        in_half=_computes_in_half(original.graph),
        tolerance="fp32, norms per channel" if _NORMS & original.operators else "",
    )


def publish_onnx_model(
    model: OnnxModel,
    repo: Path,
    *,
    images: Path | None = None,
    precision: Precision = "fp32",
    calibrate: Path | None = None,
    serving: ServingSpec | None = None,
    assumed: tuple[Assumption, ...] = (),
    on_step: Callable[[str], None] = lambda step: None,
) -> ExportedModel:
    """`seg_export.export.publish_models` of a graph that was exported elsewhere; raises what that does.

    Raises:
        BadInputError: also a name, or a precision that cannot be written into this graph.
    """
    from seg_export.export import check_calibration, publish_models

    original = model.reference.original
    check_model_name(model.spec.name)
    check_calibration(precision, calibrate)
    check_precision(original.path, original.graph.graph, precision, model.in_half)
    on_step("load")
    (exported,) = publish_models(
        (model,),
        repo,
        images=images,
        precision=precision,
        calibrate=calibrate,
        serving=serving,
        assumed=assumed,
        on_step=on_step,
    )
    return exported


def republished_model(spec: ModelSpec, published: Path, file: Path) -> OnnxModel:
    """A file as a published contract has it, to verify that again.

    Args:
        spec: the contract.
        published: its graph, which says what was made of the original.
        file: the original.

    Raises:
        CheckpointError: a file that cannot be used, or does not fit the contract.
        RepositoryError: a contract of version 1, which does not say how images are prepared.
    """
    import onnx

    metadata = onnx.load(published, load_external_data=False).metadata_props
    wishes: dict[str, Any] = next((json.loads(entry.value) for entry in metadata if entry.key == _WISHES), {})
    preprocessing = published_preprocessing(spec)
    original = read_original(file)
    try:
        interface = read_interface(original, Wishes(**wishes, size_hw=spec.input_size_hw))
        return onnx_model(
            original, interface, preprocessing, spec.class_names, spec.name, spec.max_batch_size
        )
    except BadInputError as error:
        raise CheckpointError(f"{file} does not fit model '{spec.name}': {error}") from error


def default_names(classes: int) -> tuple[str, ...]:
    """Names of classes that nobody named."""
    return ("foreground",) if classes == 1 else tuple(f"class_{index}" for index in range(classes))


def _check_fit(
    interface: Interface, preprocessing: Preprocessing, names: tuple[str, ...], max_batch_size: int | None
) -> None:
    channels = interface.image.channels
    if max_batch_size is not None and max_batch_size < 1:
        raise BadInputError(f"largest batch {max_batch_size}: it must be at least 1")
    if interface.single and max_batch_size not in (None, 1):
        raise BadInputError(
            f"--max-batch {max_batch_size}: the graph takes one image at a time; leave --max-batch out, or "
            "export it with an open batch axis"
        )
    if names and len(names) != interface.classes:
        raise BadInputError(f"{len(names)} class names, and the graph has {interface.classes} classes")
    if channels != 3 and preprocessing.channel_order != "rgb":
        raise BadInputError(
            f"--channel-order bgr has no effect on images of {channels} channels: leave it out"
        )
    check_clahe(channels, preprocessing.clahe)
    if interface.image.takes_pixels:
        return
    for what, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if len(values) != channels:
            raise BadInputError(f"--{what} has {len(values)} values, and the graph takes {channels} channels")
    if not all(value > 0 and math.isfinite(value) for value in (*preprocessing.std, preprocessing.scale)):
        raise BadInputError(
            f"std {list(preprocessing.std)} and scale {preprocessing.scale}: expected numbers above 0"
        )


def _parameter_count(graph: onnx.ModelProto) -> int:
    """Of weights in fp32 or fp16."""
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return sum(math.prod(tensor.dims) for tensor in tensors_of(graph.graph) if tensor.data_type in floats)


def _computes_in_half(graph: onnx.ModelProto) -> bool:
    """Whether values are in half precision between the nodes, not only weights that are cast."""
    import onnx

    from seg_export.precision.half import element_types

    types = element_types(graph)
    return any(
        types.get(name) == onnx.TensorProto.FLOAT16
        for node in graph.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")
        for name in node.output
    )


def _single_cases(spec: ModelSpec, images: Path | None) -> tuple[VerificationCase, ...]:
    """`semantic_cases` one image at a time."""
    return tuple(
        replace(case, inputs={name: array[index : index + 1] for name, array in case.inputs.items()}, batch=1)
        for case in semantic_cases(spec, images)
        for index in range(case.batch)
    )
