"""`seg-bench calibrate`: each threshold's Dice as it is defined, and what is published."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from seg_bench.calibrate import (
    THRESHOLDS,
    Calibration,
    Score,
    choose,
    dice_by_threshold,
    objects_by_threshold,
)
from seg_bench.cli import app
from seg_bench.data.find import find_samples
from seg_bench.data.nuclei import load_nuclei
from seg_bench.data.samples import Truth
from seg_bench.metrics import dice_score
from seg_export.publishing.manage import rollback, set_threshold
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.instances import InstanceSegmenter
from seg_runtime.model_config import with_threshold
from seg_runtime.repository import CONFIG_FILE, Repository


@pytest.mark.parametrize("seed", range(4))
def test_dice_of_every_threshold_is_that_of_its_mask(seed: int) -> None:
    generator = np.random.default_rng(seed)
    thresholds = (0.9, *THRESHOLDS, 0.505)
    probabilities = generator.random((24, 31), np.float32)
    # Some lie exactly on thresholds: those are foreground.
    probabilities[::3] = generator.choice(np.asarray(THRESHOLDS, np.float32), probabilities[::3].shape)
    truth = Truth(generator.random((24, 31)) < 0.4, generator.random((24, 31)) < 0.1)
    truth = Truth(truth.mask & ~truth.ignored, truth.ignored)
    found = dice_by_threshold(probabilities, truth, thresholds)
    for threshold, dice in zip(thresholds, found, strict=True):
        mask = truth.judged(probabilities >= np.float32(threshold))
        both = np.count_nonzero(mask & truth.mask)
        assert dice == pytest.approx(2 * both / (np.count_nonzero(mask) + np.count_nonzero(truth.mask)))


def chosen_of(values: Sequence[float], current: float) -> Calibration:
    scores = [Score(*pair) for pair in zip((*THRESHOLDS, current), map(float, values), strict=True)]
    return choose("m", "threshold", "mean Dice", ("a",), scores)


def test_the_nearest_of_the_thresholds_that_are_as_good_is_chosen() -> None:
    curve = np.full(len(THRESHOLDS), 0.8)
    curve[THRESHOLDS.index(0.6)], curve[THRESHOLDS.index(0.7)] = 0.9496, 0.95
    found = chosen_of([*curve, 0.8], 0.5)
    assert (found.chosen.threshold, found.best.threshold, found.current.threshold) == (0.6, 0.7, 0.5)
    level = chosen_of([0.9] * (len(THRESHOLDS) + 1), 0.37)
    assert level.chosen.threshold == 0.37
    assert len(level.curve) == len(THRESHOLDS)


@pytest.fixture
def repo(lung_repo: Path, tmp_path: Path) -> Path:
    """A repository with the lung U-Net alone, whose threshold is a bad one."""
    shutil.copytree(lung_repo / "unet_lung", tmp_path / "repo" / "unet_lung")
    config = tmp_path / "repo" / "unet_lung" / CONFIG_FILE
    version = Repository(tmp_path / "repo").spec("unet_lung").version
    own = config.parent / str(version) / CONFIG_FILE
    for path in (config, own):
        path.write_text(with_threshold(config.read_text(), 0.001).replace("count: 1", "count: 3"))
    return tmp_path / "repo"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["calibrate", *map(str, arguments)])


def test_the_threshold_that_fits_the_images_is_published_and_nothing_else_changes(
    repo: Path, xray_folder: Path
) -> None:
    before = (repo / "unet_lung" / CONFIG_FILE).read_text()
    result = run("unet_lung", xray_folder, "--repo", repo, "--json")
    found = json.loads(result.output)
    assert result.exit_code == 0 and found["published"] is True
    assert 0.05 <= found["chosen"]["threshold"] <= 0.95 and found["current"]["threshold"] == 0.001
    assert found["chosen"]["value"] > found["current"]["value"] + 0.01
    spec = Repository(repo).spec("unet_lung")
    assert spec.threshold == found["chosen"]["threshold"]
    after = (repo / "unet_lung" / CONFIG_FILE).read_text()
    assert after == with_threshold(before, spec.threshold) and "count: 3" in after
    assert (repo / "unet_lung" / str(spec.version) / CONFIG_FILE).read_text() == after
    assert rollback(repo, "unet_lung", spec.version).threshold == spec.threshold
    # What users get from now on is what was promised.
    with connect(repo) as session:
        segmenter = SemanticSegmenter(session, "unet_lung")
        dice = [
            dice_score(
                segmenter.segment(read_image(sample.image_path, 1, gray=True)).mask > 0, sample.load_mask()
            )
            for sample in find_samples(xray_folder)
        ]
    assert np.mean(dice) == pytest.approx(found["chosen"]["value"], abs=1e-6)
    again = run("unet_lung", xray_folder, "--repo", repo)
    assert "keeps" in again.output and "no threshold is clearly better" in again.output
    assert max(map(len, again.output.splitlines())) <= 80


@pytest.mark.parametrize("seed", range(3))
def test_objects_of_every_threshold_are_those_whose_score_reaches_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = np.sort(generator.choice(np.asarray(THRESHOLDS, np.float32), 40))[::-1]
    paired = generator.random(40) < 0.6
    both, every = objects_by_threshold(scores, paired, (0.9, *THRESHOLDS))
    for threshold, true, all_of_them in zip((0.9, *THRESHOLDS), both, every, strict=True):
        reached = scores >= np.float32(threshold)
        assert (true, all_of_them) == (np.count_nonzero(reached & paired), np.count_nonzero(reached))


@pytest.mark.full
def test_the_score_of_a_detector_is_published_and_the_client_takes_it(
    nuclei_repo: Path, nuclei_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(nuclei_repo / "maskrcnn_nuclei", tmp_path / "repo" / "maskrcnn_nuclei")
    repo = tmp_path / "repo"
    set_threshold(repo, "maskrcnn_nuclei", 0.06)
    found = json.loads(run("maskrcnn_nuclei", nuclei_folder, "--repo", repo, "--json").output)
    assert (found["what"], found["metric"], found["published"]) == ("score_threshold", "F1 of objects", True)
    assert found["chosen"]["value"] > found["current"]["value"] and found["chosen"]["threshold"] > 0.2
    assert abs(found["chosen"]["count_error"]) < abs(found["current"]["count_error"])
    assert Repository(repo).spec("maskrcnn_nuclei").score_threshold == found["chosen"]["threshold"]
    errors = []
    with connect(repo) as session:
        segmenter = InstanceSegmenter(session, "maskrcnn_nuclei", score_threshold=None)
        assert segmenter.score_threshold == found["chosen"]["threshold"]
        for sample in load_nuclei(nuclei_folder):
            objects = segmenter.segment(sample.load_image())
            errors.append(len(objects.scores) - np.count_nonzero(np.unique(sample.load_labels())))
    assert np.mean(errors) == pytest.approx(found["chosen"]["count_error"])
    shown = run("maskrcnn_nuclei", nuclei_folder, "--repo", repo, "--no-publish").output
    assert "found - true" in shown and max(map(len, shown.splitlines())) <= 80


def test_without_publishing_the_contract_stays(repo: Path, xray_folder: Path) -> None:
    before = (repo / "unet_lung" / CONFIG_FILE).read_bytes()
    result = run("unet_lung", xray_folder, "--repo", repo, "--no-publish")
    assert result.exit_code == 0 and "would have the threshold" in result.output
    assert (repo / "unet_lung" / CONFIG_FILE).read_bytes() == before


def test_a_version_without_a_configuration_of_its_own_gets_the_threshold_where_it_is_served(
    repo: Path, xray_folder: Path
) -> None:
    spec = Repository(repo).spec("unet_lung")
    (repo / "unet_lung" / str(spec.version) / CONFIG_FILE).unlink()
    assert run("unet_lung", xray_folder, "--repo", repo).exit_code == 0
    assert Repository(repo).spec("unet_lung").threshold > 0.05
    assert not (repo / "unet_lung" / str(spec.version) / CONFIG_FILE).exists()


def test_a_repository_that_cannot_be_written_to_is_said_before_the_work(
    repo: Path, xray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    result = run("unet_lung", xray_folder, "--repo", repo)
    assert "cannot be written to: look at the thresholds with --no-publish" in str(result.exception)


def test_models_without_a_threshold_and_unused_options_are_refused(
    repo: Path, tiny_sam_repo: Path, xray_folder: Path, tmp_path: Path
) -> None:
    result = run("sam_tiny_decoder", xray_folder, "--repo", tiny_sam_repo)
    assert isinstance(result.exception, BadInputError)
    split = tmp_path / "split.json"
    split.write_text("{}")
    result = run("unet_lung", xray_folder, "--repo", repo, "--split-file", split)
    assert isinstance(result.exception, BadInputError) and "choose one with --part val" in str(
        result.exception
    )
    with pytest.raises(BadInputError, match="expected a probability"):
        set_threshold(repo, "unet_lung", 1.2)
    with pytest.raises(BadInputError, match="no threshold of one class"):
        set_threshold(tiny_sam_repo, "sam_tiny_decoder", 0.4)
