"""What the training loop needs of a kind of model: its batches, its loss and its score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from seg_bench.train.settings import TrainSettings
from seg_runtime.errors import BadInputError

__all__ = ["Step", "Task", "autocast", "epoch_batches", "pick_device"]

Step = Callable[[], object]
"""Called after each batch, to advance the progress."""

_AMP_TYPES = {"off": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Task(Protocol):
    """One kind of model on one data set.

    Attributes:
        metric: what the score is, "Dice" or "mask AP"; the higher the better.
        validation_steps: how often `validate` calls `step`.
    """

    metric: str
    validation_steps: int

    def train_batches(self, epoch: int) -> DataLoader[Any]:
        """The batches of an epoch, the same ones whenever it is run."""

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """The loss of a batch, a float32 scalar on the device. The model is in training mode."""

    def validate(self, model: nn.Module, step: Step) -> tuple[float, float]:
        """Mean loss and score of the validation part, in fp32 as the model is deployed."""


class _EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) of the items of an epoch, which workers that outlive an epoch learn in no other way."""

    def __init__(self, order: Callable[[int], list[int]]) -> None:
        self._order = order
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(self.epoch, index) for index in self._order(self.epoch)])

    def __len__(self) -> int:
        return len(self._order(self.epoch))


def epoch_batches(
    data: Dataset[Any],
    order: Callable[[int], list[int]],
    settings: TrainSettings,
    collate: Callable[[list[Any]], Any] | None = None,
) -> Callable[[int], DataLoader[Any]]:
    """The batches of each epoch, from one loader: its workers stay, and read ahead.

    Args:
        data: takes (epoch, index).
        order: the indices of an epoch.
        collate: items into a batch; PyTorch's own by default.
    """
    sampler = _EpochSampler(order)
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=settings.batch_size,
        sampler=sampler,
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=collate,
        # Of the global one a loader draws once in each epoch, with workers that stay only once: a network's
        # dropout would depend on the number of workers.
        generator=torch.Generator(),
    )

    def batches(epoch: int) -> DataLoader[Any]:
        sampler.epoch = epoch
        return loader

    return batches


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


def autocast(settings: TrainSettings, device: torch.device) -> torch.autocast:
    """Mixed precision as the settings have it."""
    return torch.autocast(device.type, dtype=_AMP_TYPES[settings.amp], enabled=settings.amp != "off")
