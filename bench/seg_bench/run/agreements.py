"""The phase of a run that compares masks with those of the fp32 graph, before anything is timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_bench.candidate import ENGINE, Candidate
from seg_bench.metrics import iou_score
from seg_bench.records import Agreement
from seg_bench.run.plan import Plan
from seg_bench.run.rows import Progress, Row, failing_alone, live_rows
from seg_bench.run.worker_process import WorkerProcess
from seg_runtime.errors import EdgesegError, ParityError

__all__ = ["REFERENCE_ENGINE", "REQUIRED_IOU", "check_agreement"]

REFERENCE_ENGINE = "onnxruntime"
REQUIRED_IOU = {"fp32": 0.995, "fp16": 0.995, "bf16": 0.995, "int8": 0.97}
"""The lowest mask IoU of an image that a precision may have."""

_IMAGES = 4

Mask = NDArray[np.bool_]


def check_agreement(plan: Plan, repo: Path, rows: Sequence[Row], step: Progress) -> None:
    """Fill in the agreement of every row; one with a mask that differs too much fails, and is not timed.

    The reference is the fp32 graph of the same checkpoint in ONNX Runtime on the CPU of this machine.

    Args:
        plan: with the name of each model's fp32 graph.
        repo: the repository that has them.
        rows: opened.
        step: called with progress.

    Raises:
        KeyboardInterrupt: the rows that were not reached have no agreement.
    """
    live = list(live_rows(rows).values())
    done, total = 0, len(live)
    for reference in dict.fromkeys(plan.fp32_graphs[row.candidate.model] for row in live):
        compared = [row for row in live if plan.fp32_graphs[row.candidate.model] == reference]
        step("computing the masks of the fp32 graph", done, total)
        try:
            engine, masks = _reference_masks(plan, repo, reference, compared)
        except EdgesegError as error:
            for row in compared:
                row.fail(
                    EdgesegError(f"the fp32 graph '{reference}' gives no masks to compare with: {error}")
                )
            continue
        for row in compared:
            step("comparing masks with the fp32 graph", done, total)
            with failing_alone(row):
                _compare(plan, row, engine, masks)
            done += 1


def _compare(plan: Plan, row: Row, reference: str, masks: Sequence[Mask]) -> None:
    precision = plan.precision_of(row.candidate)
    found = tuple(iou_score(row.worker.mask(number), mask) for number, mask in enumerate(masks))
    agreement = Agreement(reference, REQUIRED_IOU[precision], plan.samples[: len(masks)], found)
    row.agreement = agreement
    if agreement.lowest < agreement.required:
        worst = agreement.images[found.index(agreement.lowest)]
        raise ParityError(
            f"not timed: the mask of '{worst}' has an IoU of {agreement.lowest:.4f} with that of the fp32 "
            f"graph, and {precision} must have {agreement.required:g}"
        )


def _reference_masks(plan: Plan, repo: Path, name: str, rows: Sequence[Row]) -> tuple[str, list[Mask]]:
    """The engine, and the masks of the first images, of an fp32 graph: from its row where it has one."""
    numbers = range(min(_IMAGES, len(plan.samples)))
    for row in rows:
        if (row.candidate.model, row.candidate.engine) == (name, REFERENCE_ENGINE):
            return row.engine or "", [row.worker.mask(number) for number in numbers]
    like = rows[0].candidate
    wanted = Candidate(
        model=name,
        where="in-process",
        runtime=ENGINE,
        target=str(repo),
        data=like.data,
        truth=like.truth,
        samples=like.samples,
        engine=REFERENCE_ENGINE,
        kind=like.kind,
    )
    with WorkerProcess(wanted) as worker:
        return worker.engine, [worker.mask(number) for number in numbers]
