"""The rows of a run while they are measured: each has a process of its own, and fails alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from seg_bench.baseline import TUNED_ALLOCATOR
from seg_bench.candidate import COMPILED, PYTORCH, Candidate
from seg_bench.machine import shown_text
from seg_bench.records import Accuracy, Agreement, Condition, Energy, Latency, LoadPoint, Throughput
from seg_bench.run.worker_process import WorkerProcess
from seg_runtime.boundary import known_error
from seg_runtime.errors import EdgesegError

__all__ = ["Progress", "Row", "failing_alone", "live_rows", "open_rows"]

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


@dataclass
class Row:
    """One candidate and what is known of it so far; each phase of a run fills in its fields.

    Attributes:
        candidate: what is measured.
        failure: one line once it broke off, and no later phase touches it.
        error: the error behind `failure`.
        calibration_ms: times of a fixed loop before each of its timed calls.
        warm_up: calls that were made before the first timed one.
        other fields: as those of `seg_bench.records.Record`.
    """

    candidate: Candidate
    engine: str | None = None
    load_ms: float | None = None
    first_call_ms: float | None = None
    latency: Latency | None = None
    noise: str | None = None
    warm_up: int = 0
    calibration_ms: tuple[float, ...] = ()
    peak_memory_mib: float | None = None
    energy: Energy | None = None
    device_memory_mib: float | None = None
    accuracy: Accuracy | None = None
    conditions: tuple[Condition, ...] | None = None
    loads: tuple[LoadPoint, ...] | None = None
    agreement: Agreement | None = None
    throughput: Throughput | None = None
    early: str | None = None
    failure: str | None = None
    error: EdgesegError | None = None
    _worker: WorkerProcess | None = None

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def measured(self) -> bool:
        """Whether there is anything to record."""
        return self.latency is not None or self.failure is not None

    @property
    def worker(self) -> WorkerProcess:
        """Its process. Raises EdgesegError before `open_rows` and after a failure to open."""
        if self._worker is None:
            raise EdgesegError(f"'{self.name}' has no process: it was not opened")
        return self._worker

    def open(self, stack: ExitStack) -> None:
        """Start its process, which ends with `stack`. Raises as `WorkerProcess`."""
        environment = TUNED_ALLOCATOR if self.candidate.runtime in (PYTORCH, COMPILED) else None
        self._worker = stack.enter_context(WorkerProcess(self.candidate, environment))
        self.engine, self.load_ms = self._worker.engine, self._worker.load_ms

    def call(self, number: int) -> dict[str, float]:
        """Make the call of this number, with the images whose turn it is; as `WorkerProcess.time`."""
        first, images = number * self.candidate.batch, len(self.candidate.samples)
        return self.worker.time([(first + place) % images for place in range(self.candidate.batch)])

    def fail(self, error: EdgesegError) -> None:
        self.failure, self.error = shown_text(str(error)), error


def open_rows(rows: Sequence[Row], stack: ExitStack, step: Progress) -> None:
    """Start the process of every row and make its first call; a model that cannot be loaded fails alone."""
    for number, row in enumerate(live_rows(rows).values()):
        step("loading models", number, len(rows))
        with failing_alone(row):
            row.open(stack)
            row.first_call_ms = row.call(0)["total"]


def live_rows(rows: Sequence[Row]) -> Mapping[str, Row]:
    """By name, those that have not failed."""
    return {row.name: row for row in rows if row.failure is None}


@contextmanager
def failing_alone(row: Row) -> Iterator[None]:
    """An error of the block is noted on its row and goes no further."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the other rows go on after whatever it is
        row.fail(known_error(error))
