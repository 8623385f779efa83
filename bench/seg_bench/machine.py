"""Describes the machine a run was measured on, without host names or paths."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from seg_bench.records import Machine

__all__ = ["describe_machine", "shown_command", "shown_text"]

_PACKAGES = (
    "edgeseg",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "opencv-python-headless",
    "torch",
    "sam2",
    "tritonclient",
    "nvidia-pytriton",
    "tensorrt",
)
_PATH_OR_URL = re.compile(r"\b[a-z]+://[^\s'\",;]*[^\s'\",;:.]|(?<![\w.~/:])/[^\s'\",:;]+")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", None)


def describe_machine() -> Machine:
    """Processor, memory, system, GPUs and versions of this machine."""
    return Machine(
        cpu=_cpu_name(),
        cores=_cores(),
        memory_gb=_memory_gb(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages=_versions(_PACKAGES),
        gpu=_gpu_names(),
    )


def shown_command(arguments: Sequence[str]) -> str:
    """A command line fit for a record.

    Paths that are absolute or leave the folder keep their last part; other hosts and passwords are hidden.
    """
    program, *others = arguments
    return shlex.join([Path(program).name, *map(_shown_argument, others)])


def shown_text(text: str) -> str:
    """A message fit for a record: one line, paths and hosts as in `shown_command`."""
    return " ".join(_PATH_OR_URL.sub(lambda found: _shown_argument(found[0]), text).split())


def _shown_argument(argument: str) -> str:
    option, separator, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if "://" in value:
        url = urlsplit(value)
        host = (url.hostname or "") if url.hostname in _LOCAL_HOSTS else "SERVER"
        value = f"{url.scheme}://{host}" + (f":{url.port}" if url.port else "")
    elif Path(value).is_absolute() or Path(value).parts[:1] in (("..",), ("~",)):
        value = Path(value).name
    return f"{option}{separator}{value}"


def _cpu_name() -> str:
    board = Path("/proc/device-tree/model")  # Jetson and other ARM boards name themselves here
    if board.is_file():
        return board.read_text(encoding="utf-8").strip("\x00 \n")
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _versions(packages: Sequence[str]) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _gpu_names() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    names = [line.strip() for line in answer.splitlines() if line.strip()]
    return "; ".join(names) or None
