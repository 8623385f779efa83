"""Measures trackers on videos with annotated objects: J, F, J&F, and where the time of a frame goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from seg_bench.data.davis import VideoSequence
from seg_bench.machine import describe_machine
from seg_bench.metrics.davis import VOID_ID, DavisScores, SequenceScores, combine_sequences, measure_sequence
from seg_bench.records import Machine
from seg_bench.sam2_stages import STAGES
from seg_bench.sam2_trackers import Tracker
from seg_runtime.errors import BadInputError

__all__ = ["TrackRow", "TrackRun", "labels_of", "measure_trackers"]

SCHEMA = "edgeseg-track/1"
_NO_MASKS, _RANDOM = "-", "random weights"


@dataclass(frozen=True)
class TrackRow:
    """One tracker.

    Attributes:
        tracker: "edgeseg" or "sam2 in PyTorch".
        engine: what computed.
        accuracy: J, F and J&F; "-" where no later frame has masks, "random weights" for those.
        frames: how many are timed: all but the first of each sequence, whose masks are given.
        median_ms: of a frame of all its objects, by stage, and "total", which also holds what lies between.
        samples_ms: of each timed frame in order, by stage and "total".
    """

    tracker: str
    engine: str
    accuracy: DavisScores | str
    frames: int
    median_ms: dict[str, float]
    samples_ms: dict[str, list[float]]


@dataclass(frozen=True)
class TrackRun:
    """The record. `objects` are the ids that were tracked, by sequence."""

    schema: str
    command: str
    machine: Machine
    model: str
    weights: str
    checkpoint_sha256: str
    threads: int | None
    limit: int | None
    objects: dict[str, list[int]]
    rows: list[TrackRow]


@dataclass
class _Measured:
    """What one tracker has reached so far."""

    scores: list[SequenceScores] = field(default_factory=list)
    samples_ms: dict[str, list[float]] = field(
        default_factory=lambda: {name: [] for name in (*STAGES, "total")}
    )


def measure_trackers(
    trackers: Sequence[Tracker],
    sequences: Sequence[VideoSequence],
    *,
    model: str,
    weights: str,
    checkpoint_sha256: str = "",
    threads: int | None = None,
    limit: int | None = None,
    command: str = "",
    on_frame: Callable[[str, int, int], object] = lambda what, done, total: None,
) -> TrackRun:
    """Track every sequence with each tracker in turn, given the masks of its first frame.

    Args:
        trackers: opened.
        sequences: from `seg_bench.data.davis.load_davis`.
        model, weights, checkpoint_sha256, threads, command: for the record; with "random" weights no
            accuracy is given.
        limit: track at most so many frames of each sequence, at least 2.
        on_frame: told what is tracked, how many frames are done and how many there are.

    Raises:
        BadInputError: no masks on the first frame of a sequence, or fewer than two frames.
        BadImageError, InferenceError, ServerError: as from tracking.
    """
    prompts = {sequence.name: _prompt(sequence) for sequence in sequences}
    counts = {
        sequence.name: min(len(sequence.frames), limit or len(sequence.frames)) for sequence in sequences
    }
    short = next((name for name, count in counts.items() if count < 2), None)
    if short is not None:
        raise BadInputError(
            f"sequence '{short}' has one frame to track: it needs two, the first has the prompt"
        )
    measured = [_Measured() for _ in trackers]
    done, total = 0, len(trackers) * sum(counts.values())
    for sequence in sequences:
        for tracker, reached in zip(trackers, measured, strict=True):
            what, count = f"{sequence.name}, {tracker.name}", counts[sequence.name]
            on_frame(what, done, total)
            _track(
                tracker,
                sequence,
                prompts[sequence.name],
                count,
                reached,
                _teller(on_frame, what, done, total),
            )
            done += count
    return TrackRun(
        SCHEMA,
        command,
        describe_machine(),
        model,
        weights,
        checkpoint_sha256,
        threads,
        limit,
        {name: list(masks) for name, masks in prompts.items()},
        [_row(tracker, reached, weights) for tracker, reached in zip(trackers, measured, strict=True)],
    )


def labels_of(ids: Sequence[int], logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(H, W) object ids of logits (K, 1, H, W): where objects overlap, the higher logit has the pixel."""
    highest = logits[:, 0].argmax(axis=0)
    return np.where(logits[:, 0].max(axis=0) > 0, np.array(ids, np.uint8)[highest], 0).astype(np.uint8)


def _prompt(sequence: VideoSequence) -> dict[int, NDArray[np.bool_]]:
    """The masks (H, W) of the first frame by object id."""
    labels = sequence.annotation(0) if 0 in sequence.annotations else np.zeros((1, 1), np.uint8)
    ids = [int(number) for number in np.unique(labels) if number not in (0, VOID_ID)]
    if not ids:
        raise BadInputError(
            f"sequence '{sequence.name}' has no masks on its first frame, by which objects are given to the "
            "tracker: add one, or choose others with --sequence"
        )
    return {number: labels == number for number in ids}


def _teller(
    on_frame: Callable[[str, int, int], object], what: str, done: int, total: int
) -> Callable[[int], object]:
    """Takes the index of a frame that is tracked, after `done` frames of others."""
    return lambda index: on_frame(what, done + index + 1, total)


def _track(
    tracker: Tracker,
    sequence: VideoSequence,
    masks: Mapping[int, NDArray[np.bool_]],
    count: int,
    reached: _Measured,
    tell: Callable[[int], object],
) -> None:
    found: dict[int, NDArray[np.uint8]] = {}
    with TemporaryDirectory() as folder:
        for index, path in enumerate(sequence.frames[:count]):
            (Path(folder) / f"{index:05d}{path.suffix.lower()}").symlink_to(path.resolve())
        frames = tracker.track(Path(folder), masks)
        while True:
            tracker.clear()
            start = time.perf_counter()
            step = next(frames, None)
            total_ms = 1000 * (time.perf_counter() - start)
            if step is None:
                break
            index, ids, logits = step
            if index:
                for stage, spent in {**tracker.spent_ms, "total": total_ms}.items():
                    reached.samples_ms[stage].append(spent)
            if index in sequence.annotations:
                found[index] = labels_of(ids, logits)
            tell(index)
    scores = _score(sequence, found, list(masks))
    if scores is not None:
        reached.scores.append(scores)


def _score(
    sequence: VideoSequence, found: Mapping[int, NDArray[np.uint8]], ids: Sequence[int]
) -> SequenceScores | None:
    """DAVIS' measures: without the first frame and, where there are others, the last one that has masks."""
    annotated = sorted(found)[1:]
    measured = annotated[:-1] or annotated
    if not measured:
        return None
    pairs = ((found[index], sequence.annotation(index)) for index in measured)
    return measure_sequence(sequence.name, pairs, ids, skip_ends=False)


def _row(tracker: Tracker, reached: _Measured, weights: str) -> TrackRow:
    accuracy: DavisScores | str = combine_sequences(reached.scores) if reached.scores else _NO_MASKS
    if weights == "random":
        accuracy = _RANDOM
    return TrackRow(
        tracker.name,
        tracker.engine,
        accuracy,
        len(reached.samples_ms["total"]),
        {stage: median(samples) for stage, samples in reached.samples_ms.items()},
        reached.samples_ms,
    )
