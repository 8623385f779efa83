"""Images of many bands: pages and samples of TIFF files, and NumPy arrays."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from seg_runtime.errors import BadImageError, BadInputError
from seg_runtime.files.images import list_images, read_image
from seg_runtime.files.overlay import shown_channels
from seg_runtime.preprocess import to_batch
from seg_runtime.spec import ClaheSpec


def bands(count: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (40, 50, count), dtype)


def tiff(
    image: np.ndarray,
    *,
    planar: bool = False,
    deflate: bool = False,
    predictor: bool = False,
    tile: int = 0,
    compression: int | None = None,
) -> bytes:
    """One page of several samples, in strips of 16 rows or in tiles, as GDAL and tifffile write them."""
    height, width, count = image.shape
    planes = np.split(image, count, axis=2) if planar else [image]
    blocks = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            blocks += [
                padded[top : top + tile, left : left + tile]
                for top in range(0, height, tile)
                for left in range(0, width, tile)
            ]
        else:
            blocks += [plane[top : top + 16] for top in range(0, height, 16)]
    if predictor:
        blocks = [np.diff(block, axis=1, prepend=block[:, :1] * 0) for block in blocks]
    data = [zlib.compress(block.tobytes()) if deflate else block.tobytes() for block in blocks]
    lengths = [len(each) for each in data]
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("H", [width]),
        257: ("H", [height]),
        258: ("H", [8 * image.itemsize] * count),
        259: ("H", [compression or (8 if deflate else 1)]),
        262: ("H", [1]),
        277: ("H", [count]),
        284: ("H", [2 if planar else 1]),
        317: ("H", [2 if predictor else 1]),
        338: ("H", [0] * (count - 1)),
    }
    tags |= {322: ("H", [tile]), 323: ("H", [tile])} if tile else {278: ("H", [16])}
    begin = 8 + sum(lengths)
    offsets = [8 + sum(lengths[:index]) for index in range(len(data))]
    tags |= {324: ("I", offsets), 325: ("I", lengths)} if tile else {273: ("I", offsets), 279: ("I", lengths)}
    after = begin + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{kind}", *values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", after + len(extra)), extra + packed
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", begin)
    return head + b"".join(data) + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + extra


def test_a_band_per_page_of_a_tiff_is_read(tmp_path: Path) -> None:
    image = bands(6)
    cv2.imwritemulti(str(tmp_path / "a.tif"), [np.ascontiguousarray(image[..., band]) for band in range(6)])
    assert np.array_equal(read_image(tmp_path / "a.tif", 6), image)


@pytest.mark.parametrize("count", [2, 4, 5, 16])
@pytest.mark.parametrize(
    "how",
    [{}, {"planar": True}, {"deflate": True}, {"deflate": True, "predictor": True}, {"tile": 16},
     {"tile": 32, "planar": True, "deflate": True}],
    ids=str,
)  # fmt: skip
def test_samples_of_a_tiff_are_read(tmp_path: Path, count: int, how: dict[str, Any]) -> None:
    image = bands(count)
    (tmp_path / "a.tif").write_bytes(tiff(image, **how))
    assert np.array_equal(read_image(tmp_path / "a.tif", count), image)


def test_sixteen_bits_become_eight_as_in_other_images(tmp_path: Path) -> None:
    image = bands(5, np.uint16)
    (tmp_path / "a.tif").write_bytes(tiff(image))
    np.save(tmp_path / "a.npy", image)
    np.save(tmp_path / "big.npy", image.astype(">u2"))
    np.save(tmp_path / "order.npy", np.asfortranarray(image))
    for name in ("a.tif", "a.npy", "big.npy", "order.npy"):
        assert np.array_equal(read_image(tmp_path / name, 5), image >> 8)


def test_arrays_are_images_for_gray_and_rgb_models_too(tmp_path: Path) -> None:
    rgb = bands(3)
    np.save(tmp_path / "rgb.npy", rgb)
    np.save(tmp_path / "gray.npy", rgb[..., 0])
    assert np.array_equal(read_image(tmp_path / "rgb.npy", 3), rgb)
    assert np.array_equal(read_image(tmp_path / "gray.npy", 1), rgb[..., 0])
    assert len(list_images([tmp_path])) == 2


def saved(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (saved(bands(4)), "wants 5 bands and it has 4"),
        (saved(bands(5))[:-1], "cut off or damaged"),
        (saved(bands(5))[:20], "header is damaged"),
        (saved(bands(5).astype(np.float32)), "are float32 and must be 8- or 16-bit"),
        (saved(bands(5) > 9), "are bool, as those of a mask: save uint8, 0 to 255"),
        (saved(np.array([{}], object), allow_pickle=True), "Python objects"),
        (saved(np.zeros((2, 3, 4, 5), np.uint8)), r"shape \(2, 3, 4, 5\)"),
        (saved(bands(5)[:4]), "each side must have at least 8"),
        (tiff(bands(3)), "wants 5 bands and it has 3"),
        (tiff(bands(5))[:-40], "cut off or damaged"),
        (tiff(bands(5), compression=5), "compressed in a way that is not read here"),
        (cv2.imencode(".png", bands(3))[1].tobytes(), "is no TIFF or .npy file"),
        (b"text", "is no TIFF or .npy file"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(BadImageError, match=message):
        read_image(tmp_path / "a", 5)


def test_bands_for_a_gray_or_rgb_model_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", bands(5))
    with pytest.raises(BadImageError, match="5 bands and the model takes gray or RGB"):
        read_image(tmp_path / "a.npy", 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mask_of_bool_is_no_image(tmp_path: Path, channels: int) -> None:
    np.save(tmp_path / "a.npy", bands(channels) > 9)
    with pytest.raises(BadImageError, match="are bool, as those of a mask: save uint8"):
        read_image(tmp_path / "a.npy", channels)


def test_contrast_of_bands_is_not_equalised() -> None:
    with pytest.raises(BadInputError, match="CLAHE is for gray and RGB"):
        to_batch([bands(5)], (16, 16), 5, ClaheSpec())


def test_bands_are_shown_by_the_first_three_or_the_first() -> None:
    assert np.array_equal(shown_channels(bands(5)), bands(5)[..., :3])
    assert np.array_equal(shown_channels(bands(2)), bands(2)[..., 0])
