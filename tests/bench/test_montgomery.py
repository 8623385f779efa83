"""The Montgomery loaders, both layouts, and the fixed split."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg_bench.data.montgomery import finding, load_montgomery, prepare_merged
from seg_bench.data.splits import Split, load_split, make_split, montgomery_split, save_split, select
from seg_bench.data.statistics import mean_and_std
from seg_runtime.errors import BadImageError, BadInputError

NAMES = ("MCUCXR_0001_0", "MCUCXR_0104_1")
SIZE_HW = (60, 48)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Two small X-rays in the official layout: 12-bit images, one mask per lung."""
    root = tmp_path / "official" / "MontgomerySet"
    generator = np.random.default_rng(0)
    for name in NAMES:
        image = generator.integers(0, 4096, SIZE_HW).astype(np.uint16)
        image[0, 0] = 4095
        left, right = np.zeros(SIZE_HW, np.uint8), np.zeros(SIZE_HW, np.uint8)
        left[10:40, 28:44] = 255
        right[12:42, 4:20] = 255
        write(root / "CXR_png" / f"{name}.png", image)
        write(root / "ManualMask" / "leftMask" / f"{name}.png", left)
        write(root / "ManualMask" / "rightMask" / f"{name}.png", right)
    return root


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def test_official_layout_merges_both_lungs_and_reduces_12_bits_to_8(official: Path) -> None:
    samples = load_montgomery(official)
    assert [sample.name for sample in samples] == list(NAMES)
    raw = cv2.imread(str(official / "CXR_png" / f"{NAMES[0]}.png"), cv2.IMREAD_UNCHANGED)
    assert raw.dtype == np.uint16
    image, mask = samples[0].load_image(), samples[0].load_mask()
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.rint(raw * (255 / 4095)))
    assert mask.dtype == np.bool_
    assert mask.shape == SIZE_HW
    assert mask.sum() == 2 * 30 * 16
    assert mask[20, 30] and mask[20, 10] and not mask[20, 24]


def test_official_layout_is_found_below_the_folder_that_the_archive_unpacks_into(official: Path) -> None:
    write(official.parent / "__MACOSX" / "CXR_png" / "._MCUCXR_0001_0.png", np.zeros((4, 4), np.uint8))
    write(official / "CXR_png" / "._MCUCXR_0001_0.png", np.zeros((4, 4), np.uint8))
    assert load_montgomery(official.parent) == load_montgomery(official)
    assert load_montgomery(official.parent.parent) == load_montgomery(official)


def test_merged_layout_thresholds_interpolated_edges_at_127(tmp_path: Path) -> None:
    write(tmp_path / "images" / "MCUCXR_0001_0.png", np.full((32, 32), 90, np.uint8))
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    mask[8, 8:16], mask[8, 16:24], mask[23, 8:24], mask[7, 8:24] = 127, 128, 200, 60
    write(tmp_path / "masks" / "MCUCXR_0001_0.png", mask)
    (sample,) = load_montgomery(tmp_path)
    assert np.array_equal(sample.load_mask(), mask > 127)


def test_prepared_files_load_as_the_merged_layout(official: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    samples = load_montgomery(official)
    prepare_merged(samples, tmp_path / "merged", (30, 24), lambda done, total: steps.append((done, total)))
    prepared = load_montgomery(tmp_path / "merged")
    assert [sample.name for sample in prepared] == list(NAMES)
    assert prepared[0].load_image().shape == (30, 24)
    expected = cv2.resize(samples[0].load_image(), (24, 30), interpolation=cv2.INTER_AREA)
    assert np.array_equal(prepared[0].load_image(), expected)
    assert prepared[0].load_mask().sum() == samples[0].load_mask().sum() // 4
    assert steps == [(1, 2), (2, 2)]


def test_shipped_test_xrays_belong_to_the_test_part(xray_folder: Path) -> None:
    samples = load_montgomery(xray_folder)
    assert {sample.name for sample in samples} <= set(montgomery_split().test)
    assert sorted(finding(sample.name) for sample in samples) == ["normal"] * 4 + ["tuberculosis"] * 4
    for sample in samples:
        assert sample.load_image().shape == sample.load_mask().shape == (512, 512)
        assert 0.1 < sample.load_mask().mean() < 0.5


def test_missing_mask_is_named(official: Path) -> None:
    (official / "ManualMask" / "leftMask" / f"{NAMES[1]}.png").unlink()
    with pytest.raises(BadInputError, match=r"MCUCXR_0104_1\.png has no leftMask"):
        load_montgomery(official)


def test_merged_image_without_mask_is_named(tmp_path: Path) -> None:
    write(tmp_path / "images" / "a_0.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(BadInputError, match=r"a_0\.png has no mask"):
        load_montgomery(tmp_path)


def test_masks_of_two_sizes_are_refused(official: Path) -> None:
    write(official / "ManualMask" / "leftMask" / f"{NAMES[0]}.png", np.zeros((20, 20), np.uint8))
    with pytest.raises(BadImageError, match="must have the size of the X-ray"):
        load_montgomery(official)[0].load_mask()


def test_folder_without_xrays_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="expected CXR_png/ and ManualMask/, or images/ and masks/"):
        load_montgomery(tmp_path)
    with pytest.raises(BadInputError, match="seg-bench data montgomery"):
        load_montgomery(tmp_path / "nowhere")


def test_name_with_another_ending_has_no_finding() -> None:
    assert finding("MCUCXR_0001_0") == "normal"
    with pytest.raises(BadInputError, match="ends in neither"):
        finding("MCUCXR_0001_2")


def test_fixed_split_has_all_111_xrays_once_and_is_stratified() -> None:
    split = montgomery_split()
    parts = (split.train, split.val, split.test)
    assert [len(part) for part in parts] == [78, 11, 22]
    assert len({name for part in parts for name in part}) == 111
    for part in parts:
        normal = sum(finding(name) == "normal" for name in part) / len(part)
        assert normal == pytest.approx(64 / 111, abs=0.04)


def test_fixed_split_is_what_make_split_makes() -> None:
    split = montgomery_split()
    names = [*split.test, *split.val, *split.train]
    assert make_split(names, data_set="montgomery", seed=0, stratum=finding) == split


def test_split_depends_on_the_seed_and_not_on_the_order() -> None:
    names = [f"xray_{number}_{number % 2}" for number in range(40)]
    first = make_split(names, data_set="d", seed=1, stratum=finding)
    assert make_split(reversed(names), data_set="d", seed=1, stratum=finding) == first
    assert make_split(names, data_set="d", seed=2, stratum=finding) != first


def test_split_file_comes_back(tmp_path: Path) -> None:
    split = Split("d", 3, ("a", "b"), ("c",), ("e",))
    save_split(split, tmp_path / "new" / "split.json")
    assert load_split(tmp_path / "new" / "split.json") == split


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not JSON"),
        ("[]", "lacks data_set"),
        ('{"data_set": "d", "seed": 0, "train": [], "val": []}', "lacks test"),
    ],
)
def test_bad_split_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        load_split(path)


def test_split_with_a_name_in_two_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"data_set": "d", "seed": 0, "train": ["a"], "val": ["a"], "test": []}))
    with pytest.raises(BadInputError, match="a more than once"):
        load_split(path)


def test_missing_split_file_and_missing_samples_are_named(tmp_path: Path, xray_folder: Path) -> None:
    with pytest.raises(BadInputError, match="no split file"):
        load_split(tmp_path / "none.json")
    with pytest.raises(BadInputError, match="lacks 1 of the split's 2 samples, first nobody"):
        select(load_montgomery(xray_folder), ["MCUCXR_0003_0", "nobody"])


def test_statistics_equal_numpys_over_all_pixels() -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, size).astype(np.uint8) for size in ((5, 7), (9, 4), (3, 3))]
    pixels = np.concatenate([image.ravel() for image in images]) / 255.0
    (mean,), (std,) = mean_and_std(images)
    assert mean == pytest.approx(pixels.mean(), rel=1e-12)
    assert std == pytest.approx(pixels.std(), rel=1e-12)


def test_statistics_of_nothing_or_of_equal_pixels_are_refused() -> None:
    with pytest.raises(BadInputError, match="train part is empty"):
        mean_and_std([])
    with pytest.raises(BadInputError, match="all pixels"):
        mean_and_std([np.full((4, 4), 7, np.uint8)])
