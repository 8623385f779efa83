"""Which models get their engines together: those that an ensemble runs have one version number."""

from __future__ import annotations

from collections.abc import Sequence

from seg_export.families.family import Partner
from seg_runtime.ensemble import check_steps
from seg_runtime.errors import RepositoryError
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec

__all__ = ["groups_to_build", "partner_of"]

_HALVES = {"sam-encoder": "sam-decoder", "sam-decoder": "sam-encoder"}


def groups_to_build(repository: Repository, models: Sequence[str]) -> tuple[tuple[ModelSpec, ...], ...]:
    """The contracts of models that are to be published together, ensembles after their steps.

    Args:
        repository: where they are.
        models: names; none for every model whose served version is built.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        RepositoryError: a model is not built, or an ensemble is made of other versions than are served.
    """
    ensembles = [spec for spec in repository.readable_specs() if spec.steps]
    groups: list[tuple[ModelSpec, ...]] = []
    for name in models or repository.built_models():
        repository.spec(name)
        if not any(name == spec.name for group in groups for spec in group):
            groups.append(_group(repository, name, ensembles))
    if not groups:
        raise RepositoryError(f"repository '{repository.path}' has no graph: publish one with seg-export")
    return tuple(groups)


def partner_of(repository: Repository, spec: ModelSpec) -> Partner | None:
    """The other half of a SAM, of the same checkpoint, if the repository has it."""
    wanted = _HALVES.get(spec.task)
    for other in repository.readable_specs() if wanted else ():
        same = other.checkpoint_sha256 == spec.checkpoint_sha256
        if other.task == wanted and same and repository.versions(other.name):
            return other, repository.graph_path(other.name)
    return None


def _group(repository: Repository, name: str, ensembles: Sequence[ModelSpec]) -> tuple[ModelSpec, ...]:
    """All models that are connected through ensembles with one of them."""
    members, before = {name}, set[str]()
    while members != before:
        before = set(members)
        for ensemble in ensembles:
            parts = {ensemble.name, *(step.model for step in ensemble.steps)}
            # One that was never built is only a configuration: it runs nothing.
            if parts & members and repository.versions(ensemble.name):
                members |= parts
    specs = [repository.spec(each) for each in sorted(members)]
    for spec in specs:
        check_steps(spec, repository.spec)
        if not spec.steps:
            repository.graph_path(spec.name)
    return tuple(sorted(specs, key=lambda spec: bool(spec.steps)))
