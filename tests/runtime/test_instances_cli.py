"""`seg-run instances`: overlays, COCO's format, and what is said when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from typer.testing import CliRunner

from seg_runtime.cli.run import app
from seg_runtime.connection import connect
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.files.instance_overlay import draw_instances
from seg_runtime.instances import InstanceResult, InstanceSegmenter


def run(*arguments: str) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, ["instances", *arguments])
    return result.exit_code, result.stdout, result.exception


def test_a_folder_becomes_overlays_and_one_coco_file(
    tiny_maskrcnn_repo: Path, xray_folder: Path, tmp_path: Path
) -> None:
    folder = xray_folder / "images"
    out, repo = tmp_path / "out", str(tiny_maskrcnn_repo)
    code, stdout, error = run(str(folder), "--repo", repo, "-o", str(out), "--score", "0.1", "--json")
    assert code == 0, error
    rows = [json.loads(line) for line in stdout.splitlines()]
    assert rows == [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert all(row["truncated"] and row["found"] > 20 for row in rows)
    coco = COCO(str(out / "instances.json"))
    assert len(coco.imgs) == len(rows) == len(list(folder.glob("*.png")))
    assert [item["name"] for item in coco.loadCats(coco.getCatIds())] == ["red", "green", "blue"]
    with connect(tiny_maskrcnn_repo) as session:
        segmenter = InstanceSegmenter(session, "cells", score_threshold=0.1)
        result = segmenter.segment(read_image(rows[0]["path"], 3, gray=True))
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert len(annotations) == rows[0]["objects"] == len(result) > 0
    for annotation, mask in zip(annotations, result.masks(), strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
    drawn = cv2.imread(rows[0]["overlay"])
    assert drawn.shape == (512, 512, 3) and (drawn != cv2.imread(rows[0]["path"])).any()


def test_an_image_that_cannot_be_read_is_left_out(
    tiny_maskrcnn_repo: Path, xray_folder: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.png"
    empty.touch()
    good = next((xray_folder / "images").glob("*.png"))
    out = tmp_path / "out"
    code, _, error = run(str(empty), str(good), "--repo", str(tiny_maskrcnn_repo), "-o", str(out))
    assert code != 0 and isinstance(error, BadImageError)
    assert "1 of 2 images were left out" in str(error)
    assert len(json.loads((out / "instances.json").read_text())["images"]) == 1
    code, _, error = run(str(empty), "--repo", str(tiny_maskrcnn_repo), "-o", str(tmp_path / "none"))
    assert isinstance(error, BadImageError) and not (tmp_path / "none").exists()


def test_what_is_not_possible_is_said(tiny_repo: Path, xray_folder: Path, tmp_path: Path) -> None:
    image = str(next((xray_folder / "images").glob("*.png")))
    out = str(tmp_path / "out")
    _, _, error = run(image, "--repo", str(tiny_repo), "-o", out)
    assert isinstance(error, BadInputError) and "publish one with  seg-export maskrcnn" in str(error)
    _, _, error = run(image, "--repo", str(tiny_repo), "-m", "unet_tiny", "-o", out)
    assert isinstance(error, BadInputError) and "seg-run segment" in str(error)
    assert not (tmp_path / "out").exists()


def test_a_detector_is_no_semantic_model(tiny_maskrcnn_repo: Path, xray_folder: Path, tmp_path: Path) -> None:
    image = str(next((xray_folder / "images").glob("*.png")))
    command = ["segment", image, "-m", "cells", "--repo", str(tiny_maskrcnn_repo), "-o", str(tmp_path / "o")]
    error = CliRunner().invoke(app, command).exception
    assert isinstance(error, BadInputError) and "choose a semantic model" in str(error)


@pytest.mark.parametrize("background", [0, 255])
def test_names_can_be_read_on_any_background_and_stay_inside(background: int) -> None:
    image = np.full((120, 160, 3), background, np.uint8)
    boxes = np.array([[150, 0, 160, 12], [0, 110, 30, 120]], np.float32)
    result = InstanceResult(
        boxes,
        np.array([0.9, 0.8], np.float32),
        np.ones(2, np.int32),
        ("refrigerator", "cat"),
        np.full((2, 28, 28), 9, np.float32),
        (120, 160),
        2,
        False,
    )
    drawn = draw_instances(image, result)
    dark, light = (drawn == 16).all(axis=-1), (drawn >= 200).all(axis=-1)
    # Both plates are whole: dark with light letters, though their boxes are at the image's edges.
    for rows, columns in ((slice(0, 40), slice(40, 160)), (slice(85, 120), slice(0, 60))):
        assert dark[rows, columns].sum() > 150
        assert light[rows, columns].sum() > 15
    assert (image == background).all()


def result_of(boxes: NDArray[np.float32], size_hw: tuple[int, int]) -> InstanceResult:
    """Objects that fill their boxes, the best first."""
    count = len(boxes)
    return InstanceResult(
        boxes,
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.ones(count, np.int32),
        ("nucleus",) * count,
        np.full((count, 28, 28), 9, np.float32),
        size_hw,
        count,
        False,
    )


@pytest.mark.parametrize("seed", range(6))
def test_no_name_covers_a_small_object(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(seed)
    corners = generator.integers(0, (620, 460), (40, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + generator.integers(6, 20, (40, 2))], axis=1).astype(np.float32)
    image, result = np.full((480, 640, 3), 128, np.uint8), result_of(boxes, (480, 640))
    named = draw_instances(image, result)
    monkeypatch.setattr("seg_runtime.files.instance_overlay._draw_plate", lambda *_: None)
    covered = (named != draw_instances(image, result)).any(axis=-1)
    assert covered.any()
    assert not any(covered[y0:y1, x0:x1].any() for x0, y0, x1, y1 in boxes.astype(int))


def test_names_do_not_hide_other_objects_and_the_best_ones_come_first() -> None:
    """Objects side by side: plates are wider than they are, so that not all have room."""
    boxes = np.array([[x, 50, x + 16, 66] for x in range(10, 140, 20)], np.float32)
    drawn = draw_instances(np.full((120, 160, 3), 128, np.uint8), result_of(boxes, (120, 160)))
    plates = (drawn[:45] == 16).all(axis=-1).any(axis=0)
    runs = np.flatnonzero(np.diff(plates.astype(int), prepend=0) == 1)
    assert runs[0] <= 12 and 1 <= len(runs) < len(boxes)
    # Every object's middle keeps its tint.
    assert all((drawn[58, int(x0) + 8] != 16).all() for x0 in boxes[:, 0])
