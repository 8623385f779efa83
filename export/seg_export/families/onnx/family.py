"""The row of graphs that were exported elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from seg_export.families.family import Family
from seg_export.families.semantic.engine import semantic_engine_check
from seg_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint
    from seg_export.tracing.exportable import ExportableModel
    from seg_runtime.spec import ModelSpec

__all__ = ["ONNX"]


def _no_checkpoint(*_: Any, **__: Any) -> NoReturn:
    raise CheckpointError(
        "a graph that was exported elsewhere has no checkpoint and no PyTorch module: name its file, as in  "
        "seg-export onnx FILE"
    )


def _made_of(spec: ModelSpec, published: Path, original: Checkpoint | Path) -> ExportableModel:
    from seg_export.families.onnx.model import republished_model

    if not isinstance(original, Path):
        raise CheckpointError(
            f"model '{spec.name}' was made of an ONNX file: verify it with  --checkpoint FILE.onnx"
        )
    return republished_model(spec, published, original)


def _command() -> Callable[..., None]:
    from seg_export.families.onnx.command import onnx

    return onnx


ONNX = Family(
    name="onnx",
    title="ONNX file",
    build=_no_checkpoint,
    models=_no_checkpoint,
    engine_check=semantic_engine_check,
    preprocessing=_no_checkpoint,
    made_of=_made_of,
    command=_command,
)
