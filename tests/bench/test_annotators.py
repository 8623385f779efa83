"""Ground truth of several annotators: STAPLE against a plain EM, majority, folders that lack something."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.data.annotators import annotators
from seg_bench.data.consensus import majority, staple
from seg_bench.data.find import find_samples
from seg_bench.data.samples import Sample
from seg_bench.metrics import dice_score
from seg_bench.record_files import read_run
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import BadImageError, BadInputError, MissingExtraError

Mask = NDArray[np.bool_]
READERS = ("anna", "boris", "chen")


def expectation_maximisation(masks: NDArray[np.bool_], rounds: int = 200) -> NDArray[np.float64]:
    """Probabilities of (annotators, H, W) masks, after equations 13, 14, 18 and 19 of the paper."""
    decisions = masks.reshape(len(masks), -1).astype(float)
    prior = decisions.mean()
    sensitivity = specificity = np.full((len(masks), 1), 0.99999)
    for _ in range(rounds):
        if_true = prior * np.prod(np.where(decisions, sensitivity, 1 - sensitivity), axis=0)
        if_false = (1 - prior) * np.prod(np.where(decisions, 1 - specificity, specificity), axis=0)
        weight = if_true / (if_true + if_false)
        sensitivity = (decisions @ weight / weight.sum())[:, None]
        specificity = ((1 - decisions) @ (1 - weight) / (1 - weight).sum())[:, None]
    return np.asarray(weight.reshape(masks.shape[1:]))


def disc(x: int, y: int, radius: int) -> Mask:
    rows, columns = np.mgrid[:64, :80]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def noisy(truth: Mask, sensitivity: float, specificity: float, seed: int) -> Mask:
    chance = np.random.default_rng(seed).random(truth.shape)
    return np.where(truth, chance < sensitivity, chance > specificity)


@pytest.mark.parametrize("seed", range(3))
def test_staple_is_the_paper_s_expectation_maximisation(seed: int) -> None:
    pytest.importorskip("SimpleITK")
    truth = disc(40, 30, 20)
    abilities = ((0.95, 0.98), (0.9, 0.9), (0.75, 0.97), (0.6, 0.99))
    masks = np.stack([noisy(truth, *each, 10 * seed + number) for number, each in enumerate(abilities)])
    expected = expectation_maximisation(masks)
    assert np.abs(expected - 0.5).min() > 1e-3, "no pixel may be a toss-up"
    found = staple(list(masks))
    assert found.dtype == np.bool_ and np.array_equal(found, expected >= 0.5)
    assert dice_score(found, truth) > dice_score(majority(list(masks)), truth)


def test_annotators_who_agree_are_taken_at_their_word() -> None:
    pytest.importorskip("SimpleITK")
    for mask in (disc(30, 30, 10), np.zeros((64, 80), bool)):
        assert np.array_equal(staple([mask, mask.copy()]), mask)


def test_majority_is_more_than_half() -> None:
    votes = [np.array([[a, b, c]], bool) for a, b, c in ((1, 1, 0), (1, 0, 0), (0, 1, 0), (1, 0, 1))]
    assert majority(votes).tolist() == [[True, False, False]]
    assert majority(votes[:2]).tolist() == [[True, False, False]]


@pytest.fixture
def readings(tmp_path: Path) -> Path:
    """Two images; three annotators whose discs grow from one to the next."""
    for number in range(2):
        masks = {name: disc(40, 30, 15 + 3 * place + number) for place, name in enumerate(READERS)}
        image = masks["boris"] * np.uint8(200)
        pictures = {"images": image} | {f"masks/{name}": mask * np.uint8(255) for name, mask in masks.items()}
        for folder, pixels in pictures.items():
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(tmp_path / folder / f"case_{number}.png"), pixels)
    return tmp_path


def masks_of(root: Path, truth: str) -> list[Mask]:
    samples = find_samples(root, truth)
    assert [sample.name for sample in samples] == ["case_0", "case_1"]
    return [sample.load_mask() for sample in samples if isinstance(sample, Sample)]


def test_each_truth_is_what_its_name_says(readings: Path) -> None:
    assert annotators(readings) == READERS
    for number in range(2):
        for truth, radius in (("anna", 15), ("chen", 21), ("majority", 18), ("union", 21)):
            assert np.array_equal(masks_of(readings, truth)[number], disc(40, 30, radius + number)), truth


def test_staple_of_a_folder_is_that_of_its_masks(readings: Path) -> None:
    pytest.importorskip("SimpleITK")
    masks = [disc(40, 30, radius) for radius in (15, 18, 21)]
    assert np.array_equal(masks_of(readings, "staple")[0], staple(masks))


def one_line(arguments: list[str]) -> str:
    """What the command says when it refuses them."""
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, BadInputError)
    assert result.exception.exit_code == 2
    return str(result.exception)


def test_annotators_without_a_choice_and_a_choice_without_annotators(
    readings: Path, xray_folder: Path, tiny_repo: Path
) -> None:
    run = ["run", "--repo", str(tiny_repo), "--data"]
    assert "anna, boris, chen: choose with --truth" in one_line([*run, str(readings)])
    assert "'dora'; choose from union, majority, staple, anna, boris, chen" in one_line(
        [*run, str(readings), "--truth", "dora"]
    )
    assert "expected masks/ANNOTATOR/NAME.png" in one_line([*run, str(xray_folder), "--truth", "staple"])


def test_missing_mask_of_an_annotator_is_named(readings: Path) -> None:
    (readings / "masks" / "boris" / "case_1.png").unlink()
    with pytest.raises(BadInputError, match=r"annotator 'boris' has no mask of case_1.png: expected .*boris"):
        find_samples(readings, "majority")
    assert len(find_samples(readings, "anna")) == 2


def test_masks_of_another_size_are_refused(readings: Path) -> None:
    assert cv2.imwrite(str(readings / "masks" / "chen" / "case_0.png"), np.zeros((8, 9), np.uint8))
    with pytest.raises(BadImageError, match=r"chen.case_0.png is 9x8, its sister mask is 80x64"):
        masks_of(readings, "majority")


def test_a_single_annotator_is_no_consensus(readings: Path) -> None:
    for name in READERS[1:]:
        for path in (readings / "masks" / name).iterdir():
            path.unlink()
    with pytest.raises(
        BadInputError, match=r"--truth staple needs two annotators or more, and .* has anna only"
    ):
        find_samples(readings, "staple")


def test_staple_without_simpleitk_says_what_to_install_before_anything_runs(
    readings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeseg\[staple\]'"):
        find_samples(readings, "staple")


def test_run_scores_against_the_chosen_truth_and_records_it(
    readings: Path, tiny_repo: Path, tmp_path: Path
) -> None:
    run = ["run", "--repo", str(tiny_repo), "--data", str(readings), "--repeats", "1", "--warm-up", "0"]
    out = tmp_path / "run.json"
    command = [*run, "--threads", "1", "--no-energy", "--truth", "chen", "--out", str(out)]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    (record,) = read_run(out).records
    assert (record.data.truth, record.data.images) == ("chen", 2)
    with connect(tiny_repo, threads=1) as session:
        segmenter = SemanticSegmenter(session, "unet_tiny")
        images = [
            cv2.imread(str(readings / "images" / f"case_{i}.png"), cv2.IMREAD_GRAYSCALE) for i in (0, 1)
        ]
        found = [segmenter.segment(image).mask > 0 for image in images]
    expected = [dice_score(mask, disc(40, 30, 21 + i)) for i, mask in enumerate(found)]
    assert record.accuracy is not None and record.accuracy.dice == pytest.approx(expected)
    assert expected != pytest.approx([dice_score(mask, disc(40, 30, 15 + i)) for i, mask in enumerate(found)])
