"""Tracking writes every frame as it comes, and saves what was tracked however the video ends."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import TICKS, turned, with_durations, write_clip
from fake_tracker import ColorTracker, disc_center, disc_clip, disc_frame
from numpy.typing import NDArray
from PIL import Image

from seg_runtime.errors import BadInputError, FrameNotFoundError, InferenceError, VideoEndedError
from seg_runtime.files.track_prompts import (
    BoxPrompt,
    MaskPrompt,
    ObjectPrompt,
    PointPrompt,
    group_track_prompts,
    read_mask_prompts,
)
from seg_runtime.files.tracks import TrackedFrame, track_video
from seg_runtime.sam.rle import rle_to_mask
from seg_runtime.video import FrameSource, open_video


class FakeStream(FrameSource):
    """Discs from a camera that gives `count` frames and then vanishes, or ends."""

    def __init__(self, count: int, vanishes: bool = True) -> None:
        super().__init__()
        self.name, self.size_hw, self.frame_count, self.fps = "camera 0", (96, 128), None, 30.0
        self._count, self._vanishes, self.closed = count, vanishes, False

    def _read(self, index: int) -> NDArray[np.uint8]:
        if index < self._count:
            return disc_frame(index)
        if self._vanishes:
            raise VideoEndedError(f"{self.name} gave no more frames after {self._count}", self._count)
        raise FrameNotFoundError(f"{self.name} ended after {self._count} frames")

    def close(self) -> None:
        self.closed = True


def two_discs(source: FrameSource, frame: int = 0) -> list[ObjectPrompt]:
    points = [PointPrompt(*disc_center(number, frame), 1, frame, number) for number in (1, 2)]
    return group_track_prompts(points, [], [], source)


def centers(labels: NDArray[np.uint8], number: int) -> tuple[int, int]:
    y, x = np.nonzero(labels == number)
    return round(float(x.mean())), round(float(y.mean()))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_video_becomes_an_overlay_video_and_png_masks(tmp_path: Path) -> None:
    tracker, frames = ColorTracker(), list[TrackedFrame]()
    out = tmp_path / "out" / "discs.mp4"
    with open_video(disc_clip(tmp_path / "clip.mp4", 20)) as source:
        result = track_video(tracker, source, two_discs(source), out, masks="png", on_frame=frames.append)
    assert (result.frames, result.tracked, result.object_ids, result.ended) == (20, 20, (1, 2), "complete")
    assert (result.out, result.masks, result.note) == (out, out.parent / "discs_masks", None)
    assert files(out.parent) == ["discs.mp4", "discs_masks"]
    assert files(out.parent / "discs_masks") == [f"{index:05d}.png" for index in range(20)]
    for index in (0, 7, 19):
        labels = np.array(Image.open(out.parent / "discs_masks" / f"{index:05d}.png"))
        for number in (1, 2):
            assert np.abs(np.subtract(centers(labels, number), disc_center(number, index))).max() <= 1
    with open_video(out) as drawn:
        assert (drawn.frame_count, drawn.fps, drawn.size_hw) == (20, 25.0, (96, 128))
        x, y = disc_center(1, 12)
        # Red, tinted with the blue of object 1.
        assert drawn.frame(12)[y, x, 2] > disc_frame(12)[y, x, 2] + 40
    assert [frame.index for frame in frames] == list(range(20))
    assert all(300 < area < 600 for frame in frames for area in frame.areas_px.values())
    assert (
        result.frames_per_second == pytest.approx(frames[-1].frames_per_second)
        and result.frames_per_second > 0
    )
    assert tracker.states[0].closed


def test_masks_as_run_lengths_carry_what_made_them(tmp_path: Path) -> None:
    with open_video(disc_clip(tmp_path / "clip.mp4", 6)) as source:
        result = track_video(
            ColorTracker(), source, two_discs(source), tmp_path / "out.mp4", masks="rle", info={"model": "m"}
        )
        name = source.name
    assert result.masks == tmp_path / "out_masks.json"
    document = json.loads(result.masks.read_text(encoding="utf-8"))
    assert document["info"] == {"video": name, "height": 96, "width": 128, "fps": 25.0, "model": "m"}
    assert [frame["time_s"] for frame in document["frames"]] == [0.0, 0.04, 0.08, 0.12, 0.16, 0.2]
    last = document["frames"][5]["objects"][1]
    mask = rle_to_mask(last["segmentation"])
    assert last["area"] == mask.sum()
    assert np.abs(np.subtract(centers(mask.astype(np.uint8), 1), disc_center(2, 5))).max() <= 1


def test_a_video_of_a_phone_is_tracked_upright_and_keeps_its_times(tmp_path: Path) -> None:
    ticks = [512, 1024, 256, 5120, 512, 2560]
    clip = turned(with_durations(disc_clip(tmp_path / "phone.mp4", 6), ticks), 90)
    x, y = disc_center(2, 0)
    # What lies at (x, y) in 128x96 stored pixels is seen at (95 - y, x).
    point = PointPrompt(95 - y, x)
    with open_video(clip) as source:
        assert source.size_hw == (128, 96)
        prompts = group_track_prompts([point], [], [], source)
        rows = list[TrackedFrame]()
        out = tmp_path / "out.mp4"
        track_video(ColorTracker(), source, prompts, out, masks="rle", on_frame=rows.append)
    times_s = np.cumsum([0, *ticks[:-1]]) / TICKS
    document = json.loads((tmp_path / "out_masks.json").read_text(encoding="utf-8"))
    for index, frame in enumerate(document["frames"]):
        x, y = disc_center(2, index)
        mask = rle_to_mask(frame["objects"][0]["segmentation"]).astype(np.uint8)
        assert np.abs(np.subtract(centers(mask, 1), (95 - y, x))).max() <= 1
    for found in (
        [frame["time_s"] for frame in document["frames"]],
        [row.to_json()["time_s"] for row in rows],
    ):
        np.testing.assert_allclose(found, times_s, atol=1e-6)
    np.testing.assert_allclose(seconds_in(out), times_s, atol=1e-4)


def seconds_in(path: Path) -> list[float]:
    """When each frame is shown, read by OpenCV alone."""
    capture, times = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    return times


def test_frames_before_the_first_prompt_are_written_without_objects(tmp_path: Path) -> None:
    with open_video(disc_clip(tmp_path / "clip.mp4", 12)) as source:
        result = track_video(
            ColorTracker(), source, two_discs(source, frame=8), tmp_path / "out.mp4", masks="png"
        )
    assert (result.frames, result.tracked) == (12, 4)
    areas = [
        np.count_nonzero(np.array(Image.open(tmp_path / "out_masks" / f"{index:05d}.png")))
        for index in range(12)
    ]
    assert [area > 0 for area in areas] == [False] * 8 + [True] * 4
    with open_video(tmp_path / "out.mp4") as drawn:
        assert drawn.frame_count == 12
        assert np.abs(drawn.frame(3).astype(int) - disc_frame(3)).mean() < 6


def test_masks_of_a_folder_are_named_after_its_frames(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(disc_frame(index)).save(folder / f"shot_{index}.jpg", quality=95)
    with open_video(folder) as source:
        track_video(ColorTracker(), source, two_discs(source), tmp_path / "out.mp4", masks="png")
    assert files(tmp_path / "out_masks") == ["shot_0.png", "shot_1.png", "shot_2.png"]


@pytest.mark.parametrize(("vanishes", "ended"), [(True, "broke off"), (False, "complete")])
def test_a_stream_is_tracked_as_it_comes_and_saved_when_it_ends(
    tmp_path: Path, vanishes: bool, ended: str
) -> None:
    source, seen = FakeStream(9, vanishes), list[int]()
    result = track_video(
        ColorTracker(),
        source,
        two_discs(source),
        tmp_path / "out.mp4",
        masks="rle",
        on_frame=lambda frame: seen.append(frame.index),
    )
    assert (result.frames, result.ended, seen) == (9, ended, list(range(9)))
    assert result.note == ("camera 0 gave no more frames after 9" if vanishes else None)
    with open_video(tmp_path / "out.mp4") as drawn:
        assert (drawn.frame_count, drawn.fps) == (9, 30.0)
    assert result.masks is not None
    rows = json.loads(result.masks.read_text(encoding="utf-8"))["frames"]
    assert [row["time_s"] for row in rows] == [None] * 9
    assert files(tmp_path) == ["out.mp4", "out_masks.json"]


def test_ctrl_c_saves_what_was_tracked(tmp_path: Path) -> None:
    def stop(index: int) -> None:
        if index == 5:
            raise KeyboardInterrupt

    tracker = ColorTracker(before_frame=stop)
    with open_video(disc_clip(tmp_path / "clip.mp4", 20)) as source:
        result = track_video(tracker, source, two_discs(source), tmp_path / "out.mp4", masks="png")
    assert (result.frames, result.ended, result.note) == (5, "interrupted", "stopped after frame 4")
    with open_video(tmp_path / "out.mp4") as drawn:
        assert drawn.frame_count == 5
    assert len(files(tmp_path / "out_masks")) == 5
    assert tracker.states[0].closed


@pytest.mark.parametrize("error", [InferenceError("the model failed"), RuntimeError("a defect")])
def test_any_other_error_writes_nothing_and_frees_the_state(tmp_path: Path, error: Exception) -> None:
    def fail(index: int) -> None:
        if index == 3:
            raise error

    tracker = ColorTracker(before_frame=fail)
    with open_video(disc_clip(tmp_path / "clip.mp4", 6)) as source, pytest.raises(type(error)):
        track_video(tracker, source, two_discs(source), tmp_path / "out.mp4", masks="png")
    assert files(tmp_path) == ["clip.mp4"]
    assert tracker.states[0].closed


def test_a_stream_that_gives_nothing_to_track_is_an_error(tmp_path: Path) -> None:
    source = FakeStream(1)
    prompts = two_discs(source)

    def vanish(index: int) -> None:
        raise VideoEndedError("camera 0 gave no more frames after 0", 0)

    with pytest.raises(VideoEndedError):
        track_video(ColorTracker(before_frame=vanish), source, prompts, tmp_path / "out.mp4")
    assert files(tmp_path) == []


def test_the_video_itself_is_not_overwritten(tmp_path: Path) -> None:
    clip = disc_clip(tmp_path / "clip.mp4", 3)
    before = clip.read_bytes()
    with open_video(clip) as source:
        prompts = two_discs(source)
        for out, message in ((clip, "is the video that is tracked"), (tmp_path / "out.avi", "ends in .mp4")):
            with pytest.raises(BadInputError, match=message):
                track_video(ColorTracker(), source, prompts, out)
    assert clip.read_bytes() == before


def test_prompts_are_grouped_by_frame_and_object(tmp_path: Path) -> None:
    with open_video(write_clip(tmp_path / "clip.mp4", 12)) as source:
        grouped = group_track_prompts(
            [PointPrompt(5, 6, 1, 3, 2), PointPrompt(1, 2), PointPrompt(3.5, 4, 0)],
            [BoxPrompt((1, 2, 30, 40)), BoxPrompt((1, 2, 20, 20), 3, 1)],
            [MaskPrompt(np.ones((48, 64), np.bool_), 0, 9)],
            source,
        )
    assert [(prompt.frame, prompt.object_id) for prompt in grouped] == [(0, 1), (0, 9), (3, 1), (3, 2)]
    first, masked, boxed, pointed = grouped
    assert (first.points_xy.tolist(), first.labels.tolist()) == ([[1, 2], [3.5, 4]], [1, 0])
    assert first.box_xyxy is not None and first.box_xyxy.tolist() == [1, 2, 30, 40]
    assert masked.mask is not None and masked.mask.all() and masked.box_xyxy is None
    assert boxed.points_xy.shape == (0, 2) and pointed.labels.tolist() == [1]
    assert (first.points_xy.dtype, first.labels.dtype, first.box_xyxy.dtype) == (
        np.float32,
        np.int32,
        np.float32,
    )


MASK = MaskPrompt(np.ones((48, 64), np.bool_))


@pytest.mark.parametrize(
    ("points", "boxes", "masks", "message"),
    [
        ([], [], [], "there is nothing to track"),
        ([PointPrompt(64, 5)], [], [], r"point \(64, 5\) is outside the image of 64x48"),
        ([PointPrompt(4, 5, 1, 12)], [], [], "prompt on frame 12: '.*' has 12 frames, 0 to 11"),
        ([PointPrompt(4, 5, 1, 0, 0)], [], [], "numbered from 1, not 0"),
        ([], [BoxPrompt((9, 9, 9, 20))], [], "has no area"),
        (
            [],
            [BoxPrompt((1, 1, 9, 9)), BoxPrompt((2, 2, 9, 9))],
            [],
            "object 1 in frame 0 has 2 boxes: give one",
        ),
        ([], [], [MASK, MASK], "has 2 masks"),
        ([PointPrompt(4, 5)], [], [MASK], "a mask says it all"),
    ],
)
def test_prompts_that_cannot_be_used_are_one_line(
    tmp_path: Path, points: list[PointPrompt], boxes: list[BoxPrompt], masks: list[MaskPrompt], message: str
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 12)
    with open_video(clip) as source, pytest.raises(BadInputError, match=message):
        group_track_prompts(points, boxes, masks, source)


def test_a_stream_takes_prompts_on_its_first_frame_alone() -> None:
    with pytest.raises(BadInputError, match=r"prompts belong to its first frame \(0\)"):
        group_track_prompts([PointPrompt(4, 5, 1, 3)], [], [], FakeStream(9))


def test_an_indexed_mask_holds_several_objects_and_a_gray_one_a_single_one(tmp_path: Path) -> None:
    labels = np.zeros((48, 64), np.uint8)
    labels[5:10, 5:10], labels[20:30, 20:30], labels[40:, :] = 2, 5, 255
    indexed = Image.fromarray(labels)
    indexed.putpalette(bytes(768))
    indexed.save(tmp_path / "indexed.png")
    Image.fromarray((labels == 5).astype(np.uint8) * np.uint8(255)).save(tmp_path / "gray.png")
    found = read_mask_prompts(tmp_path / "indexed.png", 4, None, (48, 64))
    assert [(prompt.frame, prompt.object_id, prompt.mask.sum()) for prompt in found] == [
        (4, 2, 25),
        (4, 5, 100),
    ]
    (single,) = read_mask_prompts(tmp_path / "indexed.png", 0, 6, (48, 64))
    assert (single.object_id, single.mask.sum()) == (6, 125)
    for arguments, number in (((None, (48, 64)), 1), ((7, (48, 64)), 7), ((None, (48, 64), 3), 3)):
        (single,) = read_mask_prompts(tmp_path / "gray.png", 0, *arguments)
        assert (single.object_id, single.mask.sum()) == (number, 100)
    with pytest.raises(BadInputError, match="has 64x48 pixels and the video 20x10"):
        read_mask_prompts(tmp_path / "gray.png", 0, None, (10, 20))
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(BadInputError, match="shows no object"):
        read_mask_prompts(tmp_path / "black.png", 0, None, (48, 64))
    with pytest.raises(BadInputError, match="there is no such file"):
        read_mask_prompts(tmp_path / "none.png", 0, None, (48, 64))
