"""Does what is missing, row after row, for as long as the budget lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from seg_bench.doctor.gather import complete, gather
from seg_bench.latency import Rule
from seg_bench.records import Run
from seg_bench.reproduce.catalogue import Images, choose_rows
from seg_bench.reproduce.device import examine_device
from seg_bench.reproduce.folder import ResultFolder
from seg_bench.reproduce.images import ImageFolder, find_images
from seg_bench.reproduce.options import ReproduceOptions
from seg_bench.reproduce.plan import LEAST_CALLS, MIN_CALLS, MIN_S, PlannedRow, fitting_rows, share_s
from seg_bench.reproduce.prepare import build_row, checkpoint_path, export_row
from seg_bench.reproduce.training import (
    current_models,
    random_records,
    train_row,
    training_folder,
    with_training,
)
from seg_bench.run.options import RunOptions
from seg_bench.run.runner import measure
from seg_runtime.bundle import open_bundle
from seg_runtime.engines import AUTO
from seg_runtime.errors import EdgesegError
from seg_runtime.repository import Repository

if TYPE_CHECKING:
    from seg_export.export import Precision

__all__ = ["Missing", "Reproduction"]

_TURN_S = 0.25
"""An engine computes for so long before the next one's turn."""

_NOT_FOR_A_PLAN = ("auto_fp32", "auto_fp16", "power")
"""What `seg-bench doctor` asks, too, and no plan depends on."""

Step = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


@dataclass(frozen=True)
class Missing:
    """A row without records, and why: one line."""

    title: str
    reason: str

    def __str__(self) -> str:
        return f"{self.title}: {self.reason}"


class Reproduction:
    """One call of `seg-bench reproduce`; its budget runs from here on.

    Args:
        options: what to do.

    Attributes:
        folder: of the results.
        device: what there is to compute with.
        plan: every row, in order.
        cut: a line about what the budget has no room for; empty for nothing.
        missing: rows that have no records after `run`.

    Raises:
        BadInputError: a row, folder or engine that is none.
        RepositoryError: the repository is none.
    """

    def __init__(self, options: ReproduceOptions) -> None:
        self._end = time.monotonic() + options.budget_s
        self.options = options
        rows = choose_rows(options.rows)
        if options.repo is not None:
            Repository(options.repo)  # Raises before anything is written.
        train_data = options.train and training_folder(options.train, rows, options.data)
        self.folder = ResultFolder(options.out)
        self._repo, self._data = self._models_and_images()
        if train_data:  # Its test part is measured, and a second folder is another data set.
            self._data = (train_data, *(path for path in self._data if path != train_data))
        self._facts = facts = gather(without=_NOT_FOR_A_PLAN)
        self.device = examine_device(facts)
        if options.engines != (AUTO,):
            self.device = replace(self.device, engines=options.engines)
        exports = options.repo is options.bundle is None
        builds = options.repo is None  # A given repository is left as it is.
        measured, built = self.folder.measured(), _built(self._repo)
        if exports:
            built = current_models(built, self._repo, rows, options.train, self.folder)
        if options.train:
            measured -= random_records(rows, self.folder)
        self.plan, self.cut = fitting_rows(
            rows, self.device, built, measured, options.budget_s, export=exports, build=builds
        )
        if options.train:
            self.plan = with_training(self.plan, options.train, self.folder)
        self.missing: list[Missing] = []

    @property
    def remaining_s(self) -> float:
        """What is left of the budget, in seconds; negative once it is over."""
        return self._end - time.monotonic()

    def run(self, step: Step) -> list[Run]:
        """Measure the rows; one that fails or does not fit into what is left of the budget is left out.

        Args:
            step: called with progress.

        Returns:
            The records of all rows that have some, from earlier calls as well.

        Raises:
            BadInputError: a folder of images that cannot be used.
            KeyboardInterrupt: the rows before are kept.
        """
        self.folder.log(f"{self.options.command or 'reproduce'}: {self.options.budget_s:g} s")
        self.folder.write_environment(complete(self._facts, _NOT_FOR_A_PLAN))
        images = find_images(self._data, self.folder.work / "images")
        waiting = [each for each in self.plan if each.state == "to do"]
        impossible = [each for each in self.plan if each.state == "cannot run here"]
        self.missing = [Missing(each.row.title, each.note) for each in impossible]
        try:
            while waiting:
                self._do(waiting, images, step)
                waiting.pop(0)
        finally:
            self.missing += [Missing(each.row.title, "interrupted") for each in waiting]
            self.folder.write_pages([str(each) for each in self.missing])
        return self.folder.runs()

    def _models_and_images(self) -> tuple[Path, tuple[Path, ...]]:
        if self.options.bundle is None:
            return self.options.repo or self.folder.work / "triton_repo", self.options.data
        bundle = open_bundle(self.options.bundle, self.folder.work / "bundle")
        return bundle.repo, bundle.data

    def _do(self, waiting: Sequence[PlannedRow], images: Mapping[Images, ImageFolder], step: Step) -> None:
        """The first of the rows that wait."""
        planned, remaining_s = waiting[0], self.remaining_s
        title = planned.row.title
        if planned.least_s > remaining_s:
            needs = f"needs about {planned.least_s:.0f} s, and {max(remaining_s, 0):.0f} s are left"
            self._miss(title, f"{needs}: call again, or give a larger --budget")
            return
        self.folder.log(f"{title}: begun; about {planned.estimate_s:.0f} s")
        try:
            planned = self._train(planned, step)
            deadline = time.monotonic() + share_s([planned, *waiting[1:]], self.remaining_s)
            run = self._measure(planned, images[planned.row.images], deadline, step)
        except EdgesegError as error:
            self._miss(title, " ".join(str(error).split()))
            return
        if not run.complete:
            raise KeyboardInterrupt
        self.folder.keep(planned.row.key, run)
        self.folder.log(f"{title}: measured; {self.remaining_s:.0f} s are left")

    def _miss(self, title: str, reason: str) -> None:
        self.missing.append(Missing(title, reason))
        self.folder.log(f"{title}: {reason}")

    def _train(self, planned: PlannedRow, step: Step) -> PlannedRow:
        """Train the row where that is planned, for as long as leaves time to measure it.

        Raises:
            EdgesegError: time was up before.
        """
        training, row = self.options.train, planned.row
        if training is None or not planned.train_s:
            return planned
        epochs = training.settings.epochs
        step(f"{row.title}: train", 0, epochs)
        train_row(
            row,
            training,
            self._data[0],
            self.folder,
            self._end - planned.least_s,
            lambda done: step(f"{row.title}: train, Dice {done.best_score:.4f}", done.epochs, epochs),
        )
        return replace(planned, train_s=0.0)

    def _measure(self, planned: PlannedRow, images: ImageFolder, deadline: float, step: Step) -> Run:
        row, weights = planned.row, self.folder.work / "weights"
        precisions = [each for each in planned.precisions if self._is_there(planned, each, images, step)]
        checkpoint = checkpoint_path(row, weights) if self.device.pytorch and row.random else None
        baseline = self.device.pytorch and (checkpoint is None or checkpoint.is_file())
        if self.device.pytorch and not baseline:
            reason = "its random weights are not here, which only an export makes"
            self._miss(f"{row.title}, PyTorch", reason)
        options = RunOptions(
            repo=self._repo,
            data=images.path,
            suite=images.suite,
            part="test" if images.suite else None,
            limit=row.most_images,
            models=tuple(name for precision in precisions for name in row.measured(precision)),
            engines=self.device.engines,
            where=("in-process", "shared-memory") if planned.served else ("in-process",),
            left_out=self.device.left_out,
            best_batch=True,
            baseline=baseline,
            compiled=baseline and self.device.compiles,
            checkpoint=checkpoint if baseline else None,
            repeats=MIN_CALLS,
            rule=Rule(MIN_S, _TURN_S, deadline, LEAST_CALLS),
            gate=True,
            ood=images.other,
        )
        title = f"{row.title}: "
        run = measure(
            options, self.options.command, lambda what, done, total: step(title + what, done, total)
        )
        if not self.device.gpu:
            run = replace(run, machine=replace(run.machine, matrix_gflops=self.device.gflops))
        if not images.drawn:
            return run
        # Nobody labelled drawn images: there is no truth to score.
        return replace(run, records=tuple(replace(record, accuracy=None) for record in run.records))

    def _is_there(self, planned: PlannedRow, precision: str, images: ImageFolder, step: Step) -> bool:
        """Whether a precision can be measured: it is exported and built where it is missing.

        Raises:
            EdgesegError: fp32, which every other is compared with, cannot be exported.
        """
        row = planned.row
        if precision in planned.missing:
            step(f"{row.title}: export {precision}", 0, 1)
            try:
                weights = self.folder.work / "weights"
                export_row(row, cast("Precision", precision), self._repo, weights, images)
            except EdgesegError as error:
                if precision == "fp32":
                    raise
                self._miss(f"{row.title}, {precision}", " ".join(str(error).split()))
                return False
        if planned.builds:
            step(f"{row.title}: build engines of {precision}", 0, 1)
            try:
                build_row(row, precision, self._repo)
            except EdgesegError as error:
                self._miss(f"{row.title}, {precision}, TensorRT", " ".join(str(error).split()))
        return True


def _built(repo: Path) -> tuple[str, ...]:
    """The built models of a repository, which may not be there yet."""
    return Repository(repo).built_models() if repo.is_dir() else ()
