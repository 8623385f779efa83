"""The fingerprint beside a TensorRT engine: what it was built from, with and for.

    triton_repo/unet_lung/3/model.onnx     the graph it was built from
    triton_repo/unet_lung/3/model.plan     the engine
    triton_repo/unet_lung/3/engine.json    the fingerprint

An engine runs with the TensorRT and on the kind of GPU that it was built with, and nowhere else. The
fingerprint tells so before TensorRT is asked, in one line with the command that builds another.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seg_runtime.engines.gpu import first_gpu
from seg_runtime.engines.tensorrt_api import Backend, installed_version, version_numbers
from seg_runtime.errors import RepositoryError
from seg_runtime.hashing import file_sha256
from seg_runtime.plain_files import parse_json, read_text
from seg_runtime.repository import GRAPH_FILE

__all__ = [
    "ENGINE_FILE",
    "FINGERPRINT_FILE",
    "EngineFingerprint",
    "Machine",
    "engine_fault",
    "graph_sha256",
    "mismatch",
    "read_fingerprint",
    "rebuild_command",
    "require_engine",
    "this_machine",
    "write_fingerprint",
]

ENGINE_FILE = "model.plan"
FINGERPRINT_FILE = "engine.json"


@dataclass(frozen=True)
class EngineFingerprint:
    """What an engine is bound to.

    Attributes:
        backend: "tensorrt" or "tensorrt-rtx".
        tensorrt_version: full version of the builder, for example "10.3.0.26".
        compute_capability: of the GPU, for example "8.7".
        device: the GPU's name.
        precision: of the graph: "fp32", "fp16" or "int8".
        graph_sha256: `graph_sha256` of the version folder.
        profile: smallest, best and largest shape of each input, batch axis included; empty for an
            engine without axes of any length.
        toolkit_version: edgeseg's version that built it.
    """

    backend: Backend
    tensorrt_version: str
    compute_capability: str
    device: str
    precision: str
    graph_sha256: str
    profile: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
    toolkit_version: str


@dataclass(frozen=True)
class Machine:
    """What decides here whether an engine runs.

    Attributes:
        compute_capability: of the first GPU; None without one.
        device: its name; "" without one.
        versions: installed version of each backend; one that is missing is not known and not compared.
    """

    compute_capability: str | None
    device: str
    versions: Mapping[Backend, str]


def this_machine() -> Machine:
    """Ask the driver and the installed TensorRT libraries."""
    gpu = first_gpu()
    backends: tuple[Backend, ...] = ("tensorrt", "tensorrt-rtx")
    found = {backend: installed_version(backend) for backend in backends} if gpu else {}
    versions = {backend: version for backend, version in found.items() if version}
    return Machine(gpu.compute_capability if gpu else None, gpu.name if gpu else "", versions)


def mismatch(fingerprint: EngineFingerprint, machine: Machine) -> str | None:
    """Why an engine cannot run on a machine, as the end of a sentence about it; None when it can."""
    if machine.compute_capability is None:
        return "needs an NVIDIA GPU and there is none here"
    if fingerprint.compute_capability != machine.compute_capability:
        return (
            f"was built for compute capability {fingerprint.compute_capability} ({fingerprint.device}) and "
            f"this GPU, {machine.device}, has {machine.compute_capability}"
        )
    # TensorRT for RTX compiles for the compute capability and tunes where it runs.
    if fingerprint.backend == "tensorrt" and fingerprint.device != machine.device:
        return f"was built for {fingerprint.device} and this GPU is {machine.device}"
    version = machine.versions.get(fingerprint.backend)
    if version is not None and not _same_version(fingerprint.tensorrt_version, version):
        return f"was built with {fingerprint.backend} {fingerprint.tensorrt_version} and {version} is here"
    return None


def engine_fault(folder: Path, machine: Machine) -> str | None:
    """Why the engine of a version folder cannot be used on a machine; None when it can.

    Reads the fingerprint and the graph beside the engine, which must still be the one it was built from.
    """
    if not (folder / ENGINE_FILE).is_file():
        return f"has no {ENGINE_FILE}"
    try:
        fingerprint = read_fingerprint(folder)
    except RepositoryError as error:
        return str(error)
    if (folder / GRAPH_FILE).is_file() and graph_sha256(folder) != fingerprint.graph_sha256:
        return f"has an engine of another graph than the {GRAPH_FILE} beside it"
    fault = mismatch(fingerprint, machine)
    return f"has an engine that {fault}" if fault else None


def require_engine(folder: Path, model: str, repo: Path, machine: Machine) -> EngineFingerprint:
    """The fingerprint of an engine that can be used on a machine.

    Args:
        folder: the version folder.
        model: the model's name, and `repo` its repository, for the command in the message.
        repo: see above.
        machine: from `this_machine()`.

    Raises:
        RepositoryError: stale, foreign or not whole; one line with the command that rebuilds it.
    """
    fault = engine_fault(folder, machine)
    if fault:
        raise RepositoryError(
            f"version {folder.name} of model '{model}' {fault}: run  {rebuild_command(model, repo)}"
        )
    return read_fingerprint(folder)


def rebuild_command(model: str, repo: Path | str) -> str:
    """The command that builds a model's engine for the machine it is run on."""
    return f"seg-export build {shlex.quote(model)} --repo {shlex.quote(str(repo))}"


def read_fingerprint(folder: Path) -> EngineFingerprint:
    """Read `engine.json`. Raises RepositoryError, its message the end of a sentence about the version."""
    try:
        values = parse_json(read_text(folder / FINGERPRINT_FILE))
        profile = {name: _shapes(shapes) for name, shapes in values.pop("profile").items()}
        return EngineFingerprint(**values, profile=profile)
    except FileNotFoundError as error:
        raise RepositoryError(f"has no {FINGERPRINT_FILE} beside its engine") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RepositoryError(f"has an {FINGERPRINT_FILE} that cannot be used ({error})") from error


def write_fingerprint(folder: Path, fingerprint: EngineFingerprint) -> None:
    """Write `engine.json`. Raises OSError."""
    text = json.dumps(asdict(fingerprint), indent=2)
    (folder / FINGERPRINT_FILE).write_text(text + "\n", encoding="utf-8")


def graph_sha256(folder: Path) -> str:
    """Hex SHA-256 of `model.onnx` followed by the files of weights beside it, in the order of their names."""
    return file_sha256(folder / GRAPH_FILE, *sorted(folder.glob(f"{GRAPH_FILE}.*")))


def _shapes(shapes: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    smallest, best, largest = (tuple(map(int, shape)) for shape in shapes)
    return smallest, best, largest


def _same_version(built: str, here: str) -> bool:
    """Equal as far as both are known: a library tells three numbers, a binding four."""
    first, second = version_numbers(built), version_numbers(here)
    known = min(len(first), len(second))
    return first[:known] == second[:known]
