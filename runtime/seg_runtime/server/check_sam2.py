"""Whether the models of every SAM2 in a repository belong together."""

from __future__ import annotations

from collections.abc import Iterable

from seg_runtime.errors import EdgesegError, ModelNotFoundError, RepositoryError
from seg_runtime.repository import Repository
from seg_runtime.sam2.models import VIDEO_PARTS, sam2_models
from seg_runtime.spec import ModelSpec

__all__ = ["sam2_faults"]

_TASK = "sam2-"


def sam2_faults(repository: Repository, servable: Iterable[str]) -> list[str]:
    """One line for each SAM2 that lacks a part, or whose parts are of several checkpoints.

    Args:
        repository: where all parts must be, also those that this server is not asked to serve.
        servable: models to be served; a SAM2 none of whose parts is among them may be unfinished.
    """
    names = dict.fromkeys(name for model in servable if (name := _sam2_of(repository, model)))
    faults = []
    for name in names:
        try:
            sam2_models(_Built(repository), name, VIDEO_PARTS)
        except EdgesegError as error:
            faults.append(str(error))
    return faults


class _Built:
    """Contracts of the models that have a version to serve."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def models(self) -> tuple[str, ...]:
        return self._repository.built_models()

    def spec(self, model: str) -> ModelSpec:
        if not self._repository.versions(model):
            raise ModelNotFoundError("it is not built")
        return self._repository.spec(model)


def _sam2_of(repository: Repository, model: str) -> str | None:
    """The name of the SAM2 that a model is a part of."""
    try:
        task = repository.spec(model).task
    except RepositoryError:
        return None  # Made by hand, without a contract.
    ending = f"_{task.removeprefix(_TASK).replace('-', '_')}"
    return model.removesuffix(ending) if task.startswith(_TASK) and model.endswith(ending) else None
