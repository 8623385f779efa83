"""What is in a model repository: listing models, serving an earlier version, removing what is not needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seg_export.publish import GRAPH_FILE, replace_config, served_version, size_bytes
from seg_export.staging import locked, staging_folder, sync
from seg_runtime.errors import RepositoryError
from seg_runtime.repository import CONFIG_FILE, Repository
from seg_runtime.spec import ModelSpec

__all__ = ["ModelListing", "list_models", "remove", "rollback"]


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


def rollback(repo: Path, model: str, to: int | None = None) -> ModelSpec:
    """Serve another version that is still on disk.

    Args:
        repo: the model repository.
        model: the model's name.
        to: the version; None for the one before the served one.

    Returns:
        The contract of the version that is served now.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        RepositoryError: no such version, or it was not published by seg-export.
    """
    repository = Repository(repo)
    repository.versions(model)
    with staging_folder(repo) as staging, locked(repo):
        to = _rollback_target(repository, model, to)
        folder = repo / model / str(to)
        spec = _version_spec(folder, model, to)
        config = staging / CONFIG_FILE
        config.write_bytes((folder / CONFIG_FILE).read_bytes())
        replace_config(repo / model, config)
    return spec


def remove(repo: Path, model: str, version: int | None = None) -> None:
    """Remove a model, or one version that is not served.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        RepositoryError: no such version, or it is the served one.
    """
    repository = Repository(repo)
    repository.versions(model)
    with staging_folder(repo) as staging, locked(repo):
        target = _removable(repository, model, version)
        target.rename(staging / "removed")
        sync(target.parent)


def list_models(repo: Path) -> tuple[ModelListing, ...]:
    """All models of a repository, sorted by name; one that cannot be used says why.

    Raises:
        RepositoryError: there is no such repository.
    """
    repository = Repository(repo)
    return tuple(_listing(repository, name) for name in repository.models())


def _rollback_target(repository: Repository, model: str, to: int | None) -> int:
    versions = repository.versions(model)
    if to is None:
        served = repository.spec(model).version
        earlier = [version for version in versions if version < served]
        if not earlier:
            raise RepositoryError(f"model '{model}' has no version before {served}, which is served")
        return max(earlier)
    if to not in versions:
        raise _no_version(model, to, versions)
    return to


def _removable(repository: Repository, model: str, version: int | None) -> Path:
    """The folder of a model, or of one of its versions when that is not served."""
    folder = repository.path / model
    if version is None:
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
    built = (folder / GRAPH_FILE).is_file()
    problem = "" if built else f"version {spec.version} is not built: publish it with seg-export"
    return ModelListing(name, versions, spec, built, size_bytes(folder) if built else 0, problem)


def _version_spec(folder: Path, model: str, version: int) -> ModelSpec:
    """The contract that a version folder was published with. Raises RepositoryError."""
    from seg_runtime.model_config import from_text

    try:
        spec = from_text((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise RepositoryError(
            f"version {version} of model '{model}' keeps no {CONFIG_FILE}: it was not published by "
            "seg-export and cannot be returned to"
        ) from error
    if (spec.name, spec.version) != (model, version) or not (folder / GRAPH_FILE).is_file():
        raise RepositoryError(f"'{folder}' is not a whole version {version} of model '{model}'")
    return spec
