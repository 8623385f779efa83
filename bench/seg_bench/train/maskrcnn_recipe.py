"""From a folder of images with objects to a trained Mask R-CNN: what `seg-bench train maskrcnn` runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seg_bench.data.nuclei import InstanceSample, load_nuclei
from seg_bench.data.splits import Split, select
from seg_bench.train.augment import derived_seed
from seg_bench.train.detection_dataset import (
    CropSettings,
    DetectionDataset,
    Objects,
    load_objects,
)
from seg_bench.train.detection_task import DetectionTask
from seg_bench.train.history import History
from seg_bench.train.loop import fit
from seg_bench.train.recipe import BEST, TrainResult, run_metadata
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Checkpoint,
    Preprocessing,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from seg_export.families.maskrcnn.network import build_maskrcnn
from seg_runtime.errors import BadInputError

__all__ = ["MaskRcnnRecipe", "train_maskrcnn"]

_BOXES_PER_IMAGE = 128
"""Proposals of a crop that the second stage learns from; torchvision's 512 are for larger images."""


@dataclass(frozen=True)
class MaskRcnnRecipe:
    """The model and its input.

    Attributes:
        arch: one of `seg_export.families.maskrcnn.network.ARCHITECTURES`.
        size_hw: (height, width) in pixels that images are scaled to fit.
        class_name: of the objects.
        max_detections: the most objects that are found in an image.
        crops: what is cut out of the images to train on.
        init: checkpoint of the same architecture to start from, or None for random weights.
        half: store the best checkpoint's weights as float16.
    """

    arch: str = "maskrcnn_light_fpn"
    size_hw: tuple[int, int] = (512, 512)
    class_name: str = "nucleus"
    max_detections: int = 300
    crops: CropSettings = field(default_factory=CropSettings)
    init: Path | None = None
    half: bool = False

    def __post_init__(self) -> None:
        if self.crops.size < 64 or min(self.size_hw) < self.crops.size:
            raise BadInputError(
                f"crops of {self.crops.size} pixels from images of {self.size_hw[1]}x{self.size_hw[0]}: "
                "use at least 64, and no more than the images have"
            )

    @property
    def arguments(self) -> dict[str, Any]:
        return {
            "arch": self.arch,
            "num_classes": 2,
            "min_size": min(self.size_hw),
            "max_size": max(self.size_hw),
            "max_detections": self.max_detections,
        }


def train_maskrcnn(
    data: Path,
    split: Split,
    out: Path,
    recipe: MaskRcnnRecipe,
    settings: TrainSettings,
    *,
    resume: bool = False,
) -> TrainResult:
    """Train a Mask R-CNN on objects of one class and keep the best by validation mask AP.

    Args:
        data: one of the layouts of `seg_bench.data.nuclei`.
        out: gets `best.pth`, `last.pt`, `history.json` and `history.png`.
        resume: go on from `out/last.pt`.

    Raises:
        BadInputError: data, split or settings that cannot be used.
        CheckpointError: `recipe.init` does not fit.
        MissingExtraError: pycocotools is not installed.
    """
    samples = load_nuclei(data)
    train, val = (_load(samples, split, part, recipe) for part in ("train", "val"))
    start = load_checkpoint(recipe.init) if recipe.init else None
    preprocessing = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, recipe.size_hw)
    constant = {**run_metadata(settings, split, start), "augmentation": asdict(recipe.crops)}

    def save_best(model: nn.Module, history: History) -> None:
        save_checkpoint(
            out / BEST,
            family="maskrcnn",
            arguments=recipe.arguments,
            state_dict=model.state_dict(),
            preprocessing=preprocessing,
            class_names=(recipe.class_name,),
            metadata={**constant, "val_mask_ap": history.best_score, "epoch": history.best_epoch},
            half=recipe.half,
        )

    task = DetectionTask(
        DetectionDataset(train, recipe.size_hw, recipe.crops, settings.seed),
        DetectionDataset(val, recipe.size_hw, recipe.crops, settings.seed),
        recipe.size_hw,
        settings,
    )
    history = fit(
        _initial_model(recipe, start, settings.seed),
        task,
        settings,
        out,
        save_best=save_best,
        resume=resume,
        run=_facts(recipe, split, start),
    )
    return TrainResult(out / BEST, history)


def _load(samples: tuple[InstanceSample, ...], split: Split, part: str, recipe: MaskRcnnRecipe) -> Objects:
    names = getattr(split, part)
    if not names:
        raise BadInputError(f"the split's {part} part is empty: training needs train and val samples")
    return load_objects(select(samples, names), recipe.size_hw)


def _initial_model(recipe: MaskRcnnRecipe, start: Checkpoint | None, seed: int) -> nn.Module:
    torch.manual_seed(derived_seed(seed))
    if start is None:
        model: Any = build_maskrcnn(**recipe.arguments)
    else:
        model = build_model(Checkpoint("maskrcnn", recipe.arguments, start.state_dict))
    # Crops have their size already.
    model.transform.min_size, model.transform.max_size = (recipe.crops.size,), recipe.crops.size
    model.roi_heads.fg_bg_sampler.batch_size_per_image = _BOXES_PER_IMAGE
    trained: nn.Module = model
    return trained


def _facts(recipe: MaskRcnnRecipe, split: Split, start: Checkpoint | None) -> dict[str, Any]:
    """What must be equal for a run to be resumed, as plain values."""
    return {
        "arguments": recipe.arguments,
        "size_hw": list(recipe.size_hw),
        "crops": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(recipe.crops).items()},
        "train": list(split.train),
        "val": list(split.val),
        "init": start and start.sha256,
    }
