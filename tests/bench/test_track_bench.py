"""`seg-bench track` on moving discs in DAVIS' layout, with sam2's own predictor beside ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from microbench.sam2_models import SMALL
from seg_bench.cli import main
from seg_bench.data.davis import load_davis
from seg_bench.sam2_trackers import OurTracker, Sam2Tracker, find_sam2_checkpoint
from seg_bench.track_run import labels_of, measure_trackers
from seg_export.checkpoints.checkpoint import load_checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.families.sam2 import network as sam2
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError, CheckpointError

SIZE_HW = (60, 100)
COUNT = 5


def disc_labels(index: int) -> NDArray[np.uint8]:
    labels = np.zeros(SIZE_HW, np.uint8)
    cv2.circle(labels, (25 + 5 * index, 20), 12, 1, -1)
    cv2.circle(labels, (75 - 5 * index, 45), 9, 2, -1)
    return labels


def write_davis(root: Path, annotated: tuple[int, ...], suffix: str = "jpg") -> Path:
    images, masks = root / "JPEGImages" / "480p" / "discs", root / "Annotations" / "480p" / "discs"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    colours = np.array([(90, 90, 90), (220, 40, 30), (30, 200, 60)], np.uint8)
    for index in range(COUNT):
        Image.fromarray(colours[disc_labels(index)]).save(images / f"{index:05d}.{suffix}")
        if index in annotated:
            Image.fromarray(disc_labels(index)).save(masks / f"{index:05d}.png")
    return root


class Perfect:
    """Tells the annotations as logits, and a millisecond for the encoder."""

    name, engine = "perfect", "none"

    def __init__(self, miss: int | None = None) -> None:
        self.miss = miss
        self.spent_ms = {"encode": 1.0, "attend": 2.0, "decode": 3.0, "remember": 4.0}

    def clear(self) -> None:
        """Times stay."""

    def track(self, folder: Path, masks: Any) -> Any:
        for index, _ in enumerate(sorted(folder.iterdir())):
            labels = disc_labels(index)
            logits = [np.where(labels == number, 4.0, -4.0) for number in masks]
            if index == self.miss:
                logits[1] = np.full(SIZE_HW, -4.0)
            yield index, list(masks), np.array(logits, np.float32)[:, None]


@pytest.fixture(scope="module")
def published(small_sam2_folder: Path) -> Path:
    return small_sam2_folder


def measured(root: Path, *trackers: Any, weights: str = "trained", limit: int | None = None) -> Any:
    return measure_trackers(trackers, load_davis(root), model="sam2", weights=weights, limit=limit)


def test_objects_are_measured_on_later_frames_but_the_last(tmp_path: Path) -> None:
    """Frames 1 to 3 count. Object 2 is missed on one of them, then on the last one, which does not count."""
    run = measured(write_davis(tmp_path, (0, 1, 2, 3, 4)), Perfect(), Perfect(2), Perfect(4))
    best, missed, last = (row.accuracy for row in run.rows)
    assert (best.j, best.f, best.j_and_f) == (1, 1, 1)
    assert missed.objects["discs_2"] == pytest.approx((2 / 3, 2 / 3))
    assert last == best
    assert run.objects == {"discs": [1, 2]}
    assert (run.rows[0].frames, run.rows[0].median_ms["attend"]) == (COUNT - 1, 2.0)


def test_without_masks_on_later_frames_or_with_random_weights_there_is_no_accuracy(tmp_path: Path) -> None:
    assert measured(write_davis(tmp_path / "a", (0,)), Perfect()).rows[0].accuracy == "-"
    full = write_davis(tmp_path / "b", (0, 1, 2))
    assert measured(full, Perfect(), weights="random").rows[0].accuracy == "random weights"
    assert measured(full, Perfect(1), limit=2).rows[0].accuracy.objects["discs_2"] == (0, 0)


def test_a_sequence_needs_masks_on_its_first_frame(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="'discs' has no masks on its first frame"):
        measured(write_davis(tmp_path, (1, 2)), Perfect())


def test_the_higher_logit_has_a_pixel_where_objects_overlap() -> None:
    logits = np.array([[[[1, 2, -1]]], [[[3, 1, -2]]]], np.float32)
    np.testing.assert_array_equal(labels_of([4, 9], logits), [[9, 4, 0]])


def test_both_trackers_find_the_same_masks(published: Path, tmp_path: Path) -> None:
    folder = load_davis(write_davis(tmp_path, (0,)))[0].folder
    masks = {number: disc_labels(0) == number for number in (1, 2)}
    with connect(published / "repo", threads=1, engine="onnxruntime") as session:
        ours = OurTracker(session, "sam2")
        got = list(ours.track(folder, masks))
    theirs = Sam2Tracker(load_checkpoint(published / "weights.pth"), 1)
    wanted = list(theirs.track(folder, masks))
    assert [step[:2] for step in got] == [step[:2] for step in wanted]
    for (_, _, mine), (_, _, other) in zip(got, wanted, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-3 * np.abs(other).max())
    assert all(spent > 0 for tracker in (ours, theirs) for spent in tracker.spent_ms.values())


def test_the_command_measures_both_in_one_run(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = write_davis(tmp_path, (0, 1, 2)), tmp_path / "track.json"
    arguments = ["--data", root, "--repo", published / "repo", "--limit", 3, "--threads", 1, "--out", out]
    baseline = ["--baseline", "torch", "--checkpoint", published / "weights.pth"]
    call(monkeypatch, *arguments, *baseline, code=0)
    record = json.loads(out.read_text(encoding="utf-8"))
    assert [row["tracker"] for row in record["rows"]] == ["edgeseg", "sam2 in PyTorch"]
    for row in record["rows"]:
        assert (row["accuracy"], row["frames"]) == ("random weights", 2)
        parts = [row["median_ms"][stage] for stage in ("encode", "attend", "decode", "remember")]
        assert all(0 < part < row["median_ms"]["total"] for part in parts)
    assert record["machine"]["packages"]["sam2"]
    shown = capsys.readouterr().out
    assert "random weights" in shown
    assert "remember" in shown


def test_the_baseline_refuses_other_weights_and_frames_that_sam2_cannot_read(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match="not the one that the published model was made of"):
        find_sam2_checkpoint("ab" * 32, "random", published / "weights.pth")
    with pytest.raises(CheckpointError, match="pass --checkpoint FILE"):
        find_sam2_checkpoint("ab" * 32, "trained", None)
    root = write_davis(tmp_path, (0,), "png")
    arguments = ["--data", root, "--repo", published / "repo", "--limit", 2, "--threads", 1]
    baseline = ["--baseline", "torch", "--checkpoint", published / "weights.pth"]
    call(monkeypatch, *arguments, *baseline, code=2)
    shown = " ".join(capsys.readouterr().err.split())
    assert "sam2 reads JPEG frames only" in shown
    assert "00000.png': leave out --baseline" in shown


def test_random_weights_are_made_again_from_their_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam2, "VARIANTS", {"wider": {**SMALL, "embed_dim": 32}, "small": SMALL})
    sha256 = random_checkpoint("sam2", SMALL).sha256
    assert find_sam2_checkpoint(sha256, "random", None).arguments == SMALL
    with pytest.raises(CheckpointError, match="pass --checkpoint FILE"):
        find_sam2_checkpoint("ab" * 32, "random", None)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object, code: int) -> None:
    monkeypatch.setattr(sys, "argv", ["seg-bench", "track", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert int(ended.value.code or 0) == code
