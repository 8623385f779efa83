"""How the engines of a SAM2 are compared with their graphs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from seg_export.families.family import EngineCheck, Partner
from seg_export.families.sam.engine import logits_above, nothing_to_see

if TYPE_CHECKING:
    from seg_runtime.spec import ModelSpec

__all__ = ["sam2_engine_check"]

_MASKS = "low_res_masks"


def sam2_engine_check(spec: ModelSpec, partner: Partner | None) -> EngineCheck:
    """Seeded inputs; masks only of the decoder, since the other graphs stand alone."""
    from seg_export.families.sam2.align import align_single_masks
    from seg_export.families.sam2.cases import seeded_cases

    shown = spec.output(_MASKS) is not None
    labels = partial(logits_above, _MASKS, spec.threshold) if shown else nothing_to_see
    align = align_single_masks if spec.task == "sam2-mask-decoder" else None
    return EngineCheck(seeded_cases(spec), labels, align)
