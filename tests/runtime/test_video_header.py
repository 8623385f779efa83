"""What a container says about its frames is followed: where up is, when each is shown, how many there are."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import (
    TICKS,
    number_of,
    numbered_frame,
    oriented,
    turned,
    with_durations,
    with_pixel_aspect,
    without_frames_before,
    write_clip,
    write_frames,
)
from numpy.typing import NDArray
from PIL import Image

from seg_runtime.errors import BadVideoError
from seg_runtime.video import VideoWriter, open_video
from seg_runtime.video.times import is_steady, rate_of

DURATIONS = [512, 256, 1024, 512, 2560, 128, 512, 512, 6400, 512]
"""Ticks of a clip's frames at 12,800 per second: from 10 ms to half a second."""

TIMES_S = np.cumsum([0, *DURATIONS[:-1]]) / TICKS

CORNERS = {(-1, -1): (230, 20, 20), (1, -1): (20, 230, 20), (-1, 1): (20, 20, 230), (1, 1): (230, 230, 230)}
"""RGB of a frame's four quarters, by the sides of x and y on which they lie."""


def quarters() -> NDArray[np.uint8]:
    frame = np.zeros((48, 64, 3), np.uint8)
    for (x, y), color in CORNERS.items():
        rows, columns = (
            slice(None, 24) if y < 0 else slice(24, None),
            slice(None, 32) if x < 0 else slice(32, None),
        )
        frame[rows, columns] = color
    return frame


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_a_picture_is_turned_and_mirrored_as_its_matrix_says(
    tmp_path: Path, turn: tuple[int, int, int, int], mirrored: bool
) -> None:
    a, b, c, d = turn
    if mirrored:
        a, b = -a, -b
    path = oriented(write_frames(tmp_path / "clip.mp4", [quarters()] * 3), (a, b, c, d))
    with open_video(path) as source:
        assert source.size_hw == ((48, 64) if a else (64, 48))
        frame = source.frame(2).astype(int)
    height, width = frame.shape[:2]
    for (x, y), color in CORNERS.items():
        shown_x, shown_y = a * x + c * y, b * x + d * y
        pixel = frame[8 if shown_y < 0 else height - 8, 8 if shown_x < 0 else width - 8]
        assert np.abs(pixel - color).max() < 40


def test_frames_have_the_times_of_their_container(tmp_path: Path) -> None:
    path = with_durations(write_clip(tmp_path / "phone.mp4", 10), DURATIONS)
    with open_video(path) as source:
        assert source.times_s is not None
        np.testing.assert_allclose(source.times_s, TIMES_S, atol=1e-6)
        assert source.fps == pytest.approx(9 / TIMES_S[-1])
        assert source.time_s(4) == pytest.approx(TIMES_S[4], abs=1e-6)
        assert [number_of(source.frame(index)) for index in (9, 2, 5, 4, 8, 0)] == [9, 2, 5, 4, 8, 0]
    with open_video(path, fps=10) as source:
        assert (source.fps, source.times_s, source.time_s(4)) == (10, None, 0.4)


def test_two_frames_of_one_time_leave_the_others_theirs(tmp_path: Path) -> None:
    path = with_durations(write_clip(tmp_path / "clip.mp4", 10), [512, 512, 0, 2560, *DURATIONS[4:]])
    with open_video(path) as source:
        assert source.times_s is not None
        np.testing.assert_allclose(source.times_s[:5], [0, 0.04, 0.08, 0.08, 0.28], atol=1e-6)
        assert [number_of(source.frame(index)) for index in (9, 2, 3, 4, 0)] == [9, 2, 3, 4, 0]


def test_a_gif_has_the_times_that_pillow_gave_it(tmp_path: Path) -> None:
    frames = [Image.fromarray(numbered_frame(index)) for index in range(6)]
    durations = [100, 40, 500, 70, 1000, 90]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=durations)
    with open_video(tmp_path / "a.gif") as source:
        assert [number_of(frame) for frame in source] == list(range(6))
        assert source.times_s is not None
        np.testing.assert_allclose(source.times_s, np.cumsum([0, *durations[:-1]]) / 1000, atol=1e-6)


def played(path: Path) -> tuple[list[int], list[float]]:
    """Numbers of the frames and seconds at which they are shown, read by OpenCV alone."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    numbers, times = [], []
    while capture.grab():
        times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        numbers.append(number_of(capture.retrieve()[1]))
    capture.release()
    return numbers, times


@pytest.mark.parametrize("size_hw", [(48, 64), (49, 65)])
def test_a_written_video_shows_each_frame_at_its_time(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    out = tmp_path / "out.mp4"
    with VideoWriter(out, 4.0, size_hw, times_s=TIMES_S) as writer:
        for index in range(10):
            writer.write(numbered_frame(index, size_hw))
    numbers, times = played(out)
    assert numbers == list(range(10))
    np.testing.assert_allclose(times, TIMES_S, atol=1e-4)
    # Players show the length that the headers have, and those must agree with the frames.
    capture = cv2.VideoCapture(str(out), cv2.CAP_FFMPEG)
    length_s = capture.get(cv2.CAP_PROP_FRAME_COUNT) / capture.get(cv2.CAP_PROP_FPS)
    assert length_s == pytest.approx(TIMES_S[-1] + 0.25, abs=1e-3)


def test_a_video_that_ends_early_keeps_the_times_of_what_was_written(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 4.0, (48, 64), times_s=TIMES_S) as writer:
        for index in range(6):
            writer.write(numbered_frame(index))
    np.testing.assert_allclose(played(tmp_path / "out.mp4")[1], TIMES_S[:6], atol=1e-4)


def test_rounded_times_are_a_steady_rate() -> None:
    film = np.arange(3000) * 1001 / 24000
    assert rate_of(np.round(film, 3), 24000 / 1001) == 24000 / 1001
    assert not is_steady(film, 25.0)
    assert rate_of(film, 25.0) == pytest.approx(24000 / 1001)
    # Clocks that are announced as rates, and headers without one.
    assert rate_of(film, 90_000.0) == pytest.approx(24000 / 1001)
    assert [rate_of(None, fps) for fps in (1000.0, 0.0, -1.0, 50.0)] == [25.0, 25.0, 25.0, 50.0]


def test_pixels_that_are_not_square_are_kept_and_said(tmp_path: Path) -> None:
    path = with_pixel_aspect(write_clip(tmp_path / "wide.mp4", 4), 4, 3)
    with open_video(path) as source:
        assert source.size_hw == (48, 64)
        assert source.note is not None
        assert "viewers show 85x48" in source.note and "the 64x48 that are stored" in source.note
    with open_video(turned(path, 90)) as source:
        assert source.size_hw == (64, 48)
        assert source.note is not None and "viewers show 48x85" in source.note
    with open_video(with_pixel_aspect(write_clip(tmp_path / "square.mp4", 4), 1, 1)) as source:
        assert source.note is None


def test_frames_that_an_editor_hid_are_not_read(tmp_path: Path) -> None:
    path = without_frames_before(write_clip(tmp_path / "cut.mp4", 30), 14 * 512)
    with open_video(path) as source:
        # FFmpeg shows what comes after the cut, though its key frame lies before.
        assert [number_of(frame) for frame in source] == list(range(14, 30))
        assert (source.time_s(0), source.time_s(5)) == (0.0, 0.2)
        assert [number_of(source.frame(index)) for index in (15, 3, 9)] == [29, 17, 23]


def test_more_frames_than_the_header_counts_are_read(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", 30, codec="MJPG")
    data = bytearray(path.read_bytes())
    for place in (data.find(b"avih") + 8 + 16, data.find(b"strh") + 8 + 32):
        assert int.from_bytes(data[place : place + 4], "little") == 30
        data[place : place + 4] = struct.pack("<I", 12)
    path.write_bytes(data)
    with open_video(path) as source:
        assert [number_of(frame) for frame in source] == list(range(30))


def matroska(path: Path, extra_s: float, whole: bool) -> Path:
    """30 frames in 1.2 seconds that announce a longer duration; a stream does not say where it ends."""
    data = bytearray(write_clip(path, 30).read_bytes())
    duration = data.find(b"\x44\x89\x88") + 3
    data[duration : duration + 8] = struct.pack(">d", 1200 + 1000 * extra_s)
    if not whole:
        segment = data.find(b"\x18\x53\x80\x67") + 4
        data[segment : segment + 8] = b"\x01" + b"\xff" * 7
    path.write_bytes(data)
    return path


def test_sound_that_lasts_longer_is_no_missing_frame(tmp_path: Path) -> None:
    """Matroska announces no number of frames, so that FFmpeg makes one of the duration."""
    for whole in (True, False):
        with open_video(matroska(tmp_path / "sound.mkv", 0.7, whole)) as source:
            assert (source.frame_count, source.note) == (30, None)
    with open_video(matroska(tmp_path / "half.mkv", 3, whole=True)) as source:
        assert source.note is not None and "30 of the 105 frames that it announces" in source.note
    with pytest.raises(BadVideoError, match="is cut off: 30 of the 105 frames"):
        open_video(matroska(tmp_path / "half.mkv", 3, whole=False))


def test_a_file_of_sound_has_no_picture(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    with pytest.raises(BadVideoError, match="finds no picture in it"):
        open_video(tmp_path / "sound.wav")


@pytest.mark.parametrize("depth", [cv2.CV_8U, cv2.CV_16U])
def test_gray_pixels_of_8_and_16_bits_keep_their_values(tmp_path: Path, depth: int) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (5, 48, 66), dtype=np.uint8)
    scale, kind = (257, np.uint16) if depth == cv2.CV_16U else (1, np.uint8)
    settings = [cv2.VIDEOWRITER_PROP_DEPTH, depth, cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
    path, lossless = tmp_path / "gray.mkv", cv2.VideoWriter.fourcc(*"FFV1")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, lossless, 25.0, (66, 48), settings)
    for frame in gray:
        writer.write(frame.astype(kind) * kind(scale))
    writer.release()
    with open_video(path) as source:
        for frame, wanted in zip(source, gray, strict=True):
            assert np.abs(frame.astype(int) - wanted[..., None]).max() <= 1
