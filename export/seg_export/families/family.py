"""What a model family is: all that is particular to it, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seg_export.checkpoints.assumptions import Assumption
    from seg_export.checkpoints.types import Checkpoint, Preprocessing, WeightsFile
    from seg_export.precision.kept import KeptInFp32
    from seg_export.publishing.publish import StagedModel
    from seg_export.tracing.exportable import ExportableModel
    from seg_export.tracing.traceable import TraceableModel
    from seg_export.verification.cases import VerificationCase
    from seg_export.verification.comparison import Align, Labels
    from seg_runtime.spec import ModelSpec

__all__ = ["EngineCheck", "Family", "Partner"]

Partner: TypeAlias = tuple["ModelSpec", Path]
"""Contract and graph of the other half of a SAM."""


@dataclass(frozen=True)
class EngineCheck:
    """How an engine is compared with the graph that it was built from, on a machine without PyTorch.

    Attributes:
        cases: what both are run with.
        labels: the masks that the outputs lead to.
        align: for outputs that are lists, of which both sides may have another order; else None.
    """

    cases: Sequence[VerificationCase]
    labels: Labels
    align: Align | None = None


def _alone(name: str, staged: Sequence[StagedModel]) -> tuple[StagedModel, ...]:
    return tuple(staged)


def _never(tensors: Mapping[str, torch.Tensor], path: Path) -> Checkpoint | None:
    return None


def _as_built(model: nn.Module) -> None:
    return None


def _none_assumed(checkpoint: Checkpoint, spec: ModelSpec, size_given: bool) -> Iterable[Assumption]:
    return ()


def _nothing_open(checkpoint: Checkpoint) -> Iterable[str]:
    return ()


def _none_official() -> Mapping[str, tuple[str, str]]:
    return {}


@dataclass(frozen=True)
class Family:
    """A row of `seg_export.families.FAMILIES`.

    Its functions import PyTorch when they are called, so that engines can be verified where there is none.

    Attributes:
        name: as in checkpoints and contracts, for example "unetpp".
        title: as people write it, for example "U-Net++".
        build: the network, from the arguments in `Checkpoint.arguments`. Raises BadInputError.
        models: what is traced, verified and published, of a checkpoint, the model's name or what the names
            of several begin with, (height, width) in pixels of the input, and the largest batch.
        engine_check: for the contract of one of its models, and the other half of a pair.
        preprocessing: what a network of these arguments takes unless its checkpoint says otherwise.
        spread: changes the weights of a new network so that no part of a graph could be wrong unnoticed.
        recognise: the checkpoint that a plain state dict is, from names and shapes, or None. Raises
            CheckpointError for one that is of the family and cannot be used.
        tensors: names by which a plain state dict is recognised, for messages.
        assumptions: what a plain state dict leaves open: its checkpoint, the contract of the first model, and
            whether a size was asked for.
        left_open: what a plain state dict must be given before it is exported, by the names of
            `seg_export.checkpoints.claims.Claims`, and "size_hw"; nothing for a family whose images are
            always prepared in one way.
        choices: claims that may be made of one, and need not be.
        official: address and SHA-256, or how it begins, of published weights by name.
        made_of: where models are made of another file than a checkpoint: what that file is under the contract
            of a published model, whose graph is at a path. Raises CheckpointError for a checkpoint.
        command: imports the function of `seg-export NAME`; None for a family that only Python exports.
        parts: what the names of its models end in, where a checkpoint becomes several.
        ensembles: what is published of its staged models under a name: they and their ensembles.
        prune: a trained network cut to a smaller depth, where it can be. Raises BadInputError.
        half_embeddings: whether what travels between its models may do so in half precision.
        tolerances: rows of `verification.tolerances.TOLERANCES` in fp32, by task; "fp32" for others.
        of_module: of a family whose networks no checkpoint can build: the checkpoint of a user's module
            as a published contract has it, from its weights' file, activation and output. None for others.
        kept: what stays in fp32 in half precision, by task; norms and softmax for others.
    """

    name: str
    title: str
    build: Callable[..., nn.Module]
    models: Callable[[Checkpoint, str, tuple[int, int], int], tuple[TraceableModel, ...]]
    engine_check: Callable[[ModelSpec, Partner | None], EngineCheck]
    preprocessing: Callable[[Any, Mapping[str, Any]], Preprocessing]
    spread: Callable[[Any], None] = _as_built
    recognise: Callable[[dict[str, torch.Tensor], Path], Checkpoint | None] = _never
    tensors: str = ""
    assumptions: Callable[[Checkpoint, ModelSpec, bool], Iterable[Assumption]] = _none_assumed
    left_open: Callable[[Checkpoint], Iterable[str]] = _nothing_open
    choices: tuple[str, ...] = ()
    official: Callable[[], Mapping[str, tuple[str, str]]] = _none_official
    made_of: Callable[[ModelSpec, Path, Checkpoint | Path], ExportableModel] | None = None
    command: Callable[[], Callable[..., None]] | None = None
    parts: tuple[str, ...] = ()
    ensembles: Callable[[str, Sequence[StagedModel]], tuple[StagedModel, ...]] = _alone
    prune: Callable[[Checkpoint, int], Checkpoint] | None = None
    half_embeddings: bool = False
    of_module: (
        Callable[[ModelSpec, nn.Module, WeightsFile | None, Any, str | int | None], Checkpoint] | None
    ) = None
    tolerances: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, KeptInFp32] = field(default_factory=dict)
