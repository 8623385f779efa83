"""Dice under corruptions and on another data set: the same pipeline, early refusals, Ctrl-C."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_graph import publish, semantic_graph, semantic_spec

from seg_bench.candidate import ENGINE, Candidate
from seg_bench.corruptions import CORRUPTIONS, corrupt
from seg_bench.data.find import AnySample, find_samples, sample_from_json, sample_to_json
from seg_bench.data.views import VIEWS, ViewSample
from seg_bench.metrics import dice_score, summarize, worst_decile
from seg_bench.record_files import read_run, write_run
from seg_bench.records import Run
from seg_bench.run.cases import Case, make_cases
from seg_bench.run.conditions import score_conditions
from seg_bench.run.options import RunOptions
from seg_bench.run.rows import Row
from seg_bench.run.runner import measure
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import read_image


def write(path: Path, pixels: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def make_data(folder: Path, size_hw: tuple[int, int], count: int, colour: bool = False) -> Path:
    """Images with a disc each."""
    generator = np.random.default_rng(count)
    for number in range(count):
        mask = np.zeros(size_hw, np.uint8)
        cv2.circle(mask, (size_hw[1] // 2, size_hw[0] // 2), 12 + 3 * number, 255, -1)
        shape = (*size_hw, 3) if colour else size_hw
        ground = mask[:, :, None] if colour else mask
        image = np.clip(ground * 0.5 + generator.integers(0, 100, shape), 0, 255).astype(np.uint8)
        write(folder / "images" / f"disc_{number}.png", image)
        write(folder / "masks" / f"disc_{number}.png", mask)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("conditions") / "discs", (80, 72), 3)


@pytest.fixture(scope="module")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In colour and of another size."""
    return make_data(tmp_path_factory.mktemp("conditions") / "elsewhere", (64, 90), 4, colour=True)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunOptions:
    """A model whose mask is what is brighter than half."""
    repo = tmp_path_factory.mktemp("conditions_repo")
    publish(repo, semantic_spec(), semantic_graph())
    return RunOptions(repo=repo, data=data, repeats=1, warm_up=0, threads=1, limit=2)


@pytest.fixture(scope="module")
def measured(options: RunOptions, other_data: Path) -> Run:
    """The same engine twice, and another."""
    engines = ("auto", "onnxruntime", "openvino")
    return measure(replace(options, robustness=True, ood=other_data, engines=engines))


def test_corrupted_images_score_as_a_user_of_the_segmenter_would_find_them(
    measured: Run, options: RunOptions
) -> None:
    from seg_runtime import SemanticSegmenter, connect

    conditions = {condition.name: condition for condition in measured.records[0].conditions or ()}
    assert list(conditions) == [*CORRUPTIONS, *VIEWS, "elsewhere"]
    with connect(options.repo, threads=1) as session:
        segmenter = SemanticSegmenter(session, "tiny")
        for name in CORRUPTIONS:
            condition, wanted = conditions[name], []
            for sample in find_samples(options.data)[:2]:
                image = corrupt(sample.load_image(), name, sample.name)
                wanted.append(dice_score(segmenter.segment(image).mask > 0, sample.load_mask()))
            assert condition.dice == pytest.approx(wanted)
            assert (condition.kind, condition.images) == ("corruption", ("disc_0", "disc_1"))
            assert condition.summary == summarize(condition.dice)
    assert len({condition.dice for condition in conditions.values()}) > 5


SEEN = {
    "left half": lambda pixels: np.hsplit(pixels, 2)[0],
    "right half": lambda pixels: np.hsplit(pixels, 2)[1],
    "turned 90": lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def test_halves_and_turned_images_are_scored_by_the_ground_truth_that_belongs_to_them(
    measured: Run, options: RunOptions
) -> None:
    from seg_runtime import SemanticSegmenter, connect

    conditions = {condition.name: condition for condition in measured.records[0].conditions or ()}
    with connect(options.repo, threads=1) as session:
        segmenter = SemanticSegmenter(session, "tiny")
        for name, seen in SEEN.items():
            wanted = []
            for sample in find_samples(options.data)[:2]:
                image, mask = sample.load_image(), sample.load_mask().astype(np.uint8)
                found = segmenter.segment(np.ascontiguousarray(seen(image))).mask > 0
                wanted.append(dice_score(found, seen(mask) > 0))
            assert conditions[name].dice == pytest.approx(wanted)
            assert conditions[name].kind == "view"


def test_an_image_whose_half_is_empty_is_left_out_there(options: RunOptions, tmp_path: Path) -> None:
    data = make_data(tmp_path / "some", (80, 72), 3)
    mask = np.zeros((80, 72), np.uint8)
    mask[20:40, 5:20] = 255
    write(data / "masks" / "disc_1.png", mask)
    cases = make_cases(replace(options, robustness=True), find_samples(data), boxes=False)
    shown = {case.name: [sample.name for sample in case.samples] for case in cases if case.kind == "view"}
    both = ["disc_0", "disc_1", "disc_2"]
    assert shown == {"left half": both, "right half": ["disc_0", "disc_2"], "turned 90": both}


def test_another_data_set_is_scored_on_its_own_images_no_more_than_the_limit(
    measured: Run, options: RunOptions, other_data: Path
) -> None:
    from seg_runtime import SemanticSegmenter, connect

    condition = (measured.records[0].conditions or ())[-1]
    assert (condition.name, condition.kind) == ("elsewhere", "data set")
    assert condition.images == ("disc_0", "disc_2")  # Two of four, from all of it.
    with connect(options.repo, threads=1) as session:
        segmenter = SemanticSegmenter(session, "tiny")
        for sample, dice in zip(find_samples(other_data)[::2], condition.dice, strict=True):
            image = read_image(sample.image_path, 1, gray=True)
            assert dice == pytest.approx(dice_score(segmenter.segment(image).mask > 0, sample.load_mask()))


def test_rows_of_one_model_in_one_engine_are_scored_once(measured: Run) -> None:
    auto, again, openvino = measured.records
    assert auto.engine == again.engine != openvino.engine
    assert again.accuracy == auto.accuracy and again.conditions is None
    assert [condition.name for condition in openvino.conditions or ()] == [*CORRUPTIONS, *VIEWS, "elsewhere"]


def test_records_with_conditions_survive_the_disk(measured: Run, tmp_path: Path) -> None:
    write_run(measured, tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == measured


def test_a_run_that_asks_for_no_conditions_has_none(options: RunOptions) -> None:
    assert make_cases(options, find_samples(options.data), boxes=False) == ()
    assert all(record.conditions is None for record in measure(options).records)


class FakeWorker:
    """A process that says 0.5 for every image, and ends with Ctrl-C after some of them."""

    def __init__(self, calls: list[NDArray[np.uint8]], last: int = 1000) -> None:
        self.calls, self.last = calls, last

    def dice(self, sample: AnySample) -> float:
        if len(self.calls) == self.last:
            raise KeyboardInterrupt
        self.calls.append(sample.load_image())
        return 0.5


def score(
    cases: Sequence[Case], calls: list[NDArray[np.uint8]], last: int = 1000
) -> tuple[list[Row], bool, list[tuple[str, int, int]]]:
    """Two rows of one model in two engines: the rows, whether all was scored, and the steps."""
    steps: list[tuple[str, int, int]] = []
    plan: Any = SimpleNamespace(cases=cases, trained=lambda candidate: True)
    worker: Any = FakeWorker(calls, last)
    rows = [
        Row(Candidate("unet", "in-process", ENGINE, "", "", (), engine=engine), engine=engine, _worker=worker)
        for engine in ("onnxruntime", "openvino")
    ]
    try:
        score_conditions(plan, rows, lambda *step: steps.append(step))
    except KeyboardInterrupt:
        return rows, False, steps
    return rows, True, steps


def test_ctrl_c_keeps_the_conditions_that_every_image_was_measured_under(data: Path) -> None:
    samples = find_samples(data)
    calls: list[NDArray[np.uint8]] = []
    cases = [Case(name, "corruption", samples) for name in ("blur 1", "jpeg 15")]
    rows, complete, steps = score(cases, calls, last=8)
    assert not complete
    assert [[condition.name for condition in row.conditions or ()] for row in rows] == [["blur 1"]] * 2
    assert steps[0] == ("robustness, blur 1", 0, 6) and steps[-1] == ("robustness, jpeg 15", 4, 6)


def test_every_row_reads_the_very_same_corrupted_image_in_the_channels_of_the_original(
    data: Path, other_data: Path
) -> None:
    for folder in (data, other_data):
        calls: list[NDArray[np.uint8]] = []
        samples = find_samples(folder)[:1]
        _, complete, _ = score([Case("noise 0.08", "corruption", samples)], calls)
        assert complete and len(calls) == 2
        np.testing.assert_array_equal(calls[0], calls[1])
        path = samples[0].image_path
        flags = cv2.IMREAD_COLOR if folder == other_data else cv2.IMREAD_GRAYSCALE
        original = cv2.imread(str(path), flags)
        shown = original[:, :, ::-1] if original.ndim == 3 else original
        noisy = corrupt(np.ascontiguousarray(shown), "noise 0.08", "disc_0")
        gray = cv2.cvtColor(noisy, cv2.COLOR_RGB2GRAY) if noisy.ndim == 3 else noisy
        assert np.abs(calls[0].astype(int) - gray).max() <= 1


def test_a_sample_reaches_another_process_as_it_is(xray_folder: Path, nuclei_folder: Path) -> None:
    for folder in (xray_folder, nuclei_folder):
        sample = find_samples(folder)[0]
        view = ViewSample("left half", sample, sample.image_path)
        for each in (sample, view):
            assert sample_from_json(json.loads(json.dumps(sample_to_json(each)))) == each


def test_data_that_cannot_be_scored_is_refused_before_anything_starts(
    options: RunOptions, tmp_path: Path
) -> None:
    """The same for the run's own images and for those of another data set."""
    (tmp_path / "empty" / "images").mkdir(parents=True)
    bare = make_data(tmp_path / "bare", (40, 40), 2)
    (bare / "masks" / "disc_1.png").unlink()
    other_size = make_data(tmp_path / "other_size", (40, 40), 2)
    write(other_size / "masks" / "disc_1.png", np.zeros((40, 41), np.uint8))
    damaged = make_data(tmp_path / "damaged", (40, 40), 2)
    content = (damaged / "images" / "disc_0.png").read_bytes()
    (damaged / "images" / "disc_0.png").write_bytes(content[:-40])
    cases = [
        (tmp_path / "nowhere", "no data folder"),
        (tmp_path / "empty" / "images", "expected CXR_png/ and ManualMask/, or images/ and masks/"),
        (tmp_path / "empty", r"no images in"),
        (bare, r"disc_1\.png has no mask .*every image needs one"),
        (other_size, "the mask of 'disc_1' is 41x40 and its image 40x40: both must have one size"),
        (damaged, "cut off or damaged"),
    ]
    for folder, message in cases:
        for changes in ({"data": folder}, {"ood": folder}):
            with pytest.raises(BadInputError, match=message) as caught:
                measure(replace(options, **changes))
            assert "\n" not in str(caught.value)


def test_files_of_other_formats_are_read_whole_to_be_checked(options: RunOptions, tmp_path: Path) -> None:
    """What is called .png may be a JPEG; its size counts as it is shown."""
    folder = make_data(tmp_path / "jpeg", (40, 40), 2)
    _, encoded = cv2.imencode(".jpg", np.zeros((40, 40), np.uint8))
    (folder / "images" / "disc_0.png").write_bytes(encoded.tobytes())
    assert len(make_cases(replace(options, ood=folder), (), boxes=False)[0].samples) == 2
    (folder / "images" / "disc_1.png").write_bytes(encoded.tobytes()[:100])
    with pytest.raises(BadImageError, match=r"disc_1\.png"):
        make_cases(replace(options, ood=folder), (), boxes=False)


def test_an_empty_mask_is_refused_where_it_becomes_a_prompt(options: RunOptions, tmp_path: Path) -> None:
    folder = make_data(tmp_path / "blank", (40, 40), 2)
    write(folder / "masks" / "disc_1.png", np.zeros((40, 40), np.uint8))
    blank = replace(options, ood=folder)
    assert make_cases(blank, (), boxes=False)
    with pytest.raises(BadInputError, match="the mask of 'disc_1' is empty: a SAM is measured with a box"):
        make_cases(blank, (), boxes=True)
    assert make_cases(replace(blank, limit=1), (), boxes=True)


def test_bad_data_is_one_line_and_exit_code_2_and_writes_nothing(
    options: RunOptions, data: Path, tmp_path: Path
) -> None:
    folder = make_data(tmp_path / "other_size", (40, 40), 1)
    write(folder / "masks" / "disc_0.png", np.zeros((30, 40), np.uint8))
    arguments = [
        "run",
        "--repo",
        options.repo,
        "--data",
        data,
        "--ood",
        folder,
        "--out",
        tmp_path / "run.json",
    ]
    code = "from seg_bench.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: the mask of 'disc_0' is 40x30") and result.stderr.count("\n") == 1
    assert not (tmp_path / "run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("condition", [*CORRUPTIONS, *VIEWS])
def test_the_shipped_lung_network_stands_what_images_suffer(
    lung_repo: Path, xray_folder: Path, condition: str
) -> None:
    dice = []
    with connect(lung_repo, engine="onnxruntime") as session:
        segmenter = SemanticSegmenter(session, "unet_lung")
        for sample in find_samples(xray_folder):
            image, truth = sample.load_image(), sample.load_mask()
            if condition in VIEWS:
                image, truth = (np.ascontiguousarray(VIEWS[condition](each)) for each in (image, truth))
            else:
                image = corrupt(image, condition, sample.name)
            dice.append(dice_score(segmenter.segment(image).mask > 0, truth))
    assert len(dice) == 8 and np.mean(dice) > 0.93 and min(dice) > 0.7


def test_the_page_about_robustness_shows_the_committed_record() -> None:
    root = Path(__file__).parents[2]
    (record,) = read_run(root / "bench" / "results" / "robustness_montgomery.json").records
    assert record.accuracy and record.conditions
    shown = {condition.name: condition.dice for condition in record.conditions}
    assert list(shown) == [*CORRUPTIONS, *VIEWS, "shenzhen"]
    page = (root / "docs" / "robustness.md").read_text(encoding="utf-8")
    for name, dice in {"as they are": record.accuracy.dice, **shown}.items():
        title = "data set `shenzhen`" if name == "shenzhen" else name
        figures = (np.mean(dice), worst_decile(dice), min(dice))
        cells = [title, str(len(dice)), *(f"{figure:.3f}" for figure in figures)]
        assert f"| {' | '.join(cells)} |\n" in page
