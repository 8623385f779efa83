"""Shapes that an engine is built for: one table of how long each named axis may be."""

from __future__ import annotations

from typing import Any

from seg_export.engines.network import ParsedGraph, Profile, Shapes
from seg_runtime.spec import ModelSpec

__all__ = ["AXES", "profile_of"]

AXES = {
    # A click is one prompt; the automatic mask generator sends 64 points at once.
    "prompts": (1, 16, 64),
    # A box has two points, a point gets one that pads it. More than 32 are for a running engine only memory.
    "points": (1, 2, 32),
    "masks": (1, 1, 64),
    # SAM2 remembers the last six frames and all those with prompts.
    "memories": (1, 7, 16),
    "pointers": (0, 16, 32),
}
"""Shortest, best and longest length of the axes that `TensorSpec.axes` names."""

OTHER = (1, 1, 8)
"""Of any other axis, as the batch of a graph that is not in a repository."""


def profile_of(graph: ParsedGraph, spec: ModelSpec | None) -> Profile:
    """The optimisation profile of a graph; empty when none of its inputs has an axis of any length.

    Args:
        graph: axes have the names that the ONNX file gives them.
        spec: its contract, for the largest batch; None for a file outside a repository.
    """
    network = graph.network
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    return {tensor.name: _shapes(tensor, spec) for tensor in inputs if -1 in tuple(tensor.shape)}


def _shapes(tensor: Any, spec: ModelSpec | None) -> Shapes:
    ranges = []
    for index, length in enumerate(tuple(tensor.shape)):
        if length >= 0:
            ranges.append((length, length, length))
        elif index == 0 and spec and spec.max_batch_size:
            # An edge device sees one image at a time: that is what kernels are chosen for.
            ranges.append((1, 1, spec.max_batch_size))
        else:
            ranges.append(AXES.get(tensor.get_dimension_name(index), OTHER))
    smallest, best, largest = (tuple(column) for column in zip(*ranges, strict=True))
    return smallest, best, largest
