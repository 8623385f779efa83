"""`SamAutomaticMaskGenerator` against segment_anything's, with the same weights on the same image."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segment_anything
from numpy.typing import NDArray
from sam_models import DiscSamSession, load_tiny_sam
from segment_anything.modeling import Sam

from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError, ModelNotFoundError
from seg_runtime.files.images import read_image
from seg_runtime.sam import SamAutomaticMaskGenerator
from seg_runtime.sam.rle import rle_to_mask
from seg_runtime.session import Session

DATA = Path(__file__).parents[1] / "data"
XRAY, NUCLEI = (min((DATA / name / "images").glob("*.png")) for name in ("montgomery", "nuclei"))

# The tiny SAM is less sure of itself than those the defaults were made for.
LENIENT = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.8}
SETTINGS: dict[str, dict[str, Any]] = {
    "lenient": {"points_per_side": 6, **LENIENT},
    "no filters": {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0},
    "odd batches": {"points_per_side": 5, "points_per_batch": 7, "stability_score_offset": 0.5, **LENIENT},
    "crops": {
        "points_per_side": 4,
        "crop_n_layers": 1,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": 100,
        **LENIENT,
    },
    "own points": {
        "points_per_side": None,
        "point_grids": [np.array([[0.3, 0.5], [0.7, 0.5], [0.5, 0.9]])],
        "box_nms_thresh": 0.3,
        **LENIENT,
    },
    "strict": {"points_per_side": 3, "pred_iou_thresh": 0.99},
}


@pytest.fixture(scope="module")
def sam() -> Sam:
    return load_tiny_sam()


@pytest.fixture(scope="module")
def session(tiny_sam_repo: Path) -> Iterator[Session]:
    with connect(tiny_sam_repo) as session:
        yield session


def paired(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> float:
    """Share of the masks of both sides that have a partner with an IoU of 0.98 or more."""
    if not ours and not theirs:
        return 1.0
    ious = np.array([[_iou(a, b) for b in theirs] for a in ours]).reshape(len(ours), len(theirs))
    partners = sum((ious >= 0.98).any(axis=axis).sum() for axis in (0, 1))
    return float(partners / (len(ours) + len(theirs)))


def _iou(a: dict[str, Any], b: dict[str, Any]) -> float:
    both = np.logical_and(a["segmentation"], b["segmentation"]).sum()
    return float(both / max(a["area"] + b["area"] - both, 1))


@pytest.mark.full
@pytest.mark.parametrize("path", [XRAY, NUCLEI], ids=lambda path: path.stem[:12])
@pytest.mark.parametrize("settings", SETTINGS)
def test_everything_found_equals_what_segment_anything_finds(
    sam: Sam, session: Session, path: Path, settings: str
) -> None:
    arguments, image = SETTINGS[settings], read_image(path, 3)
    theirs = segment_anything.SamAutomaticMaskGenerator(sam, **arguments).generate(image)
    ours = SamAutomaticMaskGenerator(session, "sam_tiny", **arguments).generate(image)
    assert theirs or settings != "lenient"
    assert paired(ours, theirs) >= 0.99
    assert [record.keys() for record in ours] == [record.keys() for record in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-3)
        assert one["stability_score"] == pytest.approx(other["stability_score"], abs=1e-2)
        assert one["area"] == pytest.approx(other["area"], rel=0.01, abs=2)
        assert one["crop_box"] == other["crop_box"]
        assert one["point_coords"] == other["point_coords"]
        np.testing.assert_allclose(one["bbox"], other["bbox"], atol=2)
        types = [{key: type(value) for key, value in record.items()} for record in (one, other)]
        assert types[0] == types[1]


def disc_image(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    return np.zeros((height, width, 3), np.uint8)


class TestSettings:
    """With discs in place of a model."""

    def test_the_three_output_modes_hold_the_same_masks(self) -> None:
        found = {}
        for mode in ("binary_mask", "uncompressed_rle", "coco_rle"):
            generator = SamAutomaticMaskGenerator(
                DiscSamSession(), "sam_tiny", points_per_side=4, output_mode=mode
            )
            found[mode] = generator.generate(disc_image())
        assert len(found["binary_mask"]) >= 4
        for mask, plain, coco in zip(*found.values(), strict=True):
            assert mask["segmentation"].shape == (96, 128)
            assert mask["segmentation"].sum() == mask["area"] == plain["area"] == coco["area"]
            for record in (plain, coco):
                json.dumps(record)
                np.testing.assert_array_equal(rle_to_mask(record["segmentation"]), mask["segmentation"])

    def test_the_embedding_of_every_crop_is_freed(self) -> None:
        discs = DiscSamSession()
        SamAutomaticMaskGenerator(discs, "sam_tiny", points_per_side=2, crop_n_layers=1).generate(
            disc_image()
        )
        assert len(discs.handles) == 5
        assert all(handle.released for handle in discs.handles)

    def test_the_decoder_runs_on_batches_of_points(self) -> None:
        discs = DiscSamSession()
        generator = SamAutomaticMaskGenerator(discs, "sam_tiny", points_per_side=5, points_per_batch=10)
        generator.generate(disc_image())
        assert discs.decoder_calls == [10, 10, 5]

    def test_more_points_need_no_more_memory(self) -> None:
        def peak(points_per_side: int) -> int:
            generator = SamAutomaticMaskGenerator(
                DiscSamSession(), "sam_tiny", points_per_side, points_per_batch=4, output_mode="coco_rle"
            )
            tracemalloc.start()
            generator.generate(disc_image())
            used = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return used

        assert peak(10) < peak(4) + 1e6

    def test_an_image_without_masks_gives_an_empty_list(self) -> None:
        for crops in (0, 1):
            generator = SamAutomaticMaskGenerator(
                DiscSamSession(),
                "sam_tiny",
                2,
                pred_iou_thresh=0.99,
                crop_n_layers=crops,
                min_mask_region_area=9,
            )
            assert generator.generate(disc_image()) == []

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"output_mode": "png"}, "not 'png'"),
            ({"points_per_side": None}, "there are no points"),
            ({"point_grids": [np.zeros((1, 2))]}, "exclude each other"),
            ({"points_per_side": None, "point_grids": [np.zeros((1, 3))]}, r"\(P, 2\)"),
            ({"points_per_side": None, "point_grids": [np.full((1, 2), 30.0)]}, "outside 0..1"),
            (
                {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1},
                "need 2 point",
            ),
            ({"points_per_side": 0}, "leave no grid"),
            (
                {"points_per_side": 4, "crop_n_layers": 3, "crop_n_points_downscale_factor": 2},
                "leave no grid",
            ),
            ({"crop_n_layers": -1}, "leave no grid"),
            ({"points_per_batch": 0}, "prompts_per_call is 0"),
        ],
    )
    def test_settings_that_cannot_be_used_are_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(BadInputError, match=message):
            SamAutomaticMaskGenerator(DiscSamSession(), "sam_tiny", **arguments)

    def test_images_and_models_that_cannot_be_used_are_refused(self) -> None:
        with pytest.raises(BadInputError, match="loses its short side"):
            SamAutomaticMaskGenerator(DiscSamSession(), "sam_tiny").generate(disc_image(1, 5000))
        with pytest.raises(BadInputError, match="uint8"):
            SamAutomaticMaskGenerator(DiscSamSession(), "sam_tiny").generate(np.zeros((9, 9, 3)))
        with pytest.raises(ModelNotFoundError, match="sam_big_encoder"):
            SamAutomaticMaskGenerator(DiscSamSession(), "sam_big")
