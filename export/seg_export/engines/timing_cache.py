"""What TensorRT measured of its kernels on this GPU, kept from one build to the next."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

from seg_runtime.engines.engine_file import Machine
from seg_runtime.engines.tensorrt_api import TensorRT

__all__ = ["read_timing_cache", "timing_cache_path", "write_timing_cache"]


def timing_cache_path(tensorrt: TensorRT, machine: Machine) -> Path | None:
    """The file for a TensorRT and GPU; None for TensorRT for RTX, which has no such cache."""
    if tensorrt.backend != "tensorrt":
        return None
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg" / "timing"
    name = f"{tensorrt.version}-{machine.compute_capability}-{machine.device}"
    return folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', name)}.cache"


def read_timing_cache(path: Path) -> bytes:
    """What was kept; b"" when there is nothing that can be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def write_timing_cache(path: Path, content: bytes) -> None:
    """Replace the file as a whole. Where that fails the old one stays: losing it costs only time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            new = Path(file.name)
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)
