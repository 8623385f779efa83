"""The phase of a run that asks how well models do on what they were not trained for.

Each condition is images for the very pipeline that the run measures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from seg_bench.cases import Case, shown_samples
from seg_bench.metrics.summary import summarize
from seg_bench.records import Condition
from seg_bench.worker_process import WorkerProcess

__all__ = ["score_conditions"]

Progress = Callable[[str, int, int], object]


def score_conditions(
    cases: Sequence[Case], workers: Mapping[str, WorkerProcess], step: Progress
) -> tuple[dict[str, tuple[Condition, ...]], bool]:
    """Measure every condition on every row that gives masks of its own, condition by condition.

    Args:
        cases: the conditions.
        workers: the rows, by name.
        step: told about progress.

    Returns:
        What was measured on all images of a condition, by the name of the row, and whether Ctrl-C did not
        end it early.

    Raises:
        EdgesegError: a row cannot run an image.
    """
    rows = _distinct(workers)
    found: dict[str, tuple[Condition, ...]] = dict.fromkeys(rows, ())
    done, total = 0, sum(len(case.samples) for case in cases)
    try:
        with TemporaryDirectory(prefix="seg-bench-") as folder:
            for case in cases if rows else ():
                dice: dict[str, list[float]] = {name: [] for name in rows}
                for sample in shown_samples(case, Path(folder)):
                    step(f"robustness, {case.name}", done, total)
                    for name, worker in rows.items():
                        dice[name].append(worker.dice(sample))
                    done += 1
                found = {name: (*found[name], _condition(case, dice[name])) for name in rows}
    except KeyboardInterrupt:
        return found, False
    return found, True


def _distinct(workers: Mapping[str, WorkerProcess]) -> dict[str, WorkerProcess]:
    """Of rows that give the same masks, the first: one model in one engine, wherever it is called from."""
    firsts: dict[tuple[str, str, str], str] = {}
    for name, worker in workers.items():
        firsts.setdefault((worker.candidate.model, worker.candidate.runtime, worker.engine), name)
    return {name: workers[name] for name in firsts.values()}


def _condition(case: Case, dice: Sequence[float]) -> Condition:
    images = tuple(sample.name for sample in case.samples)
    return Condition(case.name, case.kind, images, tuple(dice), summarize(dice))
