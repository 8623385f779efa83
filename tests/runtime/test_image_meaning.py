"""Pixels are read as their file means them: bit depth, padding, alpha, pages, and data that end early."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from microbench.deep_files import bare, deep, dicom, png, tiff
from microbench.formats import FORMATS, measure_formats
from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.bit_depth import BitDepth, decide_depth
from seg_runtime.files.images import load_image, read_image
from seg_runtime.files.listing import find_images


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """Every brightness, as a smooth picture."""
    y, x = np.mgrid[:96, :120]
    return np.rint(127.5 + 127.5 * np.sin(x / 17) * np.cos(y / 23)).astype(np.uint8)


def read(path: Path, data: bytes, **options: int) -> tuple[NDArray[np.uint8], BitDepth]:
    path.write_bytes(data)
    loaded = load_image(path, 1, bit_depth=options.get("bit_depth"))
    return loaded.pixels, loaded.depth


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_files_that_state_their_depth_are_read_by_it_however_dark(
    tmp_path: Path, image: NDArray[np.uint8], bits: int
) -> None:
    dark = image // 9
    values = deep(dark, bits)
    spread = (values << (16 - bits)) | (values >> (2 * bits - 16))
    stated = [png(values, bits), png(spread, bits), tiff(values, bits)]
    stated += [tiff(values, 16, t281=2**bits - 1), tiff(values, 16, t341=2**bits - 1)]
    stated.append(dicom(tmp_path / "d", values, bits).read_bytes())
    for data in stated:
        pixels, depth = read(tmp_path / "a", data)
        assert depth == BitDepth(bits, "file")
        assert np.array_equal(pixels, dark)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("seed", range(6))
def test_a_marker_of_any_kind_does_not_decide(tmp_path: Path, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**bits, (256, 256)).astype(np.uint16)
    marked = values.copy()
    at = rng.integers(0, 200, 2)
    if seed % 3 == 0:
        marked[at[0] : at[0] + 20, at[1] : at[1] + 20] = rng.integers(2**bits - 1, 65536)
    elif seed % 3 == 1:
        cv2.putText(marked, "L", (int(at[0]), int(at[1]) + 40), cv2.FONT_HERSHEY_SIMPLEX, 1, 65535, 2)
    else:
        marked[rng.integers(0, 256, 6), rng.integers(0, 256, 6)] = 65535
    shown = values == marked
    pixels, depth = read(tmp_path / "a", png(marked))
    assert depth.bits == bits
    assert np.array_equal(pixels[shown], np.rint(values[shown] * (255 / (2**bits - 1))))
    assert np.array_equal(read(tmp_path / "b", tiff(marked, 16))[0], pixels)
    assert np.array_equal(read(tmp_path / "c", dicom(tmp_path / "c", marked, 16).read_bytes())[0], pixels)


def test_small_bright_objects_are_no_markers() -> None:
    spots = np.zeros((256, 256), np.float32)
    spots[40:220:60, 40:220:60] = 1
    spots = cv2.GaussianBlur(spots, (0, 0), 2)
    values = np.rint(900 + 60000 * spots / spots.max()).astype(np.uint16)
    assert (values > 4095).mean() < 0.01
    assert decide_depth(values, None).bits == 16


def test_a_statement_that_the_values_contradict_is_no_statement(image: NDArray[np.uint8]) -> None:
    assert decide_depth(deep(image, 12), 10) == BitDepth(12, "guess")


def test_a_guess_is_a_warning_and_the_caller_overrides(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    values = deep(image, 12)
    (tmp_path / "a").write_bytes(png(values))
    loaded = load_image(tmp_path / "a", 1)
    assert loaded.to_json()["bit_depth_from"] == "guess"
    assert "read as 12-bit (--bit-depth sets it)" in loaded.warnings[0]
    pixels, depth = read(tmp_path / "a", png(values), bit_depth=14)
    assert depth == BitDepth(14, "option")
    assert np.array_equal(pixels, np.rint(values * (255 / 16383)))
    with pytest.raises(BadInputError, match="--bit-depth is 7 and must be 8 to 16"):
        load_image(tmp_path / "a", 1, bit_depth=7)


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_of_any_kind_leaves_colours_as_they_are(tmp_path: Path, bits: int) -> None:
    rgba = np.random.default_rng(bits).integers(0, 2**bits, (24, 30, 4))
    for extra in (0, 1, 2):
        (tmp_path / "a").write_bytes(tiff(rgba, bits, t338=extra))
        assert np.array_equal(read_image(tmp_path / "a", 3), np.rint(rgba[..., :3] * (255 / (2**bits - 1))))
        (tmp_path / "b").write_bytes(tiff(rgba[..., 2:], bits, t338=extra))
        assert np.array_equal(read_image(tmp_path / "b", 1), np.rint(rgba[..., 2] * (255 / (2**bits - 1))))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_white_is_zero_is_inverted(tmp_path: Path, image: NDArray[np.uint8], bits: int) -> None:
    assert np.array_equal(read(tmp_path / "a", tiff(deep(image, bits), bits, t262=0))[0], 255 - image)


def test_further_pages_are_a_warning_and_thumbnails_are_none(
    tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    first = tiff(image, 8)
    for subfile, warnings in ((0, 1), (1, 0)):
        # A second directory of the same pixels, which the first points to.
        (at,) = struct.unpack_from("<I", first, 4)
        (count,) = struct.unpack_from("<H", first, at)
        entries = first[at + 2 : at + 2 + 12 * count]
        second = struct.pack("<H", count + 1) + struct.pack("<HHII", 254, 4, 1, subfile) + entries + bytes(4)
        data = bytearray(first)
        struct.pack_into("<I", data, at + 2 + 12 * count, len(first))
        (tmp_path / "a").write_bytes(bytes(data) + second)
        loaded = load_image(tmp_path / "a", 1)
        assert np.array_equal(loaded.pixels, image)
        assert len(loaded.warnings) == warnings


@pytest.mark.parametrize("border", [0, 90, 255])
@pytest.mark.parametrize("side", [64, 4400])
def test_a_jpeg_with_a_flat_border_is_read_without_a_word(
    tmp_path: Path, border: int, side: int, capfd: pytest.CaptureFixture[str]
) -> None:
    image = np.full((side, side), border, np.uint8)
    cv2.circle(image, (side // 2, side // 2), side // 4, 200, -1)
    assert cv2.imwrite(str(tmp_path / "a.jpg"), image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg", 1), cv2.imread(str(tmp_path / "a.jpg"), 0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(8))
def test_a_jpeg_whose_data_end_early_is_refused(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(each) for each in rng.integers(40, 200, 2))
    pixels = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 3)
    pixels = pixels if seed % 2 else pixels[..., 0]
    flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(seed % 4 > 1), cv2.IMWRITE_JPEG_OPTIMIZE, int(seed > 3)]
    data = bytearray(cv2.imencode(".jpg", pixels, flags)[1])
    (tmp_path / "good.jpg").write_bytes(data)
    read_image(tmp_path / "good.jpg", 3)
    at = data.index(b"\xff\xc2" if seed % 4 > 1 else b"\xff\xc0") + 5
    struct.pack_into(">H", data, at, height * 2 + 60)
    (tmp_path / "lie.jpg").write_bytes(data)
    with pytest.raises(BadImageError, match="data end before the last rows"):
        read_image(tmp_path / "lie.jpg", 3)


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("width", [8, 64, 500])
def test_a_jpeg_with_flat_borders_is_read(tmp_path: Path, width: int, progressive: int) -> None:
    for flat in (np.zeros((300, width), np.uint8), np.full((300, width, 3), 255, np.uint8)):
        picture = flat.copy()
        picture[20:60, 2:-2] = np.random.default_rng(width).integers(0, 256, picture[20:60, 2:-2].shape)
        flags = [cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
        for pixels in (flat, picture):
            (tmp_path / "a.jpg").write_bytes(cv2.imencode(".jpg", pixels, flags)[1].tobytes())
            assert read_image(tmp_path / "a.jpg", 3).shape == (300, width, 3)


@pytest.mark.parametrize(
    ("dtype", "padding", "limit"),
    [("u2", 4095, None), ("u2", 0, None), ("i2", -2000, None), ("i2", -32768, -3000), ("i2", 30000, 32767)],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_stays_out_of_the_stretch_and_is_black(
    tmp_path: Path, image: NDArray[np.uint8], dtype: str, padding: int, limit: int | None, photometric: str
) -> None:
    values = (500 + 10 * image.astype(int)).astype(dtype)
    bits, elements = (12 if dtype == "u2" else 16), {"PhotometricInterpretation": photometric}
    expected = read_image(dicom(tmp_path / "a", values, bits, **elements), 1)
    padded = values.copy()
    padded[:20] = padding
    padded[20:30] = padding if limit is None else limit
    elements["PixelPaddingValue"] = padding
    if limit is not None:
        elements["PixelPaddingRangeLimit"] = limit
    seen = read_image(dicom(tmp_path / "b", padded, bits, **elements), 1)
    assert not seen[:30].any()
    assert np.abs(seen[30:].astype(int) - expected[30:]).max() <= 1


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_suffix_and_bare_data_sets_are_found_and_read(
    tmp_path: Path, image: NDArray[np.uint8], implicit: bool
) -> None:
    dicom(tmp_path / "IM0001", image, 8)
    bare(dicom(tmp_path / "1.2.840.7", image, 8), implicit)
    (tmp_path / "scan").write_bytes(png(image))
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "empty").touch()
    (tmp_path / "sub").mkdir()
    listing = find_images([tmp_path])
    assert [path.name for path in listing.files] == ["1.2.840.7", "IM0001", "scan"]
    assert all(np.array_equal(read_image(path, 1), image) for path in listing.files)
    assert listing.note == "skipped 3: 2 not an image (empty, notes.txt); 1 a subfolder (sub)"


@pytest.mark.parametrize("syntax", ["JPEGLSLossless", "JPEGLosslessProcess14_1", "JPEGLosslessProcess14"])
def test_lossless_jpegs_in_dicom_are_read(tmp_path: Path, image: NDArray[np.uint8], syntax: str) -> None:
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(dicom(tmp_path / "a", deep(image, 12), 12)))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(tmp_path / "b"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert pydicom.dcmread(tmp_path / "b").file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(read_image(tmp_path / "b", 1), image)


def test_xrays_in_every_format_give_one_mask(lung_repo: Path, xray_folder: Path) -> None:
    found = measure_formats(xray_folder, lung_repo, "unet_lung")
    assert len(found.images) == 8 and len(found.formats) == 14
    assert all(each.foreground > 0.1 for each in found.images)
    assert found.lowest_iou >= 0.99


def test_the_committed_record_has_twenty_xrays_that_agree() -> None:
    path = Path(__file__).parents[2] / "bench" / "results" / "formats.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert len({each["image"] for each in record["images"]}) == 20
    assert set(record["formats"]) == set(FORMATS)
    lowest = [each["lowest_iou"] for each in record["images"]]
    assert min(lowest) == record["lowest_iou"] >= 0.99


def test_formats_whose_masks_are_empty_show_nothing(lung_repo: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "black.png"), np.full((64, 64), 255 * (part == "masks"), np.uint8))
    with pytest.raises(BadInputError, match=r"black\.png as png, 8 bit has an empty mask"):
        measure_formats(tmp_path, lung_repo, "unet_lung")
