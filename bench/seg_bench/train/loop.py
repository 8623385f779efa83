"""The training loop: AdamW with a cosine schedule, early stopping, and a resume that changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seg_bench.train.augment import derived_seed
from seg_bench.train.history import History, plot_history, save_history
from seg_bench.train.settings import TrainSettings
from seg_bench.train.state import TrainState
from seg_bench.train.task import Step, Task, pick_device
from seg_runtime.console import progress_bar, stderr_console
from seg_runtime.errors import BadInputError, EdgesegError

__all__ = ["LAST", "OnEpoch", "fit", "is_finished"]

LAST = "last.pt"

SaveBest = Callable[[nn.Module, History], None]
OnEpoch = Callable[[History], object]


def fit(
    model: nn.Module,
    task: Task,
    settings: TrainSettings,
    out: Path,
    *,
    save_best: SaveBest,
    resume: bool = False,
    run: Mapping[str, Any] | None = None,
    until: float = math.inf,
    on_epoch: OnEpoch | None = None,
) -> History:
    """Train until the schedule ends, the validation score stops rising, or time is up.

    Every epoch leaves `last.pt` and `history.json` in `out`; a run that was killed goes on from
    there, with the loss curve that it would have had. `history.png` is drawn at the end.

    Args:
        task: the data, the loss and the score.
        save_best: called with the evaluated model and the history at each new best validation score.
        resume: go on from `out/last.pt`.
        run: further facts (data, architecture) that must be equal for a run to be resumed.
        until: as `time.monotonic()` counts. No epoch is begun that would end later, if it took as long as the
            one before; such a run is not finished and can be resumed.
        on_epoch: called after each epoch, instead of a progress bar and a line on stderr.

    Raises:
        BadInputError: `out` holds a run already and `resume` is off, or it was another run.
        EdgesegError: the loss is no longer finite.
    """
    device = pick_device(settings)
    state = TrainState(model, settings, device, task.metric)
    facts = {**_comparable(settings), **(run or {})}
    if resume:
        state.load(out / LAST, facts)
    elif (out / LAST).exists():
        raise BadInputError(f"{out} holds a run already: pass --resume to go on, or another --out")
    _make_folder(out)
    while not is_finished(state.history, settings) and _has_time(state.history, until):
        if _run_epoch(state, task, settings, on_epoch or partial(_report, settings), quiet=bool(on_epoch)):
            save_best(state.evaluated, state.history)
        state.save(out / LAST, facts)
        save_history(state.history, out / "history.json")
    if state.history.epochs:
        plot_history(state.history, out / "history.png")
    return state.history


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"cannot write the run to {out}: {error}") from error


def _comparable(settings: TrainSettings) -> dict[str, Any]:
    changeable = ("workers", "stop_after")
    return {key: value for key, value in asdict(settings).items() if key not in changeable}


def is_finished(history: History, settings: TrainSettings) -> bool:
    """Whether the schedule has ended or the validation score has stopped rising."""
    last = min(settings.epochs, settings.stop_after or settings.epochs)
    return history.epochs >= last or history.epochs_without_gain >= settings.patience


def _has_time(history: History, until: float) -> bool:
    return time.monotonic() + (history.seconds[-1] if history.seconds else 0.0) < until


def _run_epoch(
    state: TrainState, task: Task, settings: TrainSettings, report: OnEpoch, *, quiet: bool
) -> bool:
    epoch, started = state.history.epochs, time.perf_counter()
    learning_rate = float(state.scheduler.get_last_lr()[0])
    torch.manual_seed(derived_seed(settings.seed, epoch))
    train_batches, waits = task.train_batches(epoch), list[float]()
    bar = progress_bar()
    bar.disable = bar.disable or quiet
    with bar:
        total = len(train_batches) + task.validation_steps
        shown = bar.add_task(f"epoch {epoch + 1}/{settings.epochs}", total=total)
        step = partial(bar.advance, shown)
        batches = _timed(train_batches, waits)
        losses = [_train_step(state, task, batch, settings, step) for batch in batches]
        val_loss, val_score = task.validate(state.evaluated, step)
    state.scheduler.step()
    is_best = state.history.add(
        train_loss=sum(losses) / len(losses),
        val_loss=val_loss,
        val_score=val_score,
        learning_rate=learning_rate,
        seconds=time.perf_counter() - started,
        waited=sum(waits),
    )
    report(state.history)
    return is_best


def _timed(batches: Iterable[Any], waits: list[float]) -> Iterator[Any]:
    """The batches; the seconds until each was there are added to `waits`."""
    asked = time.monotonic()
    for batch in batches:
        waits.append(time.monotonic() - asked)
        yield batch
        asked = time.monotonic()


def _train_step(state: TrainState, task: Task, batch: Any, settings: TrainSettings, step: Step) -> float:
    state.model.train()
    loss = task.loss(state.model, batch)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise EdgesegError(
            f"the training loss became {value} in epoch {state.history.epochs + 1}: "
            "lower --learning-rate, or use --amp off"
        )
    _descend(state, loss, settings)
    step()
    return value


def _descend(state: TrainState, loss: torch.Tensor, settings: TrainSettings) -> None:
    state.optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(state.scaler.scale(loss))
    state.scaler.unscale_(state.optimiser)
    nn.utils.clip_grad_norm_(state.model.parameters(), max_norm=settings.clip_norm)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    if state.average is not None:
        state.average.update_parameters(state.model)


def _report(settings: TrainSettings, history: History) -> None:
    stderr_console().print(
        f"epoch {history.epochs}/{settings.epochs}  loss {history.train_loss[-1]:.4f} / "
        f"{history.val_loss[-1]:.4f}  {history.metric} {history.val_score[-1]:.4f}  "
        f"best {history.best_score:.4f} "
        f"(epoch {history.best_epoch})  {history.seconds[-1]:.1f} s, "
        f"waited {100 * (history.waited[-1] or 0):.0f} %",
        highlight=False,
        soft_wrap=True,
    )
