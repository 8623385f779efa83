"""Follows the log of a server and finds the line in it that says what went wrong."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO

from seg_runtime.errors import ServerError

__all__ = ["LogReader", "log_reason"]

_KEPT_LINES = 500
# Triton begins a line with the severity and date, then source and line: E1103 10:00:00.1 42 a.cc:1] "..."
_ERROR_LINE = re.compile(r"^[EF]\d{4} [^\]]*\] (.*)$")
_TRITON_LINE = re.compile(r"[IWEF]\d{4} ")
_LOUD_AND_HARMLESS = re.compile(r"NVML|CUDA|Cuda|DCGM|cudaGet", re.IGNORECASE)
_PLAIN_ERROR = re.compile(r"error|failed|cannot|exception", re.IGNORECASE)


class LogReader:
    """Keeps the last lines that a process wrote, and copies all of them.

    Args:
        path: a file that the copy is added to, or None.
        to_stderr: also copy to stderr.

    Attributes:
        has_begun: whether Triton has written a line, which it does once it knows its arguments.

    Raises:
        ServerError: the file cannot be written.
    """

    def __init__(self, path: Path | None, to_stderr: bool) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._copy = _open(path) if path else None
        self._to_stderr = to_stderr
        self._thread: threading.Thread | None = None
        self.has_begun = False

    def follow(self, stream: IO[bytes]) -> None:
        """Read a stream to its end, in a thread, and close it."""
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def tail(self, lines: int) -> str:
        return "\n".join(list(self._lines)[-lines:])

    def reason(self) -> str:
        """The line that best says why the server failed; waits a moment for its last words."""
        if self._thread:
            self._thread.join(timeout=1.0)
        return log_reason(list(self._lines))

    def reason_for(self, model: str) -> str:
        """The last error that names a model, else the best line, from a server that still runs.

        What it wrote before it answered may be read a moment after the answer.
        """
        named = re.compile(rf"(?<!\w){re.escape(model)}(?!\w)")
        deadline = time.monotonic() + 1.0
        while True:
            lines = list(self._lines)
            found = [line for line in lines if _ERROR_LINE.match(line) and named.search(line)]
            if found or time.monotonic() > deadline:
                return log_reason(found or lines)
            time.sleep(0.05)

    def close(self) -> None:
        """Wait for the end of the log and close the file."""
        if self._thread:
            self._thread.join(timeout=5.0)
        if self._copy:
            self._copy.close()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                text = line.decode("utf-8", errors="replace").rstrip()
                self._lines.append(text)
                self.has_begun = self.has_begun or _TRITON_LINE.match(text) is not None
                if self._copy and not self._copy.closed:
                    self._copy.write(line)
                if self._to_stderr:
                    sys.stderr.write(text + "\n")


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise ServerError(f"cannot write the log to {path}: {error.strerror}; give another --log") from error


def log_reason(lines: list[str]) -> str:
    """The line that says most about a failure: the last error of Triton's, else any, else the last."""
    found = [match.group(1) for match in map(_ERROR_LINE.match, lines) if match]
    errors = [text for text in found if not _LOUD_AND_HARMLESS.search(text)]
    plain = [line for line in lines if _PLAIN_ERROR.search(line) and not _TRITON_LINE.match(line)]
    for candidates in (errors, plain, [line for line in lines if line.strip()]):
        if candidates:
            return " ".join(candidates[-1].strip().strip('"').split())
    return "it wrote no log"
