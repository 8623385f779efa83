"""The steering end of `seg_bench.run.worker`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.candidate import Candidate
from seg_bench.data.find import ShownSample, sample_to_json
from seg_bench.json_fields import from_json, to_json
from seg_bench.memory import peak_memory_mib
from seg_bench.metrics import ClassResult, Hd95Definition
from seg_bench.run.options import LoadLevel
from seg_runtime.errors import EdgesegError, InferenceError

__all__ = ["WorkerProcess"]

_CLOSE_TIMEOUT_S = 10


class WorkerProcess:
    """A candidate in a process of its own; close it, or use it in a `with` block.

    Args:
        candidate: what it runs.
        environment: variables to set for it, besides those of this process.

    Attributes:
        where: how tensors travel, as `Session.where`.
        engine: what computes, as `Session.engine` before the first call.
        load_ms: from nothing to a model that is ready, the start of the process apart.

    Raises:
        EdgesegError: the candidate cannot be opened; the message is the worker's.
        InferenceError: the worker died.
    """

    def __init__(self, candidate: Candidate, environment: Mapping[str, str] | None = None) -> None:
        self.candidate = candidate
        self._asked = False
        # A session of its own keeps the terminal's Ctrl-C from it: the parent decides when it ends.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "seg_bench.run.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        try:
            facts = self._ask(to_json(candidate))
        except BaseException:
            self.close()
            raise
        self.where, self.engine = str(facts["where"]), str(facts["engine"])
        self.load_ms = float(facts["load_ms"])

    @property
    def pid(self) -> int:
        return self._process.pid

    def engine_now(self) -> str:
        """What computes, as `Session.engine`; ONNX Runtime uses CUDA graphs after some calls only."""
        return str(self._ask({"do": "facts"})["engine"])

    def time(self, samples: Sequence[int]) -> dict[str, float]:
        """Milliseconds per stage of one call with the images of these numbers."""
        return self._ask({"do": "time", "samples": list(samples)})

    def mask(self, sample: int) -> NDArray[np.bool_]:
        """The mask of one image, (H, W) in its frame."""
        with TemporaryDirectory(prefix="seg-bench-") as folder:
            path = Path(folder) / "mask.npy"
            self._ask({"do": "mask", "sample": sample, "path": str(path)})
            return np.asarray(np.load(path), dtype=np.bool_)

    def score(
        self,
        sample: int,
        classes: int = 0,
        spacing_hw: tuple[float, float] | None = None,
        hd95: Hd95Definition = "directed",
    ) -> dict[str, float]:
        """Dice, IoU and HD95 of one image; for objects more, as `seg_bench.run.scoring.Scorer`."""
        return self._ask(
            {"do": "score", "sample": sample, "classes": classes, "spacing_hw": spacing_hw, "hd95": hd95}
        )

    def objects(self, limit: int) -> dict[str, float | None]:
        """Average precision over all images that were scored; `limit` objects of each count."""
        return self._ask({"do": "objects", "limit": limit})

    def classes(self) -> ClassResult | None:
        """As `seg_bench.run.scoring.Scorer.classes`."""
        found = self._ask({"do": "classes"})["classes"]
        return from_json(ClassResult, found) if found else None

    def load(self, level: LoadLevel) -> dict[str, Any]:
        """What came of a level of load, as `seg_bench.run.load_generator.Load`.

        Raises:
            KeyboardInterrupt: as ever; `end_load` then gives what there is.
        """
        return self._ask({"do": "load", **asdict(level)})

    def end_load(self) -> dict[str, Any] | None:
        """End a load that Ctrl-C broke off and wait for the calls in flight; as `load`, None for no load."""
        if not self._asked:
            return None
        self._process.send_signal(signal.SIGINT)
        return self._answer()

    def hold(self, calls: Sequence[Sequence[int]]) -> None:
        """Have the images of these calls read; `repeat` makes the calls."""
        self._ask({"do": "hold", "calls": [list(call) for call in calls]})

    def repeat(self, seconds: float) -> int:
        """Make those calls back to back for so many seconds, one at least; returns how many."""
        return int(self._ask({"do": "repeat", "seconds": seconds})["calls"])

    def dice(self, sample: ShownSample) -> float:
        """Dice of an image that need not be one of the candidate's, foreground against background."""
        return float(self._ask({"do": "dice", "sample": sample_to_json(sample)})["dice"])

    def peak_memory_mib(self) -> float | None:
        """Highest resident memory so far in MiB, or None when the system does not tell."""
        return peak_memory_mib(self.pid)

    def close(self) -> None:
        """End the process; calling it again does nothing."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # it died with a request unread
        try:
            process.wait(timeout=_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise InferenceError("the measuring process has no pipes: start it anew")
        self._asked = True
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise InferenceError(self._death()) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise InferenceError(self._death())
        self._asked = False
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EdgesegError(str(answer["error"]))
        return answer

    def _death(self) -> str:
        code = self._process.wait()
        cause = f"exit code {code}"
        if code < 0:
            cause = signal.Signals(-code).name
            cause += " (out of memory? measure fewer models at once)" if code == -signal.SIGKILL else ""
        return f"the process that measured '{self.candidate.name}' ended early: {cause}"
