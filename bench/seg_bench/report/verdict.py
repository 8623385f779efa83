"""What a report comes to, in a sentence per device and data set."""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.records import Record, Run
from seg_bench.report.grouping import deployed, fastest, network_of
from seg_bench.report.names import ran_in
from seg_bench.report.speed import times_as_fast

__all__ = ["verdict"]

_SAME_DICE = 5e-5
"""Difference of two figures that look alike in a table."""


def verdict(runs: Sequence[Run]) -> str:
    """The most accurate and the fastest of the trained models; of random ones the fastest row of each.

    Args:
        runs: of one device and one data set.

    Returns:
        A sentence or two; empty where nothing was timed.
    """
    pairs = deployed(runs)
    trained = [pair for pair in pairs if _dice(pair[1]) is not None]
    others = [pair for pair in pairs if _dice(pair[1]) is None]
    networks = dict.fromkeys(network_of(record) for _, record in others)
    quickest = [fastest(pair for pair in others if network_of(pair[1]) == name) for name in networks]
    sentences = [_of_trained(trained)] if trained else []
    if quickest:
        sentences.append(f"Without Dice, the fastest: {'; '.join(map(_speed, quickest))}.")
    return " ".join(sentences)


def _of_trained(pairs: Sequence[tuple[Run, Record]]) -> str:
    best = max(_dice(record) or 0.0 for _, record in pairs)
    accurate = fastest([pair for pair in pairs if (_dice(pair[1]) or 0.0) >= best - _SAME_DICE])
    fast = fastest(pairs)
    if fast is accurate:
        return f"Most accurate and fastest is {_figures(fast)}."
    return f"Most accurate is {_figures(accurate)}; fastest is {_figures(fast)}."


def _figures(pair: tuple[Run, Record]) -> str:
    return f"{_speed(pair)}, Dice {_dice(pair[1]):.4f}"


def _speed(pair: tuple[Run, Record]) -> str:
    record = pair[1]
    ratio, latency = times_as_fast(*pair), record.latency
    random = "random weights, " if record.model.weights == "random" else ""
    words = (
        f"{record.model.name} ({random}{ran_in(record)}) with {latency.percentile(50):.1f} ms"
        if latency
        else ""
    )
    return words + (f", {ratio:.2f} times as fast as PyTorch" if ratio else "")


def _dice(record: Record) -> float | None:
    """Of trained weights."""
    if record.model.weights == "random" or record.accuracy is None:
        return None
    return record.accuracy.dice_summary.mean
