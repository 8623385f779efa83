"""Everything that changes while a model is trained, and its file, from which a killed run resumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import AveragedModel

from seg_bench.train.history import History
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.files import read_plain, write_atomically
from seg_runtime.errors import BadInputError, CheckpointError

__all__ = ["TrainState"]


class TrainState:
    """Model, optimiser, schedule, moving average and history of a run.

    Random numbers are not part of it: every epoch seeds its own from (seed, epoch), so that a
    resumed epoch draws what the killed one drew.
    """

    def __init__(
        self, model: nn.Module, settings: TrainSettings, device: torch.device, metric: str = "Dice"
    ) -> None:
        self.model = model.to(device)
        if settings.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.optimiser = AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.scheduler = CosineAnnealingLR(
            self.optimiser, T_max=settings.epochs, eta_min=settings.final_learning_rate
        )
        # Gradients of fp16 underflow without scaling; bf16 has fp32's range.
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.amp == "fp16")
        self.average = _moving_average(self.model, settings.ema_decay)
        self.history = History(metric)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved: the moving average where there is one."""
        return self.average.module if self.average is not None else self.model

    def save(self, path: Path, run: Mapping[str, Any]) -> None:
        """Write the state; `run` describes what must be equal for a run to resume from it."""
        average = self.average.state_dict() if self.average is not None else None
        document = {
            "run": dict(run),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": average,
            "history": asdict(self.history),
        }
        write_atomically(document, path)

    def load(self, path: Path, run: Mapping[str, Any]) -> None:
        """Go on from a saved state.

        Raises:
            CheckpointError: the file is missing, damaged or no training state.
            BadInputError: it belongs to a run with other settings or data.
        """
        document = read_plain(path)
        if not isinstance(document, dict) or "optimiser" not in document:
            raise CheckpointError(f"{path} is no training state: expected the last.pt of a run")
        _check_same_run(document["run"], run, path)
        self.model.load_state_dict(document["model"])
        self.optimiser.load_state_dict(document["optimiser"])
        self.scheduler.load_state_dict(document["scheduler"])
        self.scaler.load_state_dict(document["scaler"])
        if self.average is not None:
            self.average.load_state_dict(document["average"])
        self.history = History(**document["history"])


def _moving_average(model: nn.Module, decay: float) -> AveragedModel | None:
    if decay == 0:
        return None

    def update(averages: Iterable[torch.Tensor], values: Iterable[torch.Tensor], _: object) -> None:
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1.0 - decay)
            else:
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(update), use_buffers=True)


def _check_same_run(saved: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    different = [key for key in wanted if saved.get(key) != wanted[key]]
    if different:
        key = different[0]
        raise BadInputError(
            f"{path} belongs to a run with {key}={saved.get(key)!r}, this one has {wanted[key]!r}: "
            "resume with equal settings and data, or train into another folder"
        )
