"""What a run measures by one name: a model for masks or objects, a SAM, or a SAM2's image or frame."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from seg_bench.tracked import MEMORIES, split_name, tracked_name
from seg_runtime.contracts import ListedContracts
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.sam.decoder import sam_pair
from seg_runtime.sam2.models import IMAGE_PARTS, VIDEO_PARTS, sam2_models
from seg_runtime.spec import ModelSpec

__all__ = ["Subject", "matching_subjects", "named_subject", "readable_subjects"]

_HALVES = ("_encoder", "_decoder")
_SINGLE = ("semantic", "instances")
_KINDS = {"sam-encoder": "sam", "sam2-image-encoder": "sam2"}
"""Kinds that several models make up, by the task of the one that takes the image."""


@dataclass(frozen=True)
class Subject:
    """One model for masks or for objects, one SAM, or one SAM2 with an image or with a tracked frame.

    Attributes:
        name: the model's; for a SAM or SAM2, what the names of its models begin with, and for a tracked frame
            as `tracked_name` of that.
        specs: contracts of the models that run: one, or the encoder, the mask decoder, and the others that
            tracking needs.
    """

    name: str
    specs: tuple[ModelSpec, ...]

    @property
    def spec(self) -> ModelSpec:
        """The contract of the model that takes the image."""
        return self.specs[0]

    @property
    def kind(self) -> str:
        """ "semantic", "instances", "sam" or "sam2": which pipeline runs it."""
        return _KINDS.get(self.spec.task, self.spec.task)

    @property
    def prompted(self) -> bool:
        """Whether it is given the objects of the ground truth; it then takes one image per call."""
        return self.kind not in _SINGLE

    @property
    def exported(self) -> bool:
        """Whether the original library has an export to ONNX."""
        return self.kind in ("sam", "instances")

    @property
    def identity(self) -> tuple[str, int]:
        """What it computes in any precision: SHA-256 of the checkpoint, memories of a tracked frame."""
        return self.checkpoint_sha256, self.memories

    @property
    def memories(self) -> int:
        """That a tracked frame attends to; 0 for all others."""
        return split_name(self.name)[1] if self.kind == "sam2" else 0

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the models that a timed call runs, the one that takes the image first."""
        return tuple(spec.name for spec in self.specs if spec.task != "sam2-mask-prompt")

    @property
    def checkpoint_sha256(self) -> str:
        return self.spec.checkpoint_sha256

    @property
    def parameter_count(self) -> int:
        return sum(spec.parameter_count for spec in self.specs)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of a semantic model with several classes, the background's first; empty for all others."""
        output = self.spec.output("probabilities") if self.kind == "semantic" else None
        count = output.shape[0] if output else 1
        if count < 2:
            return ()
        names = self.spec.class_names
        return names if len(names) == count else tuple(f"class_{number}" for number in range(count))

    @property
    def weights(self) -> str:
        return self.spec.weights


def named_subject(contracts: ListedContracts, name: str) -> Subject:
    """The model, the SAM, or the SAM2 with an image or a tracked frame, of a name.

    Raises:
        ModelNotFoundError: there is none, or a part of it is missing.
        BadInputError: a model of another kind, a part of a SAM, or parts of different checkpoints.
    """
    known = contracts.models()
    published, memories = split_name(name)
    if name not in known and f"{published}_image_encoder" in known:
        parts = VIDEO_PARTS if memories else IMAGE_PARTS
        return Subject(name, tuple(sam2_models(contracts, published, parts).values()))
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
    if spec.task.startswith("sam2-"):
        raise BadInputError(f"model '{name}' is a part of a SAM2: measure it as '{_sam2_of(spec)}'")
    raise BadInputError(
        f"model '{name}' is for '{spec.task}': seg-bench run measures models for masks or objects, and SAMs"
    )


def matching_subjects(
    contracts: ListedContracts, models: Iterable[str], pattern: str = "*"
) -> tuple[Subject, ...]:
    """The models of masks or objects, and the whole SAMs and SAM2s, whose names match a pattern, by name.

    Args:
        contracts: of the models; those that cannot matter are not read.
        models: names to choose from.
        pattern: as "unet*".

    Raises:
        RepositoryError: a contract that is broken.
        BadInputError: the parts of a SAM are of different checkpoints.
    """
    models = tuple(models)
    named = [name for name in models if fnmatchcase(name, pattern)]
    single = [name for name in named if contracts.spec(name).task in _SINGLE]
    several = [name for name in _several(models) if fnmatchcase(name, pattern) and name not in single]
    return tuple(named_subject(contracts, name) for name in sorted([*single, *several]))


def readable_subjects(contracts: ListedContracts, models: Iterable[str]) -> tuple[Subject, ...]:
    """All that can be measured among these models, by name; a broken one is in nobody's way."""
    models = tuple(models)
    found = []
    for name in sorted({*models, *_several(models)}):
        with suppress(BadInputError, RepositoryError):
            found.append(named_subject(contracts, name))
    return tuple(subject for subject in found if all(spec.name in models for spec in subject.specs))


def _several(models: Collection[str]) -> list[str]:
    """Names of the SAMs and SAM2s that have all their parts among these models."""
    encoders = [name.removesuffix(_HALVES[0]) for name in models if name.endswith(_HALVES[0])]
    sams = [name for name in encoders if f"{name}{_HALVES[1]}" in models]
    return [*sams, *_sam2_names(models)]


def _sam2_names(models: Collection[str]) -> Iterator[str]:
    """Of every SAM2 the image's and, where it can track, those of tracked frames."""
    encoder = f"_{IMAGE_PARTS[0]}"
    for name in (model.removesuffix(encoder) for model in models if model.endswith(encoder)):
        has = [part for part in VIDEO_PARTS if f"{name}_{part}" in models]
        if set(IMAGE_PARTS) <= set(has):
            yield name
        if set(VIDEO_PARTS) == set(has):
            yield from (tracked_name(name, memories) for memories in MEMORIES)


def _sam2_of(spec: ModelSpec) -> str:
    """The name of the SAM2 that a model is a part of."""
    return spec.name.removesuffix(spec.task.removeprefix("sam2").replace("-", "_"))


def _stands_alone(contracts: ListedContracts, name: str) -> bool:
    return name in contracts.models() and contracts.spec(name).task in _SINGLE
