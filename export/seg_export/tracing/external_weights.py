"""Weights of large graphs lie in a file beside the graph; protobuf never holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

__all__ = [
    "EXTERNAL_DATA_ABOVE",
    "hide_external_weights",
    "move_weights",
    "move_weights_of_graph",
    "show_weights",
    "weight_bytes",
    "write_weights",
]

EXTERNAL_DATA_ABOVE = 1_000_000_000
"""Bytes of weights above which they go to a file beside the graph: protobuf ends at 2 GB, and well
before that the copies that are made of a graph in one piece take many times its size."""

_SMALL_TENSOR = 1024
"""Bytes up to which a tensor stays in the graph, where shapes and constants are looked for."""


def weight_bytes(model: Any) -> int:
    """Bytes of all weights of an exporter's model."""
    return sum(int(value.const_value.nbytes) for value in model.graph.initializers.values())


def move_weights(model: Any, weights_file: Path) -> None:
    """Write the large tensors of an exporter's model into a file, one by one, and refer to it."""
    import onnx_ir

    # onnx_ir's own writer leaves the reason out of its error when the disk is full.
    with weights_file.open("wb") as file:
        for value in model.graph.initializers.values():
            tensor, offset = value.const_value, file.tell()
            if tensor.nbytes > _SMALL_TENSOR:
                file.write(tensor.tobytes())
                value.const_value = onnx_ir.ExternalTensor(
                    weights_file.name,
                    offset,
                    tensor.nbytes,
                    tensor.dtype,
                    shape=tensor.shape,
                    name=tensor.name,
                    base_dir=weights_file.parent,
                )


def hide_external_weights(graph: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Turn weights in other files into inputs: an optimiser would read and copy them several times."""
    import onnx

    body = graph.graph
    external = [tensor for tensor in body.initializer if onnx.external_data_helper.uses_external_data(tensor)]
    kept = [tensor for tensor in body.initializer if not onnx.external_data_helper.uses_external_data(tensor)]
    body.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in external
    )
    del body.initializer[:]
    body.initializer.extend(kept)
    return external


def show_weights(graph: onnx.ModelProto, weights: list[onnx.TensorProto]) -> None:
    """Turn those inputs into weights again."""
    names = {tensor.name for tensor in weights}
    inputs = [value for value in graph.graph.input if value.name not in names]
    del graph.graph.input[:]
    graph.graph.input.extend(inputs)
    graph.graph.initializer.extend(weights)


def write_weights(
    graph: onnx.ModelProto, weights_file: Path, external_data_above: int = EXTERNAL_DATA_ABOVE
) -> None:
    """Write the weights of a graph, some of which lie in that file, anew: beside it or inside, by their size.

    Args:
        graph: is changed in place.
        weights_file: is replaced, or removed when the graph can hold all weights itself.
        external_data_above: bytes of weights that one graph may hold.

    Raises:
        OSError: the disk is full or not writable.
    """
    import onnx
    from onnx import external_data_helper

    for tensor in graph.graph.initializer:
        if external_data_helper.uses_external_data(tensor):
            external_data_helper.load_external_data_for_tensor(tensor, str(weights_file.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    weights_file.unlink()
    move_weights_of_graph(graph, weights_file, external_data_above)


def move_weights_of_graph(graph: onnx.ModelProto, weights_file: Path, external_data_above: int) -> None:
    """Write the large weights of a graph that has them all into a file, where they are too many for it."""
    import onnx
    from onnx import external_data_helper

    if sum(len(tensor.raw_data) for tensor in graph.graph.initializer) <= external_data_above:
        return
    with weights_file.open("wb") as file:
        for tensor in graph.graph.initializer:
            if len(tensor.raw_data) > _SMALL_TENSOR:
                values, offset = tensor.raw_data, file.tell()
                file.write(values)
                external_data_helper.set_external_data(tensor, weights_file.name, offset, len(values))
                tensor.data_location = onnx.TensorProto.EXTERNAL
                tensor.ClearField("raw_data")
