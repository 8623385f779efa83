"""Image files that ask for too much work: one line, before the work, in little memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from hostile_images import DICOM, IMAGES, data_set, deflated, dicom, element, jpeg, png, scans, tiff, zeros
from PIL import Image

from seg_runtime.errors import BadImageError, BadInputError, RepositoryError
from seg_runtime.files.images import load_image
from seg_runtime.files.limits import check_inflation
from seg_runtime.files.masks import read_labels
from seg_runtime.local_session import LocalSession
from seg_runtime.plain_files import check_whole
from seg_runtime.repository import Repository
from seg_runtime.video import open_video

_READ = r"""
import re, sys
from pathlib import Path
from seg_runtime.errors import BadImageError
from seg_runtime.files.images import load_image
from seg_runtime.files.masks import read_labels

for path in map(Path, sys.argv[1:]):
    for read in (lambda path: load_image(path, 1), read_labels):
        try:
            read(path)
            print(f"{path}: was read")
        except BadImageError as error:
            print(error)
print(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
"""

FILES = {f"image: {what}": (name, make, text) for what, (name, make, text) in IMAGES.items()}
FILES |= {f"DICOM: {what}": ("a.dcm", make, text) for what, (make, text) in DICOM.items()}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a process prints that reads every file of the corpus twice, and its largest memory in KiB."""
    folder, paths = tmp_path_factory.mktemp("hostile"), []
    for number, (name, make, _) in enumerate(FILES.values()):
        paths.append(folder / f"{number}{name}")
        paths[-1].write_bytes(make())
    command = [sys.executable, "-c", _READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(("number", "what"), list(enumerate(FILES)), ids=list(FILES))
def test_a_hostile_image_is_refused_in_one_line(refusals: list[str], number: int, what: str) -> None:
    as_image, as_mask = refusals[2 * number : 2 * number + 2]
    assert any(text in as_image for text in FILES[what][2].split("|"))
    assert as_image.startswith("cannot read image") and as_mask.startswith("cannot read mask")


def test_hostile_images_take_little_memory(refusals: list[str]) -> None:
    assert len(refusals) == 2 * len(FILES) + 1
    assert int(refusals[-1]) < 500 * 1024


@pytest.mark.parametrize(
    ("size_hw", "pixel_bytes", "stored"),
    [
        ((9000, 12000), 3, 300_000),  # a slide, as empty as PNG can make it
        ((9000, 12000), 1, 110_000),
        ((16384, 16384), 3, 20_000_000),
        ((16384, 16384), 6, 6 * 2**28),
    ],
)
def test_large_pictures_of_honest_files_pass(size_hw: tuple[int, int], pixel_bytes: int, stored: int) -> None:
    check_inflation(size_hw, pixel_bytes, stored)


def test_what_the_formats_allow_is_still_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    progressive = tmp_path / "progressive.jpg"
    Image.fromarray(pixels).save(progressive, progressive=True, quality=95)
    data = progressive.read_bytes()
    filled = tmp_path / "filled.jpg"
    filled.write_bytes(data[:2] + b"\xff\xff" + data[2:])
    for path in (progressive, filled):
        wanted = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(load_image(path, 1).pixels, wanted)
    pages = tmp_path / "pages.tif"
    pages.write_bytes(tiff(64, 64, zeros(4096), pages=2000))
    assert load_image(pages, 1).warnings == ("it has 2000 pages, of which the first was read",)


def test_a_deflated_dicom_file_is_read_as_pydicom_reads_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = tmp_path / "deflated.dcm"
    path.write_bytes(deflated(data_set(64, element(0x7FE00010, b"OW", pixels.tobytes()))))
    assert np.array_equal(pydicom.dcmread(path).pixel_array, pixels)
    assert np.array_equal(load_image(path, 1).pixels, pixels)


def test_a_dicom_element_that_is_no_lookup_table_is_refused(tmp_path: Path) -> None:
    items = b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 2**19
    path = tmp_path / "a.dcm"
    path.write_bytes(
        dicom(data_set(64, element(0x283010, b"SQ", items) + element(0x7FE00010, b"OW", bytes(4096))))
    )
    with pytest.raises(BadImageError, match="an element of it has over"):
        load_image(path, 1)


@pytest.fixture
def odd_files(tmp_path: Path) -> Path:
    """A folder with everything that has the name of an image and is no file."""
    folder = tmp_path / "odd"
    folder.mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.relpath(folder / "socket.png"))
    return folder


def test_what_is_no_file_is_never_opened(odd_files: Path) -> None:
    for path in odd_files.iterdir():
        with pytest.raises(BadImageError, match=r"cannot read image .*: (it is|Too many levels)"):
            load_image(path, 1)
        with pytest.raises(BadImageError, match="cannot read mask"):
            read_labels(path)
        with pytest.raises(BadInputError):
            open_video(path)


def test_a_file_of_holes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(64, 64, zeros(4160)))
    os.truncate(path, 2**30)
    with pytest.raises(BadImageError, match="it says 1073741824 bytes"):
        load_image(path, 1)
    with pytest.raises(OSError, match="copy it again"):
        check_whole(path)


@pytest.mark.parametrize("make", [lambda: scans(1000), lambda: jpeg((16384, 10240))], ids=["scans", "black"])
def test_frames_of_a_folder_have_the_limits_of_images(make: object, tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(make())  # type: ignore[operator]
    source = open_video(tmp_path)
    with pytest.raises(Exception, match=r"over 64 scans|as no picture has"):
        source.frame(0)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("pipe", "not a regular file"),
        ("device", "not a regular file"),
        ("folder", "it is a folder"),
        ("circle", "no model"),
        ("large", "such files have up to"),
        ("deep", "cannot be parsed"),
    ],
)
def test_a_contract_that_is_no_text_of_its_size_is_refused(what: str, message: str, tmp_path: Path) -> None:
    model = tmp_path / "lungs"
    model.mkdir()
    config = model / "config.pbtxt"
    if what == "pipe":
        os.mkfifo(config)
    elif what == "folder":
        config.mkdir()
    elif what in ("device", "circle"):
        config.symlink_to("/dev/zero" if what == "device" else "config.pbtxt")
    else:
        config.write_text("ensemble_scheduling { step { " * (10_000 if what == "deep" else 100_000))
    with pytest.raises(RepositoryError, match=message):
        Repository(tmp_path).spec("lungs")


def test_a_graph_of_holes_is_refused(tmp_path: Path) -> None:
    from tiny_graph import publish, semantic_graph, semantic_spec

    graph = publish(tmp_path, semantic_spec(), semantic_graph())
    os.truncate(graph, 2**32)
    with LocalSession(tmp_path) as session, pytest.raises(RepositoryError, match="it says 4294967296 bytes"):
        session.spec("tiny")
