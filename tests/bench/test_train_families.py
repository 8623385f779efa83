"""Training of all semantic families by one recipe: deep supervision, float16 checkpoints, folds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.data.montgomery import finding
from seg_bench.data.splits import Split
from seg_bench.train import folds as folds_module
from seg_bench.train.dataset import Pairs, SegmentationDataset
from seg_bench.train.folds import cross_validate, make_folds
from seg_bench.train.losses import CombinedLoss
from seg_bench.train.recipe import SemanticRecipe, train_semantic
from seg_bench.train.semantic_task import SemanticTask
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import Preprocessing, build_model, load_checkpoint
from seg_export.checkpoints.files import read_plain
from seg_export.families.semantic.pruning import pruned
from seg_export.families.semantic.unetpp import UNetPlusPlus
from seg_runtime.errors import BadInputError

NAMES = tuple(f"xray_{number}_{number % 2}" for number in range(8))
SPLIT = Split("tiny", 0, NAMES[:5], NAMES[5:7], NAMES[7:])
SETTINGS = TrainSettings(epochs=1, batch_size=4, learning_rate=1e-2, device="cpu")
NESTED = SemanticRecipe("unetpp", {"features": [4, 6]}, (32, 32))
SIZES = {"image_size": 32, "width": 4, "units": [1, 1, 1], "hidden": 64, "layers": 1, "mlp": 16}
TRANSFORMER = SemanticRecipe(
    "transunet", {**SIZES, "head_channels": 8, "decoder_channels": [8, 4, 4, 4]}, (32, 32), half=True
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight 32x32 images with a bright disc on noise, in the merged layout."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for name in NAMES:
        mask = np.zeros((32, 32), np.uint8)
        cv2.circle(mask, (int(generator.integers(12, 20)), 16), 8, 255, -1)
        image = (generator.integers(0, 80, (32, 32)) + mask // 2).astype(np.uint8)
        cv2.imwrite(str(root / "images" / f"{name}.png"), image)
        cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [NESTED, TRANSFORMER], ids=lambda recipe: recipe.family)
def test_each_family_trains_and_its_checkpoint_loads_as_that_family(
    data: Path, tmp_path: Path, recipe: SemanticRecipe
) -> None:
    result = train_semantic(data, SPLIT, tmp_path / "run", recipe, replace(SETTINGS, epochs=3))
    assert result.history.train_loss[-1] < result.history.train_loss[0]
    checkpoint = load_checkpoint(result.checkpoint)
    assert checkpoint.family == recipe.family
    assert checkpoint.preprocessing.input_size_hw == (32, 32)
    assert build_model(checkpoint)(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    with pytest.raises(BadInputError, match="belongs to a run with family"):
        other = replace(recipe, family="unet", arguments={"features": [4, 8]})
        train_semantic(data, SPLIT, tmp_path / "run", other, replace(SETTINGS, epochs=3), resume=True)


def test_every_head_learns_and_the_loss_is_their_mean() -> None:
    torch.manual_seed(0)
    model = UNetPlusPlus(features=(4, 6, 8))
    empty = SegmentationDataset(Pairs((), (), ()), Preprocessing())
    task = SemanticTask(empty, empty, SETTINGS)
    images, masks = torch.randn(2, 1, 32, 32), (torch.rand(2, 1, 32, 32) > 0.5).float()
    loss = task.loss(model, (images, masks))
    loss.backward()
    with torch.no_grad():
        each = [CombinedLoss()(head, masks) for head in model(images)]
    assert len(each) == 2
    torch.testing.assert_close(loss.detach(), torch.stack(each).mean())
    for head in ("final1", "final2"):
        assert float(model.get_parameter(f"{head}.weight").grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_folds_share_every_finding_and_never_touch_the_test_part() -> None:
    names = [f"a{number}_{int(number % 3 == 0)}" for number in range(30)]
    split = Split("d", 4, tuple(names[:20]), tuple(names[20:27]), tuple(names[27:]))
    folds = make_folds(split, 5, finding)
    assert sorted(name for fold in folds for name in fold.val) == sorted(names[:27])
    for fold in folds:
        assert not set(fold.val) & set(fold.train) and len(fold.val) + len(fold.train) == 27
        assert not set(split.test) & {*fold.train, *fold.val}
        assert len(fold.val) in (5, 6)
        assert sum(finding(name) == "tuberculosis" for name in fold.val) in (1, 2)
    assert make_folds(split, 5, finding) == folds
    assert make_folds(replace(split, seed=5), 5, finding) != folds


def test_cross_validation_states_mean_and_spread_and_does_not_train_a_finished_fold_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(resume: bool) -> folds_module.CrossValidation:
        return cross_validate(
            data, SPLIT, tmp_path, NESTED, SETTINGS, count=2, stratum=finding, resume=resume
        )

    real, trained = folds_module.train_semantic, []

    def ends_in_the_second(*arguments: Any, **options: Any) -> Any:
        trained.append(arguments[2].name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(folds_module, "train_semantic", ends_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(resume=False)
    assert not (tmp_path / "folds.json").exists()
    before = (tmp_path / "fold1" / "best.pth").stat().st_mtime_ns
    result = run(resume=True)
    assert trained == ["fold1", "fold2", "fold1", "fold2"]
    assert (tmp_path / "fold1" / "best.pth").stat().st_mtime_ns == before
    written = json.loads((tmp_path / "folds.json").read_text())
    last = [fold["last"] for fold in written["folds"]]
    assert written["last_mean"] == pytest.approx(np.mean(last))
    assert written["last_spread"] == pytest.approx(abs(last[0] - last[1]) / 2**0.5)
    assert result.last_mean == written["last_mean"]
    assert {"command", "data_set", "machine", "recipe", "seed", "settings"} < set(written)
    assert written["machine"]["packages"]["torch"] and str(tmp_path) not in json.dumps(written)
    leaking = replace(NESTED, init=tmp_path / "fold1" / "best.pth", augmentation="strong")
    with pytest.raises(BadInputError, match=r"best.pth learnt from 7 of the images, such as .*out --init"):
        cross_validate(data, SPLIT, tmp_path / "b", leaking, SETTINGS, count=2, stratum=finding)
    others = replace(SPLIT, train=("other_0",), val=("other_1",))
    start = tmp_path / "start.pth"
    model = read_plain(leaking.init)  # type: ignore[arg-type]
    model["metadata"]["split"] |= {"train": list(others.train), "val": list(others.val)}
    torch.save(model, start)
    again = cross_validate(
        data, SPLIT, tmp_path / "c", replace(leaking, init=start), SETTINGS, count=2, stratum=finding
    )
    assert len(again.folds) == 2
    with pytest.raises(BadInputError, match="holds a run already"):
        run(resume=False)


def test_trained_network_is_pruned_to_what_its_head_gave(data: Path, tmp_path: Path) -> None:
    recipe = replace(NESTED, arguments={"features": [4, 6, 8]})
    checkpoint = load_checkpoint(train_semantic(data, SPLIT, tmp_path / "run", recipe, SETTINGS).checkpoint)
    image = torch.randn(1, 1, 32, 32)
    whole = build_model(checkpoint)
    expected = whole.final1(whole._first_row(image)[1])
    torch.testing.assert_close(build_model(pruned(checkpoint, 1))(image), expected)


@pytest.mark.parametrize("family", ["unet", "unetpp", "transunet"])
@pytest.mark.slow
def test_command_trains_folds_of_every_family(data: Path, tmp_path: Path, family: str) -> None:
    split = {"data_set": "tiny", "seed": 0, "train": NAMES[:4], "val": [], "test": []}
    (tmp_path / "split.json").write_text(json.dumps(split))
    call = [
        "train",
        family,
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--split",
        str(tmp_path / "split.json"),
    ]
    network = ["--features", "4,8"] if family != "transunet" else []
    schedule = ["--size", "32", "--epochs", "1", "--folds", "2", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, [*call, *network, *schedule])
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout.splitlines()[-1])["folds"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unetpp", "--features", "4;8"], "--features got '4;8'"),
        (["transunet", "--arch", "huge"], "--arch 'huge': there are r50_vit_b16 and small"),
        (["transunet", "--size", "40"], "multiple of 16"),
        (["transunet", "--size", "32x64"], "learned positions of a square"),
        (["unet", "--size", "32 by 64"], "expected pixels as 512 or as HEIGHTxWIDTH"),
        (["unet", "--folds", "1"], "1 folds of 6 images: choose 2 to 6"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(
    data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    family, *options = arguments
    call = ["train", family, str(data), "--out", str(tmp_path / "run"), "--device", "cpu", *options]
    done = CliRunner().invoke(app, call)
    assert isinstance(done.exception, BadInputError) and message in str(done.exception)
    assert not (tmp_path / "run").exists()
