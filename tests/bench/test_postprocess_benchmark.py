"""The benchmark of post-processing scores what scipy's own operations give, and the record says so."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from microbench.postprocess import STEPS, PostprocessBenchmark, measure_postprocess, to_markdown
from seg_bench.data.samples import paired_samples
from seg_bench.json_fields import from_json, to_json
from seg_bench.metrics import dice_score
from seg_runtime.errors import BadInputError

ROOT = Path(__file__).parents[2]


class FakeSegmenter:
    """Finds what is bright; the noise of the image makes specks."""

    threshold, engine = 0.5, "a threshold"
    spec = SimpleNamespace(name="bright", checkpoint_sha256="")

    def segment(self, image: NDArray[np.uint8]) -> Any:
        probabilities = np.asarray(image[None] / 255, np.float32)
        return SimpleNamespace(probabilities=probabilities, mask=(probabilities[0] >= 0.5).astype(np.uint8))


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """Two images of two discs each, with specks beside them."""
    generator = np.random.default_rng(0)
    for number in range(2):
        mask = np.zeros((64, 80), np.uint8)
        for x in (20, 58):
            cv2.circle(mask, (x, 30), 14, 255, -1)
        noise = (generator.random(mask.shape) < 0.02).astype(np.uint8) * 255
        for folder, pixels in (("images", mask | noise), ("masks", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / folder / f"disc_{number}.png"), pixels)
    return tmp_path


def test_steps_change_dice_as_scipys_operations_do(discs: Path) -> None:
    samples = paired_samples(discs)
    segmenter: Any = FakeSegmenter()
    result = measure_postprocess(segmenter, {"discs": samples}, "command")
    (measured,) = result.sets
    steps = {step.name: step for step in measured.steps}
    assert list(steps) == list(STEPS)
    for number, sample in enumerate(samples):
        found, target = sample.load_image() > 127, sample.load_mask()
        labels, _ = ndimage.label(found, np.ones((3, 3)))
        largest = np.argsort(np.bincount(labels.ravel())[1:])[-2:] + 1
        assert measured.dice[number] == pytest.approx(dice_score(found, target))
        assert steps["two largest regions"].dice[number] == pytest.approx(
            dice_score(np.isin(labels, largest), target)
        )
        disc = np.hypot(*np.mgrid[-5:6, -5:6]) <= 5
        opened = ndimage.binary_opening(found, disc)
        assert steps["opening"].dice[number] == pytest.approx(dice_score(opened, target))
    change = steps["two largest regions"].dice_change
    assert change.mean == pytest.approx(np.mean(steps["two largest regions"].dice) - np.mean(measured.dice))
    assert change.mean is not None and change.mean > 0
    assert all(len(step.milliseconds) == 2 and min(step.milliseconds) > 0 for step in measured.steps)
    assert from_json(PostprocessBenchmark, json.loads(json.dumps(to_json(result)))) == result


def test_mask_of_another_size_is_refused_by_name(discs: Path) -> None:
    assert cv2.imwrite(str(discs / "masks" / "disc_1.png"), np.zeros((10, 10), np.uint8))
    segmenter: Any = FakeSegmenter()
    with pytest.raises(BadInputError, match=r"the mask of 'disc_1' is 10x10 and its image 80x64"):
        measure_postprocess(segmenter, {"discs": paired_samples(discs)})


def test_table_in_the_docs_is_the_committed_record() -> None:
    value = json.loads((ROOT / "bench" / "results" / "postprocess.json").read_text())
    record = from_json(PostprocessBenchmark, value)
    assert record.settings == {name: str(step) for name, step in STEPS.items()}, "measure it again"
    assert to_markdown(record) in (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
