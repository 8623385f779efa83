"""A network of three classes: from a folder of colour images to a benchmark of the published graph."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from class_data import NAMES, labels, write_classes
from export_command import run_export
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.data.check import check_class_names
from seg_bench.data.splits import Split
from seg_bench.data.training import training_data
from seg_bench.train.dataset import Pairs, SegmentationDataset, load_pairs
from seg_bench.train.recipe import SemanticRecipe, train_semantic
from seg_bench.train.semantic_task import SemanticTask
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import Preprocessing, load_checkpoint
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image, write_png

SPLIT = Split("scenes", 0, *(tuple(f"scene_{n}" for n in part) for part in (range(8), (8, 9), (10, 11))))
NETWORK = {"in_channels": 3, "num_classes": 3, "bilinear": True, "features": [8, 16]}
RECIPE = SemanticRecipe("unet", NETWORK, (48, 48))
SETTINGS = TrainSettings(epochs=2, batch_size=4, learning_rate=1e-2, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("classes") / "scenes")


@pytest.mark.full
def test_commands_train_export_and_measure_several_classes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = CliRunner().invoke(
        app,
        f"train unet {data} --out run --features 8,16 --size 48 --epochs 8 --batch-size 2 --device cpu "
        "--json --learning-rate 0.02 --class-weights frequency --oversample".split(),
    )
    assert trained.exit_code == 0, trained.output
    assert "9 colour images to train on" in " ".join(trained.stderr.split())
    assert "classes: background, disc, bar" in trained.stderr
    assert json.loads(trained.stdout)["val_mean_dice"] > 0.7
    checkpoint = load_checkpoint(Path("run/best.pth"))
    assert checkpoint.class_names == NAMES and len(checkpoint.preprocessing.mean) == 3
    assert checkpoint.preprocessing.clahe is None
    weights = checkpoint.metadata["class_weights"]
    assert weights[2] > weights[0] and len(weights) == 3

    assert (
        run_export("unet", "--checkpoint", "run/best.pth", "--repo", "repo", "--name", "scenes").exit_code
        == 0
    )
    with connect("repo") as session:
        found = SemanticSegmenter(session, "scenes").segment(read_image(data / "images" / "scene_9.png", 3))
        assert session.spec("scenes").class_names == NAMES
    disc, wanted = found.mask == 1, labels(9) == 1
    assert 2 * np.count_nonzero(disc & wanted) / (disc.sum() + wanted.sum()) > 0.6
    options = "--split-file run/split.json --part test --repeats 1 --warm-up 0 --out run.json --json"
    measured = CliRunner().invoke(app, f"run --repo repo --data {data} {options}".split())
    assert measured.exit_code == 0, measured.output
    (record,) = json.loads(Path("run.json").read_text())["records"]
    assert [each["name"] for each in record["accuracy"]["classes"]] == list(NAMES)


def test_statistics_are_of_each_channel_and_masks_of_each_class(data: Path) -> None:
    found = training_data(data)
    assert found.channels() == 3
    pairs = load_pairs(found.samples, (48, 48), 3, 3)
    assert pairs.images[0].shape == (48, 48, 3)
    first = [int(name.removeprefix("scene_")) for name in pairs.names].index(0)
    np.testing.assert_array_equal(pairs.masks[first], labels(0))
    small = load_pairs(found.samples, (24, 24), 3, 3)
    assert set(np.unique(small.masks[first])) == {0, 1, 2}
    dataset = SegmentationDataset(pairs, Preprocessing((0.1, 0.2, 0.3), (0.5, 1.0, 2.0)))
    image, truth = dataset[first]
    wanted = (pairs.images[first] / 255 - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(image.numpy(), wanted.transpose(2, 0, 1), atol=1e-6)
    np.testing.assert_array_equal(truth[0].numpy(), labels(0))


def test_images_of_rare_classes_are_drawn_more_often_and_the_same_ones_each_time() -> None:
    masks = tuple(np.full((4, 4), int(index == 0), np.uint8) for index in range(20))
    data = SegmentationDataset(Pairs(tuple("abcdefghijklmnopqrst"), masks, masks), Preprocessing())
    task = SemanticTask(data, data, replace(SETTINGS, oversample=True), ("background", "rare"))
    drawn = [index for epoch in range(200) for index in task._order(epoch)]
    usual = [drawn.count(index) for index in range(1, 20)]
    assert drawn.count(0) > 2 * np.mean(usual)
    assert task._order(3) == task._order(3) and len(task._order(3)) == 20


def test_the_score_is_the_mean_over_classes_without_background_and_ignored_pixels() -> None:
    truth = np.zeros((8, 8), np.uint8)
    truth[:4, :4], truth[4:, 4:], truth[0, :] = 1, 2, 255
    data = SegmentationDataset(Pairs(("a",), (truth,), (truth,)), Preprocessing())
    predicted = torch.from_numpy(np.where(truth == 2, 0, truth).astype(np.int64))
    predicted[0] = 2

    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 20.0 * torch.nn.functional.one_hot(predicted, 3).permute(2, 0, 1)[None].float()

    _, score = SemanticTask(data, data, SETTINGS, NAMES).validate(Fixed(), lambda: None)
    assert score == pytest.approx((1.0 + 0.0) / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class-weights", "1,2"], "2 class weights for 3 classes (background, disc, bar)"),
        (["--class-weights", "rare"], "--class-weights got 'rare'"),
        (["--class-weights", "frequency", "--loss", "generalised-dice"], "weights classes by itself"),
        (["--class-names", "a,b"], "--class-names are a, b, and"),
        (["--channels", "2"], "in_channels is 2: training takes gray (1) or colour (3) images"),
    ],
)
def test_bad_options_are_one_line(
    data: Path, tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = f"train unet {data} --out {tmp_path}/run --features 4,8 --size 48 --device cpu".split()
    done = CliRunner().invoke(app, [*call, *arguments])
    assert isinstance(done.exception, BadInputError) and message in str(done.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unknown class", "has class 3, and there are names for 0 to 2: name all classes"),
        ("all ignored", "no pixel of 'scene_1' counts: leave the image out"),
        ("other size", "mask of scene_1 is 40x40, its image 48x48"),
        ("absent class", "no image of the train part has bar"),
    ],
)
def test_data_that_cannot_be_trained_on_is_one_line(tmp_path: Path, change: str, message: str) -> None:
    root = write_classes(tmp_path / "data", "palette" if change == "all ignored" else "map")
    changed = {
        "unknown class": np.full((48, 48), 3, np.uint8),
        "other size": np.ones((40, 40), np.uint8),
    }
    if change == "absent class":
        for number in range(12):
            write_png(root / "classes" / f"scene_{number}.png", labels(1))
    elif change == "all ignored":
        np.save(root / "classes" / "void.npy", np.full((48, 48), -1))
        (root / "classes" / "scene_1.png").unlink()
        (root / "classes" / "void.npy").rename(root / "classes" / "scene_1.png")
    else:
        write_png(root / "classes" / "scene_1.png", changed[change])
    with pytest.raises(BadInputError, match=message.replace("'", ".")):
        train_semantic(root, SPLIT, tmp_path / "run", RECIPE, SETTINGS)
    assert not (tmp_path / "run").exists()


def test_python_and_the_data_must_name_one_number_of_classes(data: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, arguments={**NETWORK, "num_classes": 4})
    with pytest.raises(
        BadInputError, match=r"has 3 classes \(background, disc, bar\) and the network num_cl"
    ):
        train_semantic(data, SPLIT, tmp_path / "run", recipe, SETTINGS)


@pytest.mark.parametrize(
    ("of_model", "is_scored"),
    [
        (NAMES, True),
        (("foreground",), True),
        ((), True),
        (("lung",), False),
        (("disc",), False),
        (("background", "bar", "disc"), False),
        (("background", "disc"), False),
    ],
)
def test_a_model_is_never_scored_by_classes_that_it_does_not_find(
    of_model: tuple[str, ...], is_scored: bool
) -> None:
    if is_scored:
        check_class_names(NAMES, of_model, "model")
        return
    with pytest.raises(
        BadInputError, match=r"'model' finds .*, and the data has the classes background, disc, bar"
    ):
        check_class_names(NAMES, of_model, "model")
