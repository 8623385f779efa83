"""The training loop on a tiny network: exact resume, early stopping, augmentation, refusals."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torchvision import tv_tensors

from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.splits import Split, select
from seg_bench.metrics.torch_metrics import dice_score
from seg_bench.train import loop
from seg_bench.train.augment import (
    AUGMENTATIONS,
    AugmentSettings,
    RandomNoise,
    RandomOffset,
    RandomTurn,
    augment,
    build_augmentation,
    derived_seed,
)
from seg_bench.train.dataset import Pairs, SegmentationDataset, load_pairs
from seg_bench.train.history import History, plot_history
from seg_bench.train.recipe import SemanticRecipe, TrainResult, train_semantic
from seg_bench.train.semantic_task import SemanticTask
from seg_bench.train.settings import TrainSettings
from seg_bench.train.state import TrainState
from seg_bench.train.task import pick_device
from seg_export.checkpoints.checkpoint import Preprocessing, build_model, load_checkpoint, save_checkpoint
from seg_export.checkpoints.files import read_plain
from seg_export.families.semantic.unet import UNet
from seg_runtime.errors import BadImageError, BadInputError, CheckpointError, EdgesegError
from seg_runtime.preprocess import apply_clahe
from seg_runtime.spec import ClaheSpec

NAMES = tuple(f"xray_{number}_{number % 2}" for number in range(8))
SPLIT = Split("tiny", 0, NAMES[:5], NAMES[5:7], NAMES[7:])
NETWORK = {"in_channels": 1, "num_classes": 1, "bilinear": True, "features": [4, 8]}
RECIPE = SemanticRecipe("unet", NETWORK, (64, 64), ClaheSpec())
SETTINGS = TrainSettings(epochs=4, batch_size=2, learning_rate=1e-2, ema_decay=0.5, seed=3, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight 64x64 images with a bright ellipse on noise, in the merged layout."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for name in NAMES:
        mask = np.zeros((64, 64), np.uint8)
        x, y = (int(value) for value in generator.integers(24, 40, 2))
        cv2.ellipse(mask, (x, y), (14, 20), 0, 0, 360, 255, -1)
        image = (generator.integers(0, 80, (64, 64)) + mask // 2).astype(np.uint8)
        assert cv2.imwrite(str(root / "images" / f"{name}.png"), image)
        assert cv2.imwrite(str(root / "masks" / f"{name}.png"), mask)
    return root


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run that nobody interrupted."""
    return train_semantic(data, SPLIT, tmp_path_factory.mktemp("runs") / "whole", RECIPE, SETTINGS)


def curve(history: History) -> tuple[list[float], ...]:
    return history.train_loss, history.val_loss, history.val_score, history.learning_rate


def test_run_leaves_checkpoint_state_history_and_plot(finished: TrainResult) -> None:
    folder = finished.checkpoint.parent
    assert sorted(path.name for path in folder.iterdir()) == [
        *("best.pth", "history.json", "history.png", "last.pt", "split.json")
    ]
    saved = json.loads((folder / "history.json").read_text())
    assert len(saved["train_loss"]) == len(saved["val_score"]) == 4
    assert saved["train_loss"][-1] < saved["train_loss"][0]
    assert cv2.imread(str(folder / "history.png")) is not None


def test_learning_rate_follows_the_cosine(finished: TrainResult) -> None:
    expected = [1e-6 + (1e-2 - 1e-6) * (1 + np.cos(np.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert finished.history.learning_rate == pytest.approx(expected)


def test_checkpoint_carries_statistics_and_metadata(finished: TrainResult, data: Path) -> None:
    checkpoint = load_checkpoint(finished.checkpoint)
    train = load_pairs_of(data, SPLIT.train)
    pixels = np.concatenate([apply_clahe(image, ClaheSpec()).ravel() for image in train.images]) / 255.0
    assert checkpoint.preprocessing.mean[0] == pytest.approx(pixels.mean())
    assert checkpoint.preprocessing.std[0] == pytest.approx(pixels.std())
    assert checkpoint.preprocessing.clahe == ClaheSpec()
    assert checkpoint.preprocessing.input_size_hw == (64, 64)
    assert checkpoint.class_names == ("foreground",)
    metadata = checkpoint.metadata
    assert metadata["data_set"] == "tiny"
    assert metadata["split"]["val"] == list(SPLIT.val)
    assert metadata["settings"]["seed"] == 3
    assert metadata["val_dice"] == finished.history.best_score
    assert metadata["epoch"] == finished.history.best_epoch
    assert metadata["versions"]["torch"] == torch.__version__


def load_pairs_of(data: Path, names: tuple[str, ...]) -> Pairs:
    return load_pairs(select(load_montgomery(data), names), (64, 64))


def test_best_checkpoint_has_the_validation_dice_it_claims(finished: TrainResult, data: Path) -> None:
    checkpoint = load_checkpoint(finished.checkpoint)
    model = build_model(checkpoint)
    val = SegmentationDataset(load_pairs_of(data, SPLIT.val), checkpoint.preprocessing)
    with torch.no_grad():
        scores = [dice_score(torch.sigmoid(model(image[None]))[0], mask) for image, mask in val]
    assert np.mean(scores) == pytest.approx(finished.history.best_score, abs=1e-3)


KILLED_RUN = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[3])
    import test_train as t
    from seg_bench.train import loop
    t.torch.set_num_threads(int(sys.argv[4]))  # sums of another number of threads differ in their last bits
    steps = 0
    descend = loop._descend
    def descend_until_killed(*arguments):
        global steps
        steps += 1
        if steps == 8:  # three steps an epoch: in the middle of the third
            os.kill(os.getpid(), signal.SIGKILL)
        descend(*arguments)
    loop._descend = descend_until_killed
    t.train_semantic(Path(sys.argv[1]), t.SPLIT, Path(sys.argv[2]), t.RECIPE, t.SETTINGS)
"""


@pytest.mark.slow
def test_run_killed_mid_epoch_resumes_with_the_identical_loss_curve(
    data: Path, finished: TrainResult, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    arguments = [str(data), str(out), str(Path(__file__).parent), str(torch.get_num_threads())]
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED_RUN), *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(json.loads((out / "history.json").read_text())["train_loss"]) == 2
    resumed = train_semantic(data, SPLIT, out, RECIPE, SETTINGS, resume=True)
    assert curve(resumed.history) == curve(finished.history)
    ours, theirs = load_checkpoint(resumed.checkpoint), load_checkpoint(finished.checkpoint)
    assert all(torch.equal(ours.state_dict[name], theirs.state_dict[name]) for name in theirs.state_dict)


@pytest.mark.slow
def test_workers_do_not_change_the_loss_curve(data: Path, finished: TrainResult, tmp_path: Path) -> None:
    result = train_semantic(data, SPLIT, tmp_path / "run", RECIPE, replace(SETTINGS, workers=1))
    assert curve(result.history) == curve(finished.history)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_stay_draw_as_none_do_and_differently_each_epoch(data: Path, workers: int) -> None:
    pairs = load_pairs_of(data, SPLIT.train)
    augmented = SegmentationDataset(pairs, Preprocessing(), build_augmentation((64, 64)), 3)
    here, there = (SemanticTask(augmented, augmented, replace(SETTINGS, workers=n)) for n in (0, workers))
    torch.manual_seed(0)
    before, epochs = torch.get_rng_state(), []
    for epoch in (0, 1, 5):
        ours, theirs = (
            torch.cat([images for images, _ in task.train_batches(epoch)]) for task in (here, there)
        )
        assert torch.equal(ours, theirs)
        assert {tuple(image.sum((1, 2)).tolist()) for image in ours}.isdisjoint(epochs)
        epochs += [tuple(image.sum((1, 2)).tolist()) for image in ours]
    assert torch.equal(torch.get_rng_state(), before)  # It is what dropout draws from.


def test_share_of_waiting_is_kept_and_a_run_that_did_not_measure_it_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    first = train_semantic(data, SPLIT, out, RECIPE, replace(SETTINGS, stop_after=2)).history
    assert "s, waited " in capsys.readouterr().err
    assert len(first.waited) == 2 and all(each is not None and 0 < each < 1 for each in first.waited)
    state = read_plain(out / "last.pt")
    del state["history"]["waited"]
    torch.save(state, out / "last.pt")
    train_semantic(data, SPLIT, out, RECIPE, SETTINGS, resume=True)
    saved = json.loads((out / "history.json").read_text())
    assert saved["waited"][:2] == [None, None] and all(0 < each < 1 for each in saved["waited"][2:])
    assert len(saved["waited"]) == 4


def test_waiting_is_the_time_until_a_batch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def batches() -> Iterator[int]:
        for number in range(3):
            clock[0] += 2.0
            yield number

    waits: list[float] = []
    for _ in loop._timed(batches(), waits):
        clock[0] += 5.0
    assert waits == [2.0, 2.0, 2.0]


def test_another_seed_changes_the_loss_curve(data: Path, finished: TrainResult, tmp_path: Path) -> None:
    result = train_semantic(data, SPLIT, tmp_path / "run", RECIPE, replace(SETTINGS, seed=4, epochs=1))
    assert result.history.train_loss[0] != finished.history.train_loss[0]


def test_run_paused_by_stop_after_goes_on_with_the_same_schedule(
    data: Path, finished: TrainResult, tmp_path: Path
) -> None:
    paused = train_semantic(data, SPLIT, tmp_path / "run", RECIPE, replace(SETTINGS, stop_after=1))
    assert paused.history.epochs == 1
    resumed = train_semantic(data, SPLIT, tmp_path / "run", RECIPE, SETTINGS, resume=True)
    assert curve(resumed.history) == curve(finished.history)


def test_run_begins_no_epoch_that_would_end_too_late_and_goes_on_later(
    data: Path, finished: TrainResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(5.0, 5.0)  # Every epoch takes 5 s: it looks at its begin and at its end.
    last = [0.0]

    def tick() -> float:
        last[0] = next(clock)
        return last[0]

    reported: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: last[0], perf_counter=tick))
        paused = train_semantic(
            data,
            SPLIT,
            tmp_path / "run",
            RECIPE,
            SETTINGS,
            until=24.0,
            on_epoch=lambda history: reported.append(history.epochs),
        )
    assert paused.history.seconds == [5.0, 5.0]  # At 20 s there is time for no third one.
    assert reported == [1, 2]
    resumed = train_semantic(data, SPLIT, tmp_path / "run", RECIPE, SETTINGS, resume=True)
    assert curve(resumed.history) == curve(finished.history)


def test_finished_run_resumes_to_itself(data: Path, finished: TrainResult) -> None:
    again = train_semantic(data, SPLIT, finished.checkpoint.parent, RECIPE, SETTINGS, resume=True)
    assert again.history == finished.history


def test_state_holds_plain_values_only(finished: TrainResult) -> None:
    document = read_plain(finished.checkpoint.parent / "last.pt")
    assert {"model", "optimiser", "scheduler", "average", "history", "run"} <= set(document)


def test_run_with_other_settings_is_not_resumed(data: Path, finished: TrainResult) -> None:
    with pytest.raises(BadInputError, match=r"learning_rate=0\.01, this one has 0\.5"):
        changed = replace(SETTINGS, learning_rate=0.5)
        train_semantic(data, SPLIT, finished.checkpoint.parent, RECIPE, changed, resume=True)
    with pytest.raises(BadInputError, match="belongs to a run with clahe="):
        changed_recipe = replace(RECIPE, clahe=ClaheSpec(4.0))
        train_semantic(data, SPLIT, finished.checkpoint.parent, changed_recipe, SETTINGS, resume=True)


def test_folder_with_a_run_is_not_overwritten(data: Path, finished: TrainResult) -> None:
    with pytest.raises(BadInputError, match="pass --resume"):
        train_semantic(data, SPLIT, finished.checkpoint.parent, RECIPE, SETTINGS)


def test_nothing_to_resume_is_told(data: Path, tmp_path: Path, finished: TrainResult) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        train_semantic(data, SPLIT, tmp_path, RECIPE, SETTINGS, resume=True)
    (tmp_path / "last.pt").write_bytes(finished.checkpoint.read_bytes())
    with pytest.raises(CheckpointError, match="no training state"):
        train_semantic(data, SPLIT, tmp_path, RECIPE, SETTINGS, resume=True)


@pytest.mark.slow
def test_init_starts_from_a_checkpoints_weights(data: Path, finished: TrainResult, tmp_path: Path) -> None:
    recipe = replace(RECIPE, init=finished.checkpoint, size_hw=(32, 32), half=True)
    result = train_semantic(data, SPLIT, tmp_path / "run", recipe, replace(SETTINGS, epochs=1))
    assert result.history.train_loss[0] < finished.history.train_loss[0]
    metadata = load_checkpoint(result.checkpoint).metadata
    assert metadata["init"]["sha256"] == load_checkpoint(finished.checkpoint).sha256
    assert read_plain(result.checkpoint)["state_dict"]["out.weight"].dtype == torch.float16
    with pytest.raises(CheckpointError, match="do not fit"):
        train_semantic(
            data,
            SPLIT,
            tmp_path / "other",
            replace(recipe, arguments={**NETWORK, "features": [8, 8]}),
            SETTINGS,
        )


@pytest.mark.slow
def test_training_stops_after_patience_epochs_without_a_better_dice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.6, 0.6, 0.55, 0.9])
    monkeypatch.setattr(SemanticTask, "validate", lambda *_: (0.1, next(scores)))
    settings = replace(SETTINGS, epochs=9, patience=2)
    history = train_semantic(data, SPLIT, tmp_path / "run", RECIPE, settings).history
    assert history.val_score == [0.5, 0.6, 0.6, 0.55]
    assert history.best_epoch == 2
    assert load_checkpoint(tmp_path / "run" / "best.pth").metadata["val_dice"] == 0.6


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"amp": "bf16"}, {"loss": "focal"}, {"channels_last": False}])
def test_other_settings_train_too(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, epochs=2, **changes)
    history = train_semantic(data, SPLIT, tmp_path / "run", RECIPE, settings).history
    assert history.epochs == 2
    assert all(np.isfinite(history.train_loss))


def test_loss_that_is_no_longer_finite_ends_the_run(data: Path, tmp_path: Path) -> None:
    state = dict(UNet(**RECIPE.arguments).state_dict())
    state["out.bias"] = torch.tensor([3e38])
    save_checkpoint(
        tmp_path / "huge.pth",
        family="unet",
        arguments=RECIPE.arguments,
        state_dict=state,
        preprocessing=Preprocessing(input_size_hw=(64, 64)),
        class_names=("lung",),
    )
    recipe = replace(RECIPE, init=tmp_path / "huge.pth")
    with pytest.raises(EdgesegError, match="lower --learning-rate"):
        train_semantic(data, SPLIT, tmp_path / "run", recipe, SETTINGS)


def test_gradients_are_clipped_and_the_average_follows() -> None:
    torch.manual_seed(0)
    model = torch.nn.Conv2d(1, 1, 1)
    settings = replace(SETTINGS, clip_norm=0.25, ema_decay=0.9)
    state = TrainState(model, settings, torch.device("cpu"))
    loop._descend(state, 1000.0 * model(torch.ones(1, 1, 2, 2)).sum(), settings)
    norm = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm()  # type: ignore[union-attr]
    assert float(norm) == pytest.approx(0.25, rel=1e-4)
    first = model.weight.detach().clone()
    loop._descend(state, model(torch.ones(1, 1, 2, 2)).sum(), settings)
    expected = 0.9 * first + 0.1 * model.weight.detach()
    torch.testing.assert_close(state.evaluated.get_parameter("weight").detach(), expected)


@pytest.mark.slow
def test_augmentation_never_turns_an_image_upside_down() -> None:
    """A mark in the upper middle stays in the upper half; a flip sideways happens."""
    image = np.zeros((64, 64), np.uint8)
    image[12:18, 20:26] = 255
    transform = build_augmentation((64, 64), AugmentSettings(noise_probability=0.0))
    columns = []
    for index in range(200):
        pixels, truth = augment(transform, image, image > 0, derived_seed(0, 0, index))
        if float(truth.sum()) == 0.0:
            continue  # cropped away
        rows, across = torch.nonzero(truth[0], as_tuple=True)
        assert float(rows.float().mean()) < 32
        assert float(pixels.max()) <= 1.0
        columns.append(float(across.float().mean()))
    assert len(columns) > 150
    assert 0.3 < np.mean(np.array(columns) > 32) < 0.7


def test_augmentation_rotates_by_at_most_15_degrees() -> None:
    image = np.zeros((65, 65), np.uint8)
    image[31:34] = 255
    settings = AugmentSettings(
        crop_scale=(1.0, 1.0), shift=0.0, scale=(1.0, 1.0), affine_probability=1.0, noise_probability=0.0
    )
    transform = build_augmentation((65, 65), settings)
    slopes = []
    for index in range(60):
        _, truth = augment(transform, image, image > 0, derived_seed(1, 0, index))
        rows, columns = torch.nonzero(truth[0], as_tuple=True)
        slopes.append(abs(np.polyfit(columns.numpy(), rows.numpy(), 1)[0]))
    degrees = np.rad2deg(np.arctan(slopes))
    assert degrees.max() <= 17.0  # 15 and the wider aspect that a crop may have
    assert degrees.max() > 8.0


def test_image_and_mask_move_together() -> None:
    mask = np.zeros((256, 256), np.bool_)
    mask[64:192, 48:160] = True
    image = mask.astype(np.uint8) * np.uint8(255)
    settings = AugmentSettings(noise_probability=0.0, intensity_probability=0.0)
    for index in range(30):
        pixels, truth = augment(build_augmentation((256, 256), settings), image, mask, index)
        different = ((pixels > 0.5).float() - truth).abs()  # only along the edge: masks are not interpolated
        assert float(different.mean()) < 0.01


def test_augmentation_depends_on_its_seed_alone_and_leaves_the_global_generator() -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (32, 32)).astype(np.uint8)
    transform = build_augmentation((32, 32))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, _ = augment(transform, image, image > 99, 17)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(10)
    assert torch.equal(augment(transform, image, image > 99, 17)[0], first)
    assert not torch.equal(augment(transform, image, image > 99, 18)[0], first)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_masks_follow_their_images_and_one_seed_gives_one_pair(name: str) -> None:
    image = np.full((80, 80), 40, np.uint8)
    cv2.ellipse(image, (30, 45), (12, 25), 20, 0, 360, 220, -1)
    transform = build_augmentation((64, 64), AUGMENTATIONS[name])
    apart = []
    for seed in range(60):
        pixels, truth = augment(transform, image, (image > 99).astype(np.uint8), seed)
        again = augment(transform, image, (image > 99).astype(np.uint8), seed)
        assert torch.equal(pixels, again[0]) and torch.equal(truth, again[1])
        assert pixels.shape == truth.shape == (1, 64, 64) and 0 <= pixels.min() <= pixels.max() <= 1
        assert set(truth.unique().tolist()) <= {0.0, 1.0}
        if 0 < truth.mean() < 1:
            apart.append(float(pixels[truth > 0].mean() - pixels[truth == 0].mean()))
    brighter = np.mean(np.array(apart) > 0.02)
    # White is black in 15 % of the strong ones.
    assert len(apart) > 50 and (brighter == 1 if name == "article" else 0.7 < brighter < 1)


def test_parts_of_the_strong_augmentation_do_what_they_say() -> None:
    torch.manual_seed(0)
    image, mask = tv_tensors.Image(torch.rand(1, 8, 8)), tv_tensors.Mask(torch.arange(64).reshape(1, 8, 8))
    turned, truth = RandomTurn()(tv_tensors.Image(mask.float()), mask)
    assert torch.equal(turned, truth.float()) and not torch.equal(truth, mask)
    moved, same = RandomOffset(0.5)(image, mask)
    inside = (moved > 0) & (moved < 1)
    difference = (moved - image)[inside]
    assert same is mask and difference.std() < 1e-6 < abs(difference.mean()) <= 0.5
    noisy, _ = RandomNoise((0.1, 0.1))(tv_tensors.Image(torch.full((1, 200, 200), 0.5)), mask)
    assert float(noisy.std()) == pytest.approx(0.1, rel=0.05)
    assert RandomNoise((0.0, 0.0))(image, mask)[0] is image


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_sample_has_the_size_of_the_batch_whatever_its_sides(name: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (48, 80)).astype(np.uint8)
    pairs = Pairs(tuple("abcdefgh"), (image,) * 8, ((image > 99).astype(np.uint8),) * 8)
    data = SegmentationDataset(pairs, Preprocessing(), build_augmentation((48, 80), AUGMENTATIONS[name]))
    for epoch in range(4):
        for index in range(8):
            pixels, truth = data[epoch, index]
            assert pixels.shape == truth.shape == (1, 48, 80)


def test_contrast_is_equalised_after_the_augmentation() -> None:
    """As clients do it, whatever an image went through before."""
    image = np.random.default_rng(0).integers(0, 120, (64, 64)).astype(np.uint8)
    pairs = Pairs(("a",), (image,), (np.ones((64, 64), np.uint8),))
    plain = Preprocessing((0.0,), (1.0,), ClaheSpec())
    twice = SegmentationDataset(pairs, plain, lambda pixels, mask: (pixels.float() / 127.5, mask))
    wanted = apply_clahe((2.0 * image).astype(np.uint8), ClaheSpec())
    assert np.array_equal(np.rint(255 * twice[0][0][0].numpy()), wanted)
    assert np.array_equal(
        np.rint(255 * SegmentationDataset(pairs, plain)[0][0][0].numpy()), apply_clahe(image, ClaheSpec())
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -1.0}, "must be a number of at least 0"),
        ({"ema_decay": 1.0}, "below 1"),
        ({"amp": "int8"}, "choose one of off, bf16, fp16"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        replace(SETTINGS, **changes)


def test_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(replace(SETTINGS, device="auto")) == torch.device("cpu")
    with pytest.raises(BadInputError, match="finds no GPU"):
        pick_device(replace(SETTINGS, device="cuda"))
    with pytest.raises(BadInputError, match="needs a GPU"):
        pick_device(replace(SETTINGS, device="cpu", amp="fp16"))
    with pytest.raises(BadInputError, match="choose auto, cpu or cuda"):
        pick_device(replace(SETTINGS, device="tpu"))


def test_size_too_small_for_the_levels_is_refused() -> None:
    with pytest.raises(BadInputError, match="use at least 32x32"):
        SemanticRecipe("unet", {"features": [4] * 5}, (31, 64))


def test_folder_that_cannot_be_written_is_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="cannot write the run"):
        train_semantic(data, SPLIT, tmp_path / "file" / "run", RECIPE, SETTINGS)


def test_empty_part_and_mask_of_another_size_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="val part is empty"):
        train_semantic(data, replace(SPLIT, val=()), tmp_path / "run", RECIPE, SETTINGS)
    for folder, size in (("images", 64), ("masks", 32)):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "a_0.png"), np.zeros((size, size), np.uint8))
    with pytest.raises(BadImageError, match="both must have one size"):
        train_semantic(tmp_path, Split("d", 0, ("a_0",), ("a_0x",), ()), tmp_path / "run", RECIPE, SETTINGS)


@pytest.mark.parametrize("epochs", [1, 2, 3, 80])
def test_epochs_of_a_plot_are_whole_numbers(
    epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    history = History()
    for number in range(1, epochs + 1):
        history.add(
            train_loss=1 / number, val_loss=1 / number, val_score=0.9, learning_rate=1e-3, seconds=1.0
        )
    plot_history(history, tmp_path / "history.png")
    ticks = [float(tick) for axes in figures[0].axes for tick in axes.get_xticks()]
    assert ticks and all(tick.is_integer() for tick in ticks)
