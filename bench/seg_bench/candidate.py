"""What is measured: one model in one place."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BASELINES", "ENGINE", "OFFICIAL_DECODER", "PYTORCH", "Candidate"]

ENGINE = "engine"
PYTORCH = "PyTorch eager"
OFFICIAL_DECODER = "ONNX Runtime (official decoder)"
BASELINES = (PYTORCH, OFFICIAL_DECODER)
"""Runtimes of the rows that deployed models are compared with."""


@dataclass(frozen=True)
class Candidate:
    """One row to measure.

    Attributes:
        model: the model's name; for a SAM, what the names of its two models begin with.
        where: "in-process", "grpc", "http" or "shared-memory".
        runtime: `ENGINE` (in process), "Triton", `PYTORCH` or `OFFICIAL_DECODER`.
        target: what `seg_runtime.connect` takes: a repository folder or a URL.
        data: folder with the images.
        samples: names of the samples to measure on, in order.
        engine: "auto" or a key of `seg_runtime.engines.ENGINES` where `runtime` is `ENGINE`, else None.
        threads: intra-op threads of an in-process candidate, or None for the runtime's own choice.
        sam: whether the model is a SAM, measured with boxes.
        checkpoint: file of the PyTorch baseline, else None.
        channels_last: NHWC memory order, for the PyTorch baseline.
        input_size_hw: the model's, for the PyTorch baseline of a semantic model.
        max_batch_size: likewise.
        decoders: folder of segment_anything's exported decoders for that baseline, else None.
    """

    model: str
    where: str
    runtime: str
    target: str
    data: str
    samples: tuple[str, ...]
    engine: str | None = None
    threads: int | None = None
    sam: bool = False
    checkpoint: str | None = None
    channels_last: bool = False
    input_size_hw: tuple[int, ...] = ()
    max_batch_size: int = 1
    decoders: str | None = None

    @property
    def name(self) -> str:
        return f"{self.model}, {self.where}, {self.engine or self.runtime}"
