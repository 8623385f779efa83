"""Ensembles of Triton: SAM and SAM2 by requests that send the image, whose features stay in the server."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from seg_export.publishing.publish import StagedModel
from seg_runtime.sam2.models import SERVER_PARTS
from seg_runtime.spec import EnsembleStep, ModelSpec, TensorSpec

__all__ = ["sam2_ensembles", "sam_ensemble", "with_sam2_ensembles", "with_sam_ensemble"]


def with_sam_ensemble(name: str, encoder: StagedModel, decoder: StagedModel) -> tuple[StagedModel, ...]:
    """What is published for a SAM: the encoder, the decoder, and the ensemble of both called `name`.

    The encoder asks for the server's response cache, since the same image comes again with every click;
    the decoder does not, since the same prompts do not.
    """
    (ensemble,) = _staged(encoder, [sam_ensemble(name, encoder.spec, decoder.spec)])
    return (*_cached_encoder([encoder, decoder]), ensemble)


def with_sam2_ensembles(name: str, models: Sequence[StagedModel]) -> tuple[StagedModel, ...]:
    """What is published for a SAM2: its models, of which the image encoder is the first, and the ensembles.

    Only the encoder asks for the server's response cache: a frame comes once for each object and step.
    """
    ensembles = sam2_ensembles(name, [model.spec for model in models])
    return (*_cached_encoder(models), *_staged(models[0], ensembles))


def sam_ensemble(name: str, encoder: ModelSpec, decoder: ModelSpec) -> ModelSpec:
    """The contract of the model that takes an image with its prompts and gives masks and scores.

    Its inputs and outputs are those of the two models, by the same names, without the embedding that
    passes between them. Publishing gives the steps their versions.
    """
    return _ensemble(name, "sam", (encoder, decoder))


def sam2_ensembles(name: str, models: Sequence[ModelSpec]) -> tuple[ModelSpec, ...]:
    """The contracts of `SERVER_PARTS`: each begins with the image encoder and ends with one other model.

    Their inputs and outputs are those of their models, by the same names, without what passes between
    them. Publishing gives the steps their versions.
    """
    specs = {spec.name: spec for spec in models}
    return tuple(
        _ensemble(f"{name}_{part}", f"sam2-{part}", [specs[f"{name}_{step}"] for step in steps])
        for part, steps in SERVER_PARTS.items()
    )


def _ensemble(name: str, task: str, models: Sequence[ModelSpec]) -> ModelSpec:
    """The contract of models that run one after the other: the first takes the image, the last answers."""
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


def _cached_encoder(models: Sequence[StagedModel]) -> list[StagedModel]:
    return [
        replace(model, serving=replace(model.serving, response_cache=model is models[0])) for model in models
    ]


def _staged(beside: StagedModel, ensembles: Sequence[ModelSpec]) -> list[StagedModel]:
    staged = []
    for spec in ensembles:
        folder = beside.folder.parent / spec.name
        folder.mkdir()
        staged.append(StagedModel(spec, beside.serving, folder))
    return staged
