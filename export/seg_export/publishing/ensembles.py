"""Ensembles of Triton: models that run in turn in one request, whose features stay in the server."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from seg_export.publishing.publish import StagedModel
from seg_runtime.spec import EnsembleStep, ModelSpec, Task, TensorSpec

__all__ = ["ensemble_of", "with_ensembles"]


def with_ensembles(models: Sequence[StagedModel], ensembles: Sequence[ModelSpec]) -> tuple[StagedModel, ...]:
    """What is published of models with ensembles of them.

    Args:
        models: the first encodes images. It alone asks for the server's response cache: an image comes again
            with every click, a frame with every object; the prompts do not.
        ensembles: contracts.
    """
    cached = [
        replace(model, serving=replace(model.serving, response_cache=model is models[0])) for model in models
    ]
    staged = []
    for spec in ensembles:
        folder = models[0].folder.parent / spec.name
        folder.mkdir()
        staged.append(StagedModel(spec, models[0].serving, folder))
    return (*cached, *staged)


def ensemble_of(name: str, task: Task, models: Sequence[ModelSpec]) -> ModelSpec:
    """The contract of models that run one after the other: the first takes the image, the last answers.

    Its inputs and outputs are those of the models, by the same names, without what passes between them.
    Publishing gives the steps their versions.
    """
    answers = {tensor.name for tensor in models[-1].outputs}
    given: dict[str, TensorSpec] = {}
    made: dict[str, TensorSpec] = {}
    used: set[str] = set()
    steps = []
    for model in models:
        inputs = {tensor.name: _source(tensor.name, made, answers) for tensor in model.inputs}
        # All of them, used or not: the server's cache keeps what the first request asked for.
        outputs = {tensor.name: tensor.name for tensor in model.outputs}
        steps.append(EnsembleStep(model.name, model.version, inputs, outputs))
        for tensor in model.inputs:
            source = inputs[tensor.name]
            if source not in made:
                given[source] = replace(_without_batch(tensor, model), name=source)
        used.update(inputs.values())
        made.update({tensor.name: _without_batch(tensor, model) for tensor in model.outputs})
    return replace(
        models[-1],
        name=name,
        task=task,
        inputs=tuple(given.values()),
        backend="ensemble",
        parameter_count=sum(model.parameter_count for model in models),
        parity=None,
        steps=tuple(steps),
        by_products=tuple(made[name] for name in made if name not in used and name not in answers),
    )


def _without_batch(tensor: TensorSpec, model: ModelSpec) -> TensorSpec:
    """An ensemble has no batch axis: that of a model that batches is an axis of length 1."""
    return replace(tensor, shape=(1, *tensor.shape)) if model.max_batch_size else tensor


def _source(name: str, made: Collection[str], answers: Collection[str]) -> str:
    """The tensor that an input gets.

    It is its namesake; after memory attention what that made of it; and another than an answer of the same
    name, such as the object pointers that attention takes and the decoder gives.
    """
    if f"{name}_with_memory" in made:
        return f"{name}_with_memory"
    return f"past_{name}" if name in answers and name not in made else name
