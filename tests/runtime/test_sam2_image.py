"""`Sam2ImagePredictor` against sam2's own, on the same weights and images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2_clips import moving_shapes
from sam2_small import GRID, SIDE, small_sam2
from sam2_torch_session import TorchSam2Session

from seg_runtime.errors import BadInputError, InferenceError, ModelNotFoundError
from seg_runtime.sam2 import Sam2ImagePredictor
from seg_runtime.sam2.masks import clean_small_parts, mask_to_model, resize_image, resize_logits

IMAGE = list(moving_shapes(3, (200, 300)))[1]
SQUARE = cv2.resize(IMAGE, (SIDE, SIDE))
POINTS, BOX = np.array([[90.0, 80.0], [40, 150], [200, 60]]), np.array([30.0, 20, 180, 150])
PROMPTS = ["one point", "several points", "box", "box and points", "mask", "point and mask", "box and mask"]


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield small_sam2()
    torch.set_num_threads(before)


@pytest.fixture
def session(model: Any) -> TorchSam2Session:
    return TorchSam2Session(model)


@pytest.fixture
def ours(session: TorchSam2Session) -> Iterator[Sam2ImagePredictor]:
    with Sam2ImagePredictor(session, "sam2") as predictor:
        yield predictor


@pytest.fixture(scope="module")
def original(model: Any) -> SAM2ImagePredictor:
    with warnings.catch_warnings():
        # sam2 scripts its transforms, which torch advises against.
        warnings.simplefilter("ignore", FutureWarning)
        predictor = SAM2ImagePredictor(model)
    # sam2 fixes these for 1024 pixels.
    predictor._bb_feat_sizes = [(4 * GRID, 4 * GRID), (2 * GRID, 2 * GRID), (GRID, GRID)]
    return predictor


def prompt(kind: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if "box" in kind:
        arguments["box"] = BOX
    if "point" in kind:
        count = 3 if "points" in kind else 1
        arguments |= {"point_coords": POINTS[:count], "point_labels": np.array([1, 0, 1])[:count]}
    if "mask" in kind:
        y, x = np.mgrid[-1 : 1 : 4 * GRID * 1j, -1 : 1 : 4 * GRID * 1j]
        arguments["mask_input"] = (10 - 40 * ((x + 0.2) ** 2 + y**2))[None].astype(np.float32)
    return arguments


def assert_equal(got: tuple[NDArray[Any], ...], wanted: tuple[NDArray[Any], ...], relative: float) -> None:
    if got[0].dtype == np.bool_:
        # sam2 gives masks as 0.0 and 1.0.
        assert set(np.unique(wanted[0])) <= {0, 1}
        wanted = (wanted[0] > 0, *wanted[1:])
    for mine, other in zip(got, wanted, strict=True):
        assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
    np.testing.assert_allclose(got[1], wanted[1], atol=1e-3)
    np.testing.assert_allclose(got[2], wanted[2], atol=relative * np.abs(wanted[2]).max())
    if got[0].dtype == np.float32:
        np.testing.assert_allclose(got[0], wanted[0], atol=relative * np.abs(wanted[0]).max())
        return
    union, both = np.sum(got[0] | wanted[0], axis=(-2, -1)), np.sum(got[0] & wanted[0], axis=(-2, -1))
    assert union.all()
    assert (both >= 0.999 * union).all(), both / union


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", PROMPTS)
def test_predictions_equal_sam2s(
    ours: Sam2ImagePredictor, original: SAM2ImagePredictor, kind: str, multimask: bool
) -> None:
    for predictor in (ours, original):
        predictor.set_image(SQUARE)
    for logits in (False, True):
        arguments = {**prompt(kind), "multimask_output": multimask, "return_logits": logits}
        assert_equal(ours.predict(**arguments), original.predict(**arguments), relative=1e-5)


@pytest.mark.parametrize("kind", PROMPTS)
def test_images_of_other_sizes_equal_sam2s_up_to_the_rounding_to_8_bits(
    ours: Sam2ImagePredictor, original: SAM2ImagePredictor, kind: str
) -> None:
    ours.set_image(IMAGE)
    # sam2 does not round what it resized; `TestMasks` bounds the difference.
    original.set_image(resize_image(IMAGE, SIDE))
    original._orig_hw = [IMAGE.shape[:2]]
    for logits in (False, True):
        arguments = {**prompt(kind), "return_logits": logits}
        assert_equal(ours.predict(**arguments), original.predict(**arguments), relative=1e-5)


def test_several_prompts_at_once_equal_sam2s(
    model: Any, session: TorchSam2Session, original: SAM2ImagePredictor
) -> None:
    boxes = np.stack([BOX, BOX / 2, BOX + 20])
    points, labels = POINTS[:, None] / 2, np.array([[1], [0], [1]])
    with Sam2ImagePredictor(session, "sam2", prompts_per_call=2) as ours:
        for predictor in (ours, original):
            predictor.set_image(SQUARE)
        for arguments in ({"box": boxes}, {"point_coords": points, "point_labels": labels, "box": boxes}):
            got, wanted = (p.predict(**arguments, return_logits=True) for p in (ours, original))
            assert got[0].shape == (3, 3, SIDE, SIDE)
            assert_equal(got, wanted, relative=1e-5)
    assert session.calls["mask_decoder"] == 4


def test_batches_of_images_equal_sam2s(ours: Sam2ImagePredictor, original: SAM2ImagePredictor) -> None:
    images = [SQUARE, np.ascontiguousarray(SQUARE[::-1])]
    arguments = {
        "point_coords_batch": [POINTS[:1], POINTS],
        "point_labels_batch": [[1], [1, 0, 1]],
        "multimask_output": False,
        "return_logits": True,
    }
    for predictor in (ours, original):
        predictor.set_image_batch(images)
    got, wanted = ours.predict_batch(**arguments), original.predict_batch(**arguments)
    for index in range(2):
        answer = tuple(part[index] for part in got)
        assert_equal(answer, tuple(part[index] for part in wanted), relative=1e-5)


def test_shares_of_the_sides_equal_pixels(ours: Sam2ImagePredictor, original: SAM2ImagePredictor) -> None:
    for predictor in (ours, original):
        predictor.set_image(SQUARE)
    arguments = {"point_coords": POINTS / SIDE, "point_labels": [1, 0, 1], "normalize_coords": False}
    assert_equal(ours.predict(**arguments), original.predict(**arguments), relative=1e-5)


def test_the_embedding_is_sam2s_without_its_constant(
    model: Any, ours: Sam2ImagePredictor, original: SAM2ImagePredictor
) -> None:
    for predictor in (ours, original):
        predictor.set_image(Image.fromarray(SQUARE))
    wanted = original.get_image_embedding() - model.no_mem_embed.reshape(1, -1, 1, 1)
    np.testing.assert_allclose(ours.get_image_embedding(), wanted.detach().numpy(), atol=1e-4)


def test_padding_with_the_label_minus_10_changes_nothing(ours: Sam2ImagePredictor) -> None:
    ours.set_image(SQUARE)
    both = np.stack([POINTS[:2], POINTS[1:]])
    got = ours.predict(both, [[1, -10], [1, 1]])
    for mine, other in zip(got, ours.predict(POINTS[:1], [1]), strict=True):
        np.testing.assert_array_equal(mine[0], other)


class TestFeatures:
    """Who holds them, and when they are freed."""

    def test_they_are_freed_by_the_next_image_by_reset_and_by_close(
        self, session: TorchSam2Session, ours: Sam2ImagePredictor
    ) -> None:
        ours.set_image(SQUARE)
        ours.set_image(SQUARE)
        assert [handle.released for handle in session.handles] == [True] * 3 + [False] * 3
        ours.reset_predictor()
        assert not ours.is_image_set
        ours.set_image_batch([SQUARE, SQUARE])
        ours.close()
        assert all(handle.released for handle in session.handles)

    def test_a_failed_encoding_leaves_no_image_and_no_handle(
        self, session: TorchSam2Session, ours: Sam2ImagePredictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encode = session._image_encoder

        def fail_second(image: torch.Tensor) -> Any:
            if session.calls["image_encoder"] == 2:
                raise InferenceError("out of memory")
            return encode(image)

        monkeypatch.setattr(session, "_image_encoder", fail_second)
        with pytest.raises(InferenceError):
            ours.set_image_batch([SQUARE, SQUARE])
        assert not ours.is_image_set
        assert all(handle.released for handle in session.handles)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "there is no prompt: give points, a box or a mask"),
        ({"point_coords": [[1, 2]]}, "points were given without labels"),
        ({"point_labels": [1]}, "labels were given without points"),
        ({"point_coords": [[1, 2], [3, 4]], "point_labels": [1]}, "do not match points"),
        ({"point_coords": [[1, 2]], "point_labels": [-1]}, "-1 is no point label"),
        ({"point_coords": [[1, 2]], "point_labels": [7]}, "7 is no point label"),
        ({"point_coords": [1, 2], "point_labels": [1]}, r"P points are \(P, 2\)"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "must be numbers in rows"),
        ({"point_coords": [[SIDE + 1, 5]], "point_labels": [1]}, "is outside the image"),
        ({"box": [50, 5, 20, 30]}, "has no area"),
        ({"box": [5, 5, 20]}, r"a box is \(4,\)"),
        ({"box": [5, 5, 2000, 20]}, "clip it first"),
        ({"box": np.ones((2, 4)) * [1, 1, 9, 9], "point_coords": [[1, 2]], "point_labels": [1]}, "2 prompts"),
        ({"mask_input": np.zeros((1, 3, 3))}, "it is finite logits"),
        ({"mask_input": np.full((1, 64, 64), np.nan)}, "it is finite logits"),
        ({"mask_input": np.zeros((2, 1, 64, 64)), "box": BOX}, "2 masks do not fit 1 prompts"),
    ],
)
def test_bad_prompts_are_refused_and_the_image_stays(
    ours: Sam2ImagePredictor, arguments: dict[str, Any], message: str
) -> None:
    ours.set_image(SQUARE)
    with pytest.raises(BadInputError, match=message):
        ours.predict(**arguments)
    assert ours.is_image_set


def test_calls_in_the_wrong_order_say_what_to_do(ours: Sam2ImagePredictor) -> None:
    for call in (lambda: ours.predict(box=BOX), ours.get_image_embedding):
        with pytest.raises(BadInputError, match=r"call set_image\(image\)"):
            call()
    with pytest.raises(BadInputError, match=r"call set_image_batch\(images\)"):
        ours.predict_batch(box_batch=[BOX])
    with pytest.raises(BadInputError, match="at least one"):
        ours.set_image_batch([])
    with pytest.raises(BadInputError, match=r"shape \(H, W, 3\)"):
        ours.set_image(SQUARE[..., 0])
    ours.set_image_batch([SQUARE])
    with pytest.raises(BadInputError, match="2 entries for 1 images"):
        ours.predict_batch(box_batch=[BOX, BOX])


class TestModels:
    """The parts of a SAM2 belong together."""

    def test_a_missing_part_is_named(self, session: TorchSam2Session) -> None:
        del session.specs["sam2_mask_decoder"]
        with pytest.raises(
            ModelNotFoundError, match=r"'sam2_mask_decoder', which is missing .*seg-export sam2"
        ):
            Sam2ImagePredictor(session, "sam2")

    def test_parts_of_other_checkpoints_sizes_or_tasks_are_refused(self, session: TorchSam2Session) -> None:
        specs = dict(session.specs)
        changes: list[tuple[dict[str, Any], str]] = [
            ({"checkpoint_sha256": "cd" * 32}, "chain models that were published from one checkpoint"),
            ({"input_size_hw": (1024, 1024)}, "images of 1024 pixels and 'sam2_image_encoder' for 256"),
            ({"task": "semantic"}, "for the task 'semantic', not 'sam2-mask-decoder'"),
        ]
        for change, message in changes:
            session.specs = dict(specs)
            session.replace_spec("sam2_mask_decoder", **change)
            with pytest.raises(BadInputError, match=message):
                Sam2ImagePredictor(session, "sam2")

    def test_a_decoder_exchanged_while_it_runs_is_refused(
        self, session: TorchSam2Session, ours: Sam2ImagePredictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours.set_image(SQUARE)
        decode = session._mask_decoder

        def exchange(**inputs: Any) -> Any:
            session.replace_spec("sam2_mask_decoder", checkpoint_sha256="cd" * 32)
            return decode(**inputs)

        monkeypatch.setattr(session, "_mask_decoder", exchange)
        with pytest.raises(BadInputError, match="chain models that were published from one checkpoint"):
            ours.predict(box=BOX)


class TestMasks:
    """Arithmetic on masks, against torch and scipy."""

    @pytest.mark.parametrize("size_hw", [(540, 960), (256, 256), (33, 71), (64, 64), (1024, 700)])
    def test_logits_are_resized_as_torch_does(self, size_hw: tuple[int, int]) -> None:
        low_res = np.random.default_rng(0).normal(0, 5, (2, 1, 64, 64)).astype(np.float32)
        wanted = torch.nn.functional.interpolate(
            torch.from_numpy(low_res), size_hw, mode="bilinear", align_corners=False
        )
        got = resize_logits(low_res, size_hw)
        np.testing.assert_allclose(got, wanted.numpy(), atol=2e-4)

    @pytest.mark.parametrize("size_hw", [(540, 960), (256, 256), (100, 71), (1080, 1920)])
    def test_masks_of_users_are_resized_as_sam2_does(self, size_hw: tuple[int, int]) -> None:
        y, x = np.mgrid[-1 : 1 : size_hw[0] * 1j, -1 : 1 : size_hw[1] * 1j]
        mask = np.hypot(x - 0.2, y * 1.4) + 0.1 * np.sin(9 * x) < 0.6
        tensor = torch.from_numpy(mask)[None, None].float()
        wanted = torch.nn.functional.interpolate(
            tensor, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
        )
        np.testing.assert_array_equal(mask_to_model(mask, SIDE), (wanted >= 0.5).numpy()[0, 0])

    def test_images_are_resized_as_sam2_does_and_rounded(self, original: SAM2ImagePredictor) -> None:
        image = np.random.default_rng(0).integers(0, 256, (300, 411, 3), dtype=np.uint8)
        pixels = original._transforms.to_tensor(image)
        wanted = 255 * original._transforms.transforms[0](pixels).permute(1, 2, 0).numpy()
        assert np.abs(resize_image(image, SIDE) - wanted).max() < 0.501

    def test_small_parts_get_another_logit(self) -> None:
        from scipy import ndimage

        logits = np.random.default_rng(0).normal(0.5, 1, (2, 1, 40, 40)).astype(np.float32)
        wanted = logits.copy()
        for index in range(2):
            labels, count = ndimage.label(logits[index, 0] <= 0, structure=np.ones((3, 3)))
            for label in range(1, count + 1):
                if (labels == label).sum() <= 4:
                    wanted[index, 0][labels == label] = 0.1
        np.testing.assert_array_equal(clean_small_parts(logits, logits <= 0, 4, 0.1), wanted)
        assert (wanted != logits).any()
        assert clean_small_parts(logits, logits <= 0, 0, 0.1) is logits

    def test_holes_and_sprinkles_are_cleaned_before_masks_are_resized(
        self, session: TorchSam2Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        low_res = np.full((1, 4, 64, 64), -5, np.float32)
        low_res[..., 20:40, 20:40] = 5
        low_res[..., 30, 30] = -5  # a hole
        low_res[..., 5, 5] = 5  # a sprinkle
        decode = session._mask_decoder
        monkeypatch.setattr(
            session,
            "_mask_decoder",
            lambda **inputs: decode(**inputs) | {"low_res_masks": torch.from_numpy(low_res)},
        )
        with Sam2ImagePredictor(session, "sam2", max_hole_area=2, max_sprinkle_area=2) as predictor:
            predictor.set_image(SQUARE)
            masks, _, logits = predictor.predict(box=BOX)
        assert masks[0, 84:156, 84:156].all()
        assert not masks[0, :40, :40].any()
        np.testing.assert_array_equal(logits, low_res[0, 1:])
