"""Dense CRF against a brute-force mean field over all pairs of pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from seg_runtime.crf import CrfSpec, refine
from seg_runtime.errors import BadInputError


def _kernel(image, sigma_px, sigma_intensity):
    """(N, N) symmetrically normalised kernel over all pairs of pixels, float64."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].reshape(2, -1)
    gray = image.astype(np.float64).ravel()
    distances = np.square(rows[:, None] - rows) + np.square(columns[:, None] - columns)
    exponent = distances / sigma_px**2 + np.square(gray[:, None] - gray) / sigma_intensity**2
    kernel = np.exp(-exponent / 2)
    root = np.sqrt(kernel.sum(axis=0))
    return kernel / root / root[:, None]


def _brute_force(probabilities, image, spec):
    classes = np.concatenate([1 - probabilities, probabilities]) if len(probabilities) == 1 else probabilities
    log_unary = np.log(np.clip(classes.astype(np.float64), 1e-5, 1)).reshape(len(classes), -1)
    coupling = spec.spatial_weight * _kernel(image, spec.spatial_sigma_px, np.inf)
    coupling += spec.bilateral_weight * _kernel(image, spec.bilateral_sigma_px, spec.intensity_sigma)
    refined = np.exp(log_unary) / np.exp(log_unary).sum(axis=0)
    for _ in range(spec.iterations):
        logits = log_unary + refined @ coupling
        refined = np.exp(logits - logits.max(axis=0))
        refined /= refined.sum(axis=0)
    refined = refined.reshape(classes.shape)
    return refined[1:] if len(probabilities) == 1 else refined


def _smooth_image(generator, side):
    noise = cv2.GaussianBlur(generator.random((side, side)), (0, 0), 3)
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(
    "spec",
    [
        CrfSpec(),
        CrfSpec(bilateral_sigma_px=6.0),
        CrfSpec(spatial_weight=0.0, bilateral_sigma_px=8.0, bilateral_weight=10.0),
        CrfSpec(iterations=10, bilateral_sigma_px=80.0, bilateral_weight=10.0),
    ],
)
def test_crf_equals_a_brute_force_mean_field(spec, classes):
    generator = np.random.default_rng(0)
    image = _smooth_image(generator, 24)
    probabilities = generator.random((classes, 24, 24)).astype(np.float32)
    if classes > 1:
        probabilities /= probabilities.sum(axis=0)

    refined, expected = refine(probabilities, image, spec), _brute_force(probabilities, image, spec)

    # Random unaries put some pixels on a tipping point, where every update enlarges differences; so
    # the mean and the decisions are compared. pydensecrf is 10 times farther from brute force here.
    assert np.abs(refined - expected).mean() < 0.005
    assert np.mean((refined >= 0.5) != (expected >= 0.5)) < 0.01


@pytest.mark.parametrize(("sigma_px", "sigma_intensity"), [(6.0, 13.0), (40.0, 13.0), (80.0, 30.0)])
def test_one_update_follows_the_exact_appearance_kernel_within_two_percent(sigma_px, sigma_intensity):
    generator = np.random.default_rng(7)
    image = _smooth_image(generator, 24)
    probabilities = generator.uniform(0.3, 0.7, (1, 24, 24)).astype(np.float32)
    spec = CrfSpec(
        1,
        spatial_weight=0.0,
        bilateral_sigma_px=sigma_px,
        intensity_sigma=sigma_intensity,
        bilateral_weight=1.0,
    )

    refined = refine(probabilities, image, spec)

    kernel = _kernel(image, sigma_px, sigma_intensity)
    foreground, background = (kernel @ part.ravel() for part in (probabilities, 1 - probabilities))
    expected = foreground - background
    found = _logit(refined).ravel() - _logit(probabilities).ravel()
    assert np.abs(found - expected).max() < 0.02 * foreground.max()


def _logit(probabilities):
    return np.log(probabilities / (1 - probabilities)).astype(np.float64)


def test_crf_with_the_smoothness_kernel_alone_equals_brute_force_closely():
    generator = np.random.default_rng(1)
    image, probabilities = _smooth_image(generator, 24), generator.random((1, 24, 24)).astype(np.float32)
    spec = CrfSpec(bilateral_weight=0.0)

    refined = refine(probabilities, image, spec)

    np.testing.assert_allclose(refined, _brute_force(probabilities, image, spec), atol=2e-4)


def test_crf_without_weights_returns_the_probabilities():
    probabilities = np.random.default_rng(2).random((1, 16, 20)).astype(np.float32)

    refined = refine(
        probabilities, np.zeros((16, 20), np.uint8), CrfSpec(spatial_weight=0.0, bilateral_weight=0.0)
    )

    np.testing.assert_allclose(refined, probabilities, atol=2e-5)


def _edge_scene(generator):
    """An image of a bright disc, its mask, and a noisy and displaced prediction of it."""
    truth = cv2.circle(np.zeros((256, 256), np.uint8), (128, 120), 70, 1, -1) > 0
    image = np.clip(np.where(truth, 170, 80) + generator.normal(0, 6, truth.shape), 0, 255).astype(np.uint8)
    displaced = np.roll(truth, (6, 6), (0, 1)).astype(np.float32)
    noise = generator.normal(0, 0.25, truth.shape).astype(np.float32)
    probability = np.clip(0.2 + 0.6 * cv2.GaussianBlur(displaced, (0, 0), 3) + noise, 0, 1)
    return image, truth, probability[None]


def _iou(pred, target):
    return np.count_nonzero(pred & target) / np.count_nonzero(pred | target)


def test_crf_moves_a_noisy_displaced_mask_to_the_edge_in_the_image():
    image, truth, probabilities = _edge_scene(np.random.default_rng(3))

    before = _iou(probabilities[0] >= 0.5, truth)
    after = _iou(refine(probabilities, image)[0] >= 0.5, truth)

    assert before < 0.6
    assert after > 0.9


def test_crf_compares_colours_by_their_gray_level():
    image, _, probabilities = _edge_scene(np.random.default_rng(4))

    of_gray = refine(probabilities, image)
    of_rgb = refine(probabilities, cv2.cvtColor(image, cv2.COLOR_GRAY2RGB))

    np.testing.assert_array_equal(of_rgb, of_gray)


def test_crf_of_several_classes_sums_to_one():
    generator = np.random.default_rng(5)
    probabilities = generator.dirichlet(np.ones(4), (32, 40)).astype(np.float32).transpose(2, 0, 1)

    refined = refine(probabilities, generator.integers(0, 256, (32, 40), np.uint8))

    assert refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_crf_of_a_one_pixel_image_is_finite(value):
    refined = refine(np.full((1, 1, 1), value, np.float32), np.zeros((1, 1), np.uint8))

    assert np.isfinite(refined).all()


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((1, 8, 8), np.zeros((8, 9), np.uint8)),
        ((1, 8, 8), np.zeros((8, 8, 4), np.uint8)),
        ((1, 8, 8), np.zeros((8, 8), np.uint16)),
        ((8, 8), np.zeros((8, 8), np.uint8)),
    ],
)
def test_crf_refuses_arrays_that_do_not_fit(shape, image):
    with pytest.raises(BadInputError, match="uint8 image"):
        refine(np.zeros(shape, np.float32), image)


@pytest.mark.parametrize("bad", [np.nan, 1.5, -0.1])
def test_crf_refuses_values_that_are_no_probabilities(bad):
    with pytest.raises(BadInputError, match="sigmoid or softmax"):
        refine(np.full((1, 4, 4), bad, np.float32), np.zeros((4, 4), np.uint8))


def test_crf_refuses_sigmas_whose_grid_would_not_fit_in_memory():
    image = np.random.default_rng(6).integers(0, 256, (400, 400), np.uint8)

    with pytest.raises(BadInputError, match="larger sigmas"):
        refine(
            np.zeros((1, 400, 400), np.float32), image, CrfSpec(bilateral_sigma_px=1.0, intensity_sigma=1.0)
        )


@pytest.mark.parametrize(
    "setting", [{"iterations": 0}, {"bilateral_sigma_px": 0.0}, {"spatial_weight": -1.0}]
)
def test_crf_refuses_bad_settings(setting):
    with pytest.raises(BadInputError, match=next(iter(setting))):
        CrfSpec(**setting)
