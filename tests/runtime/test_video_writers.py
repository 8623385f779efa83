"""Videos and masks appear whole or not at all, and hold what was drawn."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from clips import number_of, numbered_frame
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from seg_runtime.errors import BadInputError
from seg_runtime.files.overlay import COLORS, draw_overlay
from seg_runtime.sam.rle import rle_to_mask
from seg_runtime.video import MaskSink, PngMasks, RleMasks, VideoWriter, draw_objects, label_map, open_video
from seg_runtime.video.masks import davis_palette

SIZE_HW = (40, 60)


def logits(x: int = 10, value: float = 3.0, width: int = 20) -> NDArray[np.float32]:
    """A rectangle of positive logits in a frame of negative ones."""
    values = np.full(SIZE_HW, -2.0, np.float32)
    values[10:30, x : x + width] = value
    return values


@pytest.mark.parametrize("fps", [24.0, 30000 / 1001, 12.5, 60.0, 7.3])
def test_a_written_video_holds_its_frames_and_its_rate(tmp_path: Path, fps: float) -> None:
    out = tmp_path / "deep" / "out.mp4"
    with VideoWriter(out, fps, (48, 64)) as writer:
        for index in range(30):
            writer.write(numbered_frame(index))
        assert [path.name for path in out.parent.iterdir()] != ["out.mp4"]
    assert [path.name for path in out.parent.iterdir()] == ["out.mp4"]
    with open_video(out) as source:
        assert (source.frame_count, source.size_hw) == (30, (48, 64))
        assert source.fps == pytest.approx(fps, rel=1e-3)
        frames = list(source)
    assert [number_of(frame) for frame in frames] == list(range(30))
    # RGB, not BGR: white bars are yellow in the lower half.
    assert frames[1][40, 3, 0] > 200 and frames[1][40, 3, 2] < 120


def test_odd_sides_get_a_column_and_a_row_more(tmp_path: Path) -> None:
    frame = np.full((49, 63, 3), (10, 20, 30), np.uint8)
    frame[:, 62] = (200, 100, 50)
    with VideoWriter(tmp_path / "out.mp4", 25, (49, 63)) as writer:
        writer.write(frame)
    with open_video(tmp_path / "out.mp4") as source:
        assert source.size_hw == (50, 64)
        assert np.abs(source.frame(0)[:, 63].astype(int) - (200, 100, 50)).max() < 30


def test_an_error_leaves_the_old_video_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"the one before")
    with pytest.raises(RuntimeError), VideoWriter(out, 25, (48, 64)) as writer:
        writer.write(numbered_frame(0))
        raise RuntimeError
    with VideoWriter(out, 25, (48, 64)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert out.read_bytes() == b"the one before"


def test_what_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: VideoWriter(tmp_path / "out.avi", 25, (48, 64)), "written as mp4, not 'out.avi'"),
        (lambda: VideoWriter(tmp_path / "folder.mp4", 25, (48, 64)), "is a folder"),
        (lambda: VideoWriter(tmp_path / "file" / "out.mp4", 25, (48, 64)), "cannot write into"),
        (lambda: VideoWriter(tmp_path / "out.mp4", 25, (48, 64), codec="avc1"), "no encoder 'avc1' for mp4"),
    ]
    for call, message in cases:
        with pytest.raises(BadInputError, match=re.escape(message)) as caught:
            call()
        assert "\n" not in str(caught.value)
    with (
        pytest.raises(BadInputError, match="does not fit"),
        VideoWriter(tmp_path / "o.mp4", 25, (48, 64)) as writer,
    ):
        writer.write(np.zeros((48, 60, 3), np.uint8))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with (
        pytest.raises(BadInputError, match="the disk is full"),
        VideoWriter(tmp_path / "o.mp4", 25, (48, 64)) as writer,
    ):
        writer.write(numbered_frame(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


@contextmanager
def small_disk() -> Iterator[None]:
    """No file of this process may grow beyond 20 kB: writing more fails as on a full disk.

    In the body of a test only: pytest's own report of a test goes to a file where its output is redirected.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_noticed_though_opencv_says_nothing(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with (
        small_disk(),
        pytest.raises(BadInputError, match=r"of 20 frames were stored"),
        VideoWriter(tmp_path / "out.mp4", 25, (96, 128)) as writer,
    ):
        for _ in range(20):
            writer.write(generator.integers(0, 256, (96, 128, 3), dtype=np.uint8))
    rle = RleMasks(tmp_path / "masks.json", {})
    noise = generator.standard_normal((200, 300)).astype(np.float32)
    with (
        small_disk(),
        pytest.raises(BadInputError, match=r"cannot write '.*masks.json': File too large"),
        rle,
    ):
        rle.write(0, {1: noise})
    assert list(tmp_path.iterdir()) == []


def test_png_masks_are_indexed_in_davis_colours_and_the_higher_logit_wins(tmp_path: Path) -> None:
    folder = tmp_path / "out_masks"
    with PngMasks(folder, SIZE_HW) as masks:
        masks.write(0, {})
        masks.write(1, {1: logits(10), 2: logits(20, 5.0)})
        masks.write(2, {7: logits(10), 2: logits(20, 1.0)})
        assert not folder.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out_masks"]
    images = [Image.open(folder / f"{index:05d}.png") for index in range(3)]
    assert {image.mode for image in images} == {"P"}
    values = [np.array(image) for image in images]
    assert not values[0].any()
    assert [values[1][20, x] for x in (5, 12, 25, 35, 45)] == [0, 1, 2, 2, 0]
    assert [values[2][20, x] for x in (12, 25, 35)] == [7, 7, 2]
    palette = images[0].getpalette()
    assert palette is not None
    # As in every annotation of DAVIS: black, maroon, green, olive, navy.
    assert palette[:15] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128]


def test_the_palette_is_that_of_published_annotations() -> None:
    judo = Path(__file__).parents[1] / "data" / "judo" / "masks" / "00000.png"
    expected = Image.open(judo).getpalette()
    assert expected is not None
    assert list(davis_palette())[: len(expected)] == expected


def test_png_masks_take_the_names_of_frames_and_replace_only_masks(tmp_path: Path) -> None:
    folder = tmp_path / "masks"
    with PngMasks(folder, SIZE_HW, ("a", "b")) as masks:
        masks.write(1, {1: logits()})
    assert [path.name for path in folder.iterdir()] == ["b.png"]
    with PngMasks(folder, SIZE_HW, ("a", "b")) as masks:
        masks.write(0, {1: logits()})
    assert [path.name for path in folder.iterdir()] == ["a.png"]
    with pytest.raises(BadInputError, match=r"holds 'a.png', which is no mask of ours"):
        PngMasks(folder, SIZE_HW)
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="is a file"):
        PngMasks(tmp_path / "file", SIZE_HW)
    for number in (0, 255):
        with (
            pytest.raises(BadInputError, match=f"objects 1 to 254, not {number}"),
            PngMasks(tmp_path / "more", SIZE_HW) as masks,
        ):
            masks.write(0, {number: logits()})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "masks"]


def test_run_lengths_are_what_pycocotools_reads(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "masks.json"
    with RleMasks(path, {"video": "clip.mp4", "fps": 25.0}) as masks:
        masks.write(0, {})
        masks.write(1, {2: logits(20), 1: logits(10)})
        masks.write(4, {1: np.full(SIZE_HW, -1, np.float32)})
        assert not path.exists()
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["info"] == {"video": "clip.mp4", "fps": 25.0}
    assert [frame["frame"] for frame in document["frames"]] == [0, 1, 4]
    first, second = document["frames"][1]["objects"]
    assert (first["id"], second["id"]) == (1, 2)
    np.testing.assert_array_equal(coco_mask.decode(first["segmentation"]), logits(10) > 0)
    np.testing.assert_array_equal(rle_to_mask(second["segmentation"]), logits(20) > 0)
    assert (second["area"], second["bbox"]) == (400, [20, 10, 20, 20])
    assert coco_mask.toBbox(second["segmentation"]).tolist() == second["bbox"]
    (unseen,) = document["frames"][2]["objects"]
    assert (unseen["area"], unseen["bbox"]) == (0, [0, 0, 0, 0])
    assert not coco_mask.decode(unseen["segmentation"]).any()


@pytest.mark.parametrize(
    "make",
    [lambda folder: PngMasks(folder / "masks", SIZE_HW), lambda folder: RleMasks(folder / "masks", {})],
)
def test_masks_of_a_run_that_fails_leave_nothing(tmp_path: Path, make: Callable[[Path], MaskSink]) -> None:
    with pytest.raises(RuntimeError), make(tmp_path) as masks:
        masks.write(0, {1: logits()})
        raise RuntimeError
    with make(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_each_object_has_its_colour_and_a_contour() -> None:
    frame = np.full((*SIZE_HW, 3), 100, np.uint8)
    drawn = draw_objects(frame, {2: logits(35), 1: logits(5)})
    for number, x in ((1, 15), (2, 45)):
        expected = 0.65 * 100 + 0.35 * np.array(COLORS[number - 1])
        assert np.abs(drawn[20, x] - expected).max() <= 1
    np.testing.assert_array_equal(drawn[2], frame[2])
    # A dark and a light line around each.
    around = drawn[20, 2:9].astype(int).sum(axis=1)
    assert around.min() < 150 and around.max() > 450
    assert (frame == 100).all()
    untouched = draw_objects(frame, {})
    np.testing.assert_array_equal(untouched, frame)
    assert untouched is not frame
    # An id keeps its colour when the others are gone.
    np.testing.assert_array_equal(draw_objects(frame, {2: logits(35)})[20, 45], drawn[20, 45])


def test_an_overlay_is_that_of_a_still_image() -> None:
    generator = np.random.default_rng(0)
    for size_hw in ((48, 64), (700, 900)):
        frame = generator.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        noise = cv2.GaussianBlur(generator.standard_normal(size_hw).astype(np.float32), (0, 0), 9)
        blobs = (noise - 1.2 * noise.std()).astype(np.float32)
        corner = np.full(size_hw, -1, np.float32)
        corner[-9:, -30:] = 1
        drawn = draw_objects(frame, {1: blobs, 9: corner})
        expected = draw_overlay(frame, (blobs > 0).astype(np.uint8))
        expected = draw_overlay(expected, (corner > 0).astype(np.uint8))
        np.testing.assert_array_equal(drawn, expected)


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(BadInputError, match="does not fit"):
        draw_objects(np.zeros((9, 9, 3), np.uint8), {1: logits()})


def test_where_nothing_is_above_zero_there_is_no_object() -> None:
    assert not label_map({1: np.zeros(SIZE_HW, np.float32)}, SIZE_HW).any()
    both = label_map({1: logits(value=2.0), 2: logits(value=2.0)}, SIZE_HW)
    assert set(np.unique(both)) == {0, 1}
    assert cv2.countNonZero(both) == 400
