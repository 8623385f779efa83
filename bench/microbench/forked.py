"""Runs commands in processes forked from one that has imported everything, within limits of time and memory."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from seg_bench.cli import main as seg_bench
from seg_export.cli.main import main as seg_export
from seg_runtime.cli.run import main as seg_run

__all__ = ["LIMIT_MB", "LIMIT_S", "PROGRAMS", "Ended", "Forked"]

PROGRAMS: dict[str, Callable[[], None]] = {
    "seg-export": seg_export,
    "seg-run": seg_run,
    "seg-bench": seg_bench,
}

LIMIT_S = 5.0
LIMIT_MB = 1024.0
"""More than a process has at its start."""

_IMPORTED = """
microbench.forked cv2 gdcm onnx onnxruntime onnxscript openvino pydicom safetensors.torch torch.onnx torchvision
monai.networks.nets networkx segment_anything.modeling torch._inductor torch.export seg_bench.run.runner
seg_export.checkpoints.checkpoint seg_export.engines.check seg_export.export seg_export.families.module.network
seg_export.families.semantic.unet seg_runtime.files.segment seg_runtime.local_session seg_runtime.model_config
seg_runtime.server
""".split()
_TICK_S = 0.005


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: what it exited with; minus the signal's number when it was killed.
        printed: on stdout.
        said: on stderr.
        seconds: from the fork to its end.
        memory_mb: the most that it held at once beyond what it began with, in MiB.
        over: the limit that it was killed for, such as "over 5 s"; or "".
    """

    code: int
    printed: str
    said: str
    seconds: float
    memory_mb: float
    over: str = ""

    @property
    def complaint(self) -> str:
        """What no command should do, whatever it is given, in one line; "" for an orderly end.

        Orderly is an exit code of 0, or another one with two lines on stderr at most, of which the last
        begins with "error: ". A graph that strays (3) shows its figures in front of that.

        Example:
            >>> Ended(2, "", "error: no such file\\n", 0.1, 1.0).complaint
            ''
            >>> Ended(-11, "", "", 0.1, 1.0).complaint
            'killed by SIGSEGV'
        """
        lines = self.said.strip().splitlines() or [""]
        if self.over:
            return self.over
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        if "Traceback (most recent call last)" in self.said:
            return f"traceback: {lines[-1]}"
        if self.code == 0:
            return ""
        if not lines[-1].startswith("error: "):
            return f"exit code {self.code} without an error: {lines[-1]}"
        return f"{len(lines)} lines: {lines[0]}" if len(lines) > 2 and self.code != 3 else ""


class Forked:
    """Forks processes from one that has imported all that commands need, and waits for them.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload(_IMPORTED)
        self._start_mb = 0.0
        # The first waits for the imports.
        self._start_mb = self.call(_do_nothing, limit_s=600.0).memory_mb

    def command(self, program: str, *arguments: object, limit_s: float = LIMIT_S) -> Ended:
        """Run one of `PROGRAMS` with arguments of its command line."""
        return self.call(_command, program, [str(each) for each in arguments], limit_s=limit_s)

    def call(
        self,
        function: Callable[..., None],
        *arguments: Any,
        limit_s: float = LIMIT_S,
        kill_after_s: float | None = None,
    ) -> Ended:
        """Run a function that can be pickled.

        Args:
            function: takes `arguments`.
            limit_s: it is killed, with all processes that it started, when it takes longer.
            kill_after_s: it kills itself (SIGKILL) after so many seconds, unless it ended before.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            work = (Path(folder), kill_after_s, function, arguments)
            process = self._context.Process(target=_work, args=work)
            begin = time.monotonic()
            process.start()
            memory_mb, over = self._watch(process, begin + limit_s)
            seconds = time.monotonic() - begin
            with suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            printed, said = (_text(Path(folder, name)) for name in ("stdout", "stderr"))
            over = f"over {limit_s:g} s" if over == "time" else over
            return Ended(process.exitcode or 0, printed, said, seconds, memory_mb, over)

    def _watch(self, process: ForkServerProcess, deadline: float) -> tuple[float, str]:
        """Wait for the end of a process; its most memory in MiB and the limit that it broke."""
        peak = 0.0
        while process.is_alive():
            peak = max(peak, _peak_mb(process.pid) - self._start_mb)
            if peak > LIMIT_MB and self._start_mb:
                return peak, f"over {LIMIT_MB:g} MiB"
            if time.monotonic() > deadline:
                return peak, "time"
            process.join(_TICK_S)
        return peak, ""


def _work(folder: Path, kill_after_s: float | None, function: Callable[..., None], arguments: Any) -> None:
    """In the forked process."""
    os.setsid()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with (folder / name).open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    if kill_after_s is not None:
        threading.Thread(target=_kill, args=(kill_after_s,), daemon=True).start()
    function(*arguments)


def _kill(after_s: float) -> None:
    time.sleep(after_s)
    os.kill(os.getpid(), signal.SIGKILL)


def _command(program: str, arguments: list[str]) -> None:
    sys.argv = [program, *arguments]
    PROGRAMS[program]()


def _do_nothing() -> None:
    # Long enough for its memory to be seen.
    time.sleep(0.1)


def _peak_mb(pid: int | None) -> float:
    """The most memory that a process held so far; 0 for one that has ended."""
    with suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def _text(path: Path) -> str:
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
