"""NIfTI files: slices as they are stored, masks in the same space, and bounded memory."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from seg_runtime.cli.run import app
from seg_runtime.errors import BadImageError, MissingExtraError
from seg_runtime.files.images import load_image, read_image
from seg_runtime.files.nifti import nifti_values, read_nifti
from seg_runtime.files.nifti_header import is_nifti
from seg_runtime.files.spacing import read_spacing_hw

AFFINE = np.array([[-0.7, 0, 0, 90], [0, 0.8, 0.1, -20], [0, -0.1, 2.5, 7], [0, 0, 0, 1]])


def save(path: Path, values: NDArray[Any], kind: Any = nibabel.Nifti1Image, **header: object) -> Path:
    image = kind(values, AFFINE)
    for name, value in header.items():
        image.header[name] = value
    image.header["descrip"] = b"Mary Miller"
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def scan(count: int = 5) -> NDArray[np.int16]:
    """(X, Y, Z) of Hounsfield units: a bright square that moves with the slice."""
    values = np.full((72, 64, count), -1000, np.int16)
    for number in range(count):
        values[20:50, 10 + number : 40 + number, number] = 200
    return values


def published(folder: Path) -> list[str]:
    return ["--repo", str(folder), "--model", "unet_tiny"]


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slices_are_planes_of_the_first_two_axes(tmp_path: Path, kind: Any, suffix: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 12, 3)).astype(np.uint8)
    data = save(tmp_path / f"a{suffix}", values, kind).read_bytes()
    assert is_nifti(data)
    stack = read_nifti(data, 10**6)
    assert stack.pixels.shape == (3, 12, 20) and stack.warnings == ()
    for number in range(3):
        assert np.array_equal(stack.pixels[number], values[:, :, number].T)


def test_black_and_white_are_those_of_the_window_else_a_guess_with_a_warning(tmp_path: Path) -> None:
    values = scan()
    guessed = read_nifti(save(tmp_path / "a.nii", values).read_bytes(), 10**6)
    assert set(np.unique(guessed.pixels)) == {0, 255}
    (warning,) = guessed.warnings
    assert "no window" in warning and "-1000, is black" in warning and "200, white" in warning
    values[0, 0] = 3000
    stated = read_nifti(save(tmp_path / "b.nii", values, cal_min=-1000, cal_max=1400).read_bytes(), 10**6)
    assert stated.warnings == () and sorted(np.unique(stated.pixels)) == [0, 128, 255]


def test_a_scale_of_the_header_is_applied(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(256, dtype=np.float32).reshape(16, 16) / 100 - 1, AFFINE)
    image.header.set_data_dtype(np.uint8)
    nibabel.save(image, tmp_path / "a.nii")
    stack = read_nifti((tmp_path / "a.nii").read_bytes(), 10**6)
    assert np.array_equal(stack.pixels[0].T.ravel(), np.arange(256)) and "-1, is black" in stack.warnings[0]


def test_values_of_16_bits_have_the_depth_that_they_fill(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    data = save(tmp_path / "a.nii", values).read_bytes()
    assert read_nifti(data, 10**6).depth.bits == 12 and read_nifti(data, 10**6, 14).pixels.max() == 64


def test_what_is_no_number_is_black(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    values[3, 4] = np.nan
    stack = read_nifti(save(tmp_path / "a.nii", values).read_bytes(), 10**6)
    assert stack.pixels[0, 4, 3] == 0 and "1 values are no numbers" in stack.warnings[0]
    values[:] = np.nan
    with pytest.raises(BadImageError, match="none of its values is a number"):
        read_nifti(save(tmp_path / "b.nii", values).read_bytes(), 10**6)


@pytest.mark.parametrize(("slope", "intercept"), [(-1, 1), (0.5, 0), (1, -7)])
def test_the_values_of_a_mask_are_those_of_nibabel(tmp_path: Path, slope: float, intercept: float) -> None:
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(6, 5, 2), AFFINE)
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, tmp_path / "a.nii.gz")
    read = nifti_values((tmp_path / "a.nii.gz").read_bytes(), 10**6)
    wanted = nibabel.load(tmp_path / "a.nii.gz").get_fdata()
    assert np.array_equal(read, wanted.transpose(2, 1, 0)) and (read.dtype.kind == "f") == (slope == 0.5)


def test_a_checksum_that_is_wrong_is_damage(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.nii.gz", scan()).read_bytes()
    for damaged in (whole[:-8] + bytes(4) + whole[-4:], whole[:-8], whole[:-3]):
        with pytest.raises(BadImageError, match="cut off or damaged"):
            read_nifti(damaged, 10**6)
    stored = bytearray(gzip.compress(gzip.decompress(whole), compresslevel=0))
    stored[9000] ^= 255
    with pytest.raises(BadImageError, match="cut off or damaged"):
        read_nifti(bytes(stored), 10**6)


def test_a_place_in_space_that_means_nothing_is_a_damaged_header(tmp_path: Path) -> None:
    for row in ([np.nan, 0, 0, 1], [0, 0, 0, 1]):
        data = bytearray(save(tmp_path / "a.nii", scan()).read_bytes())
        data[254:256], data[280:296] = struct.pack("<h", 1), struct.pack("<4f", *row)
        with pytest.raises(BadImageError, match="the header of the NIfTI file is damaged"):
            read_nifti(bytes(data), 10**6)


def test_a_file_in_two_parts_is_named(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(scan(), AFFINE), tmp_path / "a.hdr")
    with pytest.raises(BadImageError, match=r"NIfTI in two files \(.hdr and .img\), which is not read"):
        read_image(tmp_path / "a.hdr", 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((16, 16, 4, 2), "the shape 16x16x4x2, and a slice or a stack of slices"),
        ((16,), "the shape 16, and a slice"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    data = save(tmp_path / "a.nii", np.zeros(shape, np.uint8)).read_bytes()
    with pytest.raises(BadImageError, match=message):
        read_nifti(data, 10**6)


def test_a_header_that_announces_more_than_there_is_costs_nothing(tmp_path: Path) -> None:
    data = bytearray(save(tmp_path / "a.nii", np.zeros((16, 16, 4), np.uint8)).read_bytes())
    data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    for body in (bytes(data), gzip.compress(bytes(data))):
        with pytest.raises(BadImageError, match="the limit is 1073741824 bytes"):
            read_nifti(body, 2**30)
    data[42:48] = np.array([1000, 1000, 900], "<i2").tobytes()
    with pytest.raises(BadImageError, match=r"inflates from 0\.0 to 900 MB, as no image does"):
        read_nifti(gzip.compress(bytes(data)), 10**8)
    data[42:48] = np.array([160, 160, 4], "<i2").tobytes()
    with pytest.raises(BadImageError, match="cut off or damaged"):
        read_nifti(gzip.compress(bytes(data)), 10**8)


def test_a_gzip_that_holds_more_than_its_header_announces_is_not_inflated(tmp_path: Path) -> None:
    data = save(tmp_path / "a.nii", np.zeros((16, 16, 4), np.uint8)).read_bytes()
    assert read_nifti(gzip.compress(data + bytes(10**6)), 10**6).pixels.shape == (4, 16, 16)
    with pytest.raises(BadImageError, match="far more bytes than its header says"):
        read_nifti(gzip.compress(data + bytes(10**8)), 10**6)


def test_damaged_files_are_one_clear_line(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.nii.gz", scan()).read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(gzip.decompress(whole))
        for place in generator.integers(0, 352, 4):
            data[place] = generator.integers(256)
        try:
            if is_nifti(bytes(data)):
                read_nifti(bytes(data), 10**6)
        except BadImageError as error:
            assert "\n" not in str(error)
    with pytest.raises(BadImageError, match="cut off or damaged"):
        read_nifti(whole[:-200], 10**6)


def test_a_missing_nibabel_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii", scan(1))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeseg\[nifti\]'"):
        load_image(path, 1)


def test_a_slice_is_an_image_and_a_stack_is_none(tmp_path: Path) -> None:
    values = scan(2)
    assert load_image(save(tmp_path / "a.nii", values[..., 0]), 3).pixels.shape == (64, 72, 3)
    path = save(tmp_path / "b.nii", values)
    with pytest.raises(
        BadImageError, match="a stack of 2 slices, and one image is wanted: name one as FILE/0"
    ):
        load_image(path, 1)
    stack = read_nifti(path.read_bytes(), 10**6)
    for number in range(2):
        assert np.array_equal(load_image(path / str(number), 1).pixels, stack.pixels[number])
    with pytest.raises(BadImageError, match=r"cannot read image '.*b.nii/2': it has 2 slices, from 0 to 1"):
        load_image(path / "2", 1)


@pytest.mark.parametrize("shape", [(72, 64, 5), (72, 64), (72, 64, 5, 1)])
def test_a_stack_is_segmented_slice_by_slice_and_written_back_in_its_space(
    tiny_repo: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    values = scan(5 if len(shape) > 2 else 1).reshape(shape)
    source = save(tmp_path / "scan.nii.gz", values)
    out = tmp_path / "out"
    command = ["segment", str(source), *published(tiny_repo), "-o", str(out), "--batch", "2", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout.splitlines()[0])
    count = shape[2] if len(shape) > 2 else 1
    assert (row["height"], row["width"], row["slices"]) == (64, 72, count)
    assert row["mask"] == str(out / "scan_mask.nii.gz") and row["overlay"] is None
    assert "no window" in row["warnings"][0]
    written, original = nibabel.load(row["mask"]), nibabel.load(source)
    labels = np.asarray(written.dataobj)
    assert written.get_data_dtype() == np.uint8 and labels.shape == shape
    assert sum(row["area_px"].values()) == np.count_nonzero(labels)
    assert np.array_equal(written.affine, original.affine)
    assert written.header.get_zooms() == original.header.get_zooms()
    assert b"Mary" not in gzip.decompress(Path(row["mask"]).read_bytes())
    planes = labels.reshape(72, 64, count)
    for number in range(count):
        plane = tmp_path / f"{number}.npy"
        np.save(plane, np.where(values.reshape(72, 64, count)[:, :, number].T > 0, 255, 0).astype(np.uint8))
        CliRunner().invoke(app, ["segment", str(plane), *published(tiny_repo), "-o", str(out)])
        assert np.array_equal(planes[:, :, number].T > 0, read_image(out / f"{number}_mask.png", 1) > 0)


def test_a_4d_file_is_left_out_and_the_others_are_done(tiny_repo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    save(folder / "a.nii.gz", np.zeros((16, 16, 4, 2), np.int16))
    save(folder / "b.nii", scan())
    result = CliRunner().invoke(
        app, ["segment", str(folder), *published(tiny_repo), "-o", str(tmp_path / "o")]
    )
    assert isinstance(result.exception, BadImageError) and "1 of 2 images" in str(result.exception)
    assert (tmp_path / "o" / "b_mask.nii.gz").is_file()


@pytest.mark.parametrize(("units", "factor"), [("mm", 1), ("micron", 0.001), ("unknown", 1), ("meter", 1000)])
def test_the_spacing_of_rows_is_that_of_the_second_axis(tmp_path: Path, units: str, factor: float) -> None:
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        image = kind(scan(), np.diag([0.5, 0.75, 3, 1]))
        image.header.set_xyzt_units(units)
        nibabel.save(image, tmp_path / "a.nii.gz")
        assert read_spacing_hw(tmp_path / "a.nii.gz") == pytest.approx((0.75 * factor, 0.5 * factor))
