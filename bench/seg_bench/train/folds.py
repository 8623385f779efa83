"""Cross-validation: the same recipe once per fold, and how much the score depends on the images left out."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from seg_bench.data.splits import Split
from seg_bench.machine import describe_machine, shown_command
from seg_bench.train.history import History
from seg_bench.train.loop import LAST
from seg_bench.train.recipe import SemanticRecipe, train_semantic
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import load_checkpoint
from seg_runtime.errors import BadInputError

__all__ = ["FOLDS", "CrossValidation", "FoldScore", "cross_validate", "make_folds"]

FOLDS = "folds.json"


@dataclass(frozen=True)
class FoldScore:
    """A fold's validation Dice.

    Attributes:
        best: the highest of all epochs, by which `best.pth` was chosen: a little too good.
        last: of the last epoch, which nothing was chosen by.
        epochs: that were trained.
        names: of the images that were left out of the training.
    """

    best: float
    last: float
    epochs: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class CrossValidation:
    """All folds; spreads are sample standard deviations over them."""

    folds: tuple[FoldScore, ...]
    last_mean: float
    last_spread: float
    best_mean: float
    best_spread: float


def make_folds(split: Split, count: int, stratum: Callable[[str], str]) -> tuple[Split, ...]:
    """Cut the split's training and validation parts into folds; the test part stays out of all of them.

    Args:
        split: of which `train` and `val` are taken together; its seed shuffles them.
        count: of folds, at least 2.
        stratum: the group of a name, for example its finding; each fold gets its share of every group.

    Returns:
        One split per fold, whose `val` is the fold and whose `train` is all others.

    Raises:
        BadInputError: fewer than 2 folds, or fewer images than folds.
    """
    names = sorted((*split.train, *split.val))
    if not 2 <= count <= len(names):
        raise BadInputError(f"{count} folds of {len(names)} images: choose 2 to {len(names)}")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[stratum(name)].append(name)
    generator = np.random.default_rng(split.seed)
    dealt: list[str] = []
    for _, group in sorted(groups.items()):
        dealt += [group[position] for position in generator.permutation(len(group))]
    folds = [tuple(sorted(dealt[start::count])) for start in range(count)]
    return tuple(
        Split(split.data_set, split.seed, tuple(name for name in names if name not in fold), fold, split.test)
        for fold in folds
    )


def cross_validate(
    data: Path,
    split: Split,
    out: Path,
    recipe: SemanticRecipe,
    settings: TrainSettings,
    *,
    count: int,
    stratum: Callable[[str], str],
    resume: bool = False,
) -> CrossValidation:
    """Train once per fold, into `out/fold1` and so on, and write `out/folds.json` at the end.

    The file has the scores, and what they are of: recipe, settings, command, machine and versions.

    Args:
        resume: go on with folds that were begun; finished ones are not trained again.

    Raises:
        BadInputError: as `make_folds` and `train_semantic`, or `recipe.init` learnt from images of the folds.
    """
    _check_init(recipe, split)
    scores = []
    for number, fold in enumerate(make_folds(split, count, stratum), start=1):
        folder = out / f"fold{number}"
        begun = resume and (folder / LAST).exists()
        history = train_semantic(data, fold, folder, recipe, settings, resume=begun).history
        scores.append(_score(history, fold))
    result = _summary(tuple(scores))
    beside = out / f".{FOLDS}.partial"
    document = asdict(result) | {
        "data_set": split.data_set,
        "seed": split.seed,
        "recipe": asdict(recipe) | {"init": recipe.init and recipe.init.name},
        "settings": asdict(settings),
        "command": shown_command(sys.argv),
        "machine": asdict(describe_machine()),
    }
    beside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    beside.replace(out / FOLDS)
    return result


def _check_init(recipe: SemanticRecipe, split: Split) -> None:
    """Refuse a checkpoint that saw images which its folds would be scored on."""
    known = load_checkpoint(recipe.init).metadata.get("split") if recipe.init else None
    seen = {*split.train, *split.val} & {*known["train"], *known["val"]} if known else set()
    if seen:
        raise BadInputError(
            f"{recipe.init} learnt from {len(seen)} of the images, such as {min(seen)}: folds would be "
            "scored on images that it knows; leave out --init, or start from a checkpoint of other data"
        )


def _score(history: History, fold: Split) -> FoldScore:
    return FoldScore(history.best_score, history.val_score[-1], history.epochs, fold.val)


def _summary(folds: tuple[FoldScore, ...]) -> CrossValidation:
    last, best = [fold.last for fold in folds], [fold.best for fold in folds]
    return CrossValidation(
        folds,
        last_mean=float(np.mean(last)),
        last_spread=float(np.std(last, ddof=1)),
        best_mean=float(np.mean(best)),
        best_spread=float(np.std(best, ddof=1)),
    )
