"""Malformed checkpoints through the commands of `seg-export`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microbench.checkpoint_damage import malformed
from microbench.checkpoint_files import SOURCES, honest
from microbench.forked import LIMIT_S, Ended
from microbench.workplace import FileOutcome, Workplace, outcome_of
from seg_runtime.connection import connect
from seg_runtime.errors import EdgesegError
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["try_checkpoints"]

_EXPORT_S = 240.0
"""A Mask R-CNN is traced and verified for longer than a minute."""


def try_checkpoints(kind: str, place: Workplace, tries: int) -> Iterator[FileOutcome]:
    """Export the honest file of a kind, which must be taken, and malformed ones.

    Args:
        kind: a key of `SOURCES`.
        place: where.
        tries: how many malformed files.
    """
    ended, outcome = _try_one(place, kind, "honest file", honest(kind))
    yield outcome if outcome.failure or not ended.code else outcome_of(ended, f"honest file: {ended.said}")
    for seed in range(tries):
        yield _try_one(place, kind, f"file {seed}", malformed(kind, seed))[1]


def _try_one(place: Workplace, kind: str, title: str, content: bytes) -> tuple[Ended, FileOutcome]:
    """One file, next to a repository that is not there yet."""
    source, folder = SOURCES[kind], place.new_folder("work")
    path, repo = folder / f"weights{source.suffix}", folder / "repo"
    path.write_bytes(content)
    arguments = (*source.command, "--checkpoint", path, *source.options, "--name", "tried", "--repo", repo)
    # What is refused must be so within the limit; a file that is taken is traced and verified.
    ended = place.forked.command("seg-export", *arguments, limit_s=_EXPORT_S)
    left = tuple(sorted({entry.name for entry in folder.iterdir()} - {path.name, repo.name}))
    failure = ended.complaint or _failure(ended, repo)
    return ended, outcome_of(ended, f"{title}: {failure}" if failure else "", left)


def _failure(ended: Ended, repo: Path) -> str:
    if ended.code:
        if ended.code == 2 and ended.seconds > LIMIT_S:
            return f"over {LIMIT_S:g} s: refused after {ended.seconds:.1f} s"
        return "a repository of a file that was refused" if repo.exists() else ""
    try:
        with connect(repo) as session:
            specs = [session.spec(name) for name in session.models()]
            answers = {spec.name: session.infer(spec.name, _inputs(spec)) for spec in specs if not spec.steps}
    except EdgesegError as error:
        return f"published what cannot be run: {error}"
    infinite = [name for name, answer in answers.items() if not all(map(_is_finite, answer.values()))]
    return (
        f"model {infinite[0]} gives infinite values" if infinite else "" if answers else "published nothing"
    )


def _inputs(spec: ModelSpec) -> dict[str, NDArray[Any]]:
    """Zeros for every input."""
    batch = (1,) if spec.max_batch_size else ()
    return {tensor.name: np.zeros((*batch, *_shape(tensor)), tensor.dtype) for tensor in spec.inputs}


def _shape(tensor: TensorSpec) -> tuple[int, ...]:
    return tuple(max(axis, 1) for axis in tensor.shape)


def _is_finite(values: object) -> bool:
    return bool(np.isfinite(np.asarray(values)).all())
