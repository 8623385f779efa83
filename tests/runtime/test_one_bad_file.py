"""A file that fails, in whatever way, is one line; the files around it are done and recorded."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness import BrightnessSession
from fake_detector import two_objects

from seg_runtime.boundary import DEBUG_VARIABLE
from seg_runtime.cli import instances, run
from seg_runtime.errors import BadInputError, ServerTimeoutError
from seg_runtime.files import instances as instance_files
from seg_runtime.files import segment as segment_module
from seg_runtime.files.bit_depth import BitDepth
from seg_runtime.files.images import LoadedImage, write_png
from seg_runtime.instances import InstanceSegmenter
from seg_runtime.semantic import SemanticSegmenter

DAMAGED_TIFF = Path(__file__).parents[1] / "data" / "cases" / "folders" / "tif" / "m.tif"


def image(side: int = 64) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(side).integers(0, 256, (side, side), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images; between them one too small for detectors, a damaged one and names out of line."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "z.png"):
        write_png(folder / name, image())
    write_png(folder / "m.png", image(20))
    shutil.copy(DAMAGED_TIFF, folder)
    write_png(folder / "n\udcff.png", image())
    long = folder / f"{'x' * 248}.png"
    shutil.copy(folder / "a.png", long)
    return folder


@pytest.fixture(params=["segment", "instances"])
def command(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr(run, "open_session", lambda *target: BrightnessSession())
    monkeypatch.setattr(instances, "open_session", lambda *target: two_objects())
    yield [request.param, "--model", "brightness" if request.param == "segment" else "cells"]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["seg-run", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_folder_goes_on_after_every_kind_of_failure(
    folder: Path,
    command: list[str],
    batch: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert call(monkeypatch, *command, folder, "-o", out, "--batch", batch) == 2
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Path(row["path"]) for row in rows] == sorted(folder.iterdir())
    failed = {Path(row["path"]).name for row in rows if "error" in row}
    small = {"m.png"} if command[0] == "instances" else set()
    assert failed - {"m.tif"} == {f"{'x' * 248}.png", *small}
    assert (out / "a_overlay.png").is_file() and (out / "z_overlay.png").is_file()
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert f"{len(failed)} of 6 images were left out" in captured.err.splitlines()[-1]
    if command[0] == "instances":
        coco = json.loads((out / "instances.json").read_text(encoding="utf-8"))
        good = [row["path"] for row in rows if "error" not in row]
        assert [entry["file_name"] for entry in coco["images"]] == good
        assert len(coco["annotations"]) == len(good)


def test_an_error_that_nobody_expects_is_one_line_with_its_type(
    folder: Path,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read(path: Path, *channels: int, **options: Any) -> LoadedImage:
        if path.name == "m.png":
            raise KeyError("PatientName Doe")
        pixels = image() if command[0] == "segment" else np.zeros((64, 64, 3), np.uint8)
        return LoadedImage(pixels, BitDepth(8, "file"))

    monkeypatch.setattr(segment_module, "load_image_or_stack", read)
    monkeypatch.setattr(instance_files, "load_image", read)
    arguments = (*command, *(folder / name for name in ("a.png", "m.png", "z.png")), "-o")
    assert call(monkeypatch, *arguments, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"left out: image '{folder / 'm.png'}': unexpected KeyError" in error
    assert "Doe" not in error and "Traceback" not in error
    monkeypatch.setenv(DEBUG_VARIABLE, "1")
    assert call(monkeypatch, *arguments, tmp_path / "again") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_server_that_is_away_ends_the_run_and_what_is_done_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = two_objects()
    answer = session._infer

    def infer(*arguments: object) -> dict[str, object]:
        if session.requests:
            raise ServerTimeoutError("no answer")
        return answer(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "_infer", infer)
    paths = [folder / "a.png", folder / "z.png"]
    results = instance_files.segment_instance_files(
        InstanceSegmenter(session, "cells"), paths, tmp_path / "out", overlay=False
    )
    with pytest.raises(ServerTimeoutError):
        list(results)
    assert len(json.loads((tmp_path / "out" / "instances.json").read_text())["images"]) == 1


def test_a_batch_that_no_model_takes_is_refused_before_the_first_image() -> None:
    for segmenter in (
        SemanticSegmenter(BrightnessSession(), "brightness"),
        InstanceSegmenter(two_objects(), "cells"),
    ):
        with pytest.raises(BadInputError, match="takes batches of 1 to"):
            segmenter.stream([], batch_size=99)
