"""What a run measures by one name: a model for masks or objects, or a SAM with its two models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seg_runtime.contracts import ListedContracts
from seg_runtime.errors import BadInputError
from seg_runtime.sam.decoder import sam_pair
from seg_runtime.spec import ModelSpec

__all__ = ["Subject", "all_subjects", "named_subject"]

_HALVES = ("_encoder", "_decoder")
_SINGLE = ("semantic", "instances")


@dataclass(frozen=True)
class Subject:
    """One model for masks or for objects, or one SAM.

    Attributes:
        name: the model's; for a SAM, what the names of its two models begin with.
        specs: contracts of the models that run: one, or a SAM's encoder and decoder.
    """

    name: str
    specs: tuple[ModelSpec, ...]

    @property
    def spec(self) -> ModelSpec:
        """The contract of the model that takes the image."""
        return self.specs[0]

    @property
    def kind(self) -> str:
        """ "semantic", "sam" or "instances": which pipeline runs it."""
        return "sam" if self.sam else self.spec.task

    @property
    def sam(self) -> bool:
        return self.spec.task == "sam-encoder"

    @property
    def checkpoint_sha256(self) -> str:
        return self.spec.checkpoint_sha256

    @property
    def parameter_count(self) -> int:
        return sum(spec.parameter_count for spec in self.specs)

    @property
    def weights(self) -> str:
        return self.spec.weights


def named_subject(contracts: ListedContracts, name: str) -> Subject:
    """The model or the SAM of a name.

    Raises:
        ModelNotFoundError: there is none, or half of the SAM is missing.
        BadInputError: a model of another kind, one half of a SAM, or halves of different checkpoints.
    """
    known = contracts.models()
    # A SAM's name may also be that of an ensemble of its two models.
    if any(f"{name}{half}" in known for half in _HALVES) and not _stands_alone(contracts, name):
        return Subject(name, sam_pair(contracts, name))
    spec = contracts.spec(name)
    if spec.task in _SINGLE:
        return Subject(name, (spec,))
    for half in _HALVES:
        whole = name.removesuffix(half)
        if whole != name and spec.task == f"sam-{half[1:]}":
            raise BadInputError(f"model '{name}' is one half of a SAM: measure it as '{whole}'")
    raise BadInputError(
        f"model '{name}' is for '{spec.task}': seg-bench run measures models for masks or objects, and SAMs"
    )


def all_subjects(contracts: ListedContracts, models: Iterable[str]) -> tuple[Subject, ...]:
    """Every model of masks or objects and every whole SAM among these models, by name.

    Raises:
        BadInputError: there is none, or the halves of a SAM are of different checkpoints.
    """
    models = tuple(models)
    single = [name for name in models if contracts.spec(name).task in _SINGLE]
    encoders = [name.removesuffix(_HALVES[0]) for name in models if name.endswith(_HALVES[0])]
    sams = [name for name in encoders if f"{name}{_HALVES[1]}" in models and name not in single]
    if not single and not sams:
        raise BadInputError("no model to measure: publish one with seg-export")
    return tuple(named_subject(contracts, name) for name in sorted([*single, *sams]))


def _stands_alone(contracts: ListedContracts, name: str) -> bool:
    return name in contracts.models() and contracts.spec(name).task in _SINGLE
