"""From a model to one ONNX graph with fixed names, a dynamic batch and no trace of its builder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_export.precision.tensor_types import cast_half_tensors
from seg_export.tracing.exportable import ExportableModel
from seg_export.tracing.external_weights import EXTERNAL_DATA_ABOVE, hide_external_weights, show_weights
from seg_runtime.errors import BadInputError, MissingExtraError

if TYPE_CHECKING:
    import onnx

__all__ = ["DEFAULT_OPSET", "OPSETS", "OWN_METADATA", "optimise", "save_graph", "trace"]

# torch.export's exporter begins at 18. The older one writes paddings as a reversed Slice, which onnxslim
# folds to wrong values, and every server that matters knows 18.
OPSETS = (18, 19, 20)
DEFAULT_OPSET = 18

OWN_METADATA = "edgeseg."
"""What the keys of a graph's metadata begin with that stay in it."""


def trace(
    model: ExportableModel,
    opset: int = DEFAULT_OPSET,
    weights_file: Path | None = None,
    external_data_above: int = EXTERNAL_DATA_ABOVE,
) -> onnx.ModelProto:
    """Make the ONNX graph of a model: trace its module, or wrap the graph that it is made of.

    Args:
        model: its spec names the graph's inputs and outputs and their shapes.
        opset: 18 to 20; a graph that was made elsewhere keeps its opset.
        weights_file: beside the graph to be saved, written when there are more weights than one file may
            hold; the graph then only refers to it. None keeps them all.
        external_data_above: bytes of weights that one file may hold.

    Raises:
        BadInputError: another opset.
        CheckpointError: the exporter cannot follow what the module computes.
        MissingExtraError: onnx or onnxscript is not installed.
        OSError: the disk is full or not writable.
    """
    if opset not in OPSETS:
        raise BadInputError(f"opset {opset}: expected one of {', '.join(map(str, OPSETS))}")
    return model.to_onnx(opset, weights_file, external_data_above)


def optimise(graph: onnx.ModelProto, model: ExportableModel) -> onnx.ModelProto:
    """Simplify a traced graph once, give it its contract's types and axes, drop all about its builder.

    Weights that lie in a file of their own are not looked at; the exporter has folded them already.

    Raises:
        MissingExtraError: onnxslim is not installed.
    """
    if model.simplify:
        graph = _simplified(graph)
    _strip(graph)
    _fix_shapes(graph, model)
    cast_half_tensors(graph, model.spec)
    return graph


def save_graph(graph: onnx.ModelProto, path: Path) -> None:
    """Write and check a graph.

    Args:
        graph: the file that it refers to for large weights, if any, lies where `path` goes.
        path: the graph's file; its folder exists.

    Raises:
        OSError: the disk is full or not writable.
        ValueError: the graph is not valid ONNX.
    """
    import onnx

    path.write_bytes(graph.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"the traced graph is not valid ONNX: {error}") from error


def _simplified(graph: onnx.ModelProto) -> onnx.ModelProto:
    try:
        import onnxslim
    except ImportError as error:
        raise MissingExtraError("onnxslim", "export") from error
    weights = hide_external_weights(graph)
    slim: onnx.ModelProto = onnxslim.slim(graph)
    show_weights(slim, weights)
    return slim


def _strip(graph: onnx.ModelProto) -> None:
    """Remove what is known of the builder: stack traces, source paths, intermediate shapes."""
    own = [entry for entry in graph.metadata_props if entry.key.startswith(OWN_METADATA)]
    body = graph.graph
    graph.doc_string = body.doc_string = ""
    body.name = "graph"
    del graph.metadata_props[:], body.metadata_props[:], body.value_info[:]
    items: list[Any] = [*body.node, *body.input, *body.output, *body.initializer]
    for item in items:
        item.doc_string = ""
        del item.metadata_props[:]
    graph.metadata_props.extend(own)


def _fix_shapes(graph: onnx.ModelProto, model: ExportableModel) -> None:
    """Give inputs and outputs the shapes of the contract and the names of their dynamic axes."""
    values = {value.name: value for value in (*graph.graph.input, *graph.graph.output)}
    for tensor in (*model.spec.inputs, *model.spec.outputs):
        shape = values[tensor.name].type.tensor_type.shape
        del shape.dim[:]
        for index, axis in enumerate(model.graph_shape(tensor)):
            if index == 0 and model.spec.max_batch_size:
                # Triton wants this axis open, even where it may only ever be 1.
                shape.dim.add(dim_param="batch")
            elif isinstance(axis, str):
                shape.dim.add(dim_param=axis)
            else:
                shape.dim.add(dim_value=axis)
