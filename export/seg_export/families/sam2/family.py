"""The row of SAM2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_export.families.family import Family
from seg_export.families.sam2.assumptions import sam2_assumptions
from seg_export.families.sam2.engine import sam2_engine_check
from seg_export.families.sam2.ensembles import with_sam2_ensembles
from seg_export.precision.kept import NORMS, SOFTMAX, KeptInFp32
from seg_runtime.sam2.models import VIDEO_PARTS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seg_export.checkpoints.types import Checkpoint, Preprocessing
    from seg_export.tracing.traceable import TraceableModel

__all__ = ["SAM2"]

_FAINT = (
    "gamma",
    "maskmem_tpos_enc",
    "no_mem_embed",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "pos_embed",
    "pos_embed_window",
)
"""Parameters that sam2 begins with zeros or nearly so; a graph that forgot them would look right."""

_SINES = frozenset({"Sin", "Cos"})


def _build(**arguments: Any) -> nn.Module:
    from seg_export.families.sam2.network import build_sam2

    return build_sam2(**arguments)


def _models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> tuple[TraceableModel, ...]:
    from seg_export.families.sam2.graphs import sam2_models

    return sam2_models(checkpoint, name, size_hw)


def _preprocessing(sam2: Any, arguments: Mapping[str, Any]) -> Preprocessing:
    from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

    return Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, (sam2.image_size, sam2.image_size))


def _spread(sam2: Any) -> None:
    from torch import nn

    for name, parameter in sam2.named_parameters():
        if name.endswith(_FAINT):
            nn.init.normal_(parameter, std=0.3)


def _recognise(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint | None:
    from seg_export.families.sam2.checkpoints import recognise_sam2

    return recognise_sam2(tensors, path)


def _official() -> Mapping[str, tuple[str, str]]:
    from seg_export.families.sam2.checkpoints import OFFICIAL

    return OFFICIAL


def _command() -> Callable[..., None]:
    from seg_export.families.sam2.command import sam2

    return sam2


SAM2 = Family(
    name="sam2",
    title="SAM2",
    build=_build,
    models=_models,
    engine_check=sam2_engine_check,
    preprocessing=_preprocessing,
    spread=_spread,
    recognise=_recognise,
    tensors="image_encoder.trunk..., sam_mask_decoder..., memory_attention...",
    assumptions=sam2_assumptions,
    official=_official,
    command=_command,
    parts=tuple(f"_{part}" for part in VIDEO_PARTS),
    ensembles=with_sam2_ensembles,
    tolerances={"sam2-memory-encoder": "fp32, bfloat16 memories"},
    kept={
        # The choice of a mask by its stability divides counts of pixels, up to 65536.
        "sam2-mask-decoder": KeptInFp32(
            NORMS | SOFTMAX | {"Clip", "GreaterOrEqual", "Where"}, leading_to=_SINES
        ),
        # Three small convolutions of a mask, of which nothing is gained.
        "sam2-mask-prompt": KeptInFp32(frozenset(), only=frozenset()),
        "sam2-memory-attention": KeptInFp32(NORMS | SOFTMAX, leading_to=_SINES),
        # Its last step rounds to bfloat16, which has a wider range than half precision.
        "sam2-memory-encoder": KeptInFp32(NORMS | SOFTMAX | {"Abs", "Clip", "Floor", "Log", "Round"}),
    },
)
