"""How the engines of a SAM are compared with their graphs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seg_export.families.family import EngineCheck, Partner

if TYPE_CHECKING:
    from seg_export.verification.comparison import Labels, Tensors
    from seg_runtime.spec import ModelSpec

__all__ = ["logits_above", "nothing_to_see", "sam_engine_check"]

_EMBEDDINGS = "image_embeddings"


def sam_engine_check(spec: ModelSpec, partner: Partner | None) -> EngineCheck:
    """Of an encoder, judged by the masks that its decoder makes; of a decoder, on what its encoder made."""
    from seg_export.families.sam.cases import encoder_cases, prompt_cases

    if spec.task == "sam-encoder":
        return EngineCheck(encoder_cases(spec, None), _decoded(*partner) if partner else nothing_to_see)
    cases = prompt_cases(spec, *_embedding(spec, partner))
    return EngineCheck(cases, partial(logits_above, spec.outputs[0].name, spec.threshold))


def logits_above(name: str, threshold: float, outputs: Tensors) -> NDArray[np.uint8]:
    """The masks of an output of logits."""
    return np.asarray(outputs[name] > threshold, np.uint8)


def nothing_to_see(outputs: Tensors) -> NDArray[np.uint8]:
    """Of outputs that lead to masks only in another model, which is not there."""
    return np.zeros(0, np.uint8)


def _embedding(spec: ModelSpec, partner: Partner | None) -> tuple[NDArray[Any], str]:
    """What the encoder makes of the last of its cases, or noise when there is no encoder."""
    from seg_export.families.sam.cases import encoder_cases
    from seg_export.verification.graph_runner import GraphRunner

    tensor = next(tensor for tensor in spec.inputs if tensor.name == _EMBEDDINGS)
    if partner is None:
        noise = np.random.default_rng(0).standard_normal(tensor.shape)
        return noise.astype(tensor.numpy_dtype), "noise"
    encoder, graph = partner
    case = encoder_cases(encoder, None)[-1]
    made = GraphRunner(graph, f"the graph of model '{encoder.name}'")(case.inputs)[_EMBEDDINGS]
    return made.astype(tensor.numpy_dtype), case.name


def _decoded(spec: ModelSpec, graph: Path) -> Labels:
    from seg_export.families.sam.cases import prompt_cases
    from seg_export.verification.graph_runner import GraphRunner

    run = GraphRunner(graph, f"the graph of model '{spec.name}'")

    def masks(embeddings: NDArray[Any]) -> Iterator[NDArray[Any]]:
        for embedding in embeddings:
            case = prompt_cases(spec, embedding[None], "image")[-1]
            yield run(case.inputs)[spec.outputs[0].name] > spec.threshold

    return lambda outputs: np.asarray(np.stack(list(masks(outputs[_EMBEDDINGS]))), np.uint8)
