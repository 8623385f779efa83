"""Measures masks in a folder, as `seg-run track --masks png` writes them, against annotations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seg_bench.data.davis import VideoSequence, read_labels
from seg_bench.metrics.davis import DavisScores, combine_sequences, measure_sequence
from seg_runtime.errors import BadInputError

__all__ = ["measure_results"]


def measure_results(
    sequences: Sequence[VideoSequence], results: Path, *, skip_ends: bool = True
) -> DavisScores:
    """J, F and J&F of indexed PNG masks, `RESULTS/SEQUENCE/00000.png` for each annotated frame.

    Args:
        sequences: from `seg_bench.data.davis.load_davis`.
        results: folder with a folder per sequence; of a single sequence the masks may lie in it directly.
        skip_ends: leave the first and last annotated frame of each sequence out, as DAVIS does.

    Raises:
        BadInputError: a mask is missing or has another size than its frame.
    """
    return combine_sequences(
        measure_sequence(
            sequence.name,
            (
                (
                    read_labels(_result(results, sequence, index), sequence.size_hw()),
                    sequence.annotation(index),
                )
                for index in sorted(sequence.annotations)
            ),
            skip_ends=skip_ends,
        )
        for sequence in sequences
    )


def _result(results: Path, sequence: VideoSequence, index: int) -> Path:
    name = sequence.annotations[index].name
    nested = results / sequence.name
    file = (nested if nested.is_dir() else results) / name
    if not file.is_file():
        raise BadInputError(f"'{sequence.name}' has no result for frame {index}: expected '{file}'")
    return file
