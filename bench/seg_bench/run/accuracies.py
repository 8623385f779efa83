"""The phase of a run that compares masks with the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seg_bench.metrics.summary import summarize
from seg_bench.records import Accuracy, ObjectAccuracy
from seg_bench.run.plan import Plan
from seg_bench.run.rows import Progress, Row, failing_alone, live_rows

__all__ = ["score_rows"]


def score_rows(plan: Plan, rows: Sequence[Row], step: Progress) -> None:
    """Fill in the accuracy of every trained row on every image.

    Raises:
        KeyboardInterrupt: the row that it cut short has no accuracy.
    """
    trained = [row for row in live_rows(rows).values() if plan.trained(row.candidate)]
    total = len(trained) * len(plan.samples)
    for place, row in enumerate(trained):
        with failing_alone(row):
            scores = []
            for number in range(len(plan.samples)):
                step("scoring", place * len(plan.samples) + number, total)
                scores.append(row.worker.score(number))
            row.accuracy = _accuracy(plan.samples, scores, _objects(plan, row, scores))


def _accuracy(
    images: tuple[str, ...], scores: Sequence[Mapping[str, float]], objects: ObjectAccuracy | None
) -> Accuracy:
    dice, iou, hd95 = (tuple(score[key] for score in scores) for key in ("dice", "iou", "hd95"))
    return Accuracy(dice, iou, hd95, summarize(dice), summarize(iou), summarize(hd95), objects, images)


def _objects(plan: Plan, row: Row, scores: Sequence[Mapping[str, float]]) -> ObjectAccuracy | None:
    subject = plan.subjects[row.candidate.model]
    if subject.kind != "instances":
        return None
    limit = next(tensor.shape[0] for tensor in subject.spec.outputs if tensor.name == "scores")
    precision = row.worker.objects(limit)
    return ObjectAccuracy(
        ap=precision["ap"],
        ap50=precision["ap50"],
        limit=limit,
        count_error=tuple(int(score["count_error"]) for score in scores),
        matched_dice=tuple(score["matched_dice"] for score in scores),
    )
