"""`seg-run track`: prompts as text, what is shown, and one clear line for every bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_tracker import ColorTracker, disc_clip, disc_frame
from PIL import Image

from seg_runtime.cli import run, track
from seg_runtime.video import capture as captures
from seg_runtime.video import open_video

PARTS = ("image_encoder", "mask_decoder", "mask_prompt", "memory_attention", "memory_encoder")


class FakeSession:
    """A session that has SAM2s by name and runs nothing."""

    def __init__(self, *names: str) -> None:
        self._models = tuple(f"{name}_{part}" for name in names for part in PARTS)

    def models(self) -> tuple[str, ...]:
        return self._models

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> ColorTracker:
    """The command finds this tracker wherever it is told to connect to."""
    fake = ColorTracker()
    monkeypatch.setattr(track, "open_session", lambda *target: FakeSession("sam2_tiny"))
    monkeypatch.setattr(track, "_predictor", lambda session, name: fake)
    return fake


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return disc_clip(tmp_path / "clip.mp4", 15)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `seg-run track` in this process as its entry point does; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["seg-run", "track", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    return int(ended.value.code or 0)


def test_points_and_boxes_go_to_their_frames_and_objects(
    clip: Path, tmp_path: Path, tracker: ColorTracker, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out.mp4"
    prompts = ["--point", "20,30", "--point", "5,90,0", "--box", "8,18,32,42"]
    others = ["--point", "100,76@4#2", "--point", "100,70,1#2@10", "--box", "88,60,112,84@8#2"]
    assert call(monkeypatch, clip, *prompts, *others, "--masks", "rle", "-o", out) == 0
    assert tracker.calls == [
        ("prompt", 0, 1, [[20, 30], [5, 90]], [1, 0], [8, 18, 32, 42]),
        ("prompt", 4, 2, [[100, 76]], [1], None),
        ("prompt", 8, 2, None, None, [88, 60, 112, 84]),
        ("prompt", 10, 2, [[100, 70]], [1], None),
    ]
    error = capsys.readouterr().err.replace("\n", "")
    assert error.startswith("2 objects in 15 frames, ") and f" frames/s, in '{out}'" in error
    with open_video(out) as drawn:
        assert drawn.frame_count == 15
    document = json.loads((tmp_path / "out_masks.json").read_text(encoding="utf-8"))
    assert document["info"]["model"] == "sam2_tiny"
    assert document["info"]["engine"] == "colours"


def test_the_object_option_is_for_prompts_that_name_none(
    clip: Path, tmp_path: Path, tracker: ColorTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.where(disc_frame(0)[..., 1] == 200, 4, 0).astype(np.uint8)
    indexed = Image.fromarray(labels)
    indexed.putpalette(bytes(768))
    indexed.save(tmp_path / "first@home.png")
    options = [
        "--object",
        3,
        "--point",
        "20,30",
        "--mask",
        tmp_path / "first@home.png",
        "-o",
        tmp_path / "o.mp4",
    ]
    assert call(monkeypatch, clip, *options) == 0
    assert [made[:3] for made in tracker.calls] == [("prompt", 0, 3), ("mask", 0, 4)]
    tracker.calls.clear()
    assert (
        call(monkeypatch, clip, "--mask", f"{tmp_path / 'first@home.png'}@2#8", "-o", tmp_path / "o.mp4") == 0
    )
    assert tracker.calls == [("mask", 2, 8, int((labels > 0).sum()))]


@pytest.mark.usefixtures("tracker")
def test_json_is_one_summary_and_live_a_line_per_frame(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    options = [clip, "--point", "20,30", "-o", tmp_path / "out.mp4"]
    assert call(monkeypatch, *options, "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert {key: summary[key] for key in ("frames", "tracked", "objects", "ended", "masks", "note")} == {
        "frames": 15,
        "tracked": 15,
        "objects": [1],
        "ended": "complete",
        "masks": None,
        "note": None,
    }
    assert call(monkeypatch, *options, "--json", "--live") == 0
    *rows, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [row["frame"] for row in rows] == list(range(15))
    assert [row["time_s"] for row in rows] == pytest.approx([index / 25 for index in range(15)])
    assert all(row["area_px"]["1"] > 300 and row["seconds"] > 0 for row in rows)
    assert last["frames"] == 15
    assert call(monkeypatch, *options, "--live", "--fps", 5) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 15 and lines[3].startswith("frame 3: object 1 ") and lines[3].endswith(" frames/s)")
    with open_video(tmp_path / "out.mp4") as drawn:
        assert drawn.fps == 5


class Camera:
    """An OpenCV capture of discs that is pulled out after 7 frames."""

    def __init__(self) -> None:
        self._index = -1

    def get(self, name: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, Any]:
        self._index += 1
        return self._index < 7, disc_frame(self._index)[..., ::-1].copy()

    def release(self) -> None:
        pass


@pytest.mark.usefixtures("tracker")
def test_a_camera_that_vanishes_is_a_clean_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(captures, "open_capture", lambda target: Camera())
    out = tmp_path / "out.mp4"
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "0", "--point", "20,30", "--masks", "png", "--json", "-o", out) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["ended"] == "broke off"
    assert "camera 0 gave no more frames after 7" in captured.err
    monkeypatch.undo()
    with open_video(out) as drawn:
        assert drawn.frame_count == 7
    assert len(list((tmp_path / "out_masks").iterdir())) == 7


@pytest.mark.parametrize(("where", "code"), [("0", 0), ("clip.mp4", 130)])
def test_ctrl_c_is_how_a_stream_ends_and_an_interruption_of_a_file(
    clip: Path,
    tmp_path: Path,
    tracker: ColorTracker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    where: str,
    code: int,
) -> None:
    def stop(index: int) -> None:
        if index == 4:
            raise KeyboardInterrupt

    tracker.before_frame = stop
    monkeypatch.chdir(tmp_path)
    if where == "0":
        monkeypatch.setattr(captures, "open_capture", lambda target: Camera())
    assert call(monkeypatch, where, "--point", "20,30", "-o", "out.mp4") == code
    assert "stopped after frame 3" in capsys.readouterr().err
    monkeypatch.undo()
    with open_video(tmp_path / "out.mp4") as drawn:
        assert drawn.frame_count == 4


@pytest.mark.usefixtures("tracker")
def test_a_file_that_breaks_off_is_saved_and_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "frames").mkdir()
    for index in range(4):
        Image.fromarray(disc_frame(index)).save(tmp_path / "frames" / f"{index}.jpg", quality=95)
    file = tmp_path / "frames" / "3.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    assert call(monkeypatch, tmp_path / "frames", "--point", "20,30", "-o", tmp_path / "out.mp4") == 2
    error = capsys.readouterr().err
    assert "error: frame 3 cannot be read" in error and "what was tracked is in" in error
    with open_video(tmp_path / "out.mp4") as drawn:
        assert drawn.frame_count == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to track: give a point, a box or a mask"),
        (["--point", "5"], "--point wants X,Y or X,Y,0 or X,Y,1 in pixels of the video"),
        (["--point", "5,5@x"], "--point wants"),
        (["--point", "5,5@2@3"], "--point wants"),
        (["--point", "5,5,2"], "the label is 1 for the object or 0 for the background"),
        (["--point", "500,5"], "point (500, 5) is outside the image of 128x96 pixels"),
        (["--point", "5,5@15"], "a prompt on frame 15: 'clip.mp4' has 15 frames, 0 to 14"),
        (["--point", "5,5#0"], "numbered from 1, not 0"),
        (["--box", "1,2,3"], "--box wants X0,Y0,X1,Y1"),
        (
            ["--box", "1,1,9,9", "--box", "20,20,30,30"],
            "has 2 boxes: give one, or tell objects apart with #1, #2",
        ),
        (["--mask", "none.png"], "there is no such file"),
        (["--mask", "small.png"], "has 20x10 pixels and the video 128x96"),
        (["--point", "5,5", "-o", "out.avi"], "name a file that ends in .mp4"),
        (["--point", "5,5", "-o", "clip.mp4"], "is the video that is tracked"),
        (["--point", "5,5", "--fps", "0"], "frames per second must lie above 0"),
    ],
)
@pytest.mark.usefixtures("tracker", "clip")
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (20, 10), 255).save("small.png")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert call(monkeypatch, "clip.mp4", "-o", "out.mp4", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.usefixtures("tracker")
def test_bad_videos_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "empty.mp4").touch()
    for video, message in (
        ("none.mp4", "no such file"),
        ("empty.mp4", "is empty"),
        ("99", "cannot open camera 99"),
    ):
        path = video if video == "99" else tmp_path / video
        assert call(monkeypatch, path, "--point", "5,5", "-o", tmp_path / "out.mp4") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
