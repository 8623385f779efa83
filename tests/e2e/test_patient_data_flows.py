"""DICOM files go through every command that takes images, and nothing of their text comes out anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from marked_dicom import DAMAGED, MARKER, damaged_dicom, marked_dicom

Run = Callable[..., str]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three DICOM files and damaged ones, as files of their own and as a data set with masks."""
    folder = tmp_path_factory.mktemp("alice") / "study"
    for name in ("images", "damaged", "data/images", "data/masks"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8)
        marked_dicom(folder / "images" / f"case{number}.dcm", pixels)
        # What a file is, its content says.
        marked_dicom(folder / "data" / "images" / f"case{number}.png", pixels)
        cv2.imwrite(str(folder / "data" / "masks" / f"case{number}.png"), pixels // 128 * 255)
    for how in DAMAGED:
        damaged_dicom(folder / "damaged" / f"{how.replace(' ', '_')}.dcm", pixels, how)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in an empty folder, its home and temporary folder in there; gives all that it printed."""

    def call(code: int, program: str, *arguments: str | Path) -> str:
        (tmp_path / "tmp").mkdir(exist_ok=True)
        places = {
            "HOME": str(tmp_path),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "TMPDIR": str(tmp_path / "tmp"),
        }
        done = subprocess.run(
            [str(Path(sys.executable).with_name(program)), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **places, "PYTHONWARNINGS": "always"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return call


def _assert_unmarked(printed: str, folder: Path) -> None:
    assert MARKER not in printed
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert written
    assert [path for path in written if MARKER.encode() in path.read_bytes() or MARKER in path.name] == []


def test_segmenting_writes_nothing_of_the_header(
    run: Run, study: Path, tiny_repo: Path, tmp_path: Path
) -> None:
    model = ["--repo", tiny_repo, "--model", "unet_tiny"]
    printed = run(0, "seg-run", "segment", study / "images", *model, "-o", "masks", "--json")
    printed += run(2, "seg-run", "segment", study / "images", study / "damaged", *model, "-o", "some")
    assert "case0" in printed and "frames" in printed
    _assert_unmarked(printed, tmp_path)


@pytest.mark.full
def test_verifying_and_calibrating_record_nothing_of_the_header(
    run: Run, study: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    unet = ["unet", "--checkpoint", tiny_checkpoint, "--name", "tiny"]
    printed = run(0, "seg-export", *unet, "--images", study / "images", "--json")
    calibrated = run(0, "seg-export", *unet, "--precision", "int8", "--calibrate", study / "images", "--json")
    assert "case1" in calibrated
    printed += run(2, "seg-export", *unet, "--images", study / "damaged")
    _assert_unmarked(printed + calibrated, tmp_path)
    contracts = [path.read_text() for path in (tmp_path / "triton_repo").rglob("config.pbtxt")]
    assert contracts
    assert not any(word in text for text in contracts for word in ("case", "alice", str(study)))


@pytest.mark.slow
def test_records_and_reports_name_files_and_no_folders(
    run: Run, study: Path, tiny_repo: Path, tmp_path: Path
) -> None:
    measured = ["--repo", tiny_repo, "--models", "unet_tiny", "--where", "in-process", "--repeats", "2"]
    printed = run(
        0, "seg-bench", "run", *measured, "--data", study / "data", "--robustness", "--out", "record.json"
    )
    page = ["--format", "html", "-o", "page.html", "--images", study / "data", "--repo", tiny_repo]
    printed += run(0, "seg-bench", "report", "record.json", *page)
    printed += run(0, "seg-bench", "report", "record.json", "--format", "csv", "-o", "table.csv")
    _assert_unmarked(printed, tmp_path)
    for name in ("record.json", "page.html", "table.csv"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert not any(word in text for word in (str(study), "alice", str(tmp_path)))
        assert not re.search(rf"\b{re.escape(os.uname().nodename)}\b", text)
    assert '"case0"' in (tmp_path / "record.json").read_text(encoding="utf-8")
    assert list((tmp_path / "tmp").rglob("*.png")) == []
