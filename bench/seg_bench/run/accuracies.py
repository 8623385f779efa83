"""The phase of a run that compares masks with the ground truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seg_bench.metrics import ClassResult
from seg_bench.metrics.summary import summarize
from seg_bench.records import Accuracy, ClassAccuracy, ObjectAccuracy
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
    sizes_hw = plan.spacings.sizes_hw
    for place, row in enumerate(trained):
        classes = len(plan.subjects[row.candidate.model].class_names)
        with failing_alone(row):
            scores = []
            for number in range(len(plan.samples)):
                step("scoring", place * len(plan.samples) + number, total)
                spacing_hw = sizes_hw[number] if sizes_hw else None
                scores.append(row.worker.score(number, classes, spacing_hw, plan.hd95))
            row.accuracy = _accuracy(plan, row, scores)


def _accuracy(plan: Plan, row: Row, scores: Sequence[Mapping[str, float]]) -> Accuracy:
    classes = row.worker.classes()
    dice, iou, hd95 = (tuple(score[key] for score in scores) for key in ("dice", "iou", "hd95"))
    return Accuracy(
        dice=dice,
        iou=iou,
        hd95=hd95,
        dice_summary=summarize(dice),
        iou_summary=summarize(iou),
        hd95_summary=summarize(hd95),
        objects=_objects(plan, row, scores),
        images=plan.samples,
        classes=_classes(plan, row, classes) if classes else None,
        confusion=classes.confusion if classes else None,
        hd95_definition=plan.hd95,
        hd95_unit="mm" if plan.spacings.sizes_hw else "px",
    )


def _classes(plan: Plan, row: Row, found: ClassResult) -> tuple[ClassAccuracy, ...]:
    names = plan.subjects[row.candidate.model].class_names
    pairs = zip(names, found.scores, strict=True)
    return tuple(ClassAccuracy(name=name, **vars(score)) for name, score in pairs)


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
