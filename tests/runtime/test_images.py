"""Reading and writing image files, and every bad file a user may hand in."""

from __future__ import annotations

import itertools
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from seg_runtime.errors import BadImageError, BadInputError, MissingExtraError
from seg_runtime.files.images import list_images, read_image, to_uint8, write_mask, write_png


@pytest.fixture
def gray() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8)


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    smooth = np.linspace(0, 255, 40, dtype=np.uint8)[None].repeat(24, axis=0)
    return np.ascontiguousarray(np.stack([smooth, smooth[:, ::-1], smooth // 2], axis=-1))


def save(path: Path, image: NDArray[np.generic], *flags: int) -> Path:
    pixels = image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
    path.write_bytes(cv2.imencode(path.suffix, pixels, list(flags))[1].tobytes())
    return path


def png_header(height: int, width: int) -> bytes:
    """A whole PNG of the given size without pixel data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_eight_bit_gray_and_colour_files_are_read_exactly(
    tmp_path: Path, suffix: str, gray: NDArray[np.uint8], rgb: NDArray[np.uint8]
) -> None:
    assert np.array_equal(read_image(save(tmp_path / f"gray{suffix}", gray), 1), gray)
    assert np.array_equal(read_image(save(tmp_path / f"rgb{suffix}", rgb), 3), rgb)


def test_jpeg_colours_come_in_the_order_red_green_blue(tmp_path: Path, rgb: NDArray[np.uint8]) -> None:
    read = read_image(save(tmp_path / "a.jpg", rgb, cv2.IMWRITE_JPEG_QUALITY, 100), 3)
    assert np.abs(read.astype(int) - rgb).max() <= 6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_deeper_files_are_reduced_by_their_own_depth(tmp_path: Path, suffix: str, bits: int) -> None:
    deep = np.linspace(0, 2**bits - 1, 24 * 40).astype(np.uint16).reshape(24, 40)
    read = read_image(save(tmp_path / f"deep{suffix}", deep), 1)
    assert np.array_equal(read, np.rint(deep * (255 / (2**bits - 1))))


def test_eight_bit_values_in_a_sixteen_bit_file_keep_their_brightness() -> None:
    values = np.array([[0, 17, 255]], dtype=np.uint16)
    assert to_uint8(values).tolist() == [[0, 17, 255]]


@pytest.mark.parametrize("dtype", ["float32", "int16", "int32"])
def test_pixel_types_without_a_known_range_are_refused(dtype: str) -> None:
    with pytest.raises(BadImageError, match=f"its pixels are {dtype} and must be 8- or 16-bit unsigned"):
        to_uint8(np.zeros((9, 9), dtype=dtype))


def test_float_tiff_is_refused_with_its_name(tmp_path: Path) -> None:
    path = save(tmp_path / "float.tif", np.zeros((16, 16), dtype=np.float32))
    with pytest.raises(BadImageError, match=r"float\.tif.*float32"):
        read_image(path, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_jpegs(tmp_path: Path, orientation: int) -> None:
    image = np.zeros((24, 40), dtype=np.uint8)
    image[:8, :16] = 255
    encoded = save(tmp_path / "plain.jpg", image).read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HHI", orientation, 0, 0)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    path = tmp_path / "turned.jpg"
    path.write_bytes(encoded[:2] + segment + encoded[2:])
    # EXIF 2.32, tag 0x0112: which side of the scene the stored first row and column are.
    shown = {
        1: image, 2: image[:, ::-1], 3: image[::-1, ::-1], 4: image[::-1],
        5: image.T, 6: np.rot90(image, -1), 7: image[::-1, ::-1].T, 8: np.rot90(image),
    }[orientation]  # fmt: skip
    read = read_image(path, 1)
    assert read.shape == shown.shape
    assert np.abs(read.astype(int) - shown).max() < 40


def test_alpha_is_dropped(tmp_path: Path, rgb: NDArray[np.uint8], gray: NDArray[np.uint8]) -> None:
    transparent = np.dstack([rgb[..., ::-1], np.zeros(rgb.shape[:2], np.uint8)])
    for suffix in (".png", ".tif"):
        assert np.array_equal(read_image(save(tmp_path / f"rgba{suffix}", transparent), 3), rgb)
    gray_rgba = np.dstack([gray, gray, gray, np.full_like(gray, 9)])
    assert np.array_equal(read_image(save(tmp_path / "gray_rgba.png", gray_rgba), 1), gray)


def test_a_gray_file_is_replicated_for_a_colour_model(tmp_path: Path, gray: NDArray[np.uint8]) -> None:
    read = read_image(save(tmp_path / "a.png", gray), 3)
    assert read.shape == (24, 40, 3)
    assert all(np.array_equal(read[..., index], gray) for index in range(3))


def test_a_colour_file_with_gray_pixels_is_accepted_by_a_gray_model(
    tmp_path: Path, gray: NDArray[np.uint8]
) -> None:
    assert np.array_equal(read_image(save(tmp_path / "a.png", np.dstack([gray] * 3)), 1), gray)


def test_a_colour_file_is_refused_by_a_gray_model_unless_converted(
    tmp_path: Path, rgb: NDArray[np.uint8]
) -> None:
    path = save(tmp_path / "colour.png", rgb)
    with pytest.raises(BadImageError, match=r"colour\.png.*wants 1 channel and the image has 3: pass --gray"):
        read_image(path, 1)
    assert np.array_equal(read_image(path, 1, gray=True), cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def test_names_with_any_characters_work(tmp_path: Path, gray: NDArray[np.uint8]) -> None:
    path = tmp_path / "Brust Röntgen ☢ 'a' [1]%d.png"
    write_png(path, gray)
    assert np.array_equal(read_image(path, 1), gray)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"cannot read image '.*gone\.png': there is no such file"):
        read_image(tmp_path / "gone.png", 1)


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match="it is a folder"):
        read_image(tmp_path, 1)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(BadImageError, match=r"empty\.png.*the file is empty"):
        read_image(tmp_path / "empty.png", 1)


def test_text_renamed_png_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no pixels here\n" * 40)
    with pytest.raises(
        BadImageError, match="not a PNG, JPEG, TIFF, DICOM or NIfTI image, whatever its name says"
    ):
        read_image(tmp_path / "notes.png", 1)


@pytest.mark.parametrize("form", ["bmp", "gif", "webp", "avif", "heic", "jp2", "ppm"])
def test_other_formats_are_named(tmp_path: Path, form: str, gray: NDArray[np.uint8]) -> None:
    path = tmp_path / f"photo.{form}"
    if form == "heic":
        path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))
    else:
        Image.fromarray(np.dstack([gray] * 3)).save(path)
    name = {"webp": "WebP", "jp2": "JPEG 2000", "ppm": "PNM"}.get(form, form.upper())
    with pytest.raises(
        BadImageError, match=f"in the format {name}, which is not read: save it as PNG or TIFF"
    ):
        read_image(path, 3)
    with pytest.raises(
        BadInputError, match=rf"has no images.*skipped 1: in the format {name}.*photo\.{form}"
    ):
        list_images([tmp_path])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9, 0.99])
def test_truncated_file_is_refused(tmp_path: Path, suffix: str, kept: float, gray: NDArray[np.uint8]) -> None:
    path = save(tmp_path / f"cut{suffix}", np.tile(gray, (4, 4)))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(BadImageError, match="cut off or damaged"):
        read_image(path, 1)


def test_png_with_flipped_bits_is_refused(tmp_path: Path, gray: NDArray[np.uint8]) -> None:
    path = save(tmp_path / "flipped.png", gray)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BadImageError, match="PNG file is cut off or damaged"):
        read_image(path, 1)


def test_a_png_of_an_unknown_kind_is_refused_before_libpng_writes_to_stderr(
    tmp_path: Path, gray: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "kind.png", gray)
    data, refused = path.read_bytes(), 0
    # Depth, colour type, compression, filter and interlacing; OpenCV is what knows which it can read.
    for at, value in itertools.product(range(24, 29), range(256)):
        header = data[12:at] + bytes([value]) + data[at + 1 : 29]
        path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
        readable = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None
        said = bool(capfd.readouterr().err)
        try:
            read_image(path, 1, gray=True)
        except BadImageError as error:
            assert said or not readable
            if "header" in str(error):
                refused += 1
                assert not capfd.readouterr().err
        else:
            assert readable
    assert refused > 1000


def test_opencv_writes_nothing_about_a_tiff_that_it_cannot_read(
    tmp_path: Path, gray: NDArray[np.uint8], capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "tags.tif", gray)
    data = bytearray(path.read_bytes())
    (at,) = struct.unpack_from("<I", data, 4)
    entry = next(each for each in range(at + 2, len(data), 12) if data[each : each + 2] == b"\x06\x01")
    data[entry : entry + 2] = b"\x07\x01"  # The photometric interpretation is missing.
    path.write_bytes(data)
    assert cv2.imread(str(path)) is None
    assert capfd.readouterr().err
    with pytest.raises(BadImageError, match="TIFF file cannot be decoded"):
        read_image(path, 1)
    assert not capfd.readouterr().err


def test_every_cut_of_a_file_is_refused_in_one_line(tmp_path: Path, gray: NDArray[np.uint8]) -> None:
    path = tmp_path / "cut"
    for suffix in (".png", ".jpg", ".tif"):
        data = save(tmp_path / f"whole{suffix}", gray[:16, :16]).read_bytes()
        # The last two bytes of a TIFF directory may be padding, hence the margin.
        for length in range(1, len(data) - 8):
            path.write_bytes(data[:length])
            with pytest.raises(BadImageError) as caught:
                read_image(path, 1)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (100, 7)])
def test_tiny_image_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = save(tmp_path / "tiny.png", np.zeros(shape, np.uint8))
    with pytest.raises(
        BadImageError, match=f"has {shape[1]}x{shape[0]} pixels; each side must have at least 8"
    ):
        read_image(path, 1)


def test_huge_image_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(20_000, 20_000))
    with pytest.raises(
        BadImageError, match=r"20000x20000 pixels; the limit is 268435456.*tiles or scale it down"
    ):
        read_image(path, 1)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_huge_header_of_other_formats_is_refused_too(
    tmp_path: Path, suffix: str, gray: NDArray[np.uint8]
) -> None:
    path = save(tmp_path / f"huge{suffix}", gray)
    data = bytearray(path.read_bytes())
    if suffix == ".jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    else:
        (at,) = struct.unpack_from("<I", data, 4)
        for entry in range(at + 2, len(data) - 12, 12):
            if struct.unpack_from("<H", data, entry)[0] in (256, 257):
                struct.pack_into("<HI", data, entry + 2, 4, 1)
                struct.pack_into("<I", data, entry + 8, 60_000)
    path.write_bytes(data)
    with pytest.raises(BadImageError, match="60000x60000 pixels; the limit is"):
        read_image(path, 1)


def test_refusing_a_real_huge_image_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    compressor = zlib.compressobj(1)
    row = bytes(20_001)
    data = b"".join(compressor.compress(row) for _ in range(20_000)) + compressor.flush()
    empty = png_header(20_000, 20_000)
    chunk = struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data))
    at = empty.index(b"IDAT") - 4
    path.write_bytes(empty[:at] + chunk + empty[at + 12 :])
    # VmHWM and not ru_maxrss: that one starts at the size of the process that started this one.
    code = (
        "import pathlib, re, sys; from seg_runtime.files.images import read_image\n"
        "try: read_image(sys.argv[1], 1)\n"
        "except ValueError:\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert int(run.stdout) < 150_000


def test_masks_are_written_as_255_or_as_ids(tmp_path: Path) -> None:
    mask = np.zeros((12, 12), np.uint8)
    mask[3:6] = 1
    write_mask(tmp_path / "binary.png", mask, binary=True)
    write_mask(tmp_path / "ids.png", mask * 3, binary=False)
    assert np.array_equal(read_image(tmp_path / "binary.png", 1), mask * 255)
    assert np.array_equal(read_image(tmp_path / "ids.png", 1), mask * 3)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["binary.png", "ids.png"]


def test_unwritable_mask_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot write"):
        write_mask(tmp_path / "no" / "mask.png", np.zeros((8, 8), np.uint8), binary=True)
    (tmp_path / "mask.png").mkdir()
    with pytest.raises(BadInputError, match="cannot write"):
        write_mask(tmp_path / "mask.png", np.zeros((8, 8), np.uint8), binary=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mask.png"]


def test_folders_are_listed_sorted_and_once(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "c.tiff", "notes.txt", ".hidden.png"):
        (tmp_path / name).touch()
    (tmp_path / "sub.png").mkdir()
    other = tmp_path / "elsewhere.bin"
    found = list_images([other, tmp_path, tmp_path / "a.jpg"])
    assert [path.name for path in found] == ["elsewhere.bin", "a.jpg", "b.PNG", "c.tiff"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"has no images \(\.png.*subfolders are not searched"):
        list_images([tmp_path])


def dicom_file(path: Path, pixels: NDArray[np.generic], photometric: str, **elements: object) -> Path:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.PhotometricInterpretation = photometric
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_dicom_applies_the_window_and_inverts_monochrome1(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 16 * 16).astype(np.uint16).reshape(16, 16)
    window = {"BitsStored": 12, "HighBit": 11, "WindowCenter": 2048, "WindowWidth": 1024}
    shown = read_image(dicom_file(tmp_path / "a.dcm", ramp, "MONOCHROME2", **window), 1)
    # DICOM PS3.3, C.11.2.1.2: linear between centre - 0.5 -/+ (width - 1) / 2, clipped outside.
    expected = np.clip((ramp - 2047.5) / 1023 + 0.5, 0, 1) * 255
    assert np.abs(shown - expected).max() <= 0.51
    inverted = read_image(dicom_file(tmp_path / "b.dcm", ramp, "MONOCHROME1", **window), 1)
    assert np.array_equal(inverted, 255 - shown)


def test_eight_bit_and_colour_dicom_are_read_as_stored(
    tmp_path: Path, gray: NDArray[np.uint8], rgb: NDArray[np.uint8]
) -> None:
    assert np.array_equal(read_image(dicom_file(tmp_path / "a.dcm", gray, "MONOCHROME2"), 1), gray)
    assert np.array_equal(read_image(dicom_file(tmp_path / "b.dcm", rgb, "RGB"), 3), rgb)


def test_broken_dicoms_are_refused_in_one_line(tmp_path: Path, gray: NDArray[np.uint8]) -> None:
    path = dicom_file(tmp_path / "a.dcm", gray, "MONOCHROME2")
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    with pytest.raises(BadImageError, match=r"a\.dcm"):
        read_image(path, 1)
    path.write_bytes(data[:140])
    with pytest.raises(BadImageError, match="damaged or holds no image"):
        read_image(path, 1)
    many = dicom_file(tmp_path / "many.dcm", gray, "MONOCHROME2", NumberOfFrames=3)
    with pytest.raises(BadImageError, match="it has 3 frames and one is wanted"):
        read_image(many, 1)
    huge = dicom_file(tmp_path / "huge.dcm", gray, "MONOCHROME2", Rows=30_000, Columns=30_000)
    with pytest.raises(BadImageError, match="900000000 pixels; the limit is"):
        read_image(huge, 1)


def test_dicom_without_pydicom_names_the_extra(
    tmp_path: Path, gray: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dicom_file(tmp_path / "a.dcm", gray, "MONOCHROME2")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgeseg\[dicom\]'"):
        read_image(path, 1)
