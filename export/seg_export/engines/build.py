"""Builds engines of published graphs on the machine that runs them; publishes those that prove right."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from seg_export.engines.groups import groups_to_build, partner_of
from seg_export.engines.network import (
    OnProgress,
    Profile,
    build_plan,
    known_capabilities,
    naming,
    parse_graph,
)
from seg_export.engines.parity import EngineRunner, engine_parity
from seg_export.engines.profiles import profile_of
from seg_export.engines.reasons import BuildError
from seg_export.engines.timing_cache import read_timing_cache, timing_cache_path, write_timing_cache
from seg_export.publishing.publish import StagedModel, publish_together
from seg_export.publishing.staging import staging_folder
from seg_export.verification.comparison import VerificationReport, require_parity
from seg_runtime.engines.engine_file import (
    ENGINE_FILE,
    EngineFingerprint,
    Machine,
    engine_fault,
    graph_sha256,
    read_fingerprint,
    this_machine,
    write_fingerprint,
)
from seg_runtime.engines.tensorrt_api import Backend, TensorRT, load_tensorrt
from seg_runtime.errors import EdgesegError, RepositoryError
from seg_runtime.repository import CONFIG_FILE, GRAPH_FILE, Repository
from seg_runtime.spec import ModelSpec, ServingSpec

__all__ = ["BuiltEngine", "OpenEngine", "build_engines"]

OpenEngine = Callable[[Path, ModelSpec, Backend], EngineRunner]
"""Opens an engine file on the device."""


@dataclass(frozen=True)
class BuiltEngine:
    """A model whose engine is served now.

    Attributes:
        model: its name.
        version: the version that is served.
        fresh: whether its engine was there already; nothing was built then.
        fingerprint: what the engine is bound to.
        size_bytes: of the engine.
        seconds: of the build; 0 when it was fresh.
        report: the engine against its graph; None when it was fresh.
    """

    model: str
    version: int
    fresh: bool
    fingerprint: EngineFingerprint
    size_bytes: int
    seconds: float = 0.0
    report: VerificationReport | None = None


@dataclass(frozen=True)
class _Staged:
    model: StagedModel
    engine: BuiltEngine | None


def build_engines(
    repo: Path,
    models: Sequence[str] = (),
    *,
    backend: Backend | None = None,
    force: bool = False,
    machine: Machine | None = None,
    open_engine: OpenEngine | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[BuiltEngine, ...]:
    """Build, verify and publish an engine for each model; models of an ensemble all together.

    An engine becomes the model's next version, with the graph beside it, and keeps the settings of the
    version that was served. What is there already and fits this machine is left as it is.

    Args:
        repo: the model repository.
        models: names; none for every built model. One of an ensemble brings the others along.
        backend: None for full TensorRT where it is installed, else TensorRT for RTX.
        force: build also what is there already.
        machine: what to build for; None asks this machine.
        open_engine: runs an engine for its verification; None for the runtime's own way.
        on_progress: as for `build_plan`, with the model's name before each phase.

    Returns:
        One entry per model that has a graph.

    Raises:
        EdgesegError: no GPU, or one that TensorRT for RTX does not build for.
        MissingExtraError: TensorRT, cuda-bindings or ONNX Runtime is not installed.
        ModelNotFoundError, RepositoryError: as `groups_to_build`, or the repository cannot be written to.
        BuildError: TensorRT refuses a graph; its group is not published.
        ParityError: an engine strays from its graph; its group is not published.
    """
    machine = machine or this_machine()
    if machine.compute_capability is None:
        raise EdgesegError(
            "no NVIDIA GPU here: engines are built on the machine that runs them; "
            "`seg-export check` needs none"
        )
    tensorrt = load_tensorrt(backend)
    repository = Repository(repo)
    builder = _Builder(
        tensorrt,
        repository,
        machine,
        open_engine or _open_engine,
        on_progress,
    )
    return tuple(
        engine for group in groups_to_build(repository, models) for engine in builder.build(group, force)
    )


class _Builder:
    """What all groups of one call share."""

    def __init__(
        self,
        tensorrt: TensorRT,
        repository: Repository,
        machine: Machine,
        open_engine: OpenEngine,
        on_progress: OnProgress | None,
    ) -> None:
        self._tensorrt, self._repository, self._machine = tensorrt, repository, machine
        self._open_engine, self._on_progress = open_engine, on_progress
        self._capability = _forced_capability(tensorrt, machine)

    def build(self, group: Sequence[ModelSpec], force: bool) -> list[BuiltEngine]:
        fresh = [self._fresh(spec) for spec in group if not spec.steps]
        if not force and all(fresh):
            return [engine for engine in fresh if engine]
        with staging_folder(self._repository.path) as staging:
            staged = [self._stage(spec, staging / spec.name) for spec in group]
            self._require_unchanged(group)
            published = publish_together(self._repository.path, [each.model for each in staged])
        return [
            replace(each.engine, version=done.spec.version)
            for each, done in zip(staged, published, strict=True)
            if each.engine
        ]

    def _fresh(self, spec: ModelSpec) -> BuiltEngine | None:
        """The engine that is served, when it is what would be built."""
        folder = self._repository.path / spec.name / str(spec.version)
        if spec.backend != "tensorrt" or engine_fault(folder, self._machine):
            return None
        fingerprint = read_fingerprint(folder)
        if fingerprint.backend != self._tensorrt.backend:
            return None
        size = (folder / ENGINE_FILE).stat().st_size
        return BuiltEngine(spec.name, spec.version, True, fingerprint, size)

    def _stage(self, spec: ModelSpec, folder: Path) -> _Staged:
        source = self._repository.path / spec.name
        config = (source / CONFIG_FILE).read_text(encoding="utf-8")
        folder.mkdir()
        if spec.steps:
            return _Staged(StagedModel(spec, ServingSpec(), folder, config), None)
        _bring_graph(source / str(spec.version), folder)
        begin = time.perf_counter()
        profile = self._write_engine(spec, folder)
        seconds = time.perf_counter() - begin
        fingerprint = self._fingerprint(spec, folder, profile)
        write_fingerprint(folder, fingerprint)
        report = self._verify(spec, folder)
        size = (folder / ENGINE_FILE).stat().st_size
        return _Staged(
            StagedModel(replace(spec, backend="tensorrt"), ServingSpec(), folder, config),
            BuiltEngine(spec.name, spec.version, False, fingerprint, size, seconds, report),
        )

    def _write_engine(self, spec: ModelSpec, folder: Path) -> Profile:
        cache = timing_cache_path(self._tensorrt, self._machine)
        try:
            graph = parse_graph(self._tensorrt, folder / GRAPH_FILE)
            profile = profile_of(graph, spec)
            plan, measured = build_plan(
                graph,
                profile,
                compute_capability=self._capability,
                timing_cache=read_timing_cache(cache) if cache else None,
                on_progress=naming(self._on_progress, spec.name),
            )
        except BuildError as error:
            raise BuildError(f"{self._tensorrt.name} cannot build model '{spec.name}': {error}") from error
        (folder / ENGINE_FILE).write_bytes(plan)
        if cache and measured is not None:
            write_timing_cache(cache, measured)
        return profile

    def _fingerprint(self, spec: ModelSpec, folder: Path, profile: Profile) -> EngineFingerprint:
        return EngineFingerprint(
            backend=self._tensorrt.backend,
            tensorrt_version=self._tensorrt.version,
            compute_capability=self._machine.compute_capability or "",
            device=self._machine.device,
            precision=spec.precision,
            graph_sha256=graph_sha256(folder),
            profile=profile,
            toolkit_version=version("edgeseg"),
        )

    def _verify(self, spec: ModelSpec, folder: Path) -> VerificationReport:
        if self._on_progress:
            self._on_progress(f"{spec.name}: verifying", 0, 1)
        engine = self._open_engine(folder / ENGINE_FILE, spec, self._tensorrt.backend)
        report = engine_parity(spec, folder / GRAPH_FILE, engine, partner_of(self._repository, spec))
        require_parity(report)
        return report

    def _require_unchanged(self, group: Sequence[ModelSpec]) -> None:
        """An engine of an older graph must not become the newest version."""
        for spec in group:
            if self._repository.spec(spec.name).version != spec.version:
                raise RepositoryError(
                    f"model '{spec.name}' was published anew while its engine was being built: build it again"
                )


def _open_engine(path: Path, spec: ModelSpec, backend: Backend) -> EngineRunner:
    from seg_runtime.engines.tensorrt_engine import open_engine

    return open_engine(path, spec, backend)


def _forced_capability(tensorrt: TensorRT, machine: Machine) -> str | None:
    """TensorRT for RTX is told what to build for, full TensorRT finds it on the device."""
    if tensorrt.backend == "tensorrt":
        return None
    digits = (machine.compute_capability or "").replace(".", "")
    known = known_capabilities(tensorrt)
    if digits not in known:
        raise EdgesegError(
            f"{tensorrt.name} does not build for {machine.device} (compute capability "
            f"{machine.compute_capability}; it knows {', '.join(known)}): use full TensorRT there"
        )
    return digits


def _bring_graph(source: Path, folder: Path) -> None:
    """The graph and its weights, which take no second room on the disk where the file system can share."""
    for file in [source / GRAPH_FILE, *source.glob(f"{GRAPH_FILE}.*")]:
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copyfile(file, folder / file.name)
