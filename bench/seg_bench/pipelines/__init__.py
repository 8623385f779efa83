"""What a row of the table runs, from an image file to its mask: one class for each way there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg_bench.candidate import PYTORCH, Candidate
from seg_bench.data.samples import Sample
from seg_runtime.session import Session

__all__ = ["Outcome", "Pipeline", "open_pipeline"]


@dataclass(frozen=True)
class Outcome:
    """What one call gave.

    Attributes:
        masks: one per image, (H, W) bool in its frame.
        spent_ms: milliseconds per stage, as `seg_bench.records.Latency` names them.
    """

    masks: Sequence[NDArray[np.bool_]]
    spent_ms: Mapping[str, float]


class Pipeline(Protocol):
    """A model with everything around it, run as its users run it.

    Attributes:
        where: how tensors travel, as `Session.where`.
        engine: what computes the model, as `Session.engine`.
    """

    where: str
    engine: str

    def load(self, sample: Sample) -> Any:
        """Read what one call needs of a sample; not timed."""

    def run(self, inputs: Sequence[Any]) -> Outcome:
        """One call with what `load` gave for one or several samples."""


@contextmanager
def open_pipeline(candidate: Candidate) -> Iterator[Pipeline]:
    """Load the model of a candidate, and free it at the end.

    Raises:
        EdgesegError: as `seg_runtime.connect` and the pipelines do.
    """
    if candidate.sam and candidate.runtime == PYTORCH:
        from seg_bench.pipelines.sam_torch import TorchSamPipeline

        yield TorchSamPipeline(
            Path(candidate.checkpoint or ""), candidate.threads, channels_last=candidate.channels_last
        )
        return
    with _open_session(candidate) as session:
        if candidate.decoders is not None:
            from seg_bench.pipelines.sam_official import OfficialDecoderPipeline

            decoders = Path(candidate.decoders)
            with OfficialDecoderPipeline(session, candidate.model, decoders, candidate.threads) as official:
                yield official
        elif candidate.sam:
            from seg_bench.pipelines.sam import SamPipeline

            with SamPipeline(session, candidate.model) as sam:
                yield sam
        else:
            from seg_bench.pipelines.semantic import SemanticPipeline

            yield SemanticPipeline(session, candidate.model)


def _open_session(candidate: Candidate) -> Session:
    if candidate.checkpoint is None:
        from seg_runtime import connect

        shared = None if candidate.where == "in-process" else candidate.where == "shared-memory"
        engine = candidate.engine or "auto"
        return connect(candidate.target, threads=candidate.threads, shared_memory=shared, engine=engine)
    from seg_bench.baseline import TorchSession

    height, width = candidate.input_size_hw
    return TorchSession(
        Path(candidate.checkpoint),
        candidate.model,
        (height, width),
        max_batch_size=candidate.max_batch_size,
        threads=candidate.threads,
        channels_last=candidate.channels_last,
    )
