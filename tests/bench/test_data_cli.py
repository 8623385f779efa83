"""`seg-bench data` and `seg-bench train` as a user runs them, with a local server for the download."""

from __future__ import annotations

import functools
import json
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.data.classes import ClassSample
from seg_bench.data.montgomery import load_montgomery
from seg_bench.data.nuclei import load_nuclei
from seg_bench.data.nuclei_classes import nuclei_classes
from seg_bench.data.splits import load_split
from seg_bench.data.training import training_data
from seg_runtime.errors import BadImageError, BadInputError

NAMES = ("MCUCXR_0001_0", "MCUCXR_0002_0", "MCUCXR_0104_1", "MCUCXR_0108_1")


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The official archive in small: four 12-bit X-rays of 40x32 pixels."""
    path = tmp_path / "www" / "set.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as bundle:
        for name in NAMES:
            lung = np.zeros((40, 32), np.uint8)
            lung[8:32, 4:14] = 255
            image = (np.arange(40 * 32).reshape(40, 32) * 3).astype(np.uint16)
            for folder, pixels in (
                ("CXR_png", image),
                ("ManualMask/leftMask", lung[:, ::-1]),
                ("ManualMask/rightMask", lung),
            ):
                bundle.writestr(
                    f"MontgomerySet/{folder}/{name}.png", cv2.imencode(".png", pixels)[1].tobytes()
                )
    return path


@pytest.fixture
def url(archive: Path) -> Iterator[str]:
    handler = functools.partial(SilentHandler, directory=str(archive.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{archive.name}"
        server.shutdown()
        thread.join()


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def run_error(*arguments: object) -> BaseException | None:
    return CliRunner().invoke(app, [str(argument) for argument in arguments]).exception


def test_montgomery_is_downloaded_unpacked_and_prepared(url: str, tmp_path: Path) -> None:
    out = tmp_path / "data"
    printed = json.loads(
        run("data", "montgomery", "--out", out, "--url", url, "--prepare", "--size", 16, "--json")
    )
    assert printed["samples"] == 4
    assert printed["changed_from"] is None
    assert len(printed["sha256"]) == 64
    official = load_montgomery(Path(printed["folder"]))
    assert official[0].load_image().shape == (40, 32)
    assert official[0].load_mask().sum() == 2 * 24 * 10
    prepared = load_montgomery(Path(printed["prepared"]))
    assert [sample.name for sample in prepared] == list(NAMES)
    assert prepared[0].load_mask().shape == (16, 16)


def test_second_run_downloads_nothing(url: str, archive: Path, tmp_path: Path) -> None:
    first = run("data", "montgomery", "--out", tmp_path / "data", "--url", url)
    archive.unlink()
    assert run("data", "montgomery", "--out", tmp_path / "data", "--url", url) == first


def test_archive_that_changed_at_its_source_is_warned_about(url: str, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    run("data", "montgomery", "--out", out, "--url", url)
    next(out.glob("*.zip")).unlink()
    with zipfile.ZipFile(archive, "a") as bundle:
        bundle.writestr("readme.txt", "new")
    result = CliRunner().invoke(app, ["data", "montgomery", "--out", str(out), "--url", url])
    assert result.exit_code == 0
    assert "it changed at its source" in " ".join(result.stderr.split())


def check_nuclei(out: Path, nuclei_folder: Path) -> None:
    """That a folder has the images of nuclei with their classes, and nothing else."""
    found = training_data(out)
    assert found.class_names == ("background", "nucleus", "border")
    for ours, theirs in zip(found.samples, load_nuclei(nuclei_folder), strict=True):
        assert isinstance(ours, ClassSample) and ours.name == theirs.name
        np.testing.assert_array_equal(ours.load_image(), theirs.load_image())
        np.testing.assert_array_equal(ours.load_classes(), nuclei_classes(theirs.load_labels()))
    assert {path.name for path in out.iterdir()} == {"images", "classes", "classes.txt"}
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]


def test_nuclei_of_a_folder_get_three_classes(nuclei_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "classes"
    printed = json.loads(run("data", "nuclei", "--from", nuclei_folder, "--out", out, "--json"))
    assert printed == {"folder": str(out), "images": 6, "classes": ["background", "nucleus", "border"]}
    check_nuclei(out, nuclei_folder)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    error = run_error("data", "nuclei", "--from", nuclei_folder, "--out", out)
    assert isinstance(error, BadInputError) and "is there already" in str(error)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("top", ["", "dataset-fixes/stage1_train/"])
def test_nuclei_are_downloaded_and_get_three_classes(
    url: str, archive: Path, nuclei_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, top: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(archive, "w") as bundle:
        for sample in load_nuclei(nuclei_folder):
            folder, labels = f"{top}{sample.name}{'0' * 52}", sample.load_labels()
            bundle.write(sample.image_path, f"{folder}/images/{'0' * 64}.png")
            for number in np.unique(labels)[1:]:
                mask = np.where(labels == number, np.uint8(255), np.uint8(0))
                bundle.writestr(f"{folder}/masks/{number}.png", cv2.imencode(".png", mask)[1].tobytes())
    assert "6 images in" in run("data", "nuclei", "--url", url, "--out", tmp_path / "out")
    check_nuclei(tmp_path / "out", nuclei_folder)
    archive.unlink()
    run("data", "nuclei", "--url", url, "--out", tmp_path / "again")


def test_nuclei_that_cannot_be_read_leave_nothing_behind(nuclei_folder: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "nuclei", tmp_path / "data" / "out"
    shutil.copytree(nuclei_folder, source)
    error = run_error("data", "nuclei", "--from", source, "--url", "http://x/x.zip", "--out", out)
    assert isinstance(error, BadInputError) and "give one of them" in str(error)
    last = max((source / "labels").iterdir())
    cv2.imwrite(str(last), np.ones((9, 9), np.uint16))
    error = run_error("data", "nuclei", "--from", source, "--out", out)
    assert isinstance(error, BadInputError) and "both must have one size" in str(error)
    last.write_bytes(b"")
    assert isinstance(run_error("data", "nuclei", "--from", source, "--out", out), BadImageError)
    error = run_error("data", "nuclei", "--from", tmp_path / "none", "--out", out)
    assert isinstance(error, BadInputError) and "holds no images with objects" in str(error)
    (tmp_path / "file").touch()
    error = run_error("data", "nuclei", "--from", nuclei_folder, "--out", tmp_path / "file" / "out")
    assert isinstance(error, BadInputError) and "cannot write" in str(error)
    assert not list(tmp_path.glob("data/*")) and not list(tmp_path.glob("data/.*"))


def test_split_command_writes_a_stratified_split(url: str, tmp_path: Path) -> None:
    run("data", "montgomery", "--out", tmp_path / "data", "--url", url)
    out = tmp_path / "split.json"
    arguments = ("data", "split", tmp_path / "data", "--out", out, "--val", 0, "--test", 0.5, "--json")
    assert json.loads(run(*arguments)) == {"split": str(out), "train": 2, "val": 0, "test": 2}
    assert {name[-1] for name in load_split(out).test} == {"0", "1"}


def test_shares_that_leave_nothing_to_train_on_are_refused(xray_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "split.json"
    error = run_error("data", "split", xray_folder, "--out", out, "--val", 0.5, "--test", 0.5)
    assert isinstance(error, BadInputError)
    assert "below 1" in str(error)
    assert not out.exists()


def test_train_command_trains_and_prints_json(xray_folder: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.json"
    run("data", "split", xray_folder, "--out", split, "--val", 0.25, "--test", 0.25)
    arguments = ("train", "unet", xray_folder, "--out", tmp_path / "run", "--split", split, "--size", 32)
    small = ("--features", "4,8", "--epochs", 1, "--batch-size", 4, "--device", "cpu", "--json")
    printed = json.loads(run(*arguments, *small))
    assert printed["epochs"] == 1
    assert 0 <= printed["val_dice"] <= 1
    assert Path(printed["checkpoint"]).is_file()


def test_features_that_are_no_numbers_are_refused(xray_folder: Path, tmp_path: Path) -> None:
    error = run_error("train", "unet", xray_folder, "--out", tmp_path / "run", "--features", "wide")
    assert isinstance(error, BadInputError)
    assert "32,64,128,256" in str(error)
    assert not (tmp_path / "run").exists()
