"""`seg-bench reproduce --train`: what is refused, paused, resumed and measured again, on a tiny network."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bench_records import make_record, make_run
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.data.splits import Split
from seg_bench.doctor.gather import gather
from seg_bench.reproduce import driver, plan
from seg_bench.reproduce.catalogue import ROWS, TableRow, choose_rows
from seg_bench.reproduce.device import Device, examine_device
from seg_bench.reproduce.driver import Reproduction
from seg_bench.reproduce.folder import ResultFolder
from seg_bench.reproduce.images import find_images
from seg_bench.reproduce.options import ReproduceOptions
from seg_bench.reproduce.plan import plan_rows
from seg_bench.reproduce.prepare import checkpoint_path, export_row, trained_path
from seg_bench.reproduce.screen import plan_text
from seg_bench.reproduce.training import Training, train_row, training_folder, with_training
from seg_bench.run.cases import make_cases
from seg_bench.run.options import RunOptions
from seg_bench.train import loop
from seg_bench.train.settings import TrainSettings
from seg_export.checkpoints.checkpoint import load_checkpoint
from seg_runtime.errors import BadInputError, EdgesegError

ARGUMENTS = {"in_channels": 1, "num_classes": 1, "features": [4, 8]}
TINY = TableRow("tiny", "Tiny U-Net", "shipped", "unet", "random", 0.2, 2, ARGUMENTS)
TRAIN = ("MCUCXR_0003_0", "MCUCXR_0006_0", "MCUCXR_0194_1")
VAL = ("MCUCXR_0016_0",)
TRAINING = Training(
    "cpu",
    Split("montgomery", 0, TRAIN, VAL, ()),
    TrainSettings(epochs=2, batch_size=2, learning_rate=1e-2, seed=5),
)
GPU = Device(("onnxruntime-cuda",), True, True, 10_000.0, ())


def ignore(*_: object) -> None:
    """Progress that nobody looks at."""


def train(out: Path, data: Path, training: Training = TRAINING, until: float = math.inf) -> Path:
    return train_row(TINY, training, data, ResultFolder(out), until, ignore)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, xray_folder: Path) -> Path:
    """A result folder in which the tiny network was trained, and no more."""
    out = tmp_path_factory.mktemp("trained")
    train(out, xray_folder)
    return out


@pytest.mark.slow
def test_weights_stay_in_work_and_the_record_outlives_it(trained: Path) -> None:
    weights = trained / "work" / "weights"
    assert [path.name for path in weights.iterdir()] == ["tiny_trained.pth"]
    assert checkpoint_path(TINY, weights) == trained_path(TINY, weights)
    assert list((trained / "work" / "training").iterdir()) == []  # Optimisers take twice the room of weights.
    kept = trained / "training" / "tiny"
    assert sorted(path.name for path in kept.iterdir()) == ["history.json", "history.png", "training.json"]
    history = json.loads((kept / "history.json").read_text())
    record = json.loads((kept / "training.json").read_text())
    assert len(history["train_loss"]) == len(history["val_score"]) == record["epochs"] == 2
    assert record["val_dice"] == max(history["val_score"])
    assert record["finished"] is True
    assert (record["settings"]["seed"], record["device"]) == (5, "cpu")
    assert record["split"]["train"] == list(TRAIN)
    checkpoint = load_checkpoint(trained_path(TINY, weights))
    assert checkpoint.sha256 == record["checkpoint_sha256"]
    assert checkpoint.metadata.get("weights") != "random"
    assert "Tiny U-Net: trained, 2 of 2 epochs" in (trained / "log.txt").read_text()


@pytest.mark.slow
def test_training_whose_time_is_up_is_no_trained_row_and_the_next_call_ends_it_alike(
    trained: Path, xray_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_has_time", lambda history, until: history.epochs < 1)
        with pytest.raises(EdgesegError, match=r"training was paused after 1 of 2 epochs .* larger --budget"):
            train(tmp_path, xray_folder)
    weights = tmp_path / "work" / "weights"
    assert not trained_path(TINY, weights).is_file()
    assert checkpoint_path(TINY, weights).name == "tiny.pth"
    record = json.loads((tmp_path / "training" / "tiny" / "training.json").read_text())
    assert (record["finished"], record["epochs"]) == (False, 1)
    train(tmp_path, xray_folder)
    ours, theirs = (
        load_checkpoint(trained_path(TINY, out / "work" / "weights")) for out in (tmp_path, trained)
    )
    assert all(torch.equal(ours.state_dict[name], theirs.state_dict[name]) for name in theirs.state_dict)


def test_training_that_has_no_time_at_all_leaves_nothing(xray_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match="paused after 0 of 2 epochs"):
        train(tmp_path, xray_folder, until=time.monotonic())
    assert not (tmp_path / "training").exists()


def test_a_gpu_trains_in_bfloat16_and_a_processor_in_float32() -> None:
    assert (Training().device_settings.device, Training().device_settings.amp) == ("cuda", "bf16")
    assert (TRAINING.device_settings.device, TRAINING.device_settings.amp) == ("cpu", "off")


def test_the_plan_counts_training_but_needs_no_time_for_all_of_it(tmp_path: Path) -> None:
    rows = choose_rows(["unet_lung", "unet_31m"])
    planned = plan_rows(rows, GPU, [], (), export=True)
    folder = ResultFolder(tmp_path)
    shipped, wide = with_training(planned, Training(), folder)
    assert shipped == planned[0]
    assert wide.estimate_s == planned[1].estimate_s + wide.train_s
    assert 60 < wide.train_s < 900
    assert wide.least_s == planned[1].least_s
    text = plan_text([shipped, wide], GPU, 600)
    assert "U-Net 31M                 train, export, measure fp32 fp16 int8" in text
    assert max(map(len, text.splitlines())) <= 80
    (tmp_path / "work" / "training" / "unet_31m").mkdir(parents=True)
    (tmp_path / "work" / "training" / "unet_31m" / "history.json").write_text('{"seconds": [2.0, 4.0]}')
    assert with_training(planned, Training(), folder)[1].train_s == 78 * 3.0
    (tiny,) = plan_rows([TINY], GPU, [], (), export=True)
    assert with_training([tiny], TRAINING, folder)[0].train_s > 0
    trained_path(TINY, tmp_path / "work" / "weights").parent.mkdir()
    trained_path(TINY, tmp_path / "work" / "weights").touch()
    assert with_training([tiny], TRAINING, folder)[0].train_s == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rows", "unetpp"], "no folder of --data has their training part: get them with  seg-bench data"),
        (["--rows", "unetpp", "--data", "XRAYS"], "no folder of --data has their training part"),
        (["--rows", "shipped,sam*"], "--train is for unet_31m, unetpp, transunet: add one of them to --rows"),
        (["--repo", "triton_repo"], "leave out --repo and --bundle"),
    ],
)
def test_training_that_cannot_be_is_refused(
    arguments: list[str], words: str, tmp_path: Path, xray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    given = [str(xray_folder) if each == "XRAYS" else each for each in arguments]
    result = CliRunner().invoke(app, ["reproduce", "--train", "--out", str(tmp_path / "out"), *given])
    assert isinstance(result.exception, BadInputError)
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_training_is_refused_before_anything_is_written(
    tmp_path: Path, xray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    call = ["reproduce", "--train", "--out", str(tmp_path / "out"), "--data", str(xray_folder)]
    error = CliRunner().invoke(app, call).exception
    assert isinstance(error, BadInputError) and error.exit_code == 2
    assert "--train needs a GPU that PyTorch can use" in str(error)
    assert "leave out --train to measure random weights" in str(error)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_lacks_images_of_the_split_is_refused(xray_folder: Path) -> None:
    assert training_folder(TRAINING, [TINY], [xray_folder]) == xray_folder
    more = replace(TRAINING, split=replace(TRAINING.split, val=("MCUCXR_9999_0",)))
    with pytest.raises(BadInputError, match="lacks 1 of the split's 4 samples, first MCUCXR_9999_0"):
        training_folder(more, [TINY], [xray_folder])


def copy_of(folder: Path, to: Path, names: Sequence[str], prefix: str = "") -> Path:
    """Some of the X-rays; with a prefix under names that no split knows."""
    for part in ("images", "masks"):
        (to / part).mkdir(parents=True)
        for name in names:
            shutil.copy(folder / part / f"{name}.png", to / part / f"{prefix}{name}.png")
    return to


def test_a_second_folder_is_another_data_set_and_a_third_one_refused(
    tmp_path: Path, xray_folder: Path, nuclei_folder: Path
) -> None:
    other = copy_of(xray_folder, tmp_path / "shenzhen", VAL, "CHN")
    found = find_images((xray_folder, nuclei_folder, other), tmp_path / "out")
    assert (found["masks"].path, found["masks"].other) == (xray_folder, other)
    assert found["objects"].other is None
    with pytest.raises(BadInputError, match="is a third folder with"):
        find_images((xray_folder, other, xray_folder), tmp_path / "out")


def test_images_of_another_data_set_are_taken_from_all_of_it(xray_folder: Path) -> None:
    def names(limit: int | None) -> list[str]:
        options = RunOptions(repo=Path("repo"), data=xray_folder, ood=xray_folder, limit=limit)
        (case,) = make_cases(options, (), boxes=False)
        return [sample.name for sample in case.samples]

    assert names(2) == ["MCUCXR_0003_0", "MCUCXR_0194_1"]
    assert len(names(None)) == len(names(100)) == 8


@pytest.fixture
def measured_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A result folder with a model and records of the tiny network's random weights, timed for a moment."""
    facts = gather()
    monkeypatch.setattr(driver, "gather", lambda **_: facts)
    monkeypatch.setitem(ROWS, "tiny", TINY)
    monkeypatch.setattr(driver, "MIN_CALLS", 4)
    monkeypatch.setattr(driver, "MIN_S", 0.1)
    monkeypatch.setattr(plan, "_INT8_FAMILIES", ())
    monkeypatch.setattr(
        driver, "examine_device", lambda facts: replace(examine_device(facts), server=False, compiles=False)
    )
    folder = ResultFolder(tmp_path / "out")
    images = find_images((), tmp_path / "drawn")["masks"]
    export_row(TINY, "fp32", folder.work / "triton_repo", folder.work / "weights", images)
    folder.keep("tiny", make_run(make_record("tiny", weights="random")))
    return folder.path


@pytest.mark.full
def test_a_row_of_random_weights_is_trained_and_measured_again_on_both_data_sets(
    measured_before: Path, tmp_path: Path, xray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = copy_of(xray_folder, tmp_path / "montgomery", (*TRAIN, *VAL))
    other = copy_of(xray_folder, tmp_path / "shenzhen", VAL, "CHN")
    options = ReproduceOptions(measured_before, 300.0, ("tiny",), ("onnxruntime",), (other, data))
    assert [each.state for each in Reproduction(options).plan] == ["measured"]

    options = replace(options, train=TRAINING)
    work = Reproduction(options)
    (planned,) = work.plan
    assert (planned.state, planned.missing) == ("to do", ("fp32",))
    assert planned.train_s > 0
    with monkeypatch.context() as patch:
        untils = []

        def pause(*arguments: object) -> None:
            untils.append(arguments[4])
            raise EdgesegError("training was paused after 1 of 2 epochs")

        patch.setattr(driver, "train_row", pause)
        (run,) = work.run(ignore)
    assert [str(each) for each in work.missing] == ["Tiny U-Net: training was paused after 1 of 2 epochs"]
    assert run.records[0].model.weights == "random"
    assert untils == [pytest.approx(time.monotonic() + work.remaining_s - planned.least_s, abs=0.1)]

    work = Reproduction(options)
    (run,) = work.run(ignore)
    assert work.missing == []
    assert len(run.records) == 2
    for record in run.records:
        assert record.model.weights == "trained"
        assert record.data.split == "montgomery, test (4 of 22)"
        assert record.accuracy and record.accuracy.dice_summary.mean
        assert record.conditions is not None
        (condition,) = record.conditions
        assert (condition.name, condition.kind, len(condition.dice)) == ("shenzhen", "data set", 1)
    page = (measured_before / "table.md").read_text()
    assert "random weights" not in page
    assert "Dice on shenzhen: " in page

    assert [each.state for each in Reproduction(options).plan] == ["measured"]
    (measured_before / "records" / "tiny.json").unlink()
    for again in (options, replace(options, train=None)):
        (planned,) = Reproduction(again).plan
        assert (planned.state, planned.missing, planned.train_s) == ("to do", (), 0)
