"""What is kept of a training for good: loss curve, Dice per epoch, seed and split, but no weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from seg_bench.data.splits import Split
from seg_bench.reproduce.catalogue import TableRow
from seg_bench.train.history import History, plot_history, save_history
from seg_bench.train.loop import is_finished
from seg_bench.train.recipe import BEST, run_metadata
from seg_bench.train.settings import TrainSettings
from seg_runtime.hashing import file_sha256

__all__ = ["keep_record"]


def keep_record(row: TableRow, split: Split, settings: TrainSettings, run: Path, out: Path) -> None:
    """Write `history.json`, `history.png` and `training.json`, once a run has an epoch.

    Args:
        row: that is trained.
        split: with the names of the images.
        settings: of the run, the seed among them.
        run: folder that `seg_bench.train.recipe.train_semantic` writes to.
        out: folder of the record.
    """
    if not (run / "history.json").is_file():
        return
    history = History(**json.loads((run / "history.json").read_text(encoding="utf-8")))
    out.mkdir(parents=True, exist_ok=True)
    save_history(history, out / "history.json")
    plot_history(history, out / "history.png")
    record = {
        "row": row.key,
        "family": row.family,
        "arguments": dict(row.arguments),
        "finished": is_finished(history, settings),
        "epochs": history.epochs,
        "best_epoch": history.best_epoch,
        "val_dice": history.best_score,
        "seconds": round(sum(history.seconds), 1),
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else settings.device,
        "checkpoint_sha256": file_sha256(run / BEST),
        **run_metadata(settings, split, None),
    }
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
