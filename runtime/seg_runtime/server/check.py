"""Looks at a model repository before a server does, so that a mistake is one line and not a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_runtime.engines.engine_file import ENGINE_FILE, engine_fault, rebuild_command, this_machine
from seg_runtime.ensemble import check_steps
from seg_runtime.errors import EdgesegError, RepositoryError
from seg_runtime.plain_files import read_text
from seg_runtime.repository import CONFIG_FILE, GRAPH_FILE, Repository, model_not_found
from seg_runtime.server.check_sam2 import sam2_faults

__all__ = ["RepositoryCheck", "check_repository", "require_servable", "with_steps"]

_FILES = {"onnxruntime": GRAPH_FILE, "tensorrt": ENGINE_FILE}


@dataclass(frozen=True)
class RepositoryCheck:
    """What a server would find.

    Attributes:
        servable: models whose served versions are complete.
        not_built: models with a configuration and no version folder, as in a fresh checkout.
        problems: one line for each fault of the other models, naming the model, and of models that make no
            SAM2 together.
        response_cache: whether a servable model asks for the server's response cache.
    """

    servable: tuple[str, ...]
    not_built: tuple[str, ...]
    problems: tuple[str, ...]
    response_cache: bool


def check_repository(path: str | Path, models: Sequence[str] = ()) -> RepositoryCheck:
    """Check the named models, or all of them.

    Raises:
        RepositoryError: the repository is not a folder.
        ModelNotFoundError: a named model is not in it.
    """
    repository = Repository(path)
    known = repository.models()
    for model in models:
        if model not in known:
            raise model_not_found(model, known, f"in '{repository.path}'")
    servable, not_built, problems = [], [], []
    for model in sorted(models) or known:
        faults = _faults(repository, model)
        if faults:
            problems += [f"model '{model}': {fault}" for fault in faults]
        elif repository.versions(model):
            servable.append(model)
        else:
            not_built.append(model)
    # First, as they say why the ensembles of a SAM2 are broken as well.
    problems = [*sam2_faults(repository, servable), *problems]
    cache = any(_asks_for_cache(repository, model) for model in servable)
    return RepositoryCheck(tuple(servable), tuple(not_built), tuple(problems), cache)


def require_servable(path: str | Path, models: Sequence[str] = ()) -> RepositoryCheck:
    """Like `check_repository`, for a repository that has something to serve and no broken model.

    Raises:
        RepositoryError: a broken model (the first fault and how many more), nothing to serve, or a
            model that was named is not built.
        ModelNotFoundError: a named model is not in the repository.
    """
    found = check_repository(path, models)
    if found.problems:
        more = len(found.problems) - 1
        raise RepositoryError(found.problems[0] + (f" (and {more} more)" if more else ""))
    if models and found.not_built:
        raise RepositoryError(f"model '{found.not_built[0]}' is not built: publish it with seg-export")
    if not found.servable:
        waiting = f"; not built yet: {', '.join(found.not_built)}" if found.not_built else ""
        raise RepositoryError(
            f"repository '{path}' has no model to serve: publish one with seg-export{waiting}"
        )
    return found


def with_steps(path: str | Path, models: Sequence[str]) -> tuple[str, ...]:
    """Models and those that their ensembles' steps need, each once. Raises RepositoryError."""
    found: dict[str, None] = {}
    waiting = list(models)
    while waiting:
        model = waiting.pop()
        if model not in found:
            found[model] = None
            config = _parse(Path(path) / model / CONFIG_FILE)
            waiting += [step.model_name for step in config.ensemble_scheduling.step]
    return tuple(sorted(found))


def _faults(repository: Repository, model: str) -> list[str]:
    versions = repository.versions(model)
    try:
        config = _parse(repository.path / model / CONFIG_FILE)
    except RepositoryError as error:
        return [str(error)]
    if config.name not in ("", model):
        return [f"{CONFIG_FILE} names it '{config.name}': rename the folder or the model"]
    if not versions:
        return []
    filename = config.default_model_filename or _FILES.get(config.backend, "")
    faults = []
    for version in _served(config, versions):
        fault = _version_fault(repository.path / model / str(version), filename)
        if fault:
            faults.append(f"version {version} {fault}: publish it again with seg-export, or roll back")
        elif filename == ENGINE_FILE:
            faults += _engine_faults(repository, model, version)
    return faults + _step_faults(repository, config)


def _engine_faults(repository: Repository, model: str, version: int) -> list[str]:
    fault = engine_fault(repository.path / model / str(version), this_machine())
    command = rebuild_command(model, repository.path)
    return [f"version {version} {fault}: run  {command} , or roll back"] if fault else []


def _step_faults(repository: Repository, config: Any) -> list[str]:
    """What is wrong with the models of an ensemble, which a server loads with it."""
    from seg_runtime.model_config import from_config

    if not config.HasField("ensemble_scheduling"):
        return []
    faults = []
    try:
        # An ensemble made by hand has no contract to keep.
        if "task" in config.parameters:
            check_steps(from_config(config), repository.spec)
        for step in config.ensemble_scheduling.step:
            found = _faults(repository, step.model_name)
            if not repository.versions(step.model_name):
                found = ["it is not built: publish it with seg-export"]
            faults += [f"step '{step.model_name}': {fault}" for fault in found]
    except EdgesegError as error:
        return [str(error)]
    return faults


def _asks_for_cache(repository: Repository, model: str) -> bool:
    config = _parse(repository.path / model / CONFIG_FILE)
    steps = (step.model_name for step in config.ensemble_scheduling.step)
    return config.response_cache.enable or any(_asks_for_cache(repository, step) for step in steps)


def _parse(path: Path) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(read_text(path), model_config_pb2.ModelConfig())
    except (text_format.ParseError, RecursionError) as error:
        raise RepositoryError(f"{path} cannot be parsed: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{path} cannot be read: {error}") from error


def _served(config: Any, versions: tuple[int, ...]) -> tuple[int, ...]:
    """The versions that Triton loads; a missing policy means the highest one."""
    policy = config.version_policy
    if policy.WhichOneof("policy_choice") == "specific":
        return tuple(policy.specific.versions)
    if policy.WhichOneof("policy_choice") == "all":
        return versions
    return versions[-(policy.latest.num_versions or 1) :]


def _version_fault(folder: Path, filename: str) -> str:
    if not folder.is_dir():
        return "is served but its folder is missing"
    path = folder / filename
    if filename and not path.is_file():
        return f"has no {filename}"
    if filename and path.stat().st_size == 0:
        return f"has an empty {filename}"
    return ""
