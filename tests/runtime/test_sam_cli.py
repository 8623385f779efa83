"""`seg-run sam` and `seg-run everything`: what they write, and one clear line for every bad input."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from sam_models import DiscSamSession

from seg_runtime.cli import run, sam
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image, write_mask, write_png
from seg_runtime.sam.files import segment_everything
from seg_runtime.sam.mask_generator import SamAutomaticMaskGenerator
from seg_runtime.sam.rle import rle_to_mask


@pytest.fixture
def discs(monkeypatch: pytest.MonkeyPatch) -> DiscSamSession:
    """The commands find this session wherever they are told to connect to."""
    session = DiscSamSession()
    monkeypatch.setattr(sam, "open_session", lambda *target: session)
    return session


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    write_png(tmp_path / "photo.png", image)
    return tmp_path / "photo.png"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `seg-run` in this process as its entry point does; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["seg-run", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    return int(ended.value.code or 0)


def files(out: Path) -> list[str]:
    return sorted(entry.name for entry in out.iterdir())


def test_one_point_gives_a_mask_an_overlay_and_annotations(
    photo: Path, tmp_path: Path, discs: DiscSamSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deep" / "out"
    assert call(monkeypatch, "sam", photo, "--point", "64,48", "--point", "10,10,0", "-o", out) == 0
    assert files(out) == ["photo_mask_1.png", "photo_masks.json", "photo_overlay.png"]
    mask = read_image(out / "photo_mask_1.png", 1)
    assert set(np.unique(mask)) == {0, 255}
    y, x = np.nonzero(mask)
    assert (round(x.mean()), round(y.mean())) == (64, 48)
    assert read_image(out / "photo_overlay.png", 3).shape == (96, 128, 3)
    written = json.loads((out / "photo_masks.json").read_text(encoding="utf-8"))
    read = {"bit_depth": 8, "bit_depth_from": "file", "warnings": []}
    assert written["images"] == [{"id": 1, "file_name": str(photo), "height": 96, "width": 128, **read}]
    (annotation,) = written["annotations"]
    np.testing.assert_array_equal(rle_to_mask(annotation["segmentation"]), mask > 0)
    assert annotation["area"] == np.count_nonzero(mask)
    assert annotation["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
    assert annotation["score"] == pytest.approx(0.7)
    assert all(handle.released for handle in discs.handles)


@pytest.mark.usefixtures("discs")
@pytest.mark.parametrize("command", ["sam", "everything"])
def test_an_image_unlike_those_of_the_training_is_doubted(
    command: str, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, discs: DiscSamSession
) -> None:
    discs.replace_spec("sam_tiny_encoder", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    write_png(tmp_path / "flat.png", np.full((96, 128, 3), 120, np.uint8))
    prompt = ["--point", "64,48"] if command == "sam" else ["--points-per-side", 2]
    for image, wanted in ((photo, 0), (tmp_path / "flat.png", 1)):
        assert call(monkeypatch, command, image, *prompt, "-o", tmp_path / image.stem) == 0
        written = json.loads((tmp_path / image.stem / f"{image.stem}_masks.json").read_text())
        assert sum("nearly uniform" in warning for warning in written["warnings"]) == wanted


@pytest.mark.usefixtures("discs")
def test_candidates_come_best_first_and_json_goes_to_stdout(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = call(
        monkeypatch, "sam", photo, "--point", "64,48", "--multimask", "--no-overlay", "--json", "-o", out
    )
    assert code == 0
    assert files(out) == [*(f"photo_mask_1_{rank}.png" for rank in (1, 2, 3)), "photo_masks.json"]
    captured = capsys.readouterr()
    scores = [annotation["score"] for annotation in json.loads(captured.out)["annotations"]]
    assert scores == pytest.approx([0.95, 0.9, 0.8])
    assert captured.err.replace("\n", "") == f"3 masks in '{out}' (discs)"
    assert json.loads(captured.out)["info"] == {"engine": "discs"}


@pytest.mark.usefixtures("discs")
def test_every_box_is_an_object_and_points_refine_those_they_lie_in(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--box", "4,4,40,60", "--box", "60,20,120,90", "--point", "90,50", "-o", out]
    assert call(monkeypatch, "sam", photo, *arguments) == 0
    assert files(out)[:2] == ["photo_mask_1.png", "photo_mask_2.png"]
    first, second = (read_image(out / f"photo_mask_{number}.png", 1) > 0 for number in (1, 2))
    assert first[32, 22] and not first[:, 45:].any()
    assert second[55, 90] and not second[:, :55].any()
    assert call(monkeypatch, "sam", photo, *arguments, "--point", "50,5") == 2
    assert "point (50, 5) is in none of the 2 boxes" in capsys.readouterr().err


@pytest.mark.usefixtures("discs")
def test_logits_of_one_run_are_the_mask_of_the_next(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert call(monkeypatch, "sam", photo, "--point", "64,48", "--logits", "-o", out) == 0
    logits = out / "photo_logits_1.npy"
    assert np.load(logits).shape == (256, 256)
    again = tmp_path / "again"
    assert call(monkeypatch, "sam", photo, "--point", "64,48", "--mask", logits, "-o", again) == 0
    mask = np.zeros((96, 128), np.uint8)
    mask[20:70, 40:90] = 1
    write_mask(tmp_path / "rough.png", mask, binary=True)
    rough = ["--mask", tmp_path / "rough.png", "--box", "40,20,90,70"]
    assert call(monkeypatch, "sam", photo, *rough, "-o", again) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no prompt: give a point, a box or a mask"),
        (["--point", "5"], "--point wants X,Y or X,Y,0 or X,Y,1 in pixels of the image, not '5'"),
        (["--point", "a,b"], "--point wants"),
        (["--point", "5,5,2"], "the label is 1 for the object or 0 for the background"),
        (["--point", "128,5"], "point (128, 5) is outside the image of 128x96 pixels"),
        (["--box", "1,2,3"], "--box wants X0,Y0,X1,Y1"),
        (["--box", "50,5,20,30"], "has no area: give x0, y0, x1, y1 with x1 > x0"),
        (["--box", "5,5,200,30"], "reaches outside the image of 128x96 pixels"),
        (["--box", "1,1,9,9", "--box", "1,1,8,8", "--mask", "small.png"], "refines one object"),
        (["--point", "5,5", "--mask", "small.png"], "has 40x30 pixels and the image 128x96"),
        (["--point", "5,5", "--mask", "wrong.npy"], "has the shape (9, 9): wanted 256x256 logits"),
        (["--point", "5,5", "--mask", "none.npy"], "cannot read mask"),
        (["--point", "5,5", "-m", "sam_vit_b"], "needs the models 'sam_vit_b_encoder'"),
    ],
)
@pytest.mark.usefixtures("discs")
def test_bad_prompts_are_one_line_and_write_nothing(
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_mask(tmp_path / "small.png", np.ones((30, 40), np.uint8), binary=True)
    if "--box" in arguments and "--mask" in arguments:
        write_mask(tmp_path / "small.png", np.ones((96, 128), np.uint8), binary=True)
    np.save(tmp_path / "wrong.npy", np.zeros((9, 9)))
    assert call(monkeypatch, "sam", photo, *arguments, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_decoder_alone_is_one_line(
    photo: Path,
    tmp_path: Path,
    discs: DiscSamSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del discs.specs["sam_tiny_encoder"]
    arguments = ["sam", photo, "--point", "5,5", "-o", tmp_path / "out"]
    assert call(monkeypatch, *arguments) == 2
    assert "there is no SAM encoder with its decoder: publish them with" in capsys.readouterr().err
    assert call(monkeypatch, *arguments, "-m", "sam_tiny") == 2
    assert "the encoder is missing" in capsys.readouterr().err


def test_of_several_sams_one_must_be_named(
    photo: Path,
    tmp_path: Path,
    discs: DiscSamSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    discs.specs |= DiscSamSession("sam_big").specs
    arguments = ["sam", photo, "--point", "5,5", "-o", tmp_path / "out"]
    assert call(monkeypatch, *arguments) == 2
    assert "there are several SAMs (sam_big, sam_tiny): choose one with --model" in capsys.readouterr().err
    assert call(monkeypatch, *arguments, "-m", "sam_big") == 0


@pytest.mark.usefixtures("discs")
def test_an_output_that_is_a_file_or_the_images_folder_is_refused(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for out, message in (
        (tmp_path / "file", "is a file: give a folder"),
        (tmp_path, "holds images to segment"),
    ):
        assert call(monkeypatch, "sam", photo, "--point", "5,5", "-o", out) == 2
        assert message in capsys.readouterr().err


@pytest.mark.usefixtures("discs")
def test_everything_is_written_largest_first(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(monkeypatch, "everything", photo, "--points-per-side", 4, "--json", "-o", out) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["info"] == {"engine": "discs"}
    annotations = written["annotations"]
    areas = [annotation["area"] for annotation in annotations]
    assert len(areas) >= 4
    assert areas == sorted(areas, reverse=True)
    for annotation in annotations:
        mask = read_image(annotation["mask"], 1) > 0
        np.testing.assert_array_equal(rle_to_mask(annotation["segmentation"]), mask)
        assert {"predicted_iou", "stability_score", "point_coords", "crop_box", "score"} <= set(annotation)
    assert read_image(out / "photo_overlay.png", 3).shape == (96, 128, 3)
    bare = tmp_path / "bare"
    options = ["--points-per-side", 2, "--no-masks", "--no-overlay", "--pred-iou-thresh", 0.99]
    assert call(monkeypatch, "everything", photo, *options, "-o", bare) == 0
    assert files(bare) == ["photo_masks.json"]
    assert "0 masks in" in capsys.readouterr().err


@pytest.mark.usefixtures("discs")
def test_settings_that_leave_no_points_are_one_line(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--points-per-side", 2, "--crop-layers", 2, "--crop-downscale", 2, "-o", tmp_path / "out"]
    assert call(monkeypatch, "everything", photo, *options) == 2
    assert "leave no grid" in capsys.readouterr().err
    generator = SamAutomaticMaskGenerator(DiscSamSession(), "sam_tiny")
    with pytest.raises(BadInputError, match="make it 'coco_rle'"):
        segment_everything(generator, read_image(photo, 3), photo, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_published_sam_finds_a_lung(
    tmp_path: Path,
    tiny_sam_repo: Path,
    xray_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    image = sorted((xray_folder / "images").glob("*.png"))[0]
    truth = read_image(xray_folder / "masks" / image.name, 1) > 127
    truth[:, 256:] = False
    y, x = np.nonzero(truth)
    box = f"{x.min()},{y.min()},{x.max() + 1},{y.max() + 1}"
    options = ["--repo", tiny_sam_repo, "--engine", engine, "-o", tmp_path]
    assert call(monkeypatch, "sam", image, "--box", box, *options) == 0
    # Both models in one engine, which is named once.
    name = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[engine]
    assert re.search(rf"\({name} [^;]*, CPU\)$", capsys.readouterr().err.replace("\n", ""))
    mask = read_image(tmp_path / f"{image.stem}_mask_1.png", 1) > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.93
