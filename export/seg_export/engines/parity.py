"""Proves that an engine computes what the graph computes that it was built from; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg_export.families.maskrcnn.cases import detection_cases
from seg_export.families.maskrcnn.detections import align_detections, detection_masks
from seg_export.families.sam.cases import encoder_cases, prompt_cases
from seg_export.families.sam2.align import align_single_masks
from seg_export.families.sam2.cases import seeded_cases
from seg_export.verification.cases import VerificationCase, synthetic_cases
from seg_export.verification.comparison import OutputComparison, Tensors, VerificationReport, compare
from seg_export.verification.graph_runner import GraphRunner
from seg_export.verification.tolerances import TOLERANCES
from seg_runtime.spec import ModelSpec

__all__ = ["EngineRunner", "Partner", "engine_parity"]

EMBEDDINGS = "image_embeddings"

Partner = tuple[ModelSpec, Path]
"""Contract and graph of the other half of a SAM."""


class EngineRunner(Protocol):
    """An engine on its device."""

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Run once: arrays by name, batch axis first, in and out. Raises InferenceError."""


def engine_parity(
    spec: ModelSpec, graph: Path, engine: EngineRunner, partner: Partner | None = None
) -> VerificationReport:
    """Run an engine and its graph on the same seeded inputs and compare all outputs.

    Args:
        spec: the contract of both.
        graph: `model.onnx`; it runs in ONNX Runtime on the CPU.
        engine: runs the engine.
        partner: the other half of a SAM: an encoder's embeddings are judged by the masks that its decoder
            makes of them, and a decoder gets an embedding that its encoder made.

    Raises:
        ParityError: the graph cannot be run, or shapes differ.
        InferenceError: the engine cannot be run.
        MissingExtraError: ONNX Runtime is not installed.
    """
    run_graph = GraphRunner(graph, f"the graph of model '{spec.name}'")
    row = "fp32, TF32" if spec.precision == "fp32" else spec.precision
    labels, tolerance = _labels(spec, partner), TOLERANCES[row]
    comparisons: list[OutputComparison] = []
    for case in _cases(spec, partner):
        wanted: Tensors = run_graph(case.inputs)
        outputs: Tensors = engine.run(case.inputs)
        if spec.task == "instances":
            wanted, outputs = align_detections(wanted, outputs, tolerance.atol)
        if spec.task == "sam2-mask-decoder":
            wanted, outputs = align_single_masks(wanted, outputs, tolerance.atol)
        comparisons += compare(case, wanted, outputs, labels, tolerance)
    return VerificationReport(
        spec.name, row, tolerance, tuple(comparisons), subject="engine", reference="its graph"
    )


def _cases(spec: ModelSpec, partner: Partner | None) -> tuple[VerificationCase, ...]:
    if spec.task == "instances":
        return detection_cases(spec, None)
    if spec.task == "sam-encoder":
        return encoder_cases(spec, None)
    if spec.task == "sam-decoder":
        return prompt_cases(spec, *_embedding(spec, partner))
    if spec.family == "sam2":
        return seeded_cases(spec)
    return tuple(case for case in synthetic_cases(spec) if case.batch <= max(spec.max_batch_size, 1))


def _embedding(spec: ModelSpec, partner: Partner | None) -> tuple[NDArray[Any], str]:
    """What the encoder makes of the last of its cases, or noise when there is no encoder."""
    tensor = next(tensor for tensor in spec.inputs if tensor.name == EMBEDDINGS)
    if partner is None:
        noise = np.random.default_rng(0).standard_normal(tensor.shape)
        return noise.astype(tensor.numpy_dtype), "noise"
    encoder, graph = partner
    case = encoder_cases(encoder, None)[-1]
    made = GraphRunner(graph, f"the graph of model '{encoder.name}'")(case.inputs)[EMBEDDINGS]
    return made.astype(tensor.numpy_dtype), case.name


def _labels(spec: ModelSpec, partner: Partner | None) -> Callable[[Tensors], NDArray[np.uint8]]:
    """The masks that outputs lead to; none for an encoder whose decoder is not there."""
    if spec.task == "sam-encoder":
        return _decoded(*partner) if partner else lambda outputs: np.zeros(0, np.uint8)
    if spec.task == "instances":
        return detection_masks
    if spec.family == "sam2" and spec.output("low_res_masks") is None:
        return lambda outputs: np.zeros(0, np.uint8)
    name = "low_res_masks" if spec.family == "sam2" else spec.outputs[0].name
    if spec.task == "sam-decoder" or spec.family == "sam2":
        return lambda outputs: np.asarray(outputs[name] > spec.threshold, np.uint8)
    return lambda outputs: _classes(outputs[name], spec.threshold)


def _classes(probabilities: NDArray[Any], threshold: float) -> NDArray[np.uint8]:
    if probabilities.shape[1] == 1:
        return np.asarray(probabilities[:, 0] >= threshold, np.uint8)
    return np.asarray(probabilities.argmax(axis=1), np.uint8)


def _decoded(spec: ModelSpec, graph: Path) -> Callable[[Tensors], NDArray[np.uint8]]:
    run = GraphRunner(graph, f"the graph of model '{spec.name}'")

    def masks(embeddings: NDArray[Any]) -> Iterator[NDArray[Any]]:
        for embedding in embeddings:
            case = prompt_cases(spec, embedding[None], "image")[-1]
            yield run(case.inputs)[spec.outputs[0].name] > spec.threshold

    return lambda outputs: np.asarray(np.stack(list(masks(outputs[EMBEDDINGS]))), np.uint8)
