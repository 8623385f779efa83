"""What tests share between processes and runs: traced graphs, TensorRT plans and published repositories.

Everything lies in `.artifacts/`, under a name that is a hash of all that it is made of: the sources and what
they import, the weights, and the version of every installed package. Nothing is ever out of date, and the
folder may be removed at any time (`make clean`).
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import inspect
import os
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dependencies import ROOT, fingerprint

STORE = ROOT / ".artifacts"
_LARGEST_GRAPH = 64 * 2**20
_UNUSED_DAYS = 7


def artifact(build: Callable[[Path], None]) -> Path:
    """The folder that `build` fills, made once; never write into it.

    Args:
        build: a function of a module in tests/; takes a new folder. Its module and what that imports are
            part of the name, so keep it in a module that holds little else.

    Raises:
        RuntimeError: a test wrote into the folder.
    """
    key = _key(build.__name__, fingerprint([Path(inspect.getfile(build))], data=True), *_versions())
    folder = STORE / "folders" / f"{build.__name__}-{key[:16]}"
    with _locked(folder):
        if not folder.exists():
            unfinished = folder.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            with shared_exports():
                build(unfinished)
            listing = folder.with_suffix(".list")
            listing.write_text(_listing(unfinished))
            unfinished.rename(folder)
        os.utime(folder)
    if folder.with_suffix(".list").read_text() != _listing(folder):
        shutil.rmtree(folder)
        raise RuntimeError(f"a test wrote into the shared folder {folder}: copy it first")
    return folder


@contextmanager
def shared_exports() -> Iterator[None]:
    """Within the block `torch.onnx.export` and TensorRT's builder answer from the store what they can."""
    import torch.onnx

    from seg_export.engines import build, check, network

    export, plan = torch.onnx.export, network.build_plan
    if export is _export:  # within another block
        yield
        return
    _ORIGINAL.export, _ORIGINAL.plan = export, plan
    torch.onnx.export, check.build_plan, build.build_plan = _export, _plan, _plan
    try:
        yield
    finally:
        torch.onnx.export, check.build_plan, build.build_plan = export, plan, plan


def remove_unused() -> None:
    """Remove what no test used for a week."""
    oldest = time.time() - _UNUSED_DAYS * 86400
    for path in STORE.glob("*/*"):
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


_ORIGINAL = SimpleNamespace(export=None, plan=None)


def _export(module: Any, args: Any = (), *more: Any, **options: Any) -> Any:
    """`torch.onnx.export`, whose graph is stored by the module's sources, attributes and weights."""
    key = None if more or not options.get("dynamo") else _trace_key(module, args, options)
    if key is None:
        return _ORIGINAL.export(module, args, *more, **options)
    import onnx
    from onnx_ir import serde

    path = STORE / "graphs" / f"{key}.onnx"
    with _locked(path):
        if not path.exists():
            program = _ORIGINAL.export(module, args, **options)
            if sum(value.const_value.nbytes for value in program.model.graph.initializers.values()) > (
                _LARGEST_GRAPH
            ):
                return program
            _write(path, program.model_proto.SerializeToString(deterministic=True))
        os.utime(path)
    return _Program(serde.deserialize_model(onnx.load(path)))


class _Program:
    """What the exporter uses of an `ONNXProgram`."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @property
    def model_proto(self) -> Any:
        from onnx_ir import serde

        return serde.serialize_model(self.model)


def _plan(graph: Any, profile: Any, **options: Any) -> Any:
    """`build_plan` for a named compute capability, whose plan or reason is stored by the graph's bytes."""
    capability = options.get("compute_capability")
    if capability is None or options.get("timing_cache") is not None or options.get("on_progress"):
        return _ORIGINAL.plan(graph, profile, **options)
    import numpy as np

    from seg_export.engines import network
    from seg_export.engines.reasons import BuildError

    files = sorted(graph.path.parent.glob(f"{graph.path.name}*"))
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    sources = fingerprint([Path(inspect.getfile(network))])
    path = STORE / "plans" / _key(*contents, repr(profile), capability, sources, *_versions())
    with _locked(path):
        if not path.exists():
            try:
                plan, _ = _ORIGINAL.plan(graph, profile, **options)
                _write(path, pickle.dumps(plan.nbytes))
            except BuildError as error:
                _write(path, pickle.dumps(str(error)))
        os.utime(path)
    found = pickle.loads(path.read_bytes())
    if isinstance(found, str):
        raise BuildError(found)
    return np.empty(found, np.uint8), None


def _trace_key(module: Any, args: Any, options: dict[str, Any]) -> str | None:
    """None for a module that cannot be pickled, such as one with a lambda, which is traced each time."""
    digest = hashlib.sha256()
    try:
        _Pickler(digest).dump((module, args, sorted(options.items())))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    files = {Path(sys.modules[type(each).__module__].__file__ or "") for each in module.modules()}
    ours = [path for path in files if path.is_relative_to(ROOT) and ".venv" not in path.parts]
    return _key(digest.hexdigest(), fingerprint(ours), *_versions())


class _Pickler(pickle.Pickler):
    """Pickles into a digest; tensors by their content, and sets in one order."""

    def __init__(self, digest: Any) -> None:
        super().__init__(SimpleNamespace(write=digest.update))  # type: ignore[arg-type]

    def reducer_override(self, value: Any) -> Any:
        import torch

        if isinstance(value, torch.Tensor):
            content = value.detach().contiguous().view(-1).view(torch.uint8).numpy()
            return str, (f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}",)
        if isinstance(value, (set, frozenset)):
            return list, (sorted(map(repr, value)),)
        return NotImplemented


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def _versions() -> tuple[str, ...]:
    """Of Python, and of every installed package but this one."""
    found = {f"{item.name} {item.version}" for item in importlib.metadata.distributions()}
    return (sys.version, *sorted(name for name in found if not name.startswith("edgeseg ")))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_bytes(content)
    unfinished.rename(path)


def _listing(folder: Path) -> str:
    """Names, sizes and times of all files."""
    stats = sorted((str(path.relative_to(folder)), path.stat()) for path in folder.rglob("*"))
    return "\n".join(
        f"{name} {stat.st_size if not Path(folder / name).is_dir() else ''} {stat.st_mtime_ns}"
        for name, stat in stats
    )
