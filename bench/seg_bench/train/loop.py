"""The training loop: AdamW with a cosine schedule, early stopping, and a resume that changes nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from seg_bench.metrics.torch_metrics import dice_score
from seg_bench.train.augment import Pair, derived_seed
from seg_bench.train.dataset import SegmentationDataset
from seg_bench.train.history import History, plot_history, save_history
from seg_bench.train.losses import build_loss
from seg_bench.train.settings import TrainSettings
from seg_bench.train.state import TrainState
from seg_runtime.console import progress_bar, stderr_console
from seg_runtime.errors import BadInputError, EdgesegError

__all__ = ["LAST", "fit", "pick_device"]

LAST = "last.pt"
_AMP_TYPES = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

SaveBest = Callable[[nn.Module, History], None]
Step = Callable[[], object]


def fit(
    model: nn.Module,
    train_data: SegmentationDataset,
    val_data: SegmentationDataset,
    settings: TrainSettings,
    out: Path,
    *,
    save_best: SaveBest,
    resume: bool = False,
    run: Mapping[str, Any] | None = None,
) -> History:
    """Train until the schedule ends or validation Dice stops rising.

    Every epoch leaves `last.pt` and `history.json` in `out`; a run that was killed goes on from
    there, with the loss curve that it would have had. `history.png` is drawn at the end.

    Args:
        save_best: called with the evaluated model and the history at each new best validation Dice.
        resume: go on from `out/last.pt`.
        run: further facts (data, architecture) that must be equal for a run to be resumed.

    Raises:
        BadInputError: `out` holds a run already and `resume` is off, or it was another run.
        EdgesegError: the loss is no longer finite.
    """
    device = pick_device(settings)
    state = TrainState(model, settings, device)
    facts = {**_comparable(settings), **(run or {})}
    if resume:
        state.load(out / LAST, facts)
    elif (out / LAST).exists():
        raise BadInputError(f"{out} holds a run already: pass --resume to go on, or another --out")
    _make_folder(out)
    while not _is_finished(state.history, settings):
        if _run_epoch(state, train_data, val_data, settings, device):
            save_best(state.evaluated, state.history)
        state.save(out / LAST, facts)
        save_history(state.history, out / "history.json")
    plot_history(state.history, out / "history.png")
    return state.history


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"cannot write the run to {out}: {error}") from error


def pick_device(settings: TrainSettings) -> torch.device:
    """The device that `settings.device` means on this machine.

    Raises:
        BadInputError: CUDA was asked for and is not there, or fp16 was asked for on a CPU.
    """
    cuda = torch.cuda.is_available()
    name = settings.device if settings.device != "auto" else ("cuda" if cuda else "cpu")
    if name not in ("cpu", "cuda"):
        raise BadInputError(f"unknown device '{name}': choose auto, cpu or cuda")
    if name == "cuda" and not cuda:
        raise BadInputError("device 'cuda' was asked for but PyTorch finds no GPU: use --device cpu")
    if name == "cpu" and settings.amp == "fp16":
        raise BadInputError("amp 'fp16' needs a GPU: use --amp bf16 or --amp off on a CPU")
    return torch.device(name)


def _comparable(settings: TrainSettings) -> dict[str, Any]:
    changeable = ("workers", "stop_after")
    return {key: value for key, value in asdict(settings).items() if key not in changeable}


def _is_finished(history: History, settings: TrainSettings) -> bool:
    last = min(settings.epochs, settings.stop_after or settings.epochs)
    return history.epochs >= last or history.epochs_without_gain >= settings.patience


def _run_epoch(
    state: TrainState,
    train_data: SegmentationDataset,
    val_data: SegmentationDataset,
    settings: TrainSettings,
    device: torch.device,
) -> bool:
    epoch, started = state.history.epochs, time.perf_counter()
    learning_rate = float(state.scheduler.get_last_lr()[0])
    torch.manual_seed(derived_seed(settings.seed, epoch))
    train_batches = _training_batches(train_data, settings, epoch)
    val_batches = DataLoader(val_data, batch_size=settings.batch_size)
    with progress_bar() as bar:
        task = bar.add_task(
            f"epoch {epoch + 1}/{settings.epochs}", total=len(train_batches) + len(val_batches)
        )
        step = partial(bar.advance, task)
        train_loss = _train(state, train_batches, settings, device, step)
        val_loss, val_dice = _validate(state.evaluated, val_batches, settings, device, step)
    state.scheduler.step()
    is_best = state.history.add(
        train_loss=train_loss,
        val_loss=val_loss,
        val_dice=val_dice,
        learning_rate=learning_rate,
        seconds=time.perf_counter() - started,
    )
    _report(state.history, settings)
    return is_best


def _training_batches(data: SegmentationDataset, settings: TrainSettings, epoch: int) -> DataLoader[Pair]:
    data.epoch = epoch
    generator = torch.Generator().manual_seed(derived_seed(settings.seed, epoch, len(data)))
    order = torch.randperm(len(data), generator=generator).tolist()
    return DataLoader(
        Subset(data, order),
        batch_size=settings.batch_size,
        num_workers=settings.workers,
        pin_memory=torch.cuda.is_available(),
    )


def _train(
    state: TrainState, batches: DataLoader[Pair], settings: TrainSettings, device: torch.device, step: Step
) -> float:
    criterion = build_loss(settings.loss, bce_weight=settings.bce_weight, dice_weight=settings.dice_weight)
    state.model.train()
    total = 0.0
    for images, masks in batches:
        with _autocast(settings, device):
            logits = state.model(_to(images, settings, device))
        loss = criterion(logits.float(), masks.to(device))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise EdgesegError(
                f"the training loss became {value} in epoch {state.history.epochs + 1}: "
                "lower --learning-rate, or use --amp off"
            )
        _descend(state, loss, settings)
        total += value
        step()
    return total / len(batches)


def _descend(state: TrainState, loss: torch.Tensor, settings: TrainSettings) -> None:
    state.optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(state.scaler.scale(loss))
    state.scaler.unscale_(state.optimiser)
    nn.utils.clip_grad_norm_(state.model.parameters(), max_norm=settings.clip_norm)
    state.scaler.step(state.optimiser)
    state.scaler.update()
    if state.average is not None:
        state.average.update_parameters(state.model)


@torch.inference_mode()
def _validate(
    model: nn.Module, batches: DataLoader[Pair], settings: TrainSettings, device: torch.device, step: Step
) -> tuple[float, float]:
    """Mean loss per batch and mean Dice per image, in fp32 as the model is deployed."""
    criterion = build_loss(settings.loss, bce_weight=settings.bce_weight, dice_weight=settings.dice_weight)
    model.eval()
    losses, scores = [], []
    for images, masks in batches:
        truth = masks.to(device)
        logits = model(_to(images, settings, device))
        losses.append(float(criterion(logits, truth)))
        scores += [dice_score(*pair) for pair in zip(torch.sigmoid(logits), truth, strict=True)]
        step()
    return sum(losses) / len(losses), sum(scores) / len(scores)


def _autocast(settings: TrainSettings, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, dtype=_AMP_TYPES[settings.amp], enabled=settings.amp != "off")


def _to(images: torch.Tensor, settings: TrainSettings, device: torch.device) -> torch.Tensor:
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    return images.to(device, memory_format=memory_format, non_blocking=True)


def _report(history: History, settings: TrainSettings) -> None:
    stderr_console().print(
        f"epoch {history.epochs}/{settings.epochs}  loss {history.train_loss[-1]:.4f} / "
        f"{history.val_loss[-1]:.4f}  Dice {history.val_dice[-1]:.4f}  best {history.best_dice:.4f} "
        f"(epoch {history.best_epoch})  {history.seconds[-1]:.1f} s",
        highlight=False,
    )
