"""The row of SAM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_export.families.family import Family
from seg_export.families.sam.assumptions import sam_assumptions
from seg_export.families.sam.engine import sam_engine_check
from seg_export.families.sam.ensembles import with_sam_ensemble
from seg_export.precision.kept import NORMS, SOFTMAX, KeptInFp32

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seg_export.checkpoints.types import Checkpoint, Preprocessing
    from seg_export.tracing.traceable import TraceableModel

__all__ = ["SAM"]


def _build(**arguments: Any) -> nn.Module:
    from seg_export.families.sam.network import build_sam

    return build_sam(**arguments)


def _models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> tuple[TraceableModel, ...]:
    from seg_export.families.sam.graphs import sam_models

    return sam_models(checkpoint, name, size_hw)


def _preprocessing(sam: Any, arguments: Mapping[str, Any]) -> Preprocessing:
    from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

    side = sam.image_encoder.img_size
    return Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, (side, side))


def _spread(sam: Any) -> None:
    from torch import nn

    # segment_anything begins with zeros here, and a graph that forgot the positions would look right.
    for name, parameter in sam.image_encoder.named_parameters():
        if name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")):
            nn.init.normal_(parameter, std=0.1)


def _recognise(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint | None:
    from seg_export.families.sam.checkpoints import recognise_sam

    return recognise_sam(tensors, path)


def _official() -> Mapping[str, tuple[str, str]]:
    from seg_export.families.sam.checkpoints import OFFICIAL

    return OFFICIAL


def _command() -> Callable[..., None]:
    from seg_export.families.sam.command import sam

    return sam


SAM = Family(
    name="sam",
    title="SAM",
    build=_build,
    models=_models,
    engine_check=sam_engine_check,
    preprocessing=_preprocessing,
    spread=_spread,
    recognise=_recognise,
    tensors="image_encoder..., prompt_encoder..., mask_decoder...",
    assumptions=sam_assumptions,
    official=_official,
    command=_command,
    parts=("_encoder", "_decoder"),
    ensembles=with_sam_ensemble,
    half_embeddings=True,
    # Half precision holds coordinates near 1024 to half a pixel, and a sine of them to nothing.
    kept={"sam-decoder": KeptInFp32(NORMS | SOFTMAX, leading_to=frozenset({"Sin", "Cos"}))},
)
