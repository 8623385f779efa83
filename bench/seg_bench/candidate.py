"""What is measured: one model in one place."""

from __future__ import annotations

from dataclasses import dataclass

from seg_bench.tracked import split_name
from seg_runtime.triton.access import ServerAccess

__all__ = ["BASELINES", "COMPILED", "ENGINE", "OFFICIAL_DECODER", "OFFICIAL_EXPORT", "PYTORCH", "Candidate"]

ENGINE = "engine"
PYTORCH = "PyTorch eager"
COMPILED = "PyTorch compiled, bf16"
OFFICIAL_DECODER = "ONNX Runtime (official decoder)"
OFFICIAL_EXPORT = "ONNX Runtime (official export)"
BASELINES = (PYTORCH, COMPILED, OFFICIAL_DECODER, OFFICIAL_EXPORT)
"""Runtimes of the rows that deployed models are compared with."""


@dataclass(frozen=True)
class Candidate:
    """One row to measure.

    Attributes:
        model: the model's name; for a SAM or SAM2, what the names of its models begin with, and for a tracked
            frame as `seg_bench.tracked.tracked_name` of that.
        where: "in-process", "grpc", "http" or "shared-memory".
        runtime: `ENGINE` (in process), "Triton", or one of `BASELINES`.
        target: what `seg_runtime.connect` takes: a repository folder or a URL.
        data: folder with the images.
        samples: names of the samples to measure on, in order.
        engine: "auto" or a key of `seg_runtime.engines.ENGINES` where `runtime` is `ENGINE`, else None.
        threads: intra-op threads of an in-process candidate, or None for the runtime's own choice.
        kind: "semantic", "instances", or "sam" and "sam2" (measured with prompts).
        checkpoint: file of the PyTorch baseline, else None.
        channels_last: NHWC memory order, for the PyTorch baseline.
        input_size_hw: the model's, for its PyTorch baseline; a SAM has its own.
        max_batch_size: likewise.
        contract: of the deployed model as the text of its config.pbtxt, for its PyTorch baseline; else empty.
        truth: as `RunOptions.truth`.
        official: folder of the original library's own export for that baseline, else None.
        batch: images per call.
        parts: on a server, names of the models that a call runs, the one that takes the image first.
        access: what gets into a server that was already there, else None.
    """

    model: str
    where: str
    runtime: str
    target: str
    data: str
    samples: tuple[str, ...]
    engine: str | None = None
    threads: int | None = None
    kind: str = "semantic"
    checkpoint: str | None = None
    channels_last: bool = False
    input_size_hw: tuple[int, ...] = ()
    max_batch_size: int = 1
    contract: str = ""
    truth: str | None = None
    official: str | None = None
    batch: int = 1
    parts: tuple[str, ...] = ()
    access: ServerAccess | None = None

    @property
    def memories(self) -> int:
        """That the tracked frame of a SAM2 attends to; 0 for all others."""
        return split_name(self.model)[1] if self.kind == "sam2" else 0

    @property
    def name(self) -> str:
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        return f"{self.model}, {self.where}, {self.engine or self.runtime}{batch}"
