"""SemanticSegmenter on a session whose probabilities are the brightness of the image."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from brightness import BrightnessSession, brightness_spec
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError, ModelNotFoundError
from seg_runtime.postprocess import PostProcess
from seg_runtime.preprocess import apply_clahe, resize_image
from seg_runtime.semantic import SemanticSegmenter
from seg_runtime.spec import ClaheSpec


def blob(height: int, width: int) -> NDArray[np.uint8]:
    """A bright disc on dark ground with a bright speck in a corner."""
    image = np.full((height, width), 30, np.uint8)
    cv2.circle(image, (width // 2, height // 2), min(height, width) // 4, 220, -1)
    image[2:5, 2:5] = 220
    return image


def test_mask_and_probabilities_come_in_the_frame_of_the_image() -> None:
    result = SemanticSegmenter(BrightnessSession(), "brightness").segment(blob(100, 140))
    assert result.mask.shape == (100, 140)
    assert result.mask.dtype == np.uint8
    assert result.probabilities.shape == (1, 100, 140)
    assert result.probabilities.dtype == np.float32
    assert np.array_equal(result.mask, result.probabilities[0] >= 0.5)
    wrong = (result.mask == 1) != (blob(100, 140) > 128)
    assert wrong.mean() < 0.03


def test_an_image_of_the_models_size_is_not_resampled() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    result = SemanticSegmenter(BrightnessSession(), "brightness").segment(image)
    assert np.array_equal(result.probabilities[0], image.astype(np.float32) / np.float32(255))


def test_a_probability_at_the_threshold_is_foreground() -> None:
    image = np.arange(32 * 32, dtype=np.uint32).reshape(32, 32).astype(np.uint8)
    for threshold in (0.2, 51 / 255, 1.0, 0.0):
        result = SemanticSegmenter(BrightnessSession(), "brightness", threshold=threshold).segment(image)
        assert np.array_equal(
            result.mask, image.astype(np.float32) / np.float32(255) >= np.float32(threshold)
        )


def test_the_models_own_threshold_is_the_default() -> None:
    session = BrightnessSession()
    session.replace_spec(threshold=0.9)
    assert SemanticSegmenter(session, "brightness").segment(np.full((32, 32), 200, np.uint8)).mask.max() == 0


def test_the_most_probable_of_several_classes_wins() -> None:
    session = BrightnessSession(brightness_spec(classes=3))
    image = np.repeat(np.array([0, 128, 255, 140], np.uint8), 8)[None].repeat(32, axis=0)
    result = SemanticSegmenter(session, "brightness").segment(image)
    assert result.probabilities.shape == (3, 32, 32)
    assert result.mask[0].tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [1] * 8


def test_colour_images_reach_a_colour_model_as_red_green_blue() -> None:
    session = BrightnessSession(brightness_spec(channels=3))
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    SemanticSegmenter(session, "brightness").segment(image)
    assert np.array_equal(session.batches[0][0], image)


@pytest.mark.parametrize("own", [None, ClaheSpec(4.0, (4, 4))])
def test_clahe_is_the_models_unless_told_otherwise(own: ClaheSpec | None) -> None:
    session = BrightnessSession()
    session.replace_spec(clahe=own)
    image = (np.random.default_rng(0).integers(0, 256, (64, 64)) // 4).astype(np.uint8)
    small = resize_image(image, (32, 32))
    for setting, expected in (("model", own), (None, None), (ClaheSpec(9.0), ClaheSpec(9.0))):
        SemanticSegmenter(session, "brightness", clahe=setting).segment(image)
        assert np.array_equal(session.batches[-1][0, ..., 0], apply_clahe(small, expected))


def test_postprocessing_runs_in_the_frame_of_the_image_and_leaves_probabilities() -> None:
    image = blob(64, 64)
    session = BrightnessSession(brightness_spec((64, 64)))
    plain = SemanticSegmenter(session, "brightness").segment(image)
    cleaned = SemanticSegmenter(session, "brightness", postprocess=PostProcess(keep_largest=1)).segment(image)
    assert plain.mask[3, 3] == 1
    assert cleaned.mask[3, 3] == 0
    assert cleaned.mask[32, 32] == 1
    assert np.array_equal(plain.probabilities, cleaned.probabilities)


@pytest.mark.parametrize("max_batch_size", [0, 1, 4])
@pytest.mark.parametrize("tile_overlap", [None, 0.25])
def test_tiling_and_models_without_a_batch_axis_give_the_same_masks(
    max_batch_size: int, tile_overlap: float | None
) -> None:
    session = BrightnessSession(brightness_spec((32, 32), max_batch_size=max_batch_size))
    image = blob(100, 90)
    result = SemanticSegmenter(session, "brightness", tile_overlap=tile_overlap).segment(image)
    reference = image > 128 if tile_overlap is not None else resize_image(image, (32, 32)) > 128
    if tile_overlap is None:
        assert len(session.batches) == 1
        assert abs(float(result.mask.mean()) - float(reference.mean())) < 0.03
    else:
        assert len(session.batches) > 3
        assert np.array_equal(result.mask, reference)


def test_tiling_an_image_no_larger_than_a_tile_is_the_plain_answer() -> None:
    for size in ((32, 32), (20, 31)):
        tiled = SemanticSegmenter(BrightnessSession(), "brightness", tile_overlap=0.5).segment(blob(*size))
        plain = SemanticSegmenter(BrightnessSession(), "brightness").segment(blob(*size))
        assert np.array_equal(tiled.probabilities, plain.probabilities)


def test_a_stream_in_batches_equals_one_by_one() -> None:
    images = [blob(40 + 3 * index, 50) for index in range(7)]
    session = BrightnessSession()
    segmenter = SemanticSegmenter(session, "brightness")
    alone = [segmenter.segment(image) for image in images]
    session.batches.clear()
    together = list(segmenter.stream(iter(images), batch_size=3))
    assert [len(batch) for batch in session.batches] == [3, 3, 1]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert np.array_equal(one.probabilities, other.probabilities)


def test_a_stream_holds_no_more_than_a_batch_of_images() -> None:
    made: list[weakref.ref[NDArray[np.uint8]]] = []
    most = 0

    def images() -> Iterator[NDArray[np.uint8]]:
        nonlocal most
        for _ in range(40):
            image = blob(64, 64)
            made.append(weakref.ref(image))
            most = max(most, sum(reference() is not None for reference in made))
            yield image

    session = BrightnessSession()
    for _ in SemanticSegmenter(session, "brightness").stream(images(), batch_size=2):
        session.batches.clear()
    assert most <= 5


def test_nothing_is_read_before_it_is_asked_for() -> None:
    def images() -> Iterator[NDArray[np.uint8]]:
        yield blob(32, 32)
        raise AssertionError("read too early")

    stream = SemanticSegmenter(BrightnessSession(), "brightness").stream(images())
    assert next(stream).mask.any()


def test_timings_name_the_three_steps() -> None:
    result = SemanticSegmenter(BrightnessSession(), "brightness").segment(blob(64, 64))
    assert set(result.timings_ms) == {"preprocess", "infer", "postprocess"}
    assert all(spent >= 0 for spent in result.timings_ms.values())


@pytest.mark.parametrize("tile_overlap", [None, 0.25])
@pytest.mark.parametrize("shape", [(64,), (64, 64, 3), (64, 64, 1), (0, 64)])
def test_images_of_the_wrong_shape_are_refused(shape: tuple[int, ...], tile_overlap: float | None) -> None:
    segmenter = SemanticSegmenter(BrightnessSession(), "brightness", tile_overlap=tile_overlap)
    with pytest.raises(BadInputError, match=r"wants an image of shape \(H, W\) and dtype uint8"):
        segmenter.segment(np.zeros(shape, np.uint8))


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean 'brightness'"):
        SemanticSegmenter(BrightnessSession(), "brigthness")


def test_a_model_of_another_task_is_refused() -> None:
    session = BrightnessSession()
    session.replace_spec(task="image embedding")
    with pytest.raises(BadInputError, match="model 'brightness' is a model for 'image embedding'"):
        SemanticSegmenter(session, "brightness")


def test_settings_that_do_not_fit_are_refused() -> None:
    session = BrightnessSession()
    with pytest.raises(BadInputError, match="threshold must lie between 0 and 1, not 2"):
        SemanticSegmenter(session, "brightness", threshold=2)
    with pytest.raises(BadInputError, match="overlap of tiles must lie between"):
        SemanticSegmenter(session, "brightness", tile_overlap=1.0)
    with pytest.raises(BadInputError, match="takes batches of 1 to 4, not 5"):
        SemanticSegmenter(session, "brightness").stream([], batch_size=5)
    several = BrightnessSession(brightness_spec(classes=3))
    with pytest.raises(BadInputError, match="has 3 classes, of which the most probable wins"):
        SemanticSegmenter(several, "brightness", threshold=0.5)
