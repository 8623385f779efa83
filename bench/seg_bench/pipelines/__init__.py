"""What a row of the table runs, from an image file to its mask: one class for each way there is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg_bench.candidate import COMPILED, PYTORCH, Candidate
from seg_bench.data.find import ShownSample
from seg_runtime.model_config import from_text
from seg_runtime.session import Session

__all__ = ["SURE", "Objects", "Outcome", "Pipeline", "open_pipeline", "pipeline_of_thread"]

_DEPLOYED = {
    "semantic": ("semantic", "SemanticPipeline"),
    "instances": ("instances", "InstancesPipeline"),
    "sam": ("sam", "SamPipeline"),
    "sam2": ("sam2", "Sam2Pipeline"),
    "tracked": ("sam2_video", "Sam2VideoPipeline"),
}
"""Module and class of what runs a published model, which takes a session and a name; by kind."""

_ORIGINAL = {
    "instances": ("instances_torch", "TorchInstancesPipeline"),
    "sam": ("sam_torch", "TorchSamPipeline"),
    "sam2": ("sam2_torch", "TorchSam2Pipeline"),
    "tracked": ("sam2_torch", "TorchSam2VideoPipeline"),
}
"""Of what runs a checkpoint with the original library alone, which takes a candidate."""


SURE = 0.5
"""Score from which an object counts where a yes or no is wanted, unless the contract has another."""


@dataclass(frozen=True)
class Objects:
    """The objects that were found in one image, the best first.

    Attributes:
        scores: (N,) float32 in 0..1.
        labels: (N,) int32, from 1 on.
        masks: (N, H, W) bool in the image's frame.
    """

    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    masks: NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """What one call gave.

    Attributes:
        masks: one per image, (H, W) bool in its frame.
        spent_ms: milliseconds per stage, as `seg_bench.records.Latency` names them.
        objects: one per image where a model finds objects, else empty.
        classes: one per image where a model has several classes, (H, W) uint8 of class ids; else empty.
        sure: score from which an object is in its mask and in the number of them.
    """

    masks: Sequence[NDArray[np.bool_]]
    spent_ms: Mapping[str, float]
    objects: Sequence[Objects] = ()
    classes: Sequence[NDArray[np.uint8]] = ()
    sure: float = SURE


class Pipeline(Protocol):
    """A model with everything around it, run as its users run it.

    Attributes:
        where: how tensors travel, as `Session.where`.
        engine: what computes the model, as `Session.engine`.
    """

    where: str

    @property
    def engine(self) -> str: ...

    def load(self, sample: ShownSample) -> Any:
        """Read what one call needs of a sample; not timed."""

    def run(self, inputs: Sequence[Any]) -> Outcome:
        """One call with what `load` gave for one or several samples."""


@contextmanager
def open_pipeline(candidate: Candidate) -> Iterator[Pipeline]:
    """Load the model of a candidate, and free it at the end.

    Raises:
        EdgesegError: as `seg_runtime.connect` and the pipelines do.
    """
    original = _open_original(candidate)
    if original is not None:
        yield original
        return
    with _open_session(candidate) as session:
        if candidate.official is not None:
            from seg_bench.pipelines.sam_official import OfficialDecoderPipeline

            decoders = Path(candidate.official)
            with OfficialDecoderPipeline(session, candidate.model, decoders, candidate.threads) as official:
                yield official
        else:
            pipeline = _pipeline_class(_DEPLOYED[_way(candidate)])(session, candidate.model)
            with closing(pipeline) if hasattr(pipeline, "close") else nullcontext():
                yield pipeline


@contextmanager
def pipeline_of_thread(pipeline: Pipeline) -> Iterator[Pipeline]:
    """A pipeline on the same session that a thread may use beside others: only SAMs remember their image."""
    if hasattr(pipeline, "sibling"):
        with pipeline.sibling() as sibling:
            yield sibling
    else:
        yield pipeline


def _open_original(candidate: Candidate) -> Pipeline | None:
    """What runs without any of our sessions: the original libraries, where they do all by themselves."""
    if candidate.runtime in (PYTORCH, COMPILED) and _way(candidate) in _ORIGINAL:
        original: Pipeline = _pipeline_class(_ORIGINAL[_way(candidate)])(candidate)
        return original
    if candidate.kind == "instances" and candidate.official is not None:
        from seg_bench.pipelines.instances_torch import ExportedInstancesPipeline

        return ExportedInstancesPipeline(Path(candidate.official), candidate.threads, _sure(candidate))
    return None


def _sure(candidate: Candidate) -> float:
    return from_text(candidate.contract).score_threshold if candidate.contract else SURE


def _way(candidate: Candidate) -> str:
    """A key of `_DEPLOYED`."""
    return "tracked" if candidate.memories else candidate.kind


def _pipeline_class(place: tuple[str, str]) -> Any:
    module, name = place
    return getattr(import_module(f"seg_bench.pipelines.{module}"), name)


def _open_session(candidate: Candidate) -> Session:
    if candidate.checkpoint is None:
        from seg_runtime import connect

        shared = None if candidate.where == "in-process" else candidate.where == "shared-memory"
        engine = candidate.engine or "auto"
        access = candidate.access
        return connect(
            candidate.target,
            threads=candidate.threads,
            shared_memory=shared,
            engine=engine,
            api_key=access.api_key() if access else None,
            tls=access.tls() if access else None,
        )
    from seg_bench.baseline import TorchSession

    return TorchSession(candidate)
