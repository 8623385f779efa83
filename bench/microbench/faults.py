"""What `faults_server` and `faults_files` share: how tries ended, by kind; and where servers are tried."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from microbench.served import Served, serving
from seg_bench.machine import describe_machine, shown_text
from seg_bench.records import Machine
from seg_runtime.errors import InferenceError
from seg_runtime.server import ServerOptions
from seg_runtime.server.ports import choose_ports
from seg_runtime.session import Session

__all__ = ["FaultKind", "FaultsResult", "Outcome", "Place", "count_kind", "sum_up"]


@dataclass(frozen=True)
class Outcome:
    """How one try ended.

    Attributes:
        failure: what did not go as it should, in one line; empty when all did.
        seconds: until all was in order again, None where nothing took time.
        left: what was left open.
    """

    failure: str
    seconds: float | None = None
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class FaultKind:
    """All tries of one kind of fault.

    Attributes:
        kind: what was done, to whom.
        tried: how often.
        survived: how often all went as it should.
        left_open: processes, files, shared memory and sockets that were left, of all tries.
        seconds: until everything was in order again, for each try that survived and that takes time.
        failures: what did not go as it should, in one line each.
    """

    kind: str
    tried: int
    survived: int
    left_open: int
    seconds: tuple[float, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class FaultsResult:
    """All kinds, with what is needed to repeat it."""

    schema: str
    command: str
    machine: Machine
    tried: int
    survived: int
    left_open: int
    kinds: tuple[FaultKind, ...]


def count_kind(kind: str, outcomes: Sequence[Outcome]) -> FaultKind:
    """All tries of a kind, fit for a record.

    Example:
        >>> count_kind("killed", [Outcome("", 0.2), Outcome("still there", left=("process 7",))]).survived
        1
    """
    survived = [outcome for outcome in outcomes if not outcome.failure]
    return FaultKind(
        kind,
        len(outcomes),
        len(survived),
        sum(len(outcome.left) for outcome in outcomes),
        tuple(round(outcome.seconds, 2) for outcome in survived if outcome.seconds is not None),
        tuple(shown_text(outcome.failure) for outcome in outcomes if outcome.failure),
    )


def sum_up(schema: str, command: str, kinds: Sequence[FaultKind]) -> FaultsResult:
    """The record of all kinds, on this machine."""
    return FaultsResult(
        schema,
        command,
        describe_machine(),
        sum(kind.tried for kind in kinds),
        sum(kind.survived for kind in kinds),
        sum(kind.left_open for kind in kinds),
        tuple(kinds),
    )


class Place:
    """A repository of two models, three ports and a folder for temporary files.

    Args:
        folder: the repository is in `repo`.
    """

    MODELS: ClassVar[tuple[str, ...]] = ("scale", "other")

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.temporary = folder / "temporary"
        self._steady: AbstractContextManager[Served] | None = None
        self.image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1), dtype=np.uint8)
        self._expected: NDArray[np.float32] | None = None

    def __enter__(self) -> Place:
        self.temporary.mkdir()
        self.ports = choose_ports(ServerOptions(http_port=0, grpc_port=0, metrics_port=0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._steady:
            self._steady.__exit__(kind, error, trace)

    def serving(self, *options: str) -> AbstractContextManager[Served]:
        """A new server, with options of `seg-serve`, on the ports of this place."""
        return serving(self.repo, self.temporary, self.ports, *options)

    @property
    def grpc_url(self) -> str:
        """Of the server of `serving`."""
        return f"grpc://127.0.0.1:{self.ports[1]}"

    def steady_server(self) -> tuple[int, int, int]:
        """(HTTP, gRPC, metrics) ports of a server that runs to the end; it is started once."""
        if self._steady is None:
            self.steady_ports = choose_ports(ServerOptions(http_port=0, grpc_port=0, metrics_port=0))
            self._steady = serving(self.repo, self.temporary, self.steady_ports)
            self._steady.__enter__().wait_ready()
        return self.steady_ports

    def ask(self, session: Session) -> None:
        """One request. Raises InferenceError for a wrong answer, and whatever the session does."""
        answer = session.infer("scale", {"image": self.image})["probabilities"]
        if self._expected is None:
            from seg_runtime.connection import connect

            with connect(self.repo) as local:
                self._expected = local.infer("scale", {"image": self.image})["probabilities"]
        if not np.allclose(answer, self._expected, atol=1e-5):
            raise InferenceError("the answer is wrong")
