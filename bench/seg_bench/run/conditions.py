"""The phase of a run that asks how well models do on what they were not trained for.

Each condition is images for the very pipeline that the run measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from seg_bench.metrics.summary import summarize
from seg_bench.records import Condition
from seg_bench.run.cases import Case, shown_samples
from seg_bench.run.plan import Plan
from seg_bench.run.rows import Progress, Row, failing_alone, live_rows

__all__ = ["score_conditions"]


def score_conditions(plan: Plan, rows: Sequence[Row], step: Progress) -> None:
    """Fill in the conditions of every trained row that gives masks of its own, condition by condition.

    Raises:
        KeyboardInterrupt: rows keep the conditions that were measured on all their images.
    """
    trained = _distinct([row for row in live_rows(rows).values() if plan.trained(row.candidate)])
    done, total = 0, sum(len(case.samples) for case in plan.cases)
    with TemporaryDirectory(prefix="seg-bench-") as folder:
        for case in plan.cases:
            dice: dict[str, list[float]] = {row.name: [] for row in trained}
            for sample in shown_samples(case, Path(folder)):
                step(f"robustness, {case.name}", done, total)
                for name, row in live_rows(trained).items():
                    with failing_alone(row):
                        dice[name].append(row.worker.dice(sample))
                done += 1
            for name, row in live_rows(trained).items():
                row.conditions = (*(row.conditions or ()), _condition(case, dice[name]))


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Of rows that give the same masks, the first: one model in one engine, wherever it is called from."""
    firsts: dict[tuple[str, str, str | None], Row] = {}
    for row in rows:
        firsts.setdefault((row.candidate.model, row.candidate.runtime, row.engine), row)
    return list(firsts.values())


def _condition(case: Case, dice: Sequence[float]) -> Condition:
    images = tuple(sample.name for sample in case.samples)
    return Condition(case.name, case.kind, images, tuple(dice), summarize(dice))
