"""SAM in one request: an ensemble of Triton that runs the encoder and the decoder of one checkpoint."""

from __future__ import annotations

from dataclasses import replace

from seg_export.publish import StagedModel
from seg_runtime.spec import EnsembleStep, ModelSpec, TensorSpec

__all__ = ["sam_ensemble", "with_sam_ensemble"]


def with_sam_ensemble(
    name: str, encoder: StagedModel, decoder: StagedModel
) -> tuple[StagedModel, StagedModel, StagedModel]:
    """What is published for a SAM: the encoder, the decoder, and the ensemble of both called `name`.

    The encoder asks for the server's response cache, since the same image comes again with every click;
    the decoder does not, since the same prompts do not.
    """
    folder = encoder.folder.parent / name
    folder.mkdir()
    return (
        replace(encoder, serving=replace(encoder.serving, response_cache=True)),
        replace(decoder, serving=replace(decoder.serving, response_cache=False)),
        StagedModel(sam_ensemble(name, encoder.spec, decoder.spec), decoder.serving, folder),
    )


def sam_ensemble(name: str, encoder: ModelSpec, decoder: ModelSpec) -> ModelSpec:
    """The contract of the model that takes an image with its prompts and gives masks and scores.

    Its inputs and outputs are those of the two models, by the same names, without the embedding that
    passes between them. Publishing gives the steps their versions.
    """
    made = {tensor.name for tensor in encoder.outputs}
    image = tuple(TensorSpec(tensor.name, tensor.dtype, (1, *tensor.shape)) for tensor in encoder.inputs)
    prompts = tuple(tensor for tensor in decoder.inputs if tensor.name not in made)
    return replace(
        decoder,
        name=name,
        task="sam",
        inputs=(*image, *prompts),
        backend="ensemble",
        parameter_count=encoder.parameter_count + decoder.parameter_count,
        parity=None,
        steps=(_step(encoder), _step(decoder)),
    )


def _step(spec: ModelSpec) -> EnsembleStep:
    inputs, outputs = ({tensor.name: tensor.name for tensor in side} for side in (spec.inputs, spec.outputs))
    return EnsembleStep(spec.name, spec.version, inputs, outputs)
