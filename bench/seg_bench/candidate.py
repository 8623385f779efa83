"""What is measured: one model in one place, and the session that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seg_runtime.session import Session

__all__ = ["PYTORCH", "Candidate", "open_session"]

PYTORCH = "PyTorch eager"


@dataclass(frozen=True)
class Candidate:
    """One row to measure.

    Attributes:
        model: the model's name.
        where: "in-process", "grpc", "http" or "shared-memory".
        runtime: "ONNX Runtime", "Triton" or `PYTORCH`.
        target: what `seg_runtime.connect` takes: a repository folder or a URL.
        data: folder with the images.
        samples: names of the samples to measure on, in order.
        threads: intra-op threads of an in-process candidate, or None for the runtime's own choice.
        checkpoint: file of the PyTorch baseline, else None.
        input_size_hw: the model's, for the baseline.
        max_batch_size: the model's, for the baseline.
    """

    model: str
    where: str
    runtime: str
    target: str
    data: str
    samples: tuple[str, ...]
    threads: int | None = None
    checkpoint: str | None = None
    input_size_hw: tuple[int, ...] = ()
    max_batch_size: int = 1

    @property
    def name(self) -> str:
        return f"{self.model}, {self.where}, {self.runtime}"


def open_session(candidate: Candidate) -> Session:
    """The session that runs a candidate; the caller closes it.

    Raises:
        EdgesegError: as `seg_runtime.connect` and `TorchSession` do.
    """
    if candidate.checkpoint is None:
        from seg_runtime import connect

        shared = None if candidate.where == "in-process" else candidate.where == "shared-memory"
        return connect(candidate.target, threads=candidate.threads, shared_memory=shared)
    from seg_bench.baseline import TorchSession

    height, width = candidate.input_size_hw
    return TorchSession(
        Path(candidate.checkpoint),
        candidate.model,
        (height, width),
        max_batch_size=candidate.max_batch_size,
        threads=candidate.threads,
    )
