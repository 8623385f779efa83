"""`seg-bench train unet`, `unetpp` and `transunet`: one recipe, one command per family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from seg_bench.cli.semantic_options import (
    NetworkOptions,
    RunOptions,
    TrainOptions,
    TransUNetOptions,
    UNetOptions,
    UNetPPOptions,
)
from seg_bench.cli.train_options import show_folds, show_result
from seg_runtime.errors import MissingExtraError
from seg_runtime.option_groups import expand_option_groups

if TYPE_CHECKING:
    from seg_bench.data.splits import Split
    from seg_bench.data.training import TrainingData

__all__ = ["transunet", "unet", "unetpp"]


@expand_option_groups
def unet(*, run: RunOptions, network: UNetOptions, train: TrainOptions) -> None:
    """Train a U-Net; the best weights by validation Dice are kept.

    \b
    Examples:
      seg-bench train unet data/montgomery --out runs/lung
      seg-bench train unet data/montgomery --out runs/small \\
        --features 32,64,128,256
      seg-bench train unet data/montgomery --out runs/lung --resume
      seg-bench train unet data/montgomery --out runs/folds --folds 5
      seg-bench train unet data/roads --out runs/roads --size 256x512 \\
        --class-weights frequency --oversample
    """
    _train("unet", run, network, train)


@expand_option_groups
def unetpp(*, run: RunOptions, network: UNetPPOptions, train: TrainOptions) -> None:
    """Train a U-Net++; the best weights by validation Dice of the deepest head are kept.

    \b
    Examples:
      seg-bench train unetpp data/montgomery --out runs/nested
      seg-bench train unetpp data/montgomery --out runs/nested \\
        --features 8,16,32,64,96 --size 256
      seg-bench train unetpp data/montgomery --out runs/folds --folds 5 --resume
    """
    _train("unetpp", run, network, train)


@expand_option_groups
def transunet(*, run: RunOptions, network: TransUNetOptions, train: TrainOptions) -> None:
    """Train a TransUNet from scratch; the best weights by validation Dice are kept.

    \b
    Examples:
      seg-bench train transunet data/montgomery --out runs/trans --size 256
      seg-bench train transunet data/montgomery --out runs/trans105 \\
        --arch r50_vit_b16 --device cuda
      seg-bench train transunet data/montgomery --out runs/folds --folds 5
    """
    _train("transunet", run, network, train)


def _train(family: str, run: RunOptions, network: NetworkOptions, train: TrainOptions) -> None:
    """Train once, or once per fold."""
    try:
        from seg_bench.data.splits import load_split
        from seg_bench.data.training import training_data
        from seg_bench.train.folds import cross_validate
        from seg_bench.train.recipe import SemanticRecipe, train_semantic
        from seg_runtime.spec import ClaheSpec
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name}, which training needs,", "bench") from error

    names = tuple(name.strip() for name in train.class_names.split(",")) if train.class_names else ()
    weights = train.weights_of_annotators()
    found = training_data(run.data, names, train.truth, weights)
    channels = network.channels or found.channels()
    recipe = SemanticRecipe(
        family,
        network.arguments(channels, len(found.class_names)),
        size_hw=network.size_hw(),
        clahe=ClaheSpec() if (channels == 1 if train.clahe is None else train.clahe) else None,
        init=run.init,
        half=train.half,
        class_names=names,
        augmentation=train.augmentation,
        truth=train.truth,
        annotator_weights=weights,
    )
    settings = train.settings()
    split = load_split(run.split) if run.split else found.split(train.seed)
    _say(found, split, channels)
    where = (run.data, split, run.out)
    if run.folds:
        result = cross_validate(
            *where, recipe, settings, count=run.folds, stratum=found.stratum, resume=run.resume
        )
        show_folds(result, run.out, train.as_json)
    else:
        show_result(train_semantic(*where, recipe, settings, resume=run.resume), train.as_json)


def _say(found: TrainingData, split: Split, channels: int) -> None:
    """What is trained on, on stderr: nothing of it was asked for by name."""
    kind = "gray" if channels == 1 else "colour"
    typer.echo(
        f"{len(split.train)} {kind} images to train on, {len(split.val)} to choose the best epoch by, "
        f"{len(split.test)} left out for a test (split '{split.data_set}', seed {split.seed}); "
        f"classes: {', '.join(found.class_names)}",
        err=True,
    )
    if found.confidence:
        typer.echo(
            f"confidence/ has maps of {len(found.confidence)} of {len(found.samples)} images; the others "
            "count wholly",
            err=True,
        )
