"""How the engine of a semantic model is compared with its graph."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seg_export.families.family import EngineCheck, Partner

if TYPE_CHECKING:
    from seg_export.verification.comparison import Tensors
    from seg_runtime.spec import ModelSpec

__all__ = ["semantic_engine_check", "semantic_labels"]


def semantic_engine_check(spec: ModelSpec, partner: Partner | None) -> EngineCheck:
    """Synthetic images, in batches that the model takes."""
    from seg_export.verification.cases import synthetic_cases

    cases = [case for case in synthetic_cases(spec) if case.batch <= max(spec.max_batch_size, 1)]
    return EngineCheck(cases, partial(semantic_labels, spec))


def semantic_labels(spec: ModelSpec, outputs: Tensors) -> NDArray[np.uint8]:
    """(N, H, W) uint8 class ids: the likeliest class, or 1 where the only one reaches the threshold."""
    probabilities: NDArray[Any] = outputs[spec.outputs[0].name]
    if probabilities.shape[1] == 1:
        return np.asarray(probabilities[:, 0] >= spec.threshold, np.uint8)
    return np.asarray(probabilities.argmax(axis=1), np.uint8)
