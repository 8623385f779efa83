"""The ensembles of a SAM2: each begins with the image encoder and ends with one other model."""

from __future__ import annotations

from collections.abc import Sequence

from seg_export.publishing.ensembles import ensemble_of, with_ensembles
from seg_export.publishing.publish import StagedModel
from seg_runtime.contract import one_of
from seg_runtime.sam2.models import SERVER_PARTS
from seg_runtime.spec import Task

__all__ = ["with_sam2_ensembles"]


def with_sam2_ensembles(name: str, models: Sequence[StagedModel]) -> tuple[StagedModel, ...]:
    """What is published for a SAM2: its models, the image encoder first, and `SERVER_PARTS`."""
    specs = {model.spec.name: model.spec for model in models}
    ensembles = [
        ensemble_of(
            f"{name}_{part}",
            one_of(Task, "task", f"sam2-{part}"),
            [specs[f"{name}_{step}"] for step in steps],
        )
        for part, steps in SERVER_PARTS.items()
    ]
    return with_ensembles(models, ensembles)
