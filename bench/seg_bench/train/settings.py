"""What a training run can be told, in one frozen description that the checkpoint keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from seg_runtime.errors import BadInputError

__all__ = ["AMP_MODES", "TrainSettings"]

AMP_MODES = ("off", "bf16", "fp16")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of the loop; the defaults are the article's where it names one.

    Attributes:
        epochs: length of the cosine schedule and the most epochs that are run.
        stop_after: pause after this many epochs of the schedule; 0 goes to its end. A paused run
            can be resumed.
        batch_size: images per step.
        learning_rate: AdamW's rate at the start of the cosine.
        final_learning_rate: the rate that the cosine ends at.
        weight_decay: AdamW's decoupled weight decay.
        clip_norm: largest norm of the gradient of all weights together.
        patience: epochs without a better validation Dice before the run stops.
        loss: one of `seg_bench.train.losses.LOSSES`.
        bce_weight: weight of the cross entropy in "bce-dice".
        dice_weight: weight of Dice in "bce-dice".
        boundary_weight: of the boundary loss, in pixels, which is added to the loss; 0 leaves it out.
        class_weights: of each of several classes in the loss; none of them is 1 each, "frequency" weights
            them by how often they occur, see `seg_bench.train.balance.frequency_weights`.
        oversample: draw images with rare classes more often.
        ema_decay: per-step decay of the moving average of the weights that is validated and saved;
            0 uses the weights themselves.
        amp: "off", or the type of automatic mixed precision.
        channels_last: keep tensors in NHWC order, faster on GPUs and on CPUs with oneDNN.
        device: "auto" (CUDA when there is one), "cpu" or "cuda".
        seed: of the initial weights, the order and the augmentation.
        workers: processes that load and augment; no influence on the result.
    """

    epochs: int = 100
    stop_after: int = 0
    batch_size: int = 8
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-6
    weight_decay: float = 1e-5
    clip_norm: float = 1.0
    patience: int = 15
    loss: str = "bce-dice"
    bce_weight: float = 0.5
    dice_weight: float = 0.5
    boundary_weight: float = 0.0
    class_weights: tuple[float, ...] | Literal["frequency"] = ()
    oversample: bool = False
    ema_decay: float = 0.0
    amp: str = "off"
    channels_last: bool = True
    device: str = "auto"
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise BadInputError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in (
            "final_learning_rate",
            "weight_decay",
            "stop_after",
            "seed",
            "workers",
            "boundary_weight",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInputError(f"{name} is {getattr(self, name)}: it must be a number of at least 0")
        weights = () if self.class_weights == "frequency" else self.class_weights
        if any(not 0 <= weight < math.inf for weight in weights):
            raise BadInputError(f"class_weights are {self.class_weights}: none may be negative or infinite")
        if not 0 <= self.ema_decay < 1:
            raise BadInputError(f"ema_decay is {self.ema_decay}: it must be at least 0 and below 1")
        if self.amp not in AMP_MODES:
            raise BadInputError(f"amp is '{self.amp}': choose one of {', '.join(AMP_MODES)}")
