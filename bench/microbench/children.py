"""Runs the other half of a benchmark in a process of its own, with PyTorch's allocator tuned."""

from __future__ import annotations

import os
import subprocess
import sys

from seg_bench.baseline import TUNED_ALLOCATOR
from seg_runtime.errors import EdgesegError

__all__ = ["run_child"]


def run_child(module: str, *arguments: str, threads: int) -> str:
    """Run `python -m module arguments`; gives the last line that it prints, or nothing.

    Args:
        module: its full name.
        arguments: of the command line.
        threads: of every library in it that uses OpenMP.

    Raises:
        EdgesegError: it failed; says what it said last.
    """
    environment = {**os.environ, **TUNED_ALLOCATOR, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise EdgesegError(f"{module.rpartition('.')[2]} {' '.join(arguments[:3])} failed: {said[-1]}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
