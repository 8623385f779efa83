"""From a data folder to a trained checkpoint: what `seg-bench train` runs."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.samples import Sample
from seg_bench.data.splits import Split, select
from seg_bench.data.statistics import mean_and_std
from seg_bench.train.augment import AugmentSettings, build_augmentation, derived_seed
from seg_bench.train.dataset import Pairs, SegmentationDataset, load_pairs
from seg_bench.train.history import History
from seg_bench.train.loop import OnEpoch, fit
from seg_bench.train.semantic_task import SemanticTask
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import (
    Checkpoint,
    Preprocessing,
    build_model,
    load_checkpoint,
    save_checkpoint,
    untrained_model,
)
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ClaheSpec

__all__ = ["BEST", "SemanticRecipe", "TrainResult", "run_metadata", "train_semantic"]

BEST = "best.pth"


@dataclass(frozen=True)
class SemanticRecipe:
    """The model and its input.

    Attributes:
        family: "unet", "unetpp" or "transunet".
        arguments: keyword arguments of the family's constructor.
        size_hw: (height, width) in pixels that images are squashed to.
        clahe: contrast equalisation, or None.
        init: checkpoint of the same architecture to start from, or None for random weights.
        half: store the best checkpoint's weights as float16.

    Raises:
        BadInputError: arguments that cannot be built, or an image too small for the levels of a U-Net.
    """

    family: str = "unet"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    size_hw: tuple[int, int] = (512, 512)
    clahe: ClaheSpec | None = None
    init: Path | None = None
    half: bool = False

    def __post_init__(self) -> None:
        with torch.device("meta"):  # Before any image is read, and without memory.
            untrained_model(self.family, self.arguments)
        features = self.arguments.get("features", ())
        # One more halving than the network has: batch statistics of a single pixel do not exist.
        least = 2 ** len(features)
        if min(self.size_hw) < least:
            raise BadInputError(
                f"size {self.size_hw[1]}x{self.size_hw[0]} is too small for {len(features)} levels: "
                f"use at least {least}x{least}, or fewer --features"
            )


@dataclass(frozen=True)
class TrainResult:
    """Where the best checkpoint lies, and the run's history."""

    checkpoint: Path
    history: History


def train_semantic(
    data: Path,
    split: Split,
    out: Path,
    recipe: SemanticRecipe,
    settings: TrainSettings,
    *,
    resume: bool = False,
    until: float = math.inf,
    on_epoch: OnEpoch | None = None,
) -> TrainResult:
    """Train a network for lung fields on the X-rays under `data` and keep the best by validation Dice.

    Args:
        data: Montgomery's official or merged layout.
        out: gets `best.pth`, `last.pt`, `history.json` and `history.png`.
        resume: go on from `out/last.pt`.
        until, on_epoch: as `seg_bench.train.loop.fit`.

    Raises:
        BadInputError: data, split or settings that cannot be used.
        CheckpointError: `recipe.init` does not fit.
    """
    samples = load_montgomery(data)
    train, val = _load(samples, split.train, "train", recipe), _load(samples, split.val, "val", recipe)
    mean, std = mean_and_std(train.images)
    preprocessing = Preprocessing((mean,), (std,), recipe.clahe, recipe.size_hw)
    transform = build_augmentation(recipe.size_hw)
    start = load_checkpoint(recipe.init) if recipe.init else None
    facts = _facts(recipe, split, preprocessing, start)
    constant = {**run_metadata(settings, split, start), "augmentation": asdict(AugmentSettings())}

    def save_best(model: nn.Module, history: History) -> None:
        save_checkpoint(
            out / BEST,
            family=recipe.family,
            arguments=recipe.arguments,
            state_dict=model.state_dict(),
            preprocessing=preprocessing,
            class_names=("lung",),
            metadata={**constant, "val_dice": history.best_score, "epoch": history.best_epoch},
            half=recipe.half,
        )

    history = fit(
        _initial_model(recipe, start, settings.seed),
        SemanticTask(
            SegmentationDataset(train, preprocessing, transform, settings.seed),
            SegmentationDataset(val, preprocessing),
            settings,
        ),
        settings,
        out,
        save_best=save_best,
        resume=resume,
        run=facts,
        until=until,
        on_epoch=on_epoch,
    )
    return TrainResult(out / BEST, history)


def _load(samples: Sequence[Sample], names: Sequence[str], part: str, recipe: SemanticRecipe) -> Pairs:
    if not names:
        raise BadInputError(f"the split's {part} part is empty: training needs train and val samples")
    return load_pairs(select(samples, names), recipe.size_hw, recipe.clahe)


def _initial_model(recipe: SemanticRecipe, start: Checkpoint | None, seed: int) -> nn.Module:
    torch.manual_seed(derived_seed(seed))
    if start is None:
        return untrained_model(recipe.family, recipe.arguments)
    return build_model(Checkpoint(recipe.family, dict(recipe.arguments), start.state_dict))


def _facts(
    recipe: SemanticRecipe, split: Split, preprocessing: Preprocessing, start: Checkpoint | None
) -> dict[str, Any]:
    """What must be equal for a run to be resumed, as plain values."""
    return {
        "family": recipe.family,
        "arguments": dict(recipe.arguments),
        "size_hw": list(recipe.size_hw),
        "clahe": recipe.clahe and [recipe.clahe.clip_limit, *recipe.clahe.tile_grid_hw],
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "train": list(split.train),
        "val": list(split.val),
        "init": start and start.sha256,
    }


def run_metadata(settings: TrainSettings, split: Split, start: Checkpoint | None) -> dict[str, Any]:
    """What a checkpoint tells about its run, whatever was trained."""
    return {
        "data_set": split.data_set,
        "split": {"seed": split.seed, "train": split.train, "val": split.val, "test": split.test},
        "settings": asdict(settings),
        "init": start and {"sha256": start.sha256, "settings": start.metadata.get("settings")},
        "versions": {
            "edgeseg": importlib.metadata.version("edgeseg"),
            "torch": torch.__version__,
            "torchvision": importlib.metadata.version("torchvision"),
            "python": platform.python_version(),
        },
    }
