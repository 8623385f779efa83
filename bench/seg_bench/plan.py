"""Decides what a run measures: which images, which models, which checkpoints, in which places."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seg_bench.candidate import PYTORCH, Candidate
from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.splits import load_split, montgomery_split, select
from seg_bench.options import RunOptions
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_runtime.server import TritonServer

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    Attributes:
        samples: names of the images, in order.
        split: name of the split and part they are from, or None for the whole folder.
        specs: contracts of the models, by name.
        graph_sha256: of the graphs that are at hand, by model.
        checkpoints: files of the PyTorch baselines, by model.
    """

    samples: tuple[str, ...]
    split: str | None
    specs: Mapping[str, ModelSpec]
    graph_sha256: Mapping[str, str]
    checkpoints: Mapping[str, Path]

    def trained(self, candidate: Candidate) -> bool:
        return self.specs[candidate.model].weights != "random"

    def candidates(self, options: RunOptions, server: TritonServer | None) -> list[Candidate]:
        """The rows of the table, baselines first."""
        data = str(options.data)
        found = [
            Candidate(
                model=name,
                where="in-process",
                runtime=PYTORCH,
                target="",
                data=data,
                samples=self.samples,
                threads=options.threads,
                checkpoint=str(path),
                input_size_hw=self.specs[name].input_size_hw,
                max_batch_size=max(1, self.specs[name].max_batch_size),
            )
            for name, path in self.checkpoints.items()
        ]
        for name in self.specs:
            for place in options.where:
                runtime = "ONNX Runtime" if place == "in-process" else "Triton"
                target = _target(place, options, server)
                threads = options.threads if place == "in-process" else None
                found.append(Candidate(name, place, runtime, target, data, self.samples, threads))
        return found


def make_plan(options: RunOptions) -> Plan:
    """Look at the data, the models and the checkpoints, and refuse what cannot be measured.

    Raises:
        BadInputError: no images, no models, or no checkpoint for a baseline.
        RepositoryError: the repository is missing or a named model is not built.
        ServerError: the server of `options.url` cannot be reached.
    """
    samples, split = _samples(options)
    if options.url and "in-process" not in options.where:
        specs = _remote_specs(options)
        graphs: dict[str, str] = {}
    else:
        specs = _local_specs(options)
        repository = Repository(options.repo)
        graphs = {name: _sha256(repository.graph_path(name)) for name in specs}
    return Plan(samples, split, specs, graphs, _checkpoints(options, specs))


def _target(place: str, options: RunOptions, server: TritonServer | None) -> str:
    if place == "in-process":
        return str(options.repo)
    if server is None:
        return options.url or ""
    return server.http_url if place == "http" else server.grpc_url


def _samples(options: RunOptions) -> tuple[tuple[str, ...], str | None]:
    samples = load_montgomery(options.data)
    split_name = None
    if options.part:
        split = load_split(options.split_file) if options.split_file else montgomery_split()
        samples = select(samples, getattr(split, options.part))
        split_name = f"{split.data_set}, {options.part}"
    return tuple(sample.name for sample in samples)[: options.limit], split_name


def _local_specs(options: RunOptions) -> dict[str, ModelSpec]:
    repository = Repository(options.repo)
    if options.models:
        for name in options.models:
            repository.graph_path(name)  # raises when it is unknown or not built
        return _semantic({name: repository.spec(name) for name in options.models}, named=True)
    specs = {name: repository.spec(name) for name in repository.models() if _is_built(repository, name)}
    if not specs:
        raise RepositoryError(f"repository '{options.repo}' has no built model: publish one with seg-export")
    return _semantic(specs, named=False)


def _is_built(repository: Repository, name: str) -> bool:
    return repository.spec(name).version in repository.versions(name)


def _remote_specs(options: RunOptions) -> dict[str, ModelSpec]:
    from seg_runtime import connect

    with connect(options.url or "") as session:
        names = options.models or session.models()
        return _semantic({name: session.spec(name) for name in names}, named=bool(options.models))


def _semantic(specs: dict[str, ModelSpec], *, named: bool) -> dict[str, ModelSpec]:
    other = [name for name, spec in specs.items() if spec.task != "semantic"]
    if other and named:
        task = specs[other[0]].task
        raise BadInputError(f"model '{other[0]}' is for '{task}': seg-bench run measures semantic models")
    chosen = {name: spec for name, spec in specs.items() if spec.task == "semantic"}
    if not chosen:
        raise BadInputError("no semantic model to measure: publish one with seg-export")
    return chosen


def _checkpoints(options: RunOptions, specs: Mapping[str, ModelSpec]) -> dict[str, Path]:
    if not options.baseline:
        return {}
    from seg_bench.baseline import find_checkpoint

    found: dict[str, Path] = {}
    for name, spec in specs.items():
        path = find_checkpoint(spec.checkpoint_sha256, options.checkpoint)
        # Models of one checkpoint (other precisions) share one baseline.
        if path is not None and path not in found.values():
            found[name] = path
    if not found:
        raise BadInputError(
            f"no checkpoint of {', '.join(specs)} for the PyTorch baseline: "
            "pass the file that it was exported from as --checkpoint"
        )
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
