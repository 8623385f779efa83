"""Runs commands in processes that are forked from one with everything imported, within limits."""

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
"""Of processor time, its children's that it waited for included: others may be busy on the machine too."""

LIMIT_MB = 1024.0
"""More than a process has at its start."""

_IMPORTED = [
    "microbench.checkpoint_faults", "microbench.image_faults", "microbench.publish_faults",
    "microbench.repository_faults", "cv2", "gdcm", "networkx", "onnx", "onnxruntime", "onnxscript",
    "openvino", "pydicom", "safetensors.torch", "seg_bench.run.runner", "seg_export.checkpoints.checkpoint",
    "seg_export.engines.check", "seg_export.export", "seg_export.families.module.network",
    "seg_export.families.semantic.unet", "seg_runtime.files.segment", "seg_runtime.local_session",
    "seg_runtime.model_config", "seg_runtime.server", "segment_anything.modeling", "torch._inductor",
    "torch.export", "torch.onnx", "torchvision",
]  # fmt: skip
_DECODERS = re.compile(
    r"^(libpng (warning|error)|Corrupt JPEG data|Premature end of JPEG|Invalid SOS|Unsupported marker).*\n",
    re.MULTILINE,
)
_TICK_S = 0.005
_PATIENCE = 4
"""Times the limit that a process may take in all, which also ends those that wait for what does not come."""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: what it exited with; minus the signal's number when it was killed.
        printed: on stdout.
        said: on stderr.
        seconds: of processor time, as `LIMIT_S`.
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
        begins with "error: ". A graph that strays (3) shows its figures in front of that. What C libraries
        write when they decode damaged pixels is not counted.

        Example:
            >>> Ended(2, "", "error: no such file\\n", 0.1, 1.0).complaint
            ''
            >>> Ended(-11, "", "", 0.1, 1.0).complaint
            'killed by SIGSEGV'
        """
        lines = _DECODERS.sub("", self.said).strip().splitlines() or [""]
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
            limit_s: it is killed, with all processes that it started, when it computes for longer, or takes
                four times as long.
            kill_after_s: it kills itself (SIGKILL) after so many seconds, unless it ended before.
        """
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            work = (Path(folder), kill_after_s, function, arguments)
            process = self._context.Process(target=_work, args=work)
            process.start()
            seconds, memory_mb, over = self._watch(process, limit_s)
            with suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
            printed, said = (_text(Path(folder, name)) for name in ("stdout", "stderr"))
            return Ended(process.exitcode or 0, printed, said, seconds, memory_mb, over)

    def _watch(self, process: ForkServerProcess, limit_s: float) -> tuple[float, float, str]:
        """Wait for the end of a process: processor time, most memory in MiB, and the limit that it broke."""
        seconds, peak_mb, deadline = 0.0, 0.0, time.monotonic() + _PATIENCE * limit_s
        while process.is_alive():
            seconds = max(seconds, _processor_s(process.pid))
            peak_mb = max(peak_mb, _peak_mb(process.pid) - self._start_mb)
            if peak_mb > LIMIT_MB and self._start_mb:
                return seconds, peak_mb, f"over {LIMIT_MB:g} MiB"
            if seconds > limit_s:
                return seconds, peak_mb, f"over {limit_s:g} s"
            if time.monotonic() > deadline:
                return seconds, peak_mb, f"over {_PATIENCE * limit_s:g} s, waiting"
            process.join(_TICK_S)
        return seconds, peak_mb, ""


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


def _processor_s(pid: int | None) -> float:
    """Processor time of a process and its children so far, in s; 0 for one that has ended."""
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


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
