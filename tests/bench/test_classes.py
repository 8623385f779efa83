"""Accuracy of each class: what it means, from class maps on disk to the record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from seg_bench.data.class_truths import ClassMap
from seg_bench.data.classes import ClassSample, class_samples
from seg_bench.data.find import find_samples, sample_from_json, sample_to_json
from seg_bench.metrics import (
    ClassScore,
    class_confusion,
    class_distances,
    class_scores,
    hausdorff_95,
    pooled_mean_iou,
)
from seg_bench.pipelines import Outcome
from seg_bench.record_files import read_run, write_run
from seg_bench.records import Run
from seg_bench.run.options import RunOptions
from seg_bench.run.runner import measure
from seg_bench.run.scoring import Scorer
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.video.masks import davis_palette

NAMES = ("background", "disc", "bar", "ring")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three gray images, 72x64: a disc of class 1 in all, a bar of class 2 in the first two, no ring."""
    folder = tmp_path_factory.mktemp("class_data") / "shapes"
    generator = np.random.default_rng(0)
    for number in range(3):
        classes = np.zeros((72, 64), np.uint8)
        cv2.circle(classes, (24, 30), 10 + 3 * number, 1, -1)
        if number < 2:
            cv2.rectangle(classes, (44, 10), (54, 60), 2, -1)
        image = np.clip(classes * 80 + generator.integers(0, 60, classes.shape), 0, 255).astype(np.uint8)
        for name, pixels in (("images", image), ("classes", classes)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / name / f"shape_{number}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny U-Net of four classes that counts as trained."""
    from seg_export.checkpoints.checkpoint import save_checkpoint
    from seg_export.families.semantic.random import random_unet

    path = tmp_path_factory.mktemp("class_checkpoint") / "shapes.pth"
    tiny = random_unet(features=(4, 8), num_classes=len(NAMES))
    save_checkpoint(
        path,
        family=tiny.family,
        arguments=tiny.arguments,
        state_dict=tiny.state_dict,
        preprocessing=replace(tiny.preprocessing, input_size_hw=(64, 64)),
        class_names=NAMES,
    )
    return path


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, data: Path) -> RunOptions:
    from seg_export.export import export_model

    repo = tmp_path_factory.mktemp("class_repo")
    export_model(checkpoint, repo, "shapes")
    return RunOptions(repo=repo, data=data, repeats=1, warm_up=0, threads=1, energy=False)


@pytest.fixture(scope="module")
def measured(options: RunOptions, checkpoint: Path) -> Run:
    return measure(replace(options, baseline=True, checkpoint=checkpoint))


def by_definition(preds: list[np.ndarray], targets: list[np.ndarray], number: int) -> ClassScore:
    """One class, pixel by pixel in sets, image by image."""
    dice, iou, images = [], [], 0
    for pred, target in zip(preds, targets, strict=True):
        found = {(y, x) for y, row in enumerate(pred.tolist()) for x, it in enumerate(row) if it == number}
        true = {(y, x) for y, row in enumerate(target.tolist()) for x, it in enumerate(row) if it == number}
        images += bool(true)
        if found or true:
            dice.append(2 * len(found & true) / (len(found) + len(true)))
            iou.append(len(found & true) / len(found | true))
    if not dice:
        return ClassScore(None, None, 0)
    return ClassScore(sum(dice) / len(dice), sum(iou) / len(iou), images)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_classes_follow_their_definition(seed: int) -> None:
    """Of five classes some are in one image only, and the last in none."""
    generator = np.random.default_rng(seed)
    preds = [generator.integers(0, most, (20, 30)) for most in (2, 4, 1)]
    targets = [generator.integers(0, most, (20, 30)).astype(np.int32) for most in (3, 2, 1)]
    scores = class_scores([class_confusion(*pair, 5) for pair in zip(preds, targets, strict=True)])
    for number, score in enumerate(scores):
        wanted = by_definition(preds, targets, number)
        assert (score.dice, score.iou) == (pytest.approx(wanted.dice), pytest.approx(wanted.iou))
        assert score.images == wanted.images
    assert scores[0].images == 3 and scores[4] == ClassScore(None, None, 0)


def test_a_class_that_only_the_model_sees_has_a_dice_of_zero_in_no_image() -> None:
    pixels = class_confusion(np.array([[0, 1], [0, 0]]), np.zeros((2, 2), np.int32), 2)
    assert class_scores([pixels]) == (ClassScore(6 / 7, 3 / 4, 1), ClassScore(0.0, 0.0, 0))


@pytest.mark.parametrize("seed", range(3))
def test_confusion_and_mean_iou_are_those_of_their_definitions(seed: int) -> None:
    """The fourth class is nowhere."""
    generator = np.random.default_rng(seed)
    pred, target = generator.integers(0, 3, (20, 30)), generator.integers(0, 3, (20, 30)).astype(np.int32)
    pixels = class_confusion(pred, target, 4)
    for true in range(4):
        for given in range(4):
            assert pixels[true, given] == np.count_nonzero((target == true) & (pred == given))
    both = [np.count_nonzero((target == it) & (pred == it)) for it in range(3)]
    either = [np.count_nonzero((target == it) | (pred == it)) for it in range(3)]
    wanted = np.mean(np.divide(both, either))
    assert pooled_mean_iou(tuple(map(tuple, pixels.tolist()))) == pytest.approx(wanted)
    assert pooled_mean_iou(((0, 0), (0, 0))) is None


def test_distance_of_a_class_leaves_out_what_does_not_count() -> None:
    target = np.zeros((20, 20), np.int32)
    target[2:8, 2:8], target[12:18, 12:18] = 1, 2
    pred = target.copy()
    pred[0:3, 15:20] = 1  # far away, where nothing counts
    pred[pred == 2] = 3
    counted = np.ones((20, 20), bool)
    counted[0:3, 15:20] = False
    distances = class_distances(pred, target, counted, 5)
    assert distances[1] == 0.0 < class_distances(pred, target, np.ones_like(counted), 5)[1]
    assert distances[0] == hausdorff_95((pred == 0) & counted, (target == 0) & counted)
    assert np.isinf(distances[2:4]).all() and np.isnan(distances[4])
    scores = class_scores([class_confusion(pred[counted], target[counted], 5)] * 2, [distances] * 2)
    assert (scores[1].hd95, scores[1].hd95_infinite) == (0.0, 0)
    assert (scores[2].hd95, scores[2].hd95_infinite) == (None, 2)
    assert (scores[4].hd95, scores[4].hd95_infinite) == (None, 0)


@pytest.mark.slow
def test_a_run_records_each_class_as_a_user_of_the_segmenter_gets_it(
    measured: Run, options: RunOptions
) -> None:
    from seg_runtime import SemanticSegmenter, connect

    samples = class_samples(options.data)
    with connect(options.repo, threads=1) as session:
        segmenter = SemanticSegmenter(session, "shapes")
        preds = [segmenter.segment(sample.load_image()[..., 0]).mask for sample in samples]
    targets = [sample.load_classes() for sample in samples]
    deployed = next(record for record in measured.records if record.runtime == "ONNX Runtime")
    assert deployed.accuracy and deployed.accuracy.classes
    for number, (name, found) in enumerate(zip(NAMES, deployed.accuracy.classes, strict=True)):
        wanted = by_definition(preds, targets, number)
        assert (found.name, found.images) == (name, wanted.images)
        assert (found.dice, found.iou) == (pytest.approx(wanted.dice), pytest.approx(wanted.iou))
        distances = [
            hausdorff_95(pred == number, target == number)
            for pred, target in zip(preds, targets, strict=True)
            if (pred == number).any() or (target == number).any()
        ]
        finite = [distance for distance in distances if np.isfinite(distance)]
        assert found.hd95 == (pytest.approx(np.mean(finite)) if finite else None)
        assert found.hd95_infinite == len(distances) - len(finite)
    pixels = sum(class_confusion(*pair, 4) for pair in zip(preds, targets, strict=True))
    assert deployed.accuracy.confusion == tuple(map(tuple, pixels.tolist()))
    assert [found.images for found in deployed.accuracy.classes] == [3, 3, 2, 0]
    foreground = [
        2 * np.count_nonzero((pred > 0) & (target > 0)) / (np.count_nonzero(pred) + np.count_nonzero(target))
        for pred, target in zip(preds, targets, strict=True)
    ]
    assert deployed.accuracy.dice == pytest.approx(foreground, abs=1e-3)


def test_the_pytorch_baseline_has_the_same_classes(measured: Run) -> None:
    first, second = (record.accuracy.classes for record in measured.records if record.accuracy)
    assert first and second
    for one, other in zip(first, second, strict=True):
        assert (one.name, one.images) == (other.name, other.images)
        assert one.dice == pytest.approx(other.dice, abs=5e-3)


def test_records_with_classes_are_read_back_and_old_ones_have_none(measured: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_run(measured, path)
    assert read_run(path) == measured
    document = json.loads(path.read_text())
    for record in document["records"]:
        del record["accuracy"]["classes"], record["accuracy"]["confusion"]
    path.write_text(json.dumps(document))
    assert [record.accuracy and record.accuracy.classes for record in read_run(path).records] == [None] * 2


def test_ground_truth_without_classes_gives_none(options: RunOptions, data: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "images").symlink_to(data / "images")
    for sample in class_samples(data):
        mask = sample.load_mask().astype(np.uint8) * 255
        assert cv2.imwrite(str(tmp_path / "masks" / f"{sample.name}.png"), mask)
    (record,) = measure(replace(options, data=tmp_path, limit=1)).records
    assert record.accuracy and record.accuracy.classes is None


def test_a_model_of_one_class_is_scored_on_the_foreground_of_a_class_map(data: Path) -> None:
    sample = class_samples(data)[0]
    scorer = Scorer()
    assert scorer.score(sample, Outcome([sample.load_classes() > 0], {}))["dice"] == 1
    assert scorer.classes() is None


def test_a_class_that_the_model_does_not_have_is_refused_before_anything_is_measured(
    options: RunOptions, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "classes").mkdir()
    (tmp_path / "images").symlink_to(data / "images")
    for sample in class_samples(data):
        assert cv2.imwrite(
            str(tmp_path / "classes" / f"{sample.name}.png"), sample.load_classes().astype(np.uint8) * 4
        )
    with pytest.raises(BadInputError, match="'shape_0' has class 8, and 'shapes' 0 to 3"):
        measure(replace(options, data=tmp_path))


def test_an_indexed_map_of_classes_is_read_by_its_indices(data: Path, tmp_path: Path) -> None:
    gray = class_samples(data)[0]
    indexed = Image.fromarray(gray.load_classes().astype(np.uint8))
    indexed.putpalette(davis_palette())
    indexed.save(tmp_path / "a.png")
    read = replace(gray, truth=ClassMap(tmp_path / "a.png")).load_classes()
    assert np.array_equal(read, gray.load_classes()) and read.max() == 2


def test_a_map_of_classes_in_colour_or_missing_is_refused(data: Path, tmp_path: Path) -> None:
    image, classes = data / "images" / "shape_0.png", tmp_path / "classes" / "shape_0.png"
    classes.parent.mkdir()
    assert cv2.imwrite(
        str(classes), np.dstack([np.eye(64, dtype=np.uint8) * value for value in (0, 7, 9)]) + 1
    )
    with pytest.raises(
        BadImageError, match="save the number of each pixel's class as a gray or an indexed PNG"
    ):
        ClassSample("shape_0", image, ClassMap(classes)).load_classes()
    with pytest.raises(BadImageError, match="there is no such file"):
        ClassSample("shape_0", image, ClassMap(tmp_path / "none.png")).load_classes()
    classes.unlink()
    (tmp_path / "images").symlink_to(data / "images")
    with pytest.raises(BadInputError, match="has no map of classes"):
        find_samples(tmp_path)


def test_a_class_map_reaches_another_process_as_it_is(data: Path) -> None:
    for sample in find_samples(data):
        assert isinstance(sample, ClassSample) and sample.size_hw() == (72, 64)
        assert sample_from_json(json.loads(json.dumps(sample_to_json(sample)))) == sample
