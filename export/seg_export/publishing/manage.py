"""What is in a model repository: listing models, serving an earlier version, removing what is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seg_export.publishing.publish import replace_config, served_version, size_bytes
from seg_export.publishing.staging import locked, staging_folder, sync
from seg_runtime.ensemble import check_steps
from seg_runtime.errors import BadInputError, EdgesegError, RepositoryError
from seg_runtime.plain_files import read_text
from seg_runtime.repository import CONFIG_FILE, GRAPH_FILE, Repository
from seg_runtime.spec import ModelSpec

__all__ = ["ModelListing", "list_models", "remove", "rollback", "set_threshold"]


@dataclass(frozen=True)
class ModelListing:
    """One model of a repository.

    Attributes:
        name: its folder.
        versions: versions on disk, ascending.
        spec: contract of the served version, None when its `config.pbtxt` cannot be used.
        built: whether the served version is on disk.
        size_bytes: size of the served version's folder.
        problem: why it cannot be served, or "".
    """

    name: str
    versions: tuple[int, ...]
    spec: ModelSpec | None
    built: bool
    size_bytes: int
    problem: str

    @property
    def broken(self) -> bool:
        """Whether it is worse than not built yet, as a model of a fresh checkout is."""
        return bool(self.problem) and (self.spec is None or self.built)


def rollback(repo: Path, model: str, to: int | None = None) -> ModelSpec:
    """Serve another version that is still on disk.

    An ensemble takes the models of its steps along, and the other ensembles that run one of these.

    Args:
        repo: the model repository.
        model: the model's name.
        to: the version; None for the one before the served one.

    Returns:
        The contract of the version that is served now.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        RepositoryError: no such version (also of an ensemble that goes along), it was not published by
            seg-export, or the model is a step of an ensemble.
    """
    repository = Repository(repo)
    repository.versions(model)
    with staging_folder(repo) as staging, locked(repo):
        _require_no_step(repository, model, "roll that back, which takes its models along")
        spec = _version_spec(repository, model, _rollback_target(repository, model, to))
        others = [
            _version_spec(repository, name, spec.version) for name in _ensembles_beside(repository, spec)
        ]
        steps = {step for each in (spec, *others) for step in _steps(each)}
        parts = [_version_spec(repository, name, version) for name, version in sorted(steps)]
        for each in (*parts, *others, spec):
            config = staging / CONFIG_FILE
            config.write_bytes((repo / each.name / str(each.version) / CONFIG_FILE).read_bytes())
            replace_config(repo / each.name, config)
    return spec


def remove(repo: Path, model: str, version: int | None = None) -> None:
    """Remove a model, or one version that is not served.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        RepositoryError: no such version, it is the served one, or the model is a step of an ensemble.
    """
    repository = Repository(repo)
    repository.versions(model)
    with staging_folder(repo) as staging, locked(repo):
        target = _removable(repository, model, version)
        target.rename(staging / "removed")
        sync(target.parent)


def set_threshold(repo: Path, model: str, threshold: float) -> ModelSpec:
    """Give the served version of a model another threshold; its graph stays.

    A running server reads it when it starts again. Comments in its `config.pbtxt` are lost.

    Args:
        repo: the model repository.
        model: the model's name.
        threshold: a probability at or above it is foreground; of a model that finds objects, one counts from
            this score on.

    Returns:
        The contract that is served now.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        BadInputError: it is no probability, or the model has no such threshold.
        RepositoryError: the repository cannot be written to.
    """
    if not 0 <= threshold <= 1:
        raise BadInputError(f"threshold {threshold:g}: expected a probability, 0 to 1")
    from seg_runtime.model_config import with_threshold

    repository = Repository(repo)
    spec = repository.spec(model)
    if spec.task not in ("semantic", "instances") or (spec.task == "semantic" and len(spec.class_names) > 1):
        raise BadInputError(f"model '{model}' has no threshold of one class: it cannot be changed")
    name = "score_threshold" if spec.task == "instances" else "threshold"
    with staging_folder(repo) as staging, locked(repo):
        # The version's own, where it has one, first: a rollback to it returns to that.
        own = repo / model / str(repository.spec(model).version)
        for folder in (*([own] if (own / CONFIG_FILE).is_file() else []), repo / model):
            config = staging / CONFIG_FILE
            config.write_text(
                with_threshold(read_text(folder / CONFIG_FILE), threshold, name), encoding="utf-8"
            )
            replace_config(folder, config)
    return repository.spec(model)


def list_models(repo: Path) -> tuple[ModelListing, ...]:
    """All models of a repository, sorted by name; one that cannot be used says why.

    Raises:
        RepositoryError: there is no such repository.
    """
    repository = Repository(repo)
    return tuple(_listing(repository, name) for name in repository.models())


def _rollback_target(repository: Repository, model: str, to: int | None) -> int:
    if to is not None:
        return to
    served = repository.spec(model).version
    earlier = [version for version in repository.versions(model) if version < served]
    if not earlier:
        raise RepositoryError(f"model '{model}' has no version before {served}, which is served")
    return max(earlier)


def _removable(repository: Repository, model: str, version: int | None) -> Path:
    """The folder of a model, or of one of its versions when that is not served."""
    folder = repository.path / model
    if version is None:
        _require_no_step(repository, model, "remove that first")
        return folder
    versions = repository.versions(model)
    if version not in versions:
        raise _no_version(model, version, versions)
    if version == served_version(folder):
        raise RepositoryError(
            f"version {version} of model '{model}' is being served: roll back to another one first, "
            "or remove the whole model"
        )
    return folder / str(version)


def _ensembles_beside(repository: Repository, spec: ModelSpec) -> list[str]:
    """Names of the other ensembles that run a model which this one runs."""
    models = {name for name, _ in _steps(spec)}
    return [
        listing.name
        for listing in list_models(repository.path)
        if listing.spec
        and listing.name != spec.name
        and any(name in models for name, _ in _steps(listing.spec))
    ]


def _steps(spec: ModelSpec) -> set[tuple[str, int]]:
    return {(step.model, step.version) for step in spec.steps}


def _require_no_step(repository: Repository, model: str, instead: str) -> None:
    """Refuse to take a model away from the ensemble that runs it."""
    for listing in list_models(repository.path):
        if listing.spec and any(step.model == model for step in listing.spec.steps):
            raise RepositoryError(f"model '{model}' is a step of ensemble '{listing.name}': {instead}")


def _no_version(model: str, version: int, versions: tuple[int, ...]) -> RepositoryError:
    known = ", ".join(map(str, versions)) or "none"
    return RepositoryError(f"model '{model}' has no version {version}; on disk: {known}")


def _listing(repository: Repository, name: str) -> ModelListing:
    versions = repository.versions(name)
    try:
        spec = repository.spec(name)
    except RepositoryError as error:
        return ModelListing(name, versions, None, False, 0, str(error))
    folder = repository.path / name / str(spec.version)
    built = folder.is_dir() if spec.steps else (folder / GRAPH_FILE).is_file()
    problem = "" if built else f"version {spec.version} is not built: publish it with seg-export"
    try:
        check_steps(spec, repository.spec)
    except EdgesegError as error:
        problem = problem or str(error)
    return ModelListing(name, versions, spec, built, size_bytes(folder) if built else 0, problem)


def _version_spec(repository: Repository, model: str, version: int) -> ModelSpec:
    """The contract that a version was published with. Raises RepositoryError."""
    from seg_runtime.model_config import from_text

    versions = repository.versions(model)
    if version not in versions:
        raise _no_version(model, version, versions)
    folder = repository.path / model / str(version)
    try:
        spec = from_text(read_text(folder / CONFIG_FILE))
    except OSError as error:
        raise RepositoryError(
            f"version {version} of model '{model}' keeps no {CONFIG_FILE}: it was not published by "
            "seg-export and cannot be returned to"
        ) from error
    built = bool(spec.steps) or (folder / GRAPH_FILE).is_file()
    if (spec.name, spec.version) != (model, version) or not built:
        raise RepositoryError(f"'{folder}' is not a whole version {version} of model '{model}'")
    return spec
