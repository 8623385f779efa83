"""From a data folder to a trained checkpoint: what `seg-bench train` runs."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
from seg_bench.train.loop import fit
from seg_bench.train.semantic_task import SemanticTask
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoint import Checkpoint, Preprocessing, build_model, load_checkpoint, save_checkpoint
from seg_export.models.unet import UNet
from seg_runtime.errors import BadInputError
from seg_runtime.spec import ClaheSpec

__all__ = ["BEST", "TrainResult", "UNetRecipe", "run_metadata", "train_unet"]

BEST = "best.pth"


@dataclass(frozen=True)
class UNetRecipe:
    """The model and its input.

    Attributes:
        features: channels per level, see `UNet`.
        bilinear: bilinear upsampling instead of transposed convolutions.
        size_hw: (height, width) in pixels that images are squashed to.
        clahe: contrast equalisation, or None.
        init: checkpoint of the same architecture to start from, or None for random weights.
        half: store the best checkpoint's weights as float16.
    """

    features: tuple[int, ...] = (64, 128, 256, 512, 1024)
    bilinear: bool = True
    size_hw: tuple[int, int] = (512, 512)
    clahe: ClaheSpec | None = None
    init: Path | None = None
    half: bool = False

    def __post_init__(self) -> None:
        # One more halving than the network has: batch statistics of a single pixel do not exist.
        least = 2 ** len(self.features)
        if min(self.size_hw) < least:
            raise BadInputError(
                f"size {self.size_hw[1]}x{self.size_hw[0]} is too small for {len(self.features)} levels: "
                f"use at least {least}x{least}, or fewer --features"
            )

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "in_channels": 1,
            "num_classes": 1,
            "bilinear": self.bilinear,
            "features": list(self.features),
        }


@dataclass(frozen=True)
class TrainResult:
    """Where the best checkpoint lies, and the run's history."""

    checkpoint: Path
    history: History


def train_unet(
    data: Path,
    split: Split,
    out: Path,
    recipe: UNetRecipe,
    settings: TrainSettings,
    *,
    resume: bool = False,
) -> TrainResult:
    """Train a lung U-Net on the X-rays under `data` and keep the best by validation Dice.

    Args:
        data: Montgomery's official or merged layout.
        out: gets `best.pth`, `last.pt`, `history.json` and `history.png`.
        resume: go on from `out/last.pt`.

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
            family="unet",
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
    )
    return TrainResult(out / BEST, history)


def _load(samples: Sequence[Sample], names: Sequence[str], part: str, recipe: UNetRecipe) -> Pairs:
    if not names:
        raise BadInputError(f"the split's {part} part is empty: training needs train and val samples")
    return load_pairs(select(samples, names), recipe.size_hw, recipe.clahe)


def _initial_model(recipe: UNetRecipe, start: Checkpoint | None, seed: int) -> nn.Module:
    torch.manual_seed(derived_seed(seed))
    if start is None:
        return UNet(**recipe.arguments)
    return build_model(Checkpoint("unet", recipe.arguments, start.state_dict))


def _facts(
    recipe: UNetRecipe, split: Split, preprocessing: Preprocessing, start: Checkpoint | None
) -> dict[str, Any]:
    """What must be equal for a run to be resumed, as plain values."""
    return {
        "arguments": recipe.arguments,
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
