"""Publishes versions of a model so that a reader or server never sees half of one.

A version folder is written and flushed in a staging folder and renamed into place; then the model's
`config.pbtxt`, which names the version that is served, is replaced by a rename. A process killed at
any moment leaves either the old state or the new one. Models that are published together are all written
and flushed before the first of them is renamed. Each version keeps the `config.pbtxt` it was
published with, which is what a rollback returns to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seg_export.publishing.staging import locked, repository_errors, sync, sync_tree
from seg_runtime.contract import check_contract
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.repository import CONFIG_FILE, Repository, version_folders
from seg_runtime.spec import ModelSpec, ServingSpec

__all__ = [
    "PublishedModel",
    "StagedModel",
    "check_model_name",
    "publish",
    "publish_together",
    "replace_config",
    "served_version",
    "size_bytes",
]


@dataclass(frozen=True)
class StagedModel:
    """What is to become a version.

    Attributes:
        spec: the contract; publishing sets its version.
        serving: how Triton runs it.
        folder: a folder inside one of `staging_folder(repo)` that holds `model.onnx` and whatever
            lies beside it, and nothing for an ensemble; it becomes the version folder.
        config: contents of an earlier version's `config.pbtxt`, whose settings it keeps; "" for a new
            one made of `spec` and `serving`.
    """

    spec: ModelSpec
    serving: ServingSpec
    folder: Path
    config: str = ""


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
    """`publish_together` for one model; `staged` is its folder."""
    (published,) = publish_together(repo, (StagedModel(spec, serving, staged),))
    return published


def publish_together(repo: Path, models: Sequence[StagedModel]) -> tuple[PublishedModel, ...]:
    """Make staged graphs the next version of their models and serve them.

    All get one number, one more than the highest that any of them has on disk.

    Args:
        repo: the model repository.
        models: an ensemble comes last, after the models of its steps.

    Raises:
        BadInputError: a model's name cannot be a folder.
        RepositoryError: the repository cannot be written to; what it served is served still.
    """
    from seg_runtime.model_config import republished, to_text

    for model in models:
        check_model_name(model.spec.name)
    with repository_errors(repo), locked(repo):
        specs = _numbered(repo, [model.spec for model in models])
        for spec in specs:
            _check(spec)
        for spec, model in zip(specs, models, strict=True):
            text = republished(model.config, spec) if model.config else to_text(spec, model.serving)
            (model.folder / CONFIG_FILE).write_text(text, encoding="utf-8")
            sync_tree(model.folder)
        for spec, model in zip(specs, models, strict=True):
            add = _add_version if (repo / spec.name).exists() else _add_model
            add(repo / spec.name, spec.version, model.folder)
    folders = [repo / spec.name / str(spec.version) for spec in specs]
    return tuple(
        PublishedModel(spec, folder, size_bytes(folder)) for spec, folder in zip(specs, folders, strict=True)
    )


def _check(spec: ModelSpec) -> None:
    """Refuse to publish what no client could follow. Raises BadInputError."""
    try:
        check_contract(spec)
    except ValueError as error:
        raise BadInputError(f"model '{spec.name}' cannot be published: {error}") from error


def _numbered(repo: Path, specs: Sequence[ModelSpec]) -> list[ModelSpec]:
    """The contracts with their next version: one number for all, so that it tells what belongs together."""
    version = 1 + max(number for spec in specs for number in (0, *_versions(repo / spec.name)))
    return [
        replace(spec, version=version, steps=tuple(replace(step, version=version) for step in spec.steps))
        for spec in specs
    ]


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
    return tuple(version_folders(model))


def served_version(model: Path) -> int | None:
    """The version that a model's configuration names; None without a usable one."""
    try:
        return Repository(model.parent).spec(model.name).version
    except RepositoryError:
        return None


def size_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
