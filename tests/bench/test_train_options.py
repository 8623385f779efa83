"""Every option of `seg-bench train unet`, `unetpp` and `transunet` changes what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

import seg_bench.cli.train_semantic
import seg_bench.train.folds
import seg_bench.train.recipe
from seg_bench.cli.train import app
from seg_bench.data.splits import Split, save_split
from seg_bench.data.training import training_data
from seg_bench.train.recipe import SemanticRecipe
from seg_bench.train.settings import TrainSettings
from seg_runtime.files.images import write_png

VALUES = {
    "amp": "bf16",
    "annotator_weights": "anna=1,boris=0.5",
    "arch": "r50_vit_b16",
    "augmentation": "strong",
    "batch_size": "3",
    "bce_weight": "0.25",
    "boundary_weight": "0.01",
    "channels": "3",
    "class_names": "lesion",
    "class_weights": "frequency",
    "device": "cpu",
    "dice_weight": "0.75",
    "ema_decay": "0.5",
    "epochs": "7",
    "features": "4,8",
    "folds": "3",
    "init": "best.pth",
    "learning_rate": "0.5",
    "loss": "focal",
    "out": "elsewhere",
    "patience": "4",
    "seed": "7",
    "size": "256",
    "split": "split.json",
    "stop_after": "2",
    "truth": "union",
    "weight_decay": "0.125",
    "workers": "1",
}
"""Another value than the default for each option that is no flag."""

FAMILIES: Any = get_command(app)
CASES = [
    (family, option.name)
    for family in ("unet", "unetpp", "transunet")
    for option in FAMILIES.commands[family].params
    if option.param_type_name == "option" and option.name != "help"
]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What the commands hand to the library, which trains nothing."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "masks"):
        Path("data", folder).mkdir(parents=True)
        for name in "abc":
            write_png(Path("data", folder, f"{name}.png"), 255 * np.eye(16, dtype=np.uint8))
    for folder in ("images", "masks/anna", "masks/boris"):
        Path("readers", folder).mkdir(parents=True)
        for name in "abc":
            write_png(Path("readers", folder, f"{name}.png"), 255 * np.eye(16, dtype=np.uint8))
    save_split(Split("other", 0, ("a",), ("b",), ("c",)), Path("split.json"))
    seen: list[Any] = []

    def record(*arguments: Any, **options: Any) -> None:
        seen.append((arguments, {name: each for name, each in options.items() if name != "stratum"}))

    monkeypatch.setattr(seg_bench.train.recipe, "train_semantic", record)
    monkeypatch.setattr(seg_bench.train.folds, "cross_validate", record)
    for name in ("show_result", "show_folds"):
        monkeypatch.setattr(seg_bench.cli.train_semantic, name, lambda *shown: seen.append(shown[-1]))
    return seen


def _trained(seen: list[Any], *arguments: str) -> list[Any]:
    """What a command handed over."""
    seen.clear()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return list(seen)


def test_a_command_without_options_trains_by_the_settings_defaults(seen: list[Any]) -> None:
    ((positional, options), as_json) = _trained(seen, "unet", "data", "--out", "run")
    data, split, out, recipe, settings = positional
    assert (data, split, out) == (Path("data"), training_data(Path("data")).split(), Path("run"))
    assert settings == TrainSettings()
    assert isinstance(recipe, SemanticRecipe) and recipe.family == "unet"
    assert recipe.arguments["features"] == [64, 128, 256, 512, 1024]
    assert (options, as_json) == ({"resume": False}, False)


@pytest.mark.parametrize("family", ["unet", "unetpp"])
def test_images_need_not_be_squares(seen: list[Any], family: str) -> None:
    ((positional, _), _) = _trained(seen, family, "data", "--out", "run", "--size", "64x128")
    assert positional[3].size_hw == (64, 128)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_option_changes_what_is_trained(seen: list[Any], family: str, name: str) -> None:
    (option,) = (each for each in FAMILIES.commands[family].params if each.name == name)
    value = [(option.secondary_opts or option.opts)[0]] if option.is_flag else [option.opts[0], VALUES[name]]
    is_of_readers = name in ("truth", "annotator_weights")
    base = [family, "readers" if is_of_readers else "data", "--out", "run"]
    plain = _trained(seen, *base, *(["--truth", "anna"] if is_of_readers else []))
    changed = _trained(seen, *base, *value)
    assert changed != plain
    if hasattr(TrainSettings, name):
        (_, *_, before), (_, *_, after) = plain[0][0], changed[0][0]
        assert {each for each in vars(after) if vars(after)[each] != vars(before)[each]} == {name}
