"""Tensors that travel in half precision: the graph around them stays in fp32."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seg_export.families import family_named
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ModelSpec, TensorSpec

if TYPE_CHECKING:
    import onnx

    from seg_export.tracing.traceable import TraceableModel

__all__ = ["cast_half_tensors", "half_embeddings", "with_half_embeddings"]

_EMBEDDINGS = "image_embeddings"
_INSIDE = "_in_fp32"


def with_half_embeddings(models: tuple[TraceableModel, ...]) -> tuple[TraceableModel, ...]:
    """Give the embedding half precision in the contracts of an encoder and its decoder.

    Raises:
        BadInputError: models of a family without an embedding that may travel so.
    """
    family = family_named(models[0].spec.family)
    if not family.half_embeddings:
        raise BadInputError(
            f"a {family.title} has no image embedding that may travel in half precision: leave its type away"
        )
    return tuple(replace(model, spec=half_embeddings(model.spec)) for model in models)


def half_embeddings(spec: ModelSpec) -> ModelSpec:
    """A contract whose image embedding, if it has one, is float16."""

    def changed(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            replace(tensor, dtype="float16") if tensor.name == _EMBEDDINGS else tensor for tensor in tensors
        )

    return replace(spec, inputs=changed(spec.inputs), outputs=changed(spec.outputs))


def cast_half_tensors(graph: onnx.ModelProto, spec: ModelSpec) -> None:
    """Let a graph in fp32 take and give what its contract has in half precision: add the casts.

    Args:
        graph: is changed in place; inputs and outputs are named as in the contract.
        spec: the contract.
    """
    from onnx import TensorProto, helper

    nodes = graph.graph.node
    values = {value.name: value for value in (*graph.graph.input, *graph.graph.output)}
    for tensor in (*spec.inputs, *spec.outputs):
        element = values[tensor.name].type.tensor_type
        if tensor.dtype != "float16" or element.elem_type == TensorProto.FLOAT16:
            continue
        element.elem_type = TensorProto.FLOAT16
        inside = tensor.name + _INSIDE
        _rename(nodes, tensor.name, inside)
        if spec.input(tensor.name) is not None:
            nodes.insert(0, helper.make_node("Cast", [tensor.name], [inside], to=TensorProto.FLOAT))
        else:
            nodes.append(helper.make_node("Cast", [inside], [tensor.name], to=TensorProto.FLOAT16))


def _rename(nodes: Any, old: str, new: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
