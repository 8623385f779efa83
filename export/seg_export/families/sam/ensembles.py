"""The ensemble of a SAM: an image with its prompts in, masks and scores out."""

from __future__ import annotations

from collections.abc import Sequence

from seg_export.publishing.ensembles import ensemble_of, with_ensembles
from seg_export.publishing.publish import StagedModel

__all__ = ["with_sam_ensemble"]


def with_sam_ensemble(name: str, models: Sequence[StagedModel]) -> tuple[StagedModel, ...]:
    """What is published for a SAM: the encoder, the decoder, and the ensemble of both called `name`."""
    return with_ensembles(models, [ensemble_of(name, "sam", [model.spec for model in models])])
