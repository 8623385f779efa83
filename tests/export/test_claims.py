"""What is said of a checkpoint that holds weights alone: asked for, checked, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_graph import publish, semantic_graph, semantic_spec
from typer.testing import CliRunner

from seg_export.checkpoints.checkpoint import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Checkpoint,
    Preprocessing,
    build_model,
    load_checkpoint,
)
from seg_export.checkpoints.claims import Claims, missing_claims, with_claims
from seg_export.checkpoints.pretrained import pretrained_path
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import app
from seg_export.export import export_model, export_models
from seg_export.families.maskrcnn import checkpoints as maskrcnn_checkpoints
from seg_export.families.module.published import published_checkpoint
from seg_export.families.onnx.model import republished_model
from seg_export.verification.published import verify_published
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.preprocess import apply_clahe
from seg_runtime.repository import Repository
from seg_runtime.spec import ClaheSpec

pytestmark = pytest.mark.slow  # Most of them export a network.

SIDE = 32
SAID = Claims(
    mean=(0.0,), std=(1.0,), scale=255.0, clahe=False, class_names=("bright",), threshold=0.5
)  # pixels / 255


def _plain(family: str, channels: int, classes: int, **arguments: Any) -> Checkpoint:
    """What a plain state dict of random weights is loaded as."""
    sizes = {"in_channels": channels, "num_classes": classes, **arguments}
    random = random_checkpoint(family, sizes)
    names = tuple(f"class_{index}" for index in range(classes))
    return replace(random, metadata={}, class_names=names, described=False)


def _bright_pixels() -> Checkpoint:
    """A U-Net whose logit is 40 (x - 0.5), x being what it is given.

    As one that was trained on pixels / 255 and finds those above 127.
    """
    checkpoint = _plain("unet", 1, 1, features=[4, 8])
    weights = {
        name: torch.full_like(tensor, float(name.endswith("running_var")))
        for name, tensor in checkpoint.state_dict.items()
    }
    # The first convolution of each pair passes channel 0 on; the last layer turns it into the logit.
    for name, tensor in weights.items():
        if name.startswith(("inc.", "up1.")) and tensor.ndim == 4:
            tensor[0, 0, 1, 1] = 1.0
    for name in list(weights):
        norm = name.removesuffix(".running_mean")
        if norm != name and norm.startswith(("inc.", "up1.")):
            weights[f"{norm}.weight"][:] = float(np.sqrt(1 + 1e-5))
    weights["out.weight"][0, 0] = 40.0
    weights["out.bias"][:] = -20.0
    return replace(checkpoint, state_dict=weights)


def _found(repo: Path, name: str, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with connect(repo) as session:
        return SemanticSegmenter(session, name).segment(image).mask


@pytest.fixture
def image() -> NDArray[np.uint8]:
    """All gray values, none near the middle."""
    values = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    return np.where((values > 120) & (values < 136), np.uint8(0), values)


@pytest.mark.parametrize(
    ("claims", "right"),
    [
        (SAID, True),
        (replace(SAID, std=(255.0,), scale=1.0), True),
        (replace(SAID, mean=(0.485,), std=(0.229,)), False),
        (replace(SAID, scale=1.0), False),
        (replace(SAID, threshold=0.999999), False),
    ],
)
def test_masks_are_right_exactly_where_the_claims_are_those_of_the_training(
    tmp_path: Path, image: NDArray[np.uint8], claims: Claims, right: bool
) -> None:
    exported = export_model(with_claims(_bright_pixels(), claims), tmp_path, "bright", size_hw=(SIDE, SIDE))
    # Verification passes all the same: it cannot know.
    assert exported.report is not None and exported.report.passed
    assert np.array_equal(_found(tmp_path, "bright", image), image > 127) == right


def test_every_claim_reaches_contract_graph_and_result(tmp_path: Path) -> None:
    mean, std = (10.0, 20.0, 30.0), (50.0, 60.0, 70.0)
    claims = Claims(mean=mean, std=std, scale=2.0, channel_order="bgr", clahe=True, threshold=0.4)
    plain = _plain("unet", 3, 1, features=[4, 8])
    checkpoint = with_claims(plain, replace(claims, class_names=("cell",)))
    spec = export_model(checkpoint, tmp_path, "cells", size_hw=(SIDE, SIDE)).published.spec
    assert spec == replace(Repository(tmp_path).spec("cells"), assumed=spec.assumed)
    assert (spec.mean, spec.std, spec.scale, spec.channel_order) == (mean, std, 2.0, "bgr")
    assert (spec.threshold, spec.clahe, spec.class_names) == (0.4, ClaheSpec(), ("cell",))
    assert not {"mean", "std", "pixel scale", "channel order", "CLAHE", "threshold"} & spec.assumed.keys()

    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    bgr = apply_clahe(image, ClaheSpec())[..., ::-1].astype(np.float64)
    normalised = (bgr / 2.0 - mean) / std
    with torch.inference_mode():
        pixels = torch.from_numpy(normalised.astype(np.float32)).permute(2, 0, 1)[None]
        wanted = torch.sigmoid(build_model(checkpoint)(pixels))[0, 0].numpy()
    with connect(tmp_path) as session:
        result = SemanticSegmenter(session, "cells").segment(image)
    np.testing.assert_allclose(result.probabilities[0], wanted, atol=1e-5)
    clear = np.abs(wanted - 0.4) > 1e-4
    assert np.array_equal(result.mask[clear], (wanted >= 0.4)[clear])


GRAY = ("--mean (1 value)", "--std (1 value)", "--scale")
COLOUR = ("--mean (3 values)", "--std (3 values)", "--scale", "--channel-order")
CLAHE = "--clahe or --no-clahe"
ONE = ("--class-names (1 name)", "--threshold")
TRANSUNET = {
    **{"image_size": 64, "width": 8, "units": [1, 1, 1], "hidden": 64, "layers": 1, "mlp": 64},
    **{"head_channels": 16, "decoder_channels": [16, 8, 8, 8]},
}


@pytest.mark.parametrize(
    ("family", "channels", "classes", "arguments", "missing"),
    [
        ("unet", 1, 1, {"features": [4, 8]}, (*GRAY, CLAHE, *ONE, "--size")),
        ("unet", 3, 4, {"features": [4, 8]}, (*COLOUR, CLAHE, "--class-names (4 names)", "--size")),
        ("unetpp", 3, 1, {"features": [4, 6]}, (*COLOUR, CLAHE, *ONE, "--size")),
        ("transunet", 1, 2, TRANSUNET, (*GRAY, CLAHE, "--class-names (2 names)")),
    ],
)
def test_export_is_refused_with_exactly_what_is_missing(
    tmp_path: Path, family: str, channels: int, classes: int, arguments: Any, missing: tuple[str, ...]
) -> None:
    plain = _plain(family, channels, classes, **arguments)
    assert missing_claims(plain, size_given=False) == missing
    with pytest.raises(BadInputError) as refused:
        export_models(plain, tmp_path / "repo")
    assert f"Missing: {', '.join(missing)}. " in str(refused.value)
    assert "--assume-defaults" in str(refused.value)
    assert not (tmp_path / "repo").exists()
    partly = with_claims(plain, Claims(scale=1.0, clahe=True))
    assert missing_claims(partly, size_given=True) == tuple(
        each for each in missing if each not in ("--scale", CLAHE, "--size")
    )


def _plain_maskrcnn() -> Checkpoint:
    return Checkpoint(
        family="maskrcnn",
        arguments={"arch": "maskrcnn_resnet18_fpn", "num_classes": 3},
        state_dict={},
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, (800, 1333)),
        class_names=("class_1", "class_2"),
        sha256="ab" * 32,
        described=False,
    )


def test_a_maskrcnn_is_asked_for_its_anchors_too_unless_it_is_torchvisions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = _plain_maskrcnn()
    missing = ("--mean (3 values)", "--std (3 values)", "--class-names (2 names)", "--anchors", "--size")
    assert missing_claims(plain, size_given=False) == missing
    monkeypatch.setitem(maskrcnn_checkpoints.OFFICIAL, "cells", ("https://example.com", "abab"))
    assert missing_claims(plain, size_given=False) == ()
    with pytest.raises(BadInputError, match="the mean of these weights is known: leave --mean out"):
        with_claims(plain, Claims(mean=IMAGENET_MEAN))


def test_families_of_fixed_statistics_need_nothing() -> None:
    sam = load_checkpoint(pretrained_path("sam_tiny"))
    for checkpoint in (sam, replace(sam, sha256="ab" * 32), replace(sam, family="sam2", sha256="ab" * 32)):
        assert not checkpoint.described and missing_claims(checkpoint, size_given=False) == ()
        with pytest.raises(BadInputError, match="the mean of these weights is known"):
            with_claims(checkpoint, Claims(mean=IMAGENET_MEAN))


@pytest.mark.full
def test_claims_of_a_maskrcnn_reach_the_detector() -> None:
    from seg_export.families.maskrcnn.model import build_detector

    random = random_checkpoint("maskrcnn", _plain_maskrcnn().arguments)
    plain = replace(_plain_maskrcnn(), state_dict=random.state_dict)
    claims = Claims(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), class_names=("a", "b"), resize="stretch")
    claimed = with_claims(plain, replace(claims, anchor_sizes=(8, 16, 32, 64, 128)))
    detector = build_detector(claimed)
    assert (detector.transform.image_mean, detector.transform.image_std) == ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
    assert detector.rpn.anchor_generator.sizes == ((8,), (16,), (32,), (64,), (128,))
    assert (claimed.preprocessing.resize, claimed.class_names) == ("stretch", ("a", "b"))


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        (Claims(mean=(0.1, 0.2)), r"--mean 0.1,0.2: 2 values, expected 3, one per channel"),
        (Claims(std=(1.0, 0.0, 1.0)), r"--std 1,0,1: expected finite numbers above 0"),
        (Claims(mean=(float("nan"), 0.0, 0.0)), r"--mean nan,0,0: expected finite numbers"),
        (Claims(scale=0.0), r"--scale 0: expected a finite number above 0"),
        (Claims(class_names=("a",)), r"--class-names a: 1 name, expected 2, one per class"),
        (Claims(class_names=("a", " ")), r"--class-names a, : expected different names, none of them empty"),
        (Claims(class_names=("a", "b\n")), r"different names, none of them empty or of several lines"),
        (Claims(class_names=("a", "\x1b[31mb")), r"different names, none of them empty or of several lines"),
        (Claims(threshold=0.5), r"--threshold has no effect on a network of several classes"),
        (Claims(anchor_sizes=(1, 2, 3, 4, 5)), r"--anchors has no effect on a U-Net"),
        (Claims(resize="stretch"), r"--resize has no effect on a U-Net"),
    ],
)
def test_claims_that_cannot_be_are_refused(claims: Claims, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        with_claims(_plain("unet", 3, 2, features=[4, 8]), claims)
    described = random_checkpoint("unet", {"features": [4, 8]})
    with pytest.raises(BadInputError, match="no effect on random weights"):
        with_claims(described, claims)
    with pytest.raises(BadInputError, match="the checkpoint says its own"):
        with_claims(replace(described, metadata={}), claims)


def test_channel_order_is_of_three_channels_and_clahe_of_gray_and_rgb() -> None:
    gray, bands = (_plain("unet", channels, 1, features=[4, 8]) for channels in (1, 5))
    for network in (gray, bands):
        with pytest.raises(
            BadInputError, match="--channel-order has no effect on a network that takes other"
        ):
            with_claims(network, Claims(channel_order="bgr"))
    assert not any("clahe" in option for option in missing_claims(bands, size_given=False))
    for clahe in (True, False):
        with pytest.raises(
            BadInputError, match=r"--clahe .*no effect on a network that takes other than 1 or"
        ):
            with_claims(bands, Claims(clahe=clahe))


def test_a_threshold_is_a_probability() -> None:
    gray = _plain("unet", 1, 1, features=[4, 8])
    with pytest.raises(BadInputError, match=r"--threshold 1\.5: expected a probability, 0 to 1"):
        with_claims(gray, Claims(threshold=1.5))


def test_verification_of_weights_alone_takes_the_published_preprocessing(tmp_path: Path) -> None:
    plain = _plain("unet", 3, 1, features=[4, 8])
    claims = replace(SAID, mean=(0.9, 0.1, 0.2), std=(0.2, 0.3, 0.1), channel_order="bgr")
    export_model(with_claims(plain, claims), tmp_path, "cells", size_hw=(SIDE, SIDE))
    report = verify_published(tmp_path, "cells", plain)
    assert report.passed and "are those that 'cells' was published with" in report.note
    described = replace(plain, described=True)
    assert not verify_published(tmp_path, "cells", described).passed


def test_a_contract_of_version_1_says_that_it_lacks_the_preprocessing(tmp_path: Path) -> None:
    spec = semantic_spec("old", contract_version=1)
    graph = publish(tmp_path, spec, semantic_graph())
    expected = (
        "model 'old' has a contract of version 1, which does not hold mean, std, scale and channel order"
    )
    with pytest.raises(RepositoryError, match=expected):
        published_checkpoint(spec, torch.nn.Conv2d(1, 1, 3, padding=1), None, None, None)
    with pytest.raises(RepositoryError, match=expected):
        republished_model(spec, graph, graph)


Write = Callable[[str, NDArray[np.uint8]], None]


@pytest.fixture
def labelled(tmp_path: Path, image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> Write:
    """`bright.pth`, and two images with their masks in `images` and `masks`; writes more files there."""
    import cv2

    def write(file: str, pixels: NDArray[np.uint8]) -> None:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / file), pixels)

    monkeypatch.chdir(tmp_path)
    torch.save(_bright_pixels().state_dict, "bright.pth")
    for name, pixels in (("a", image), ("b", 255 - image)):
        write(f"images/{name}.png", pixels)
        write(f"masks/{name}.tif", np.where(pixels > 127, np.uint8(7), np.uint8(0)))
    return write


BRIGHT = [
    "unet",
    "--checkpoint",
    "bright.pth",
    "--class-names",
    "bright",
    "--threshold",
    "0.5",
    "--scale",
    "255",
]
BRIGHT += ["--no-clahe", "--size", str(SIDE), "--images", "images", "--masks", "masks"]


def test_labelled_images_show_a_wrong_mean_right_after_the_export(labelled: Write) -> None:
    runner = CliRunner()
    right = runner.invoke(app, [*BRIGHT, "--mean", "0", "--std", "1"])
    assert right.exit_code == 0, right.output
    assert "Dice on 2 labelled images: bright 1.0000" in right.stdout
    wrong = runner.invoke(app, [*BRIGHT, "--mean", "0.7", "--std", "0.229", "--json"])
    found = json.loads(wrong.stdout)
    assert found["verification"]["passed"] and found["labelled"]["images"] == 2
    assert found["labelled"]["dice"]["bright"] < 0.9


def test_labelled_images_that_do_not_fit_are_refused_before_anything_is_exported(
    labelled: Write, tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    def refused() -> str:
        result = CliRunner().invoke(app, [*BRIGHT, "--mean", "0", "--std", "1"])
        assert isinstance(result.exception, BadInputError) and not (tmp_path / "triton_repo").exists()
        return str(result.exception)

    labelled("images/c.png", image)
    assert "'masks' has no file named as c.png (of 3)" in refused()
    mask = np.where(image > 127, np.uint8(255), np.uint8(0))
    labelled("masks/c.png", mask[:16])
    assert "is 16x32 and its image 32x32" in refused()
    labelled("masks/c.png", mask)
    labelled("masks/d.png", mask)
    assert "'images' has no file named as d.png (of 4)" in refused()


def test_dice_of_several_classes_is_of_each(tmp_path: Path) -> None:
    from seg_export.verification.labelled import _mean, _scores

    found = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    truth = np.array([[0, 1, 1], [1, 2, 2]], np.uint8)
    scores = _scores(found, truth)
    assert scores == {0: pytest.approx(2 / 3), 1: pytest.approx(4 / 5), 2: 1.0}
    assert _mean([scores.get(3)]) is None and _mean([0.5, None]) == 0.5
