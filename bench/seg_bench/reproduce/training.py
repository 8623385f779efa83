"""Trains the networks that have no weights, before they are exported: `seg-bench reproduce --train`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from seg_bench.data.find import find_samples
from seg_bench.data.splits import Split, montgomery_split, select
from seg_bench.reproduce.catalogue import ROWS, TableRow
from seg_bench.reproduce.folder import ResultFolder
from seg_bench.reproduce.plan import PRECISIONS, PlannedRow
from seg_bench.reproduce.prepare import trained_path
from seg_bench.train.settings import TrainSettings
from seg_runtime.errors import BadInputError, EdgesegError, MissingExtraError
from seg_runtime.repository import Repository

if TYPE_CHECKING:
    from seg_bench.train.history import History
    from seg_bench.train.recipe import SemanticRecipe

__all__ = [
    "SETTINGS",
    "Training",
    "current_models",
    "is_trainable",
    "random_records",
    "train_row",
    "training_folder",
    "with_training",
]

SETTINGS = TrainSettings(
    epochs=80, batch_size=4, learning_rate=3e-4, weight_decay=1e-2, ema_decay=0.99, patience=30
)
"""One recipe for all networks, from scratch: that of the shipped ones, at a rate that suits full width."""

_FAMILIES = ("unet", "unetpp", "transunet")
_SIZE = 512
_GFLOPS = 40_000.0
"""Products and sums per second, in 10^9, that training in bfloat16 reaches on a data-centre GPU, about."""
_EPOCH_S = 1.0
"""Seconds per epoch for what is not computed on the GPU."""
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Training:
    """How networks are trained.

    Attributes:
        device: "cuda", in bfloat16; or "cpu", for networks that are tiny.
        split: of the Montgomery X-rays; its parts train and val are used.
        settings: of the recipe; `device`, `amp` and `workers` follow from the device.
    """

    device: str = "cuda"
    split: Split = field(default_factory=montgomery_split)
    settings: TrainSettings = SETTINGS

    @property
    def device_settings(self) -> TrainSettings:
        """The settings on that device."""
        if self.device != "cuda":
            return replace(self.settings, device=self.device)
        workers = min(_MOST_WORKERS, (os.cpu_count() or 1) // 2)
        return replace(self.settings, device="cuda", amp="bf16", workers=workers)


def is_trainable(row: TableRow) -> bool:
    """Whether a row has random weights that this recipe can replace.

    Example:
        >>> [key for key, row in ROWS.items() if is_trainable(row)]
        ['unet_31m', 'unetpp', 'transunet']
    """
    return row.random and row.family in _FAMILIES


def training_folder(training: Training, rows: Iterable[TableRow], data: Sequence[Path]) -> Path:
    """The folder of `data` to train on; nothing is written.

    Raises:
        BadInputError: no row that can be trained, no GPU, or no folder with the split's images.
        MissingExtraError: what training needs is not installed.
    """
    if not any(map(is_trainable, rows)):
        names = ", ".join(key for key, row in ROWS.items() if is_trainable(row))
        raise BadInputError(f"--train is for {names}: add one of them to --rows, or leave out --train")
    _check_device(training.device)
    wanted = (*training.split.train, *training.split.val)
    for path in data:
        samples = find_samples(path)
        if {sample.name for sample in samples} & set(wanted):
            select(samples, wanted)
            return path
    raise BadInputError(
        "--train needs the Montgomery X-rays, and no folder of --data has their training part: get them "
        "with  seg-bench data montgomery --out data/montgomery --prepare"
    )


def current_models(
    built: Iterable[str],
    repo: Path,
    rows: Iterable[TableRow],
    training: Training | None,
    folder: ResultFolder,
) -> tuple[str, ...]:
    """Of the built models of `repo` those that stay: not the random ones of rows that have better weights.

    Args:
        built: names of all built models.
        repo: the repository.
        rows: that are asked for.
        training: None when none is asked for; what was trained before counts all the same.
        folder: of the results.
    """
    names = {
        row.model(precision)
        for row in rows
        if is_trainable(row) and (training or _checkpoint(row, folder).is_file())
        for precision in PRECISIONS
    }
    return tuple(
        name for name in built if name not in names or Repository(repo).spec(name).weights != "random"
    )


def random_records(rows: Iterable[TableRow], folder: ResultFolder) -> set[str]:
    """Keys of the rows that can be trained and were measured with random weights."""
    return folder.random() & {row.key for row in rows if is_trainable(row)}


def with_training(
    plan: Iterable[PlannedRow], training: Training, folder: ResultFolder
) -> tuple[PlannedRow, ...]:
    """The plan with the seconds that training takes."""
    return tuple(
        replace(each, train_s=_estimate_s(each.row, training, folder))
        if each.state == "to do" and is_trainable(each.row)
        else each
        for each in plan
    )


def train_row(
    row: TableRow,
    training: Training,
    data: Path,
    folder: ResultFolder,
    until: float,
    on_epoch: Callable[[History], object],
) -> Path:
    """Train a row, or go on where an earlier call was ended; the record is in `folder.training(row.key)`.

    Args:
        row: one that `is_trainable`.
        training: on what, and how.
        data: as `training_folder` gives it.
        folder: of the results.
        until: as `time.monotonic()` counts; no epoch is begun that would end later.
        on_epoch: called after each epoch.

    Returns:
        The checkpoint of the best epoch, in `work/weights`.

    Raises:
        EdgesegError: time was up before the recipe had ended; the next call goes on.
        KeyboardInterrupt: likewise.
    """
    from seg_bench.reproduce.training_record import keep_record
    from seg_bench.train.loop import LAST, is_finished
    from seg_bench.train.recipe import BEST, train_semantic

    run, settings = _run_folder(row, folder), training.device_settings
    resume = (run / LAST).is_file()
    try:
        history = train_semantic(
            data, training.split, run, _recipe(row), settings, resume=resume, until=until, on_epoch=on_epoch
        ).history
    finally:
        keep_record(row, training.split, settings, run, folder.training(row.key))
        _free_gpu(training.device)
    done = f"{history.epochs} of {settings.epochs} epochs in {sum(history.seconds):.0f} s"
    if not is_finished(history, settings):
        raise EdgesegError(f"training was paused after {done}: call again, or give a larger --budget")
    folder.log(f"{row.title}: trained, {done}; validation Dice {history.best_score:.4f}")
    path = _checkpoint(row, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    (run / BEST).replace(path)
    shutil.rmtree(run)
    return path


def _check_device(device: str) -> None:
    for name in ("torch", "torchvision", "matplotlib"):
        if find_spec(name) is None:
            raise MissingExtraError(f"{name}, which --train needs,", "bench")
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BadInputError(
            "--train needs a GPU that PyTorch can use, and there is none: at full width training takes days "
            "on a processor. Run this on a machine with a GPU, or leave out --train to measure random weights"
        )


def _free_gpu(device: str) -> None:
    """Give back memory that PyTorch keeps for later, since other processes are measured on the GPU."""
    import torch

    if device == "cuda":
        torch.cuda.empty_cache()


def _recipe(row: TableRow) -> SemanticRecipe:
    """At 512x512, or the size that a TransUNet is built for."""
    import torch

    from seg_bench.train.recipe import SemanticRecipe
    from seg_export.checkpoints.checkpoint import untrained_model
    from seg_runtime.spec import ClaheSpec

    with torch.device("meta"):  # Without memory.
        side = int(getattr(untrained_model(row.family, row.arguments), "image_size", _SIZE))
    return SemanticRecipe(row.family, row.arguments, (side, side), ClaheSpec())


def _checkpoint(row: TableRow, folder: ResultFolder) -> Path:
    return trained_path(row, folder.work / "weights")


def _run_folder(row: TableRow, folder: ResultFolder) -> Path:
    return folder.work / "training" / row.key


def _estimate_s(row: TableRow, training: Training, folder: ResultFolder) -> float:
    """Seconds for the epochs that are left; 0 when there is a trained checkpoint."""
    if _checkpoint(row, folder).is_file():
        return 0.0
    history = _run_folder(row, folder) / "history.json"
    seconds = json.loads(history.read_text(encoding="utf-8"))["seconds"] if history.is_file() else []
    left = max(1, training.settings.epochs - len(seconds))
    # A backward pass is two forward ones.
    guess_s = _EPOCH_S + 3 * row.gflop * len(training.split.train) / _GFLOPS
    return left * (sum(seconds) / len(seconds) if seconds else guess_s)
