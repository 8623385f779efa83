"""Finds a Triton server and gives it the backends that it needs.

`tritonserver` on PATH (NVIDIA's containers and Jetson) comes first, then the one inside the
nvidia-pytriton wheel. One that has no `onnxruntime` backend of its own gets the python-based one
of this package, so that the same repository loads everywhere.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seg_runtime.errors import MissingExtraError, ServerError

__all__ = ["ServerProgram", "find_server", "libpython_folder", "prepare_backends", "server_environment"]

OWN_BACKEND = Path(__file__).parent / "backends" / "onnxruntime"
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class ServerProgram:
    """A Triton server on this machine.

    Attributes:
        executable: the `tritonserver` program.
        root: its installation: `backends/` and `caches/` lie in it.
        own_backend: whether it needs the python-based `onnxruntime` backend of this package.
        bundled: whether it is the one of the nvidia-pytriton wheel.
    """

    executable: Path
    root: Path
    own_backend: bool
    bundled: bool


def find_server() -> ServerProgram:
    """The server to use.

    Raises:
        MissingExtraError: there is none, or ONNX Runtime for our backend is missing.
        ServerError: the one of the wheel cannot run with this Python or NumPy.
    """
    executable = shutil.which("tritonserver")
    if executable:
        return _installed_server(Path(executable))
    package = importlib.util.find_spec("pytriton")
    if package is None or not package.submodule_search_locations:
        if sys.version_info >= (3, 13):
            raise ServerError(
                "`tritonserver` is not on PATH, and nvidia-pytriton has none for this Python: "
                "use Python 3.10 to 3.12 or NVIDIA's Triton container"
            )
        raise MissingExtraError("`tritonserver` is not on PATH and nvidia-pytriton", "server")
    return _bundled_server(Path(package.submodule_search_locations[0]) / "tritonserver")


def _installed_server(executable: Path) -> ServerProgram:
    root = executable.resolve().parent.parent
    if not (root / "backends").is_dir():
        root = Path("/opt/tritonserver")
    backends = root / "backends"
    own = (backends / "python").is_dir() and not (backends / "onnxruntime").is_dir()
    return ServerProgram(executable, root, own, bundled=False)


def _bundled_server(root: Path) -> ServerProgram:
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError("onnxruntime", "server")
    version = importlib.metadata.version("numpy")
    if int(version.split(".")[0]) >= 2:
        raise ServerError(
            f"the server of nvidia-pytriton corrupts tensors of NumPy {version}: run  pip install 'numpy<2'"
        )
    if not _stub(root).is_file():
        raise ServerError(
            f"nvidia-pytriton has no python backend for Python {_python_version()}: "
            "use another Python or NVIDIA's Triton container"
        )
    return ServerProgram(root / "bin" / "tritonserver", root, own_backend=True, bundled=True)


def prepare_backends(program: ServerProgram, folder: Path) -> list[str]:
    """Lay out the backends in an empty folder.

    Returns:
        Flags for the server: none when it has all it needs.

    Raises:
        ServerError: the python backend needs a libpython that this machine does not have.
    """
    arguments = []
    if (program.root / "caches").is_dir():
        arguments.append(f"--cache-directory={program.root / 'caches'}")
    if program.bundled:
        # The bundled server is used without a GPU, where there is nothing to pin memory for.
        arguments.append("--pinned-memory-pool-byte-size=0")
    if not program.own_backend:
        return arguments
    backends = folder / "backends"
    backends.mkdir()
    for source in (program.root / "backends").iterdir():
        if source.name != "python":
            (backends / source.name).symlink_to(source)
    _copy_files(program.root / "backends" / "python", backends / "python")
    _copy_files(OWN_BACKEND, backends / "onnxruntime")
    if program.bundled:
        _copy_files(_stub(program.root).parent, backends / "python")
        library = libpython_folder() / _libpython_name()
        (folder / "lib").mkdir()
        (folder / "lib" / library.name).symlink_to(library)
    return [*arguments, f"--backend-directory={backends}"]


def server_environment(
    program: ServerProgram, folder: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """Environment for the server, with the folder that `prepare_backends` filled."""
    result = dict(environment)
    if program.bundled:
        wheel_libraries = program.root.parent.parent / "nvidia_pytriton.libs"
        paths = (str(folder / "lib"), str(wheel_libraries), result.get("LD_LIBRARY_PATH", ""))
        result["LD_LIBRARY_PATH"] = ":".join(path for path in paths if path)
        # The stub asks the first `python3` on PATH where the packages are.
        python_folder = str(Path(sys.executable).parent)
        result["PATH"] = ":".join(path for path in (python_folder, result.get("PATH", "")) if path)
    return result


def libpython_folder() -> Path:
    """The folder of `libpython3.X.so.1.0` of the running Python's version.

    Raises:
        ServerError: there is none; says what to install.
    """
    name = _libpython_name()
    configured = sysconfig.get_config_var("LIBDIR")
    own = (Path(configured) if configured else None, Path(sys.base_prefix) / "lib")
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    system = (Path("/usr/lib") / triplet, Path("/lib") / triplet, Path("/usr/lib64"), Path("/usr/local/lib"))
    for folder in (*own, *system):
        if folder and (folder / name).is_file():
            return folder
    found = _loader_path(name)
    if found:
        return found.parent
    raise ServerError(
        f"the server needs {name}, which this Python does not bring: run  apt-get install "
        f"libpython{_python_version()}  or use a Python built with --enable-shared"
    )


def _loader_path(name: str) -> Path | None:
    """Where the system's loader finds a library, as its cache tells."""
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if not program:
        return None
    answer = subprocess.run([program, "-p"], capture_output=True, text=True, check=False)
    for line in answer.stdout.splitlines():
        library, _, path = line.strip().partition(" => ")
        if library.split(" ")[0] == name and Path(path).is_file():
            return Path(path)
    return None


def _copy_files(source: Path, folder: Path) -> None:
    """Copies, because the server refuses a backend whose library is a link out of its folder."""
    folder.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_file():
            shutil.copyfile(entry, folder / entry.name)
            if entry.name == _STUB:
                (folder / entry.name).chmod(0o755)


def _stub(root: Path) -> Path:
    return root / "python_backend_stubs" / _python_version() / _STUB


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _libpython_name() -> str:
    return f"libpython{_python_version()}.so.1.0"
