"""Masks of every kind of value, mode and container are read as one shape, or refused with a reason."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.masks import IGNORED, check_truths, read_labels, read_objects, read_shape
from seg_runtime.video.masks import davis_palette

SIZE_HW = (60, 72)
CASES = Path(__file__).parents[1] / "data" / "cases" / "masks"


def shape_of(seed: int) -> NDArray[np.uint8]:
    """(60, 72) of 0 and 1: discs and a box somewhere, never all or nothing."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(SIZE_HW, np.uint8)
    for _ in range(3):
        x, y, radius = (int(generator.integers(*ends)) for ends in ((10, 60), (10, 50), (5, 14)))
        cv2.circle(mask, (x, y), radius, 1, -1)
    cv2.rectangle(mask, (4, 5), (15, 20), 1, -1)
    return mask


def classes_of(seed: int) -> NDArray[np.uint8]:
    """(60, 72) of 0, 1, 2 and 3."""
    mask = np.zeros(SIZE_HW, np.uint8)
    for number in (1, 2, 3):
        mask[shape_of(10 * seed + number) > 0] = number
    return mask


def save(path: Path, pixels: NDArray[Any], mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def save_indexed(path: Path, indices: NDArray[np.uint8], palette: bytes, **options: Any) -> Path:
    image = Image.fromarray(indices)
    image.putpalette(palette)
    image.save(path, **options)
    return path


def rgba(colour: NDArray[Any] | int, alpha: NDArray[Any] | int) -> NDArray[np.uint8]:
    planes = [
        np.broadcast_to(np.asarray(each, np.uint8), SIZE_HW) for each in (colour, colour, colour, alpha)
    ]
    return np.dstack(planes)


def wide(pixels: NDArray[Any]) -> NDArray[np.uint16]:
    return pixels.astype(np.uint16) * np.uint16(257)


Writer = Callable[[Path, NDArray[np.uint8]], Path]

WRITERS: dict[str, Writer] = {
    "0/1 PNG": lambda folder, shape: save(folder / "a.png", shape),
    "0/255 PNG": lambda folder, shape: save(folder / "a.png", shape * 255),
    "1-bit PNG": lambda folder, shape: save(folder / "a.png", shape > 0),
    "0/65535 PNG": lambda folder, shape: save(folder / "a.png", wide(shape * 255)),
    "0/1 in 16 bits": lambda folder, shape: save(folder / "a.png", shape.astype(np.uint16)),
    "0/255 in 16 bits": lambda folder, shape: save(
        folder / "a.png", shape.astype(np.uint16) * np.uint16(255)
    ),
    "0/1 TIFF": lambda folder, shape: save(folder / "a.tif", shape),
    "0/255 TIFF": lambda folder, shape: save(folder / "a.tif", shape * 255, compression="tiff_lzw"),
    "1-bit TIFF": lambda folder, shape: save(folder / "a.tif", shape > 0),
    "int32 TIFF": lambda folder, shape: save(folder / "a.tif", shape.astype(np.int32)),
    "float TIFF": lambda folder, shape: save(folder / "a.tif", shape.astype(np.float32)),
    "0/1 BMP": lambda folder, shape: save(folder / "a.bmp", shape),
    "0/255 BMP": lambda folder, shape: save(folder / "a.bmp", shape * 255),
    "RGB BMP": lambda folder, shape: save(folder / "a.bmp", shape * 255, "RGB"),
    "JPEG": lambda folder, shape: save(folder / "a.jpg", shape * 255, quality=85),
    "RGB JPEG": lambda folder, shape: save(folder / "a.jpg", shape * 255, "RGB", quality=75),
    "JPEG called PNG": lambda folder, shape: save(folder / "a.png", shape * 255, format="JPEG"),
    "noise of a JPEG in a PNG": lambda folder, shape: _resaved(folder / "a.png", shape),
    "RGB 0/1": lambda folder, shape: save(folder / "a.png", np.dstack([shape] * 3)),
    "red on black": lambda folder, shape: save(folder / "a.png", np.dstack([shape * 200, shape * 9, shape])),
    "opaque RGBA": lambda folder, shape: save(folder / "a.png", rgba(shape * 255, 255)),
    "opaque RGBA 0/1": lambda folder, shape: save(folder / "a.tif", rgba(shape, 255)),
    "opaque RGBA in 16 bits": lambda folder, shape: _wide_rgba(folder / "a.png", shape),
    "black, shape in alpha": lambda folder, shape: save(folder / "a.png", rgba(0, shape * 255)),
    "white, shape in alpha": lambda folder, shape: save(folder / "a.png", rgba(255, shape * 255)),
    "both in colour and alpha": lambda folder, shape: save(
        folder / "a.png", rgba(shape * 255, np.where(shape, 255, 0))
    ),
    "gray and alpha": lambda folder, shape: save(folder / "a.png", rgba(shape * 255, 255), "LA"),
    "palette": lambda folder, shape: save_indexed(folder / "a.png", shape, davis_palette()),
    "palette of 1 bit": lambda folder, shape: save_indexed(folder / "a.png", shape, davis_palette(), bits=1),
    "palette, 0 is white": lambda folder, shape: save_indexed(
        folder / "a.png", 1 - shape, bytes([255] * 3 + [0] * 3)
    ),
    "palette, white": lambda folder, shape: save_indexed(folder / "a.png", shape * 255, davis_palette()),
    "palette TIFF": lambda folder, shape: save_indexed(folder / "a.tif", shape * 7, davis_palette()),
    "bool array": lambda folder, shape: _array(folder / "a.npy", shape > 0),
    "int64 array": lambda folder, shape: _array(folder / "a.npy", shape.astype(np.int64)),
    "float array": lambda folder, shape: _array(folder / "a.npy", shape.astype(np.float32)),
}


def _resaved(path: Path, shape: NDArray[np.uint8]) -> Path:
    buffer = io.BytesIO()
    Image.fromarray(shape * 255).save(buffer, "JPEG", quality=75)
    Image.open(buffer).save(path)
    return path


def _wide_rgba(path: Path, shape: NDArray[np.uint8]) -> Path:
    plane = shape.astype(np.uint16)
    assert cv2.imwrite(str(path), np.dstack([plane, plane, plane, np.full_like(plane, 65535)]))
    return path


def _array(path: Path, values: NDArray[Any]) -> Path:
    np.save(path, values)
    return path


@pytest.mark.parametrize("kind", WRITERS)
def test_one_shape_is_read_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    for seed in range(5):
        shape = shape_of(seed)
        found = read_shape(WRITERS[kind](tmp_path, shape))
        assert np.array_equal(found.foreground, shape > 0), (kind, seed, found.reading)
        assert not found.ignored.any() and found.labels.dtype == np.int32


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("container", ["gray", "palette"])
def test_numbers_of_classes_are_read_as_stored_whatever_the_bits(
    tmp_path: Path, bits: int, container: str
) -> None:
    classes = classes_of(bits)
    if container == "palette":
        path = save_indexed(tmp_path / "a.png", classes, davis_palette(), bits=bits)
    else:
        path = tmp_path / "a.png"
        path.write_bytes(_gray_png(classes, bits))
    found = read_labels(path)
    assert np.array_equal(found.labels, classes) and found.reading == "labels"


def _gray_png(values: NDArray[np.uint8], bits: int) -> bytes:
    """By the PNG specification, as neither OpenCV nor Pillow writes 2 and 4 bits."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    planes = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(len(values), -1)
    rows = np.pad(np.packbits(planes, axis=1), ((0, 0), (1, 0)))
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes())) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("container", ["png", "tif", "npy"])
def test_white_next_to_numbers_is_ignored(tmp_path: Path, dtype: type, container: str) -> None:
    for seed, truth in ((1, shape_of(1)), (2, classes_of(2))):
        marked = truth.astype(dtype)
        marked[:6] = 255
        path = tmp_path / f"{seed}.{container}"
        if container == "npy":
            _array(path, marked)
        elif container == "png" and dtype is np.int32:
            continue
        else:
            save(path, marked)
        for read in (read_shape, read_labels):
            found = read(path)
            assert found.reading == "labels and ignored" and found.ignored[:6].all()
            assert np.array_equal(found.labels[6:], truth[6:]) and not found.ignored[6:].any()


def test_minus_one_is_ignored(tmp_path: Path) -> None:
    values = classes_of(3).astype(np.int16)
    values[50:] = -1
    found = read_labels(_array(tmp_path / "a.npy", values))
    assert np.array_equal(found.labels, values) and IGNORED == -1 and found.ignored.sum() == 720


def test_objects_keep_their_numbers_beyond_255_and_255_too(tmp_path: Path) -> None:
    ids = np.kron(np.arange(300).reshape(15, 20), np.ones((4, 4))).astype(np.uint16)
    assert np.array_equal(read_objects(save(tmp_path / "a.png", ids)).labels, ids)
    few = np.where(ids > 3, 255, ids).astype(np.uint8)
    assert np.array_equal(read_objects(save(tmp_path / "b.png", few)).labels, few)
    run = np.minimum(ids, 255).astype(np.uint8)
    assert np.array_equal(read_labels(save(tmp_path / "c.png", run)).labels, run)


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.9, 1.7, 3.0])
@pytest.mark.parametrize("how", [cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC])
def test_interpolated_edges_are_cut_at_the_middle(tmp_path: Path, scale: float, how: int) -> None:
    for seed in range(5):
        shape = cv2.resize(shape_of(seed) * 255, (144, 120), interpolation=cv2.INTER_NEAREST)
        soft = np.asarray(cv2.resize(shape, None, fx=scale, fy=scale, interpolation=how), np.uint8)
        for pixels in (soft, wide(soft)):
            found = read_shape(save(tmp_path / "a.png", pixels))
            assert np.array_equal(found.foreground, soft > 127), (seed, scale, how, found.reading)


def test_constant_masks_are_empty_or_full(tmp_path: Path) -> None:
    full = np.ones(SIZE_HW, np.uint8)
    for value, suffix in ((0, "png"), (0, "jpg")):
        assert read_shape(save(tmp_path / f"a.{suffix}", full * value)).reading == "empty" or suffix == "jpg"
        assert not read_shape(tmp_path / f"a.{suffix}").foreground.any()
    for value, suffix in ((1, "png"), (255, "png"), (255, "jpg"), (1, "tif")):
        assert read_shape(save(tmp_path / f"b.{suffix}", full * value)).foreground.all()


def picture(seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(128, 40, SIZE_HW)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.2) * 2 - 128).clip(0, 255).astype(np.uint8)


REFUSED: dict[str, tuple[Writer, str]] = {
    "shades": (
        lambda folder, shape: save(folder / "a.png", shape * 128 + classes_of(7) // 3 * 127),
        "shades",
    ),
    "picture": (lambda folder, shape: save(folder / "a.png", picture(1)), "as in a picture"),
    "picture in 16 bits": (lambda folder, shape: save(folder / "a.png", wide(picture(2))), "as in a picture"),
    "picture in a JPEG": (lambda folder, shape: save(folder / "a.jpg", picture(3)), "in a JPEG"),
    "0/1 in a JPEG": (lambda folder, shape: save(folder / "a.jpg", shape * 3), "in a JPEG"),
    "classes in a JPEG": (lambda folder, shape: save(folder / "a.jpg", classes_of(4) * 60), "in a JPEG"),
    "probabilities": (lambda folder, shape: _array(folder / "a.npy", shape * 0.7), "probabilities"),
    "not a number": (lambda folder, shape: _array(folder / "a.npy", np.where(shape, np.nan, 0)), "fractions"),
    "negative": (lambda folder, shape: _array(folder / "a.npy", shape.astype(int) * -7), "-7 to 0"),
    "no background": (lambda folder, shape: save(folder / "a.png", shape + 1), "none is 0, the background"),
    "gray alone": (lambda folder, shape: save(folder / "a.png", shape * 0 + 90), "the value 90 alone"),
    "colours": (
        lambda folder, shape: save(folder / "a.png", np.dstack([shape, shape + 1, shape])),
        "in colour",
    ),
    "two shapes": (
        lambda folder, shape: save(folder / "a.png", rgba(shape_of(8) * 255, shape_of(9) * 255)),
        "different shapes",
    ),
    "transparent": (
        lambda folder, shape: save(folder / "a.png", rgba(shape * 255, 0)),
        "transparent everywhere",
    ),
    "palette, 0 in colour": (
        lambda folder, shape: save_indexed(folder / "a.png", shape + 0, bytes([200, 0, 0, 0, 0, 0])),
        "index 0 in colour",
    ),
    "pages": (
        lambda folder, shape: save(
            folder / "a.tif", shape, save_all=True, append_images=[Image.fromarray(shape)]
        ),
        "several pages",
    ),
    "CMYK": (lambda folder, shape: save(folder / "a.tif", shape, "CMYK"), "colours are CMYK"),
    "cut off": (lambda folder, shape: _cut(save(folder / "a.png", shape)), "cut off or damaged"),
    "no image": (lambda folder, shape: _text(folder / "a.png", b"a mask"), "it is no PNG"),
    "empty file": (lambda folder, shape: _text(folder / "a.png", b""), "the file is empty"),
    "missing": (lambda folder, shape: folder / "none.png", "there is no such file"),
    "folder": (lambda folder, shape: folder, "it is a folder"),
}


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-20])
    return path


def _text(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_mean_two_things_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    write, message = REFUSED[kind]
    with pytest.raises(BadImageError, match=message) as caught:
        read_shape(write(tmp_path, shape_of(0)))
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_damaged_files_raise_nothing_else(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for suffix in ("png", "tif", "jpg", "bmp"):
        whole = np.frombuffer(save(tmp_path / f"a.{suffix}", shape_of(1) * 255).read_bytes(), np.uint8)
        for _ in range(40):
            damaged = whole.copy()
            damaged[generator.integers(0, min(len(whole), 400), 4)] = generator.integers(0, 256, 4)
            path = _text(tmp_path / f"b.{suffix}", damaged.tobytes())
            try:
                read_shape(path)
            except BadImageError:
                continue


def test_disc_of_the_cases_has_one_area_as_png_and_as_jpeg() -> None:
    areas = {read_shape(CASES / name).foreground.sum() for name in ("disc.png", "disc.jpg")}
    assert areas == {np.count_nonzero(cv2.imread(str(CASES / "disc.png"), cv2.IMREAD_GRAYSCALE))}


def test_truths_that_are_all_empty_or_written_in_two_ways_are_refused(tmp_path: Path) -> None:
    shape = shape_of(2)
    empty = read_shape(save(tmp_path / "empty.png", shape * 0))
    white = read_shape(save(tmp_path / "white.png", shape * 255))
    numbers = read_shape(save(tmp_path / "numbers.png", shape))
    check_truths([empty, white, white])
    check_truths([numbers, empty])
    with pytest.raises(BadInputError, match="all 2 masks are empty"):
        check_truths([empty, empty])
    with pytest.raises(
        BadInputError, match=r"two ways: '.*white\.png' has white .* '.*numbers\.png' numbers"
    ):
        check_truths([white, empty, numbers])
