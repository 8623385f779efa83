"""Frames of files, folders, cameras and addresses: the right one, in the right colours, or one clear line."""

from __future__ import annotations

import contextlib
import http.server
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import number_of, numbered_frame, turned, with_index_first, write_clip, write_frames
from numpy.typing import NDArray
from PIL import Image

from seg_runtime.errors import BadVideoError, FrameNotFoundError, VideoEndedError
from seg_runtime.files.images import write_png
from seg_runtime.video import capture as captures
from seg_runtime.video import open_video
from seg_runtime.video.file_source import VideoFileSource
from seg_runtime.video.live_source import LiveSource


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.mp4", 100)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "clip.mkv"])
def test_a_video_file_gives_every_frame_in_order_and_in_rgb(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, 40, codec="MJPG" if name.endswith("avi") else "mp4v", fps=12.5)
    with open_video(path) as source:
        assert (source.size_hw, source.frame_count, source.fps) == ((48, 64), 40, 12.5)
        assert (source.name, source.names, source.note) == (str(path), None, None)
        frames = list(source)
    assert [number_of(frame) for frame in frames] == list(range(40))
    assert all(frame.dtype == np.uint8 and frame.shape == (48, 64, 3) for frame in frames)
    # White bars turn yellow in the lower half: blue is the last channel.
    red, green, blue = frames[1][40, 3].astype(int)
    assert min(red, green) > 200 and blue < 120


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_video_is_seen_as_viewers_turn_it(tmp_path: Path, degrees: int) -> None:
    path = turned(write_clip(tmp_path / "phone.mp4", 100), degrees)
    with open_video(path) as source:
        assert source.size_hw == ((48, 64) if degrees == 180 else (64, 48))
        for index in (0, 1, 99, 40):
            assert number_of(np.rot90(source.frame(index), degrees // 90)) == index


def test_frames_are_exact_in_any_order(clip: Path) -> None:
    wanted = [99, 0, *random.Random(0).sample(range(100), 40), 50, 49, 48, 47, 46, 51]
    with open_video(clip) as source:
        assert [number_of(source.frame(index)) for index in wanted] == wanted
        assert [number_of(source.frame(index)) for index in reversed(range(100))] == list(range(99, -1, -1))
        assert [number_of(frame) for frame in source] == list(range(100))


def test_a_decoder_that_seeks_to_the_wrong_frame_is_found_out(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []

    class OffByThree:
        """Lands three frames late, as OpenCV does with some files."""

        def __init__(self, capture: cv2.VideoCapture) -> None:
            self._capture = capture
            opened.append(self)

        def set(self, name: int, value: float) -> bool:
            return self._capture.set(name, value + 3)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._capture, name)

    real = captures.open_capture
    monkeypatch.setattr("seg_runtime.video.file_source.open_capture", lambda path: OffByThree(real(path)))
    with open_video(clip) as source:
        before = len(opened)
        assert [number_of(source.frame(index)) for index in (90, 10, 60)] == [90, 10, 60]
        assert len(opened) > before


def test_reading_on_opens_the_file_no_second_time(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_video(clip) as source:
        monkeypatch.setattr(VideoFileSource, "_seek", lambda *arguments: pytest.fail("it seeks"))
        assert [number_of(source.frame(index)) for index in (0, 1, 2, 30, 31, 31, 30, 60)][-1] == 60


def test_few_frames_are_held_and_nobody_can_write_into_them(clip: Path) -> None:
    with open_video(clip) as source:
        assert source.capacity == 16
        for index in range(60):
            source.frame(index)
        assert len(source._held) == 16
        with pytest.raises(ValueError, match="read-only"):
            source.frame(59)[0, 0] = 0
    assert type(source).capacity.fget(_Sized((2160, 3840))) == 4


class _Sized:
    def __init__(self, size_hw: tuple[int, int]) -> None:
        self.size_hw = size_hw


@pytest.mark.parametrize("index", [-1, 100, 10**9])
def test_an_unknown_frame_says_how_many_there_are(clip: Path, index: int) -> None:
    with open_video(clip) as source, pytest.raises(FrameNotFoundError, match=r"100 frames, 0 to 99"):
        source.frame(index)


def test_a_cut_off_video_says_what_can_be_read_and_gives_it_when_told(tmp_path: Path) -> None:
    path = with_index_first(write_clip(tmp_path / "cut.mp4", 100))
    with open_video(path) as source:
        assert (source.frame_count, source.note) == (100, None)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(BadVideoError, match=r"cut off: (\d+) of the 100 frames that it announces") as caught:
        open_video(path)
    count = int(str(caught.value).split("cut off: ")[1].split()[0])
    with open_video(path, allow_truncated=True) as source:
        assert source.frame_count == count
        assert 40 < count < 80
        assert source.note is not None and "cut off" in source.note
        # None of them is a part of a frame that FFmpeg filled up.
        assert [number_of(frame) for frame in source] == list(range(count))
    path.write_bytes(write_clip(tmp_path / "late.mp4", 100).read_bytes()[:-500])
    with pytest.raises(BadVideoError, match="has lost its index"):
        open_video(path, allow_truncated=True)


@pytest.mark.parametrize("name", ["cut.avi", "cut.mkv"])
def test_other_containers_that_are_cut_off_are_found_out(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, 100, codec="MJPG" if name.endswith("avi") else "mp4v")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadVideoError, match="cut off"):
        open_video(path)


def test_a_whole_file_whose_frames_are_damaged_is_read_with_a_note(tmp_path: Path) -> None:
    path = with_index_first(write_clip(tmp_path / "holes.mp4", 100))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with open_video(path) as source:
        assert source.frame_count is not None and source.frame_count < 70
        assert source.note is not None and "of the 100 frames that it announces" in source.note
        assert len(list(source)) == source.frame_count


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video " * 100, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("none.mp4", "there is no such file or folder"),
        ("empty.mp4", r"is empty \(0 bytes\)"),
        ("text.mp4", "does not know what it is"),
        ("folder", "has no frames"),
    ):
        with pytest.raises(BadVideoError, match=message) as caught:
            open_video(tmp_path / name)
        assert "\n" not in str(caught.value)
    for address, message in (("rtmp://host/x", "cannot read frames from rtmp://"), ("ftp://h", "ftp://")):
        with pytest.raises(BadVideoError, match=message):
            open_video(address)
    with pytest.raises(BadVideoError, match="above 0"):
        open_video(tmp_path / "none.mp4", fps=0)


def test_a_video_that_is_damaged_in_the_middle_is_refused_or_says_so(tmp_path: Path) -> None:
    data = bytearray((Path(__file__).parents[1] / "data" / "clips" / "cups.mp4").read_bytes())
    data[len(data) * 45 // 100 : len(data) * 55 // 100] = bytes(len(data) * 55 // 100 - len(data) * 45 // 100)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(BadVideoError, match=r"is damaged in the middle: \d+ of the 40 frames"):
        open_video(path)
    with open_video(path, allow_truncated=True) as source:
        assert source.frame_count is not None and 0 < source.frame_count < 40
        assert source.note is not None and "damaged in the middle" in source.note


def test_opencv_and_ffmpeg_print_nothing_of_their_own(tmp_path: Path) -> None:
    path = with_index_first(write_clip(tmp_path / "cut.mp4", 60))
    path.write_bytes(path.read_bytes()[:-700])
    code = (
        "import sys; from seg_runtime.video import open_video\n"
        "for name in sys.argv[1:]:\n"
        "    try: open_video(name)\n"
        "    except Exception as error: print(type(error).__name__)"
    )
    call = [sys.executable, "-c", code, str(path), "0", "http://127.0.0.1:9/x.mp4", __file__]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["BadVideoError"] * 4, "")


def test_a_closed_video_says_so(clip: Path) -> None:
    source = open_video(clip)
    source.close()
    source.close()
    with pytest.raises(BadVideoError, match="is closed"):
        source.frame(5)


def test_a_file_that_breaks_off_while_it_is_read_ends_with_what_came(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_video(clip) as source:
        grab = VideoFileSource._grab
        monkeypatch.setattr(VideoFileSource, "_grab", lambda self: self._grabbed < 29 and grab(self))
        frames = []
        with pytest.raises(VideoEndedError, match="broke off at frame 30 of 100") as caught:
            for frame in source:
                frames.append(number_of(frame))
    assert frames == list(range(30))
    assert caught.value.frames_read == 30


def save_jpegs(folder: Path, names: list[str], size_hw: tuple[int, int] = (48, 64)) -> None:
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(numbered_frame(index, size_hw)).save(folder / name, quality=95)


def test_a_folder_is_read_as_sam2_reads_it(tmp_path: Path) -> None:
    """By number, JPEG alone, and decoded by pillow: `_load_img_as_tensor` of sam2 1.1.0."""
    save_jpegs(tmp_path / "frames", [f"{index}.jpg" for index in range(12)])
    # Masks beside frames, and what systems leave behind.
    write_png(tmp_path / "frames" / "0.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "frames" / ".DS_Store").touch()
    (tmp_path / "frames" / "notes.txt").touch()
    with open_video(tmp_path / "frames") as source:
        assert (source.frame_count, source.fps, source.size_hw) == (12, 24.0, (48, 64))
        assert source.names == tuple(str(index) for index in range(12))
        assert [number_of(frame) for frame in source] == list(range(12))
        expected = np.array(Image.open(tmp_path / "frames" / "10.jpg").convert("RGB"))
        np.testing.assert_array_equal(source.frame(10), expected)


def test_other_names_are_sorted_with_their_numbers_in_order(tmp_path: Path) -> None:
    save_jpegs(tmp_path / "frames", ["shot9.JPG", "shot10.jpeg", "shot11b2.jpg", "shot11b10.jpg"])
    with open_video(tmp_path / "frames", fps=10) as source:
        assert source.names == ("shot9", "shot10", "shot11b2", "shot11b10")
        assert [number_of(frame) for frame in source] == [0, 1, 2, 3]
        assert source.fps == 10


def test_a_folder_of_png_files_is_a_video_too(tmp_path: Path) -> None:
    for index in range(3):
        write_png(tmp_path / f"{index:04d}.png", numbered_frame(index))
    with open_video(tmp_path) as source:
        np.testing.assert_array_equal(source.frame(2), numbered_frame(2))


def test_frames_of_several_sizes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    save_jpegs(tmp_path / "frames", ["0.jpg", "1.jpg"])
    Image.new("RGB", (32, 20)).save(tmp_path / "frames" / "2.jpg")
    message = r"differ in size: 2.jpg has 32x20 pixels and 0.jpg 64x48"
    with pytest.raises(BadVideoError, match=message):
        open_video(tmp_path / "frames")
    (tmp_path / "frames" / "2.jpg").write_bytes(b"nothing")
    with pytest.raises(BadVideoError, match="it is no image"):
        open_video(tmp_path / "frames")


def test_a_damaged_frame_ends_the_folder_there(tmp_path: Path) -> None:
    save_jpegs(tmp_path / "frames", ["0.jpg", "1.jpg", "2.jpg"])
    file = tmp_path / "frames" / "1.jpg"
    file.write_bytes(file.read_bytes()[:-60])
    with open_video(tmp_path / "frames") as source:
        with pytest.raises(VideoEndedError, match="frame 1 cannot be read") as caught:
            list(source)
        assert caught.value.frames_read == 1
        assert number_of(source.frame(2)) == 2


class FakeCamera:
    """An OpenCV capture of numbered frames that ends, as an unplugged camera does."""

    def __init__(self, count: int, wait_s: float = 0.0, fps: float = 0.0) -> None:
        self._frames = iter(range(count))
        self._wait_s = wait_s
        self._fps = fps
        self.released = False

    def get(self, name: int) -> float:
        return {cv2.CAP_PROP_FPS: self._fps}.get(name, -1.0)

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        time.sleep(self._wait_s)
        index = next(self._frames, None)
        return (False, None) if index is None else (True, numbered_frame(index)[..., ::-1].copy())

    def release(self) -> None:
        self.released = True


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> FakeCamera:
    fake = FakeCamera(10)
    monkeypatch.setattr(captures, "open_capture", lambda target: fake)
    return fake


def test_a_camera_gives_frames_until_it_vanishes(camera: FakeCamera) -> None:
    frames = []
    with open_video(0) as source:
        assert (source.frame_count, source.fps, source.size_hw, source.name) == (
            None,
            30.0,
            (48, 64),
            "camera 0",
        )
        with pytest.raises(VideoEndedError, match="camera 0 gave no more frames after 10") as caught:
            for frame in source:
                frames.append(number_of(frame))
    assert frames == list(range(10))
    assert caught.value.frames_read == 10
    assert camera.released


@pytest.mark.usefixtures("camera")
def test_a_camera_cannot_go_back_further_than_it_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seg_runtime.video.source._HELD_FRAMES", (2, 2))
    with open_video("7") as source:
        assert [number_of(source.frame(index)) for index in (0, 1, 4, 1, 4)] == [0, 1, 4, 1, 4]
        with pytest.raises(FrameNotFoundError, match="frame 0 of camera 7 has passed"):
            source.frame(0)


def test_the_newest_frame_is_taken_when_the_caller_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCamera(60, wait_s=0.005)
    monkeypatch.setattr(captures, "open_capture", lambda target: fake)
    seen = []
    with LiveSource(0, latest=True) as source, pytest.raises(VideoEndedError):
        for frame in source:
            seen.append(number_of(frame))
            time.sleep(0.05)
    assert seen == sorted(set(seen))
    assert 2 <= len(seen) <= 20
    assert seen[-1] == 59
    assert fake.released


def test_a_camera_that_stalls_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captures, "TIMEOUT_S", 0.2)
    stalled = FakeCamera(2)
    read = stalled.read
    monkeypatch.setattr(
        stalled, "read", lambda: (time.sleep(0.6) or (False, None)) if not frames_left(stalled) else read()
    )
    monkeypatch.setattr(captures, "open_capture", lambda target: stalled)
    with open_video(0, latest=True) as source, pytest.raises(VideoEndedError):
        list(source)


def frames_left(fake: FakeCamera) -> bool:
    return bool(fake._frames.__length_hint__())


@pytest.mark.usefixtures("camera")
def test_a_file_or_folder_named_by_digits_comes_before_a_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_jpegs(tmp_path / "7", ["0.jpg"])
    assert open_video("7").frame_count == 1
    assert open_video("8").frame_count is None


def test_a_camera_that_is_not_there_and_one_without_frames_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(captures, "open_capture", lambda target: None)
    with pytest.raises(BadVideoError, match=r"cannot open camera 99: (cameras here|no camera)"):
        open_video(99)
    with pytest.raises(BadVideoError, match=r"cannot open rtsp://host/x: nothing answers") as caught:
        open_video("rtsp://user:secret@host/x")
    assert "secret" not in str(caught.value)
    fake = FakeCamera(0)
    monkeypatch.setattr(captures, "open_capture", lambda target: fake)
    with pytest.raises(BadVideoError, match="gives no frames"):
        open_video(0)
    assert fake.released


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in `tmp_path`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments: Any) -> None:
            pass

        def handle(self) -> None:
            # FFmpeg closes connections as it likes.
            with contextlib.suppress(ConnectionError):
                super().handle()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("latest", [False, True])
def test_a_file_behind_an_address_is_read_to_its_end(tmp_path: Path, served: str, latest: bool) -> None:
    with_index_first(write_clip(tmp_path / "clip.mp4", 30))
    with open_video(f"{served}/clip.mp4", latest=latest) as source:
        assert (source.frame_count, source.fps) == (None, 25.0)
        assert [number_of(frame) for frame in source] == list(range(30))
        with pytest.raises(FrameNotFoundError, match="ended after 30 frames"):
            source.frame(30)
    with pytest.raises(BadVideoError, match="nothing answers there"):
        open_video(f"{served}/none.mp4")


def test_a_frame_of_another_size_in_the_middle_ends_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCamera(3)
    sizes = iter([(48, 64), (48, 64), (24, 32)])
    monkeypatch.setattr(fake, "read", lambda: (True, numbered_frame(0, next(sizes))))
    monkeypatch.setattr(captures, "open_capture", lambda target: fake)
    with (
        open_video(0) as source,
        pytest.raises(VideoEndedError, match="frame 2 of 'camera 0' has 32x24 pixels"),
    ):
        list(source)


def test_odd_sizes_and_one_frame_are_fine(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "one.avi", [numbered_frame(5, (50, 66))], codec="MJPG")
    with open_video(path) as source:
        assert (source.frame_count, source.size_hw, number_of(source.frame(0))) == (1, (50, 66), 5)
