"""The one place that chooses between TensorRT and TensorRT for RTX, which have the same Python API."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib
import re
from dataclasses import dataclass
from typing import Any, Literal

from seg_runtime.errors import EdgesegError, MissingExtraError

__all__ = ["MIN_TENSORRT", "Backend", "TensorRT", "installed_version", "load_tensorrt", "version_numbers"]

Backend = Literal["tensorrt", "tensorrt-rtx"]

MIN_TENSORRT = (10, 3)
"""JetPack 6.2's, the oldest whose strongly typed networks were tried."""

_MODULES: dict[Backend, tuple[str, ...]] = {
    "tensorrt": ("tensorrt",),
    # The first is NVIDIA's archive, the second the package on the registry.
    "tensorrt-rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}
_NAMES: dict[Backend, str] = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}


@dataclass(frozen=True)
class TensorRT:
    """An imported binding.

    Attributes:
        module: `tensorrt`, `tensorrt_rtx` or `tensorrt_rtx_bindings`.
        backend: which of the two products it is.
        version: for example "10.3.0.26".
    """

    module: Any
    backend: Backend
    version: str

    @property
    def name(self) -> str:
        """For people: "TensorRT 10.3.0" or "TensorRT for RTX 1.7.1.116"."""
        return f"{_NAMES[self.backend]} {self.version}"


def load_tensorrt(backend: Backend | None = None) -> TensorRT:
    """Import a binding.

    Args:
        backend: None for full TensorRT where it is installed, else TensorRT for RTX.

    Raises:
        MissingExtraError: not installed; names the extra.
        EdgesegError: installed, but its libraries do not load, or older than 10.3.
    """
    wanted: tuple[Backend, ...] = (backend,) if backend else ("tensorrt", "tensorrt-rtx")
    for each in wanted:
        module = _import(each)
        if module is not None:
            return _checked(TensorRT(module, each, str(module.__version__)))
    raise MissingExtraError(_NAMES[backend or "tensorrt-rtx"], backend or "tensorrt-rtx")


def installed_version(backend: Backend) -> str | None:
    """Version of the libraries that would run an engine; None when there are none.

    NVIDIA's Triton containers have TensorRT's libraries without its Python binding.
    """
    try:
        return load_tensorrt(backend).version
    except EdgesegError:
        return _library_version() if backend == "tensorrt" else None


def version_numbers(version: str) -> tuple[int, ...]:
    """(10, 3, 0) from "10.3.0.post1": the numbers that it begins with."""
    beginning = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in beginning[0].split(".")) if beginning else ()


def _import(backend: Backend) -> Any | None:
    for name in _MODULES[backend]:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, f"{name}_libs"):
                raise _broken(backend, error) from error
        except (ImportError, OSError) as error:
            raise _broken(backend, error) from error
        else:
            # An empty folder of this name imports as a namespace package.
            if hasattr(module, "__version__"):
                return module
    return None


def _broken(backend: Backend, error: Exception) -> EdgesegError:
    return EdgesegError(
        f"{_NAMES[backend]} is installed but does not load ({error}): install it again, or choose the other "
        "one with --backend"
    )


def _checked(tensorrt: TensorRT) -> TensorRT:
    if tensorrt.backend == "tensorrt" and version_numbers(tensorrt.version) < MIN_TENSORRT:
        wanted = ".".join(map(str, MIN_TENSORRT))
        raise EdgesegError(f"{tensorrt.name} is too old: install {wanted} or newer (JetPack 6.2 has 10.3)")
    return tensorrt


def _library_version() -> str | None:
    """What libnvinfer says of itself; `getInferLibVersion` is in every release's NvInferRuntime.h."""
    path = ctypes.util.find_library("nvinfer")
    if path is None:
        return None
    try:
        number = int(ctypes.CDLL(path).getInferLibVersion())
    except (OSError, AttributeError):
        return None
    # Since 10.0: major * 10000 + minor * 100 + patch.
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
