"""`seg-run track` with a real `Sam2VideoPredictor` gives the masks of sam2's own predictor."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sam2_clips import moving_shapes, write_jpegs
from sam2_small import small_sam2
from sam2_torch_session import TorchSam2Session

from seg_runtime.cli import run, track
from seg_runtime.video import capture as captures
from seg_runtime.video import open_video

COUNT = 8
PROMPTS = ["--point", "30,60", "--box", "140,20,176,50#2", "--point", "100,60,0@5"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jpegs(moving_shapes(16), tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> TorchSam2Session:
    """The command finds sam2's own modules wherever it is told to connect to."""
    opened = TorchSam2Session(small_sam2())
    monkeypatch.setattr(track, "open_session", lambda *target: opened)
    return opened


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["seg-run", "track", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    return int(ended.value.code or 0)


@torch.inference_mode()
def sam2_masks(folder: Path, later: bool = True) -> dict[int, NDArray[np.float32]]:
    """(2, H, W) logits per frame of sam2's own predictor on the same prompts."""
    predictor = small_sam2()
    state: Any = predictor.init_state(str(folder))
    predictor.add_new_points_or_box(state, 0, 1, points=[[30, 60]], labels=[1])
    predictor.add_new_points_or_box(state, 0, 2, box=[140, 20, 176, 50])
    if later:
        predictor.add_new_points_or_box(state, 5, 1, points=[[100, 60]], labels=[0])
    frames = predictor.propagate_in_video(state, max_frame_num_to_track=COUNT - 1)
    return {index: logits[:, 0].numpy() for index, _, logits in frames}


def assert_masks_equal(folder: Path, wanted: dict[int, NDArray[np.float32]]) -> None:
    files = sorted(folder.glob("*.png"))
    assert len(files) == len(wanted)
    shares = []
    for file, logits in zip(files, wanted.values(), strict=True):
        expected = np.where(logits.max(axis=0) > 0, logits.argmax(axis=0) + 1, 0)
        assert np.mean(np.array(Image.open(file)) == expected) > 0.9995, file
        shares.append((expected > 0).mean())
    # Objects come and go; masks that are all or nothing would be equal by chance.
    assert any(0.02 < share < 0.98 for share in shares)


def test_masks_of_a_folder_equal_sam2s(
    shapes: Path, session: TorchSam2Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for file in sorted(shapes.iterdir())[:COUNT]:
        shutil.copy(file, folder)
    assert call(monkeypatch, folder, *PROMPTS, "--masks", "png", "-o", tmp_path / "out.mp4") == 0
    assert_masks_equal(tmp_path / "out_masks", sam2_masks(folder))
    with open_video(tmp_path / "out.mp4") as drawn:
        assert (drawn.frame_count, drawn.size_hw) == (8, (120, 200))
    assert all(handle.released for handle in session.handles)


class Camera:
    """An OpenCV capture of a folder's first frames, without an end that anybody knows."""

    def __init__(self, folder: Path) -> None:
        self._files = iter(sorted(folder.glob("*.jpg"))[:COUNT])

    def get(self, name: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        file = next(self._files, None)
        return (False, None) if file is None else (True, np.array(Image.open(file))[..., ::-1].copy())

    def release(self) -> None:
        pass


def test_a_camera_gives_the_masks_of_the_same_frames_of_a_long_video(
    shapes: Path, session: TorchSam2Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    # sam2 encodes the distance of a pointer as a share of the video, but of 16 frames at most: a stream is
    # tracked as a video of 16 frames or more.
    monkeypatch.setattr(captures, "open_capture", lambda target: Camera(shapes))
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "0", *PROMPTS[:4], "--masks", "png", "-o", "out.mp4") == 0
    assert "camera 0 gave no more frames after 8" in capsys.readouterr().err
    assert_masks_equal(tmp_path / "out_masks", sam2_masks(shapes, later=False))
    assert all(handle.released for handle in session.handles)
