"""Compiles graphs ahead of time for GPUs that are not there, with TensorRT for RTX."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seg_export.engines.network import (
    OnProgress,
    ParsedGraph,
    build_plan,
    known_capabilities,
    naming,
    parse_graph,
)
from seg_export.engines.profiles import profile_of
from seg_export.engines.reasons import BuildError
from seg_runtime.boundary import attempt
from seg_runtime.engines.tensorrt_api import TensorRT, load_tensorrt
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec

__all__ = ["CAPABILITIES", "CheckedGraph", "check_graphs", "parse_capabilities", "require_built"]

CAPABILITIES = ("75", "80", "86", "89", "120")
"""Turing, data-centre Ampere, Ampere, Ada and Blackwell."""


@dataclass(frozen=True)
class CheckedGraph:
    """One graph compiled for one compute capability.

    Attributes:
        model: its name in the repository, or the path of its file.
        precision: as its contract says; "" for a file outside a repository.
        compute_capability: digits such as "86".
        built: whether TensorRT made an engine.
        seconds: of the build, parsing apart.
        size_bytes: of the engine; 0 when there is none.
        layers: of the network that the parser made; 0 when it made none.
        reason: why not, or "".
    """

    model: str
    precision: str
    compute_capability: str
    built: bool
    seconds: float
    size_bytes: int
    layers: int
    reason: str


@dataclass(frozen=True)
class _Graph:
    name: str
    path: Path
    spec: ModelSpec | None


def check_graphs(
    models: Sequence[str],
    repo: Path,
    capabilities: Sequence[str] = CAPABILITIES,
    *,
    on_progress: OnProgress | None = None,
) -> tuple[CheckedGraph, ...]:
    """Compile graphs for each compute capability, one after the other.

    Args:
        models: names in the repository, or paths that end in ".onnx"; none for every built model.
        repo: the model repository; need not exist when only files are named.
        capabilities: digits such as "86".
        on_progress: as for `build_plan`, with the graph and capability before each phase.

    Raises:
        BadInputError: a compute capability that is not known, or a file that is missing.
        RepositoryError: no repository, or nothing in it to check.
        ModelNotFoundError: no such model; names the nearest.
        MissingExtraError: TensorRT for RTX is not installed.
    """
    tensorrt = load_tensorrt("tensorrt-rtx")
    known = known_capabilities(tensorrt)
    for each in capabilities:
        if each not in known:
            raise BadInputError(
                f"compute capability '{each}' is not one that {tensorrt.name} builds for: "
                f"choose from {', '.join(known)}"
            )
    results: list[CheckedGraph] = []
    for graph in _graphs(models, repo):
        results += _check(tensorrt, graph, capabilities, on_progress)
    return tuple(results)


def parse_capabilities(text: str) -> tuple[str, ...]:
    """("75", "86") from "75,86" or "7.5,8.6". Raises BadInputError when there is none."""
    capabilities = tuple(part.strip().replace(".", "") for part in text.split(",") if part.strip())
    if not capabilities:
        raise BadInputError("--compute-capability names none: give one or more, for example 86,89")
    return tuple(dict.fromkeys(capabilities))


def require_built(results: Sequence[CheckedGraph]) -> None:
    """Raise BuildError, which names the first failure, unless every graph was built."""
    failed = [result for result in results if not result.built]
    if failed:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise BuildError(
            f"'{first.model}' cannot be built for compute capability {first.compute_capability}: "
            f"{first.reason}{more}"
        )


def _graphs(models: Sequence[str], repo: Path) -> list[_Graph]:
    files = [name for name in models if name.endswith(".onnx")]
    for name in files:
        if not Path(name).is_file():
            raise BadInputError(f"there is no file '{name}': name an ONNX file or a model of the repository")
    named = [name for name in models if not name.endswith(".onnx")]
    graphs = [_Graph(name, Path(name), None) for name in files]
    if models and not named:
        return graphs
    repository = Repository(repo)
    graphs += [_graph(repository, name) for name in named]
    graphs += [] if named else _built_graphs(repository)
    if not graphs:
        raise RepositoryError(f"repository '{repo}' has no graph to check: publish one with seg-export")
    return graphs


def _graph(repository: Repository, name: str) -> _Graph:
    return _Graph(name, repository.graph_path(name), repository.spec(name))


def _built_graphs(repository: Repository) -> list[_Graph]:
    """Those of all models of ours that have one; a model that nobody named is in nobody's way."""
    single = [spec.name for spec in repository.readable_specs() if not spec.steps]
    found = [attempt(partial(_graph, repository, name)) for name in filter(repository.versions, single)]
    return [graph for graph in found if isinstance(graph, _Graph)]


def _check(
    tensorrt: TensorRT, graph: _Graph, capabilities: Sequence[str], on_progress: OnProgress | None
) -> list[CheckedGraph]:
    precision = graph.spec.precision if graph.spec else ""
    try:
        parsed = parse_graph(tensorrt, graph.path)
    except BuildError as error:
        return [
            CheckedGraph(graph.name, precision, each, False, 0.0, 0, 0, str(error)) for each in capabilities
        ]
    return [_build(parsed, graph, precision, each, on_progress) for each in capabilities]


def _build(
    parsed: ParsedGraph, graph: _Graph, precision: str, capability: str, on_progress: OnProgress | None
) -> CheckedGraph:
    size, reason, begin = 0, "", time.perf_counter()
    try:
        plan, _ = build_plan(
            parsed,
            profile_of(parsed, graph.spec),
            compute_capability=capability,
            on_progress=naming(on_progress, f"{graph.name} for {capability}"),
        )
        size = plan.nbytes
    except BuildError as error:
        reason = str(error)
    seconds = time.perf_counter() - begin
    return CheckedGraph(graph.name, precision, capability, not reason, seconds, size, parsed.layers, reason)
