"""Publishes versions of a model so that a reader or server never sees half of one.

A version folder is written and flushed in a staging folder and renamed into place; then the model's
`config.pbtxt`, which names the version that is served, is replaced by a rename. A process killed at
any moment leaves either the old state or the new one. Each version keeps the `config.pbtxt` it was
published with, which is what a rollback returns to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from seg_export.staging import locked, repository_errors, sync, sync_tree
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.repository import CONFIG_FILE, Repository
from seg_runtime.spec import ModelSpec, ServingSpec

__all__ = [
    "GRAPH_FILE",
    "PublishedModel",
    "check_model_name",
    "publish",
    "replace_config",
    "served_version",
    "size_bytes",
]

GRAPH_FILE = "model.onnx"


@dataclass(frozen=True)
class PublishedModel:
    """A version that is now served.

    Attributes:
        spec: its contract, with the version it was given.
        folder: the version folder.
        size_bytes: size of everything in it.
    """

    spec: ModelSpec
    folder: Path
    size_bytes: int


def check_model_name(name: str) -> str:
    """Return a name that is safe as a folder and for Triton. Raises BadInputError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise BadInputError(
            f"'{name}' cannot be a model's name: use letters, digits, '_', '.' and '-', "
            "beginning with a letter or digit"
        )
    return name


def publish(repo: Path, spec: ModelSpec, serving: ServingSpec, staged: Path) -> PublishedModel:
    """Make a staged graph the next version of its model and serve it.

    Args:
        repo: the model repository.
        spec: the contract; its version is set here, to one more than the highest on disk.
        serving: how Triton runs it.
        staged: a folder inside one of `staging_folder(repo)` that holds `model.onnx` and whatever
            lies beside it; it becomes the version folder.

    Raises:
        BadInputError: the model's name cannot be a folder.
        RepositoryError: the repository cannot be written to; what it served is served still.
    """
    from seg_runtime.model_config import to_text

    model = repo / check_model_name(spec.name)
    with repository_errors(repo), locked(repo):
        version = max(_versions(model), default=0) + 1
        spec = replace(spec, version=version)
        (staged / CONFIG_FILE).write_text(to_text(spec, serving), encoding="utf-8")
        sync_tree(staged)
        if model.exists():
            _add_version(model, version, staged)
        else:
            _add_model(model, version, staged)
    folder = model / str(version)
    return PublishedModel(spec, folder, size_bytes(folder))


def _add_model(model: Path, version: int, staged: Path) -> None:
    """A model's first version: its whole folder appears at once."""
    new = staged.parent / f"{staged.name}.model"
    new.mkdir()
    (new / CONFIG_FILE).write_bytes((staged / CONFIG_FILE).read_bytes())
    staged.rename(new / str(version))
    sync(new / CONFIG_FILE)
    sync(new)
    new.rename(model)
    sync(model.parent)


def _add_version(model: Path, version: int, staged: Path) -> None:
    config = staged.parent / f"{staged.name}.{CONFIG_FILE}"
    config.write_bytes((staged / CONFIG_FILE).read_bytes())
    # A configuration without its version (as committed to version control) names the very version
    # that is being added: it must not be taken for the new graph's contract, not even for a moment.
    if served_version(model) == version:
        replace_config(model, config)
        staged.rename(model / str(version))
    else:
        staged.rename(model / str(version))
        sync(model)
        replace_config(model, config)
    sync(model)


def replace_config(model: Path, config: Path) -> None:
    """The one step that makes another version current."""
    sync(config)
    config.replace(model / CONFIG_FILE)
    sync(model)


def _versions(model: Path) -> tuple[int, ...]:
    if not model.is_dir():
        return ()
    return tuple(int(entry.name) for entry in model.iterdir() if entry.is_dir() and entry.name.isdigit())


def served_version(model: Path) -> int | None:
    """The version that a model's configuration names; None without a usable one."""
    try:
        return Repository(model.parent).spec(model.name).version
    except RepositoryError:
        return None


def size_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
