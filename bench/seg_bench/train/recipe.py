"""From a data folder to a trained checkpoint: what `seg-bench train` runs."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset

from seg_bench.data.splits import Split, save_split, select
from seg_bench.data.statistics import mean_and_std
from seg_bench.data.training import TrainingData, training_data
from seg_bench.train.augment import AUGMENTATIONS, IGNORED_PIXEL, Pair, build_augmentation, derived_seed
from seg_bench.train.balance import check_present
from seg_bench.train.dataset import Pairs, SegmentationDataset, augmented, load_pairs
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
from seg_runtime.preprocess import apply_clahe
from seg_runtime.spec import ClaheSpec

__all__ = ["BEST", "SemanticRecipe", "TrainResult", "run_metadata", "train_semantic"]

BEST = "best.pth"
SPLIT = "split.json"
"""The parts by name, for `seg-bench run --split-file`."""


_COUNTS_WHOLLY = 255
"""Of a confidence."""


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
        class_names: of the classes, where the data names none.
        augmentation: a key of `seg_bench.train.augment.AUGMENTATIONS`.
        truth: which ground truth of several annotators, as `seg_bench.data.find.find_samples`.
        annotator_weights: of each annotator, for their weighted majority, instead of `truth`.

    Raises:
        BadInputError: arguments that cannot be built, images of neither 1 nor 3 channels, or an image too
            small for the levels of a U-Net.
    """

    family: str = "unet"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    size_hw: tuple[int, int] = (512, 512)
    clahe: ClaheSpec | None = None
    init: Path | None = None
    half: bool = False
    class_names: tuple[str, ...] = ()
    augmentation: str = "article"
    truth: str | None = None
    annotator_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with torch.device("meta"):  # Before any image is read, and without memory.
            untrained_model(self.family, self.arguments)
        if self.augmentation not in AUGMENTATIONS:
            raise BadInputError(
                f"unknown augmentation '{self.augmentation}': choose from {', '.join(AUGMENTATIONS)}"
            )
        if self.channels not in (1, 3):
            raise BadInputError(
                f"in_channels is {self.channels}: training takes gray (1) or colour (3) images"
            )
        features = self.arguments.get("features", ())
        # One more halving than the network has: batch statistics of a single pixel do not exist.
        least = 2 ** len(features)
        if min(self.size_hw) < least:
            raise BadInputError(
                f"size {self.size_hw[0]}x{self.size_hw[1]} is too small for {len(features)} levels: "
                f"use at least {least}x{least}, or fewer --features"
            )

    @property
    def channels(self) -> int:
        """1 for gray images, 3 for colour."""
        return int(self.arguments.get("in_channels", 1))

    @property
    def classes(self) -> int:
        """How many the network tells apart; 1 is foreground against background."""
        return int(self.arguments.get("num_classes", 1))


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
    """Train a network on the images under `data` and keep the best by validation Dice.

    Args:
        data: images with masks of one kind of thing, or with classes, see `seg_bench.data.training`.
        split: which of them are trained on, and which choose the best weights.
        out: gets `best.pth`, `last.pt`, `split.json`, `history.json` and `history.png`.
        resume: go on from `out/last.pt`.
        until, on_epoch: as `seg_bench.train.loop.fit`.

    Raises:
        BadInputError: data, split or settings that cannot be used.
        CheckpointError: `recipe.init` does not fit.
    """
    found = training_data(data, recipe.class_names, recipe.truth, recipe.annotator_weights)
    _check_classes(found, recipe)
    train, val = _load(found, split.train, "train", recipe), _load(found, split.val, "val", recipe)
    if recipe.classes > 1:
        check_present(train.class_pixels[:, : recipe.classes], found.class_names)
    mean, std = mean_and_std(apply_clahe(image, recipe.clahe) for image in train.images)
    preprocessing = Preprocessing(mean, std, recipe.clahe, recipe.size_hw)
    augmentation = AUGMENTATIONS[recipe.augmentation]
    outside = [IGNORED_PIXEL if recipe.classes > 1 else 0, _COUNTS_WHOLLY][: len(train.planes(0))]
    transform = build_augmentation(recipe.size_hw, augmentation, outside=outside)
    start = load_checkpoint(recipe.init) if recipe.init else None
    weighing = _weighing(recipe, train)
    facts = {**_facts(recipe, split, preprocessing, start), **weighing}
    constant = {**run_metadata(settings, split, start), "augmentation": asdict(augmentation), **weighing}

    seen: Dataset[Pair] = SegmentationDataset(val, preprocessing)
    if augmentation.validate:  # A network that is to stand changes is chosen by how it stands them.
        changed = augmented(val, transform, settings.seed)
        seen = ConcatDataset([seen, SegmentationDataset(changed, preprocessing)])
    task = SemanticTask(
        SegmentationDataset(train, preprocessing, transform, settings.seed),
        seen,
        settings,
        found.class_names,
    )
    if task.class_weights:
        constant["class_weights"] = list(task.class_weights)

    def save_best(model: nn.Module, history: History) -> None:
        save_split(split, out / SPLIT)
        save_checkpoint(
            out / BEST,
            family=recipe.family,
            arguments=recipe.arguments,
            state_dict=model.state_dict(),
            preprocessing=preprocessing,
            class_names=found.class_names,
            metadata={**constant, "val_dice": history.best_score, "epoch": history.best_epoch},
            half=recipe.half,
        )

    history = fit(
        _initial_model(recipe, start, settings.seed),
        task,
        settings,
        out,
        save_best=save_best,
        resume=resume,
        run=facts,
        until=until,
        on_epoch=on_epoch,
    )
    return TrainResult(out / BEST, history)


def _check_classes(found: TrainingData, recipe: SemanticRecipe) -> None:
    if len(found.class_names) != recipe.classes:
        raise BadInputError(
            f"'{found.name}' has {len(found.class_names)} classes ({', '.join(found.class_names)}) and the "
            f"network num_classes={recipe.classes}: give both the same number"
        )


def _load(found: TrainingData, names: Sequence[str], part: str, recipe: SemanticRecipe) -> Pairs:
    if not names:
        raise BadInputError(f"the split's {part} part is empty: training needs train and val samples")
    chosen = select(found.samples, names)
    return load_pairs(chosen, recipe.size_hw, recipe.channels, recipe.classes, found.confidence)


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
        "augmentation": recipe.augmentation,
        "train": list(split.train),
        "val": list(split.val),
        "init": start and start.sha256,
    }


def _weighing(recipe: SemanticRecipe, train: Pairs) -> dict[str, Any]:
    """How the ground truth was made and weighted, as plain values; None for what was not used."""
    return {
        "truth": recipe.truth,
        "annotator_weights": dict(recipe.annotator_weights) or None,
        "mean_confidence": float(np.mean(train.confidences) / _COUNTS_WHOLLY) if train.confidences else None,
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
