"""`SamPredictor` against segment_anything's, with the same weights on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segment_anything
import torch
from marks import full_size
from numpy.typing import NDArray
from sam_models import DiscSamSession, load_tiny_sam
from segment_anything.modeling import Sam

from seg_runtime.connection import connect
from seg_runtime.errors import BadImageError, BadInputError, InferenceError, ModelNotFoundError
from seg_runtime.files.images import read_image
from seg_runtime.sam import SamPredictor, best_first, memory
from seg_runtime.session import Session
from seg_runtime.spec import ModelSpec

DATA = Path(__file__).parents[1] / "data"
XRAY, *_, OTHER_XRAY = sorted((DATA / "montgomery" / "images").glob("*.png"))
IMAGES = [
    XRAY,
    *sorted((DATA / "photographs").glob("*.jpg")),
    *sorted((DATA / "nuclei" / "images").glob("*.png"))[:2],
    OTHER_XRAY,
]

MIN_IOU, SCORE_TOLERANCE = 0.999, 1e-3


@dataclass(frozen=True)
class Pair:
    """Both predictors with the same image set."""

    original: segment_anything.SamPredictor
    ours: SamPredictor
    image: NDArray[np.uint8]

    def points(self, count: int, seed: int = 0) -> NDArray[np.float64]:
        height, width = self.image.shape[:2]
        return np.random.default_rng(seed).uniform(0.1, 0.9, (count, 2)) * [width, height]

    def boxes(self, count: int, seed: int = 0) -> NDArray[np.float64]:
        height, width = self.image.shape[:2]
        corners = np.random.default_rng(seed).uniform(0, 0.6, (count, 2))
        sides = np.random.default_rng(seed + 1).uniform(0.1, 0.4, (count, 2))
        return np.concatenate([corners, corners + sides], axis=1) * [width, height, width, height]


@pytest.fixture(scope="module")
def sam() -> Sam:
    return load_tiny_sam()


@pytest.fixture(scope="module")
def session(tiny_sam_repo: Path) -> Iterator[Session]:
    with connect(tiny_sam_repo) as session:
        yield session


@pytest.fixture
def discs() -> DiscSamSession:
    return DiscSamSession()


@pytest.fixture(scope="module", params=IMAGES, ids=lambda path: path.stem[:20])
@full_size
def pair(request: pytest.FixtureRequest, sam: Sam, session: Session) -> Iterator[Pair]:
    image = read_image(request.param, 3)
    original = segment_anything.SamPredictor(sam)
    original.set_image(image)
    with SamPredictor(session, "sam_tiny") as ours:
        ours.set_image(image)
        yield Pair(original, ours, image)


def assert_equal(got: tuple[NDArray[Any], ...], wanted: tuple[Any, ...]) -> None:
    wanted = tuple(np.asarray(value) for value in wanted)
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(got[1], wanted[1], atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(got[2], wanted[2], atol=0.01)
    if got[0].dtype != np.bool_:
        np.testing.assert_allclose(got[0], wanted[0], atol=0.02)
        return
    union = np.logical_or(got[0], wanted[0]).sum(axis=(-2, -1))
    both = np.logical_and(got[0], wanted[0]).sum(axis=(-2, -1))
    # One pixel on the threshold is more than a thousandth of a small mask.
    assert ((both >= MIN_IOU * union) | (union - both <= 1)).all(), f"IoU {(both / union).min()}"


PROMPTS = ["one point", "several points", "box", "box and points", "mask", "point and mask", "box and mask"]


def prompt(kind: str, pair: Pair) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if "box" in kind:
        arguments["box"] = pair.boxes(1)[0]
    if "point" in kind:
        count = 3 if "points" in kind else 1
        arguments["point_coords"] = pair.points(count)
        arguments["point_labels"] = np.array([1, 0, 1][:count])
    if "mask" in kind:
        arguments["mask_input"] = pair.original.predict(box=pair.boxes(1, seed=5)[0])[2][:1]
    return arguments


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", PROMPTS)
def test_predictions_equal_segment_anythings(pair: Pair, kind: str, multimask: bool) -> None:
    arguments = prompt(kind, pair)
    wanted = pair.original.predict(**arguments, multimask_output=multimask)
    assert_equal(pair.ours.predict(**arguments, multimask_output=multimask), wanted)


def test_logits_equal_segment_anythings(pair: Pair) -> None:
    arguments = prompt("box", pair)
    wanted = pair.original.predict(**arguments, return_logits=True)
    assert_equal(pair.ours.predict(**arguments, return_logits=True), wanted)


def test_a_prediction_is_refined_with_its_own_logits_as_segment_anything_does(pair: Pair) -> None:
    refined = []
    for predictor in (pair.ours, pair.original):
        arguments = prompt("one point", pair)
        for _ in range(3):
            _, scores, low_res = predictor.predict(**arguments)
            arguments["mask_input"] = low_res[np.argmax(scores)][None]
        refined.append(predictor.predict(**arguments, multimask_output=False))
    assert_equal(refined[0], refined[1])


def test_batches_equal_segment_anythings(pair: Pair) -> None:
    size_hw = pair.image.shape[:2]
    points = pair.ours.transform.apply_coords(pair.points(10).reshape(5, 2, 2), size_hw)
    boxes = pair.ours.transform.apply_boxes(pair.boxes(5), size_hw)
    labels = np.tile([1, 0], (5, 1))
    masks = pair.original.predict_torch(None, None, torch.from_numpy(boxes).float())[2][:, :1].numpy()
    cases = [(points, labels, None, None), (None, None, boxes, None), (points, labels, boxes, masks)]
    for arguments in cases:
        tensors = [None if value is None else torch.from_numpy(value) for value in arguments]
        floats = [None if tensor is None else tensor.float() for tensor in tensors]
        wanted = pair.original.predict_torch(floats[0], tensors[1], floats[2], floats[3])
        assert_equal(pair.ours.predict_batch(*arguments), wanted)


@pytest.fixture(scope="module")
def small_pair(sam: Sam, session: Session) -> Iterator[Pair]:
    image = np.ascontiguousarray(read_image(XRAY, 3)[100:164, 60:160])
    original = segment_anything.SamPredictor(sam)
    original.set_image(image)
    with SamPredictor(session, "sam_tiny", prompts_per_call=7) as ours:
        ours.set_image(image)
        yield Pair(original, ours, image)


class TestOneImage:
    """What does not depend on the image."""

    def test_channels_in_bgr_order_are_turned_around(self, session: Session) -> None:
        image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)
        with SamPredictor(session, "sam_tiny") as ours:
            ours.set_image(image)
            wanted = ours.get_image_embedding()
            ours.set_image(image[..., ::-1], image_format="BGR")
            np.testing.assert_array_equal(ours.get_image_embedding(), wanted)
            with pytest.raises(BadInputError, match="'RGB' or 'BGR', not 'RGBA'"):
                ours.set_image(image, image_format="RGBA")

    def test_the_embedding_is_segment_anythings(self, small_pair: Pair) -> None:
        wanted = small_pair.original.get_image_embedding().numpy()
        np.testing.assert_allclose(small_pair.ours.get_image_embedding(), wanted, atol=1e-4)
        assert wanted.shape == (1, 256, 64, 64)

    def test_many_prompts_go_in_parts_and_give_the_same(self, small_pair: Pair) -> None:
        boxes = small_pair.ours.transform.apply_boxes(small_pair.boxes(17), (64, 100))
        masks, scores, low_res = small_pair.ours.predict_batch(None, None, boxes)
        assert (masks.shape, scores.shape) == ((17, 3, 64, 100), (17, 3))
        parts = list(small_pair.ours.predict_chunks(None, None, boxes))
        assert [len(part[1]) for part in parts] == [7, 7, 3]
        for index, wanted in enumerate((masks, scores, low_res)):
            np.testing.assert_array_equal(np.concatenate([part[index] for part in parts]), wanted)
        one, score, _ = small_pair.ours.predict(box=small_pair.boxes(17)[16])
        np.testing.assert_allclose(score, scores[16], atol=1e-4)
        assert np.mean(one != masks[16]) < 1e-3

    def test_prompts_with_fewer_points_are_filled_up(self, small_pair: Pair) -> None:
        points = np.zeros((2, 3, 2))
        points[0] = small_pair.ours.transform.apply_coords(small_pair.points(3), (64, 100))
        points[1, 0] = points[0, 0]
        points[1, 1:] = np.nan
        labels = np.array([[1, 0, 1], [1, -10, -10]])
        points = np.nan_to_num(points, nan=-5.0)
        _, scores, low_res = small_pair.ours.predict_batch(points, labels)
        _, alone, alone_low_res = small_pair.ours.predict(small_pair.points(3)[:1], [1])
        np.testing.assert_allclose(scores[1], alone, atol=1e-4)
        np.testing.assert_allclose(low_res[1], alone_low_res, atol=1e-2)

    def test_candidates_are_sorted_best_first(self, small_pair: Pair) -> None:
        masks, scores, low_res = small_pair.ours.predict(small_pair.points(1), [1])
        sorted_masks, sorted_scores, sorted_low_res = best_first(masks, scores, low_res)
        best = int(np.argmax(scores))
        assert sorted_scores.tolist() == sorted(scores.tolist(), reverse=True)
        np.testing.assert_array_equal(sorted_masks[0], masks[best])
        np.testing.assert_array_equal(sorted_low_res[0], low_res[best])

    def test_lists_and_a_box_in_a_row_are_taken_as_the_article_passes_them(self, small_pair: Pair) -> None:
        wanted = small_pair.ours.predict([(30, 20)], [1], multimask_output=False)
        got = small_pair.ours.predict(np.array([(30, 20)]), np.array([1]), multimask_output=False)
        np.testing.assert_array_equal(got[2], wanted[2])
        box = (5, 6, 60, 50)
        wanted = small_pair.ours.predict(box=box)
        np.testing.assert_array_equal(small_pair.ours.predict(box=np.array([box]))[2], wanted[2])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "there is no prompt: give points, a box or a mask"),
            ({"point_coords": np.empty((0, 2)), "point_labels": []}, r"shape \(0, 2\); P points are"),
            ({"point_coords": [[1, 2]]}, "1 points have no labels"),
            ({"point_labels": [1]}, "point_labels were given without point_coords"),
            ({"point_coords": [[1, 2], [3, 4]], "point_labels": [1]}, "do not match points"),
            ({"point_coords": [[1, 2]], "point_labels": [3]}, "3 is no point label"),
            ({"point_coords": [[1, 2]], "point_labels": [-1]}, "-1 is no point label"),
            ({"point_coords": [1, 2], "point_labels": [1]}, "P points are"),
            ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "must be numbers in rows"),
            ({"point_coords": [[100, 5]], "point_labels": [1]}, r"point \(100, 5\) is outside .* 100x64"),
            ({"point_coords": [[-1, 5]], "point_labels": [1]}, "is outside the image"),
            ({"point_coords": [[np.nan, 5]], "point_labels": [1]}, "is outside the image"),
            ({"box": [50, 5, 20, 30]}, r"box \(50, 5, 20, 30\) has no area: .* x1 > x0"),
            ({"box": [5, 5, 20, 5]}, "has no area"),
            ({"box": [5, 5, 20, np.nan]}, "not a number"),
            ({"box": [5, 5, 101, 20]}, "outside the image of 100x64 pixels: clip it first"),
            ({"box": [5, 5, 20]}, "one box is"),
            ({"box": np.ones((2, 4))}, "use predict_batch for several"),
            ({"mask_input": np.zeros((256, 256))}, r"it is \(1, 256, 256\) for one prompt"),
            ({"mask_input": np.zeros((1, 128, 128))}, "mask_input as Nx1x256x256; it was given 1x1x128x128"),
            ({"mask_input": np.full((1, 256, 256), np.inf)}, "not finite"),
        ],
    )
    def test_bad_prompts_are_refused_and_the_image_stays(
        self, small_pair: Pair, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(BadInputError, match=message):
            small_pair.ours.predict(**arguments)
        assert small_pair.ours.is_image_set

    def test_batches_of_different_lengths_are_refused(self, small_pair: Pair) -> None:
        with pytest.raises(BadInputError, match=r"different numbers of prompts \(\[2, 3\]\)"):
            small_pair.ours.predict_batch(np.ones((2, 1, 2)), np.ones((2, 1)), np.array([[1, 1, 9, 9]] * 3))

    def test_a_batch_outside_the_image_is_refused(self, small_pair: Pair) -> None:
        with pytest.raises(BadInputError, match="outside the image of 1024x655"):
            small_pair.ours.predict_batch(np.full((1, 1, 2), 700.0), np.ones((1, 1)))

    def test_more_masks_than_memory_are_refused_with_a_way_out(
        self, small_pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(memory, "available_bytes", lambda: 10**6)
        with pytest.raises(BadInputError, match=r"masks of 9 prompts .* use predict_chunks"):
            small_pair.ours.predict_batch(None, None, np.tile([1.0, 1, 90, 90], (9, 1)))


def test_ten_thousand_prompts_go_through_the_decoder_in_parts(
    discs: DiscSamSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = {"low_res_masks": np.zeros((16, 4, 256, 256), np.float32)}
    outputs["iou_predictions"] = np.zeros((16, 4), np.float32)
    calls: list[int] = []

    def decode(coords: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
        calls.append(len(labels))
        return {name: values[: len(labels)] for name, values in outputs.items()}

    monkeypatch.setattr(discs, "decode", decode)
    predictor = SamPredictor(discs, "sam_tiny")
    predictor.set_image(np.zeros((16, 16, 3), np.uint8))
    boxes = np.tile([100.0, 100, 500, 600], (10_000, 1))
    assert sum(len(scores) for _, scores in predictor.predict_low_res(None, None, boxes)) == 10_000
    assert calls == [16] * 625


def test_prompts_of_very_many_points_go_in_smaller_parts(discs: DiscSamSession) -> None:
    predictor = SamPredictor(discs, "sam_tiny")
    predictor.set_image(np.zeros((64, 64, 3), np.uint8))
    predictor.predict_batch(np.zeros((4, 600, 2)), np.ones((4, 600), int))
    assert discs.decoder_calls == [1, 1, 1, 1]


def test_predicting_before_an_image_is_refused(discs: DiscSamSession) -> None:
    predictor = SamPredictor(discs, "sam_tiny")
    assert not predictor.is_image_set
    for call in (predictor.get_image_embedding, lambda: predictor.predict(box=[1, 1, 2, 2])):
        with pytest.raises(BadInputError, match=r"no image is set: call set_image\(image\)"):
            call()
    with pytest.raises(BadInputError, match="no image is set"):
        predictor.predict_chunks(None, None, np.ones((1, 4)))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((1, 5000, 3), np.uint8), BadImageError, "5000x1 pixels .* crop it into wider pieces"),
        (np.zeros((64, 64), np.uint8), BadInputError, r"shape \(H, W, 3\)"),
        (np.zeros((64, 64, 3), np.float32), BadInputError, "float32"),
    ],
)
def test_images_that_cannot_be_encoded_are_refused(
    discs: DiscSamSession, image: NDArray[Any], error: type[Exception], message: str
) -> None:
    predictor = SamPredictor(discs, "sam_tiny")
    with pytest.raises(error, match=message):
        predictor.set_image(image)
    assert not predictor.is_image_set


class TestEmbedding:
    """Who holds it, and when it is freed."""

    IMAGE = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)

    def test_it_is_freed_by_reset_by_the_next_image_and_by_close(self, discs: DiscSamSession) -> None:
        predictor = SamPredictor(discs, "sam_tiny")
        predictor.set_image(self.IMAGE)
        predictor.set_image(self.IMAGE)
        assert [handle.released for handle in discs.handles] == [True, False]
        predictor.reset_image()
        assert discs.handles[1].released
        predictor.reset_image()
        predictor.set_image(self.IMAGE)
        predictor.close()
        assert discs.handles[2].released
        assert not predictor.is_image_set

    def test_it_is_freed_when_a_block_ends_with_an_exception(self, discs: DiscSamSession) -> None:
        with pytest.raises(BadInputError), SamPredictor(discs, "sam_tiny") as predictor:
            predictor.set_image(self.IMAGE)
            predictor.predict()
        assert discs.handles[0].released

    def test_a_failed_encoding_leaves_no_image_set(
        self, discs: DiscSamSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predictor = SamPredictor(discs, "sam_tiny")
        predictor.set_image(self.IMAGE)

        def fail(*_: object) -> None:
            raise InferenceError("out of memory")

        monkeypatch.setattr(discs, "_infer", fail)
        with pytest.raises(InferenceError):
            predictor.set_image(self.IMAGE)
        assert discs.handles[0].released
        assert not predictor.is_image_set

    def test_a_decoder_published_anew_from_another_checkpoint_is_refused(self, discs: DiscSamSession) -> None:
        predictor = SamPredictor(discs, "sam_tiny")
        predictor.set_image(self.IMAGE)
        discs.replace_spec("sam_tiny_decoder", checkpoint_sha256="cd" * 32)
        message = "'sam_tiny_decoder' is of checkpoint cdcdcdcdcdcd and 'sam_tiny_encoder' of checkpoint abab"
        with pytest.raises(BadInputError, match=message):
            predictor.predict([[1, 2]], [1])

    def test_a_decoder_exchanged_while_it_runs_is_refused(
        self, discs: DiscSamSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        predictor = SamPredictor(discs, "sam_tiny")
        predictor.set_image(self.IMAGE)
        decode = discs.decode

        def exchange(*prompts: Any) -> dict[str, Any]:
            discs.replace_spec("sam_tiny_decoder", checkpoint_sha256="cd" * 32)
            return decode(*prompts)

        monkeypatch.setattr(discs, "decode", exchange)
        with pytest.raises(BadInputError, match="chain models that were published from one checkpoint"):
            predictor.predict([[1, 2]], [1])


def test_a_pair_of_different_checkpoints_is_refused(discs: DiscSamSession) -> None:
    discs.replace_spec("sam_tiny_encoder", checkpoint_sha256="cd" * 32)
    with pytest.raises(BadInputError, match="'sam_tiny_encoder' of checkpoint cdcdcdcdcdcd"):
        SamPredictor(discs, "sam_tiny")


@pytest.mark.parametrize("missing", ["encoder", "decoder"])
def test_half_a_sam_is_refused_and_the_missing_half_named(discs: DiscSamSession, missing: str) -> None:
    del discs.specs[f"sam_tiny_{missing}"]
    with pytest.raises(ModelNotFoundError, match=f"the {missing} is missing .* seg-export sam"):
        SamPredictor(discs, "sam_tiny")


def test_a_pair_whose_embeddings_are_of_different_types_is_refused(discs: DiscSamSession) -> None:
    encoder = discs.spec("sam_tiny_encoder")
    discs.replace_spec("sam_tiny_encoder", outputs=(replace(encoder.outputs[0], dtype="float16"),))
    with pytest.raises(
        BadInputError, match="makes image_embeddings as float16 and 'sam_tiny_decoder' takes float32"
    ):
        SamPredictor(discs, "sam_tiny")


def test_one_empty_mask_stands_for_all_prompts_without_one(
    discs: DiscSamSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []
    infer = DiscSamSession._infer

    def noted(self: DiscSamSession, spec: ModelSpec, inputs: Any, keep: frozenset[str]) -> dict[str, Any]:
        shapes.append({name: value.shape for name, value in inputs.items()})
        return infer(self, spec, inputs, keep)

    monkeypatch.setattr(DiscSamSession, "_infer", noted)
    with SamPredictor(discs, "sam_tiny") as predictor:
        predictor.set_image(np.zeros((30, 40, 3), np.uint8))
        predictor.predict_batch(np.full((5, 1, 2), 9.0), np.ones((5, 1)))
    assert shapes[-1]["mask_input"] == (1, 1, 256, 256)
    assert shapes[-1]["has_mask_input"] == (5,)


def test_a_model_that_is_no_sam_is_refused(discs: DiscSamSession) -> None:
    discs.replace_spec("sam_tiny_encoder", task="semantic")
    with pytest.raises(BadInputError, match="is for the task 'semantic', not 'sam-encoder'"):
        SamPredictor(discs, "sam_tiny")
    with pytest.raises(BadInputError, match="prompts_per_call is 0"):
        SamPredictor(discs, "sam_tiny", prompts_per_call=0)


def test_without_a_name_the_only_sam_is_taken() -> None:
    session = DiscSamSession()
    (name,) = {model.removesuffix("_encoder").removesuffix("_decoder") for model in session.models()}
    assert name != "sam_vit_b"
    with SamPredictor(session) as predictor:
        assert predictor.engine == SamPredictor(session, name).engine
