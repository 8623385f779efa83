"""The loss curve of a run, as JSON and as a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["History", "plot_history", "save_history"]


@dataclass
class History:
    """One value per epoch in each list; `best_epoch` counts from 1, 0 before the first.

    `val_score` is the metric on the validation part, the higher the better. `waited` is the share of the
    seconds in which no batch to train on was ready; None for epochs of runs that did not measure it.
    """

    metric: str = "Dice"
    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_score: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best_epoch: int = 0
    waited: list[float | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.waited = [*[None] * (self.epochs - len(self.waited)), *self.waited]

    @property
    def epochs(self) -> int:
        return len(self.train_loss)

    @property
    def best_score(self) -> float:
        """Best validation score so far; 0 before the first epoch."""
        return self.val_score[self.best_epoch - 1] if self.best_epoch else 0.0

    @property
    def epochs_without_gain(self) -> int:
        return self.epochs - self.best_epoch

    def add(
        self,
        *,
        train_loss: float,
        val_loss: float,
        val_score: float,
        learning_rate: float,
        seconds: float,
        waited: float = 0.0,
    ) -> bool:
        """Append an epoch, of whose seconds `waited` went by without a batch to train on.

        Returns:
            True when its validation score is the best so far.
        """
        is_best = self.best_epoch == 0 or val_score > self.best_score
        self.train_loss.append(train_loss)
        self.val_loss.append(val_loss)
        self.val_score.append(val_score)
        self.learning_rate.append(learning_rate)
        self.seconds.append(round(seconds, 3))
        self.waited.append(round(waited / seconds, 4))
        if is_best:
            self.best_epoch = self.epochs
        return is_best


def save_history(history: History, path: Path) -> None:
    """Write the history as JSON; the file appears whole or not at all."""
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(json.dumps(asdict(history), indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def plot_history(history: History, path: Path) -> None:
    """Draw losses and validation score against the epoch as a PNG."""
    epochs = range(1, history.epochs + 1)
    figure = Figure(figsize=(9, 4), layout="constrained")
    losses, score = figure.subplots(1, 2)
    losses.plot(epochs, history.train_loss, label="training")
    losses.plot(epochs, history.val_loss, label="validation")
    losses.set(xlabel="epoch", ylabel="loss", yscale="log", title="Loss")
    losses.legend()
    score.plot(epochs, history.val_score, label="validation")
    score.plot(history.best_epoch, history.best_score, "o", label=f"best {history.best_score:.4f}")
    score.set(xlabel="epoch", ylabel=history.metric, title=history.metric)
    score.legend()
    for plot in (losses, score):
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.savefig(path, dpi=110)
