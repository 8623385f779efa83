"""What the export of a plain state dict assumed: stated, recorded, and nothing for a described checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sam2_small import ARGUMENTS
from sam_models import SMALL_SAM
from typer.testing import CliRunner

from seg_export.checkpoints.assumptions import Assumption, assumptions, assumptions_text
from seg_export.checkpoints.checkpoint import Checkpoint, load_checkpoint, untrained_model
from seg_export.checkpoints.pretrained import pretrained_path
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import app
from seg_export.export import export_model
from seg_export.families import traceable_models
from seg_export.families.maskrcnn import checkpoints as maskrcnn_checkpoints
from seg_export.families.maskrcnn.checkpoints import load_maskrcnn_checkpoint
from seg_export.families.sam.checkpoints import load_sam_checkpoint
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec


@pytest.fixture(scope="module")
def plain_unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net's weights alone, of colour images and three classes."""
    path = tmp_path_factory.mktemp("plain") / "unet.pth"
    arguments = {"features": [4, 8], "in_channels": 3, "num_classes": 3}
    torch.save(random_checkpoint("unet", arguments).state_dict, path)
    return path


def _found(
    checkpoint: Checkpoint, size_hw: tuple[int, int], size_given: bool = True
) -> dict[str, Assumption]:
    spec = traceable_models(checkpoint, "model", size_hw, 1)[0].spec
    return {each.what: each for each in assumptions(checkpoint, spec, size_given=size_given)}


@pytest.mark.full
def test_command_prints_one_block_and_publishes_what_it_assumed(
    plain_unet: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["unet", "--checkpoint", str(plain_unet), "--size", "32", "--std", "1,2,4", "--json"]
    result = CliRunner().invoke(app, [*command, "--assume-defaults"])
    assert result.exit_code == 0
    lines = [line.split("  ") for line in result.stderr.splitlines()]
    rows = {
        words[1]: [word.strip() for word in words[2:] if word.strip()] for words in lines if words[0] == ""
    }
    assert rows["mean"] == ["0.485, 0.485, 0.485", "assumed", "set by --mean"]
    assert rows["std"] == ["1, 2, 4", "option", "set by --std"]
    assert rows["channels"] == ["3", "file"] and rows["channel order"][:2] == ["RGB", "assumed"]
    assert rows["input size"] == ["32x32", "option", "set by --size"]
    assert rows["class names"][0] == "class_0, class_1, class_2"
    assert rows["CLAHE"][0] == "none" and rows["resize"][0] == "stretch"
    assert "only labelled images prove" in result.stderr and "seg-bench run" in result.stderr

    exported = json.loads(result.stdout)
    assert {"what": "classes", "value": "3", "origin": "file", "set_by": ""} in exported["assumptions"]
    assumed = Repository(tmp_path / "triton_repo").spec("unet").assumed
    assert assumed == exported["spec"]["assumed"]
    assert assumed["mean"] == "0.485, 0.485, 0.485"
    assert not {"std", "input size", "classes"} & assumed.keys()


@pytest.mark.full
def test_described_checkpoint_assumes_nothing(
    tiny_checkpoint: Path, plain_unet: Path, tmp_path: Path
) -> None:
    for described in (load_checkpoint(tiny_checkpoint), random_checkpoint("unet", {"features": [4, 8]})):
        exported = export_model(described, tmp_path / "repo", "model", size_hw=(32, 32))
        assert exported.assumptions == () and exported.published.spec.assumed == {}
        assert assumptions_text(exported.assumptions) == ""
    assert "assumed" not in (tmp_path / "repo" / "model" / "config.pbtxt").read_text()
    plain = export_model(plain_unet, tmp_path / "repo", "plain", size_hw=(32, 32), assume_defaults=True)
    assert plain.assumptions


def test_weights_of_the_package_assume_nothing_though_they_are_a_plain_state_dict() -> None:
    checkpoint = load_checkpoint(pretrained_path("sam_tiny"))
    spec = ModelSpec("sam_tiny_encoder", version=1, task="sam-encoder", family="sam", inputs=(), outputs=())
    assert not checkpoint.described
    assert assumptions(checkpoint, spec, size_given=False) == ()
    assert assumptions(replace(checkpoint, sha256="ab" * 32), spec, size_given=False)


def test_size_is_assumed_unless_it_was_given_or_the_weights_have_it(tmp_path: Path, plain_unet: Path) -> None:
    size = _found(load_checkpoint(plain_unet), (512, 512), size_given=False)["input size"]
    assert size == Assumption("input size", "512x512", "assumed", "--size")
    small = {"image_size": 64, "width": 8, "units": [1, 1, 1], "hidden": 64, "layers": 1, "mlp": 64}
    decoder = {"head_channels": 16, "decoder_channels": [16, 8, 8, 8]}
    torch.save(random_checkpoint("transunet", {**small, **decoder}).state_dict, tmp_path / "trans.pth")
    found = _found(load_checkpoint(tmp_path / "trans.pth"), (64, 64))
    assert found["input size"] == Assumption("input size", "64x64", "file")
    assert found["threshold"].value == "0.5" and found["activation"].value == "sigmoid"


def test_maskrcnn_states_anchors_thresholds_and_what_options_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cells.pth"
    torch.save(
        untrained_model("maskrcnn", {"arch": "maskrcnn_resnet18_fpn", "num_classes": 3}).state_dict(), path
    )
    found = _found(load_maskrcnn_checkpoint(path, norm_eps=0.0), (128, 160))
    assert found["anchor sizes"].value == "32, 64, 128, 256, 512"
    assert found["epsilon of the norms"] == Assumption("epsilon of the norms", "0", "option", "--norm-eps")
    assert found["detections at most"] == Assumption(
        "detections at most", "100", "assumed", "--max-detections"
    )
    assert found["classes"].value == "2 and the background" and found["class names"].origin == "assumed"
    assert (found["mean"].value, found["mean"].origin) == ("0.485, 0.456, 0.406", "assumed")

    checkpoint = load_maskrcnn_checkpoint(path)
    monkeypatch.setitem(
        maskrcnn_checkpoints.OFFICIAL, "cells", ("https://example.com", checkpoint.sha256[:8])
    )
    assert _found(checkpoint, (128, 160)) == {}


def test_sam_states_what_leaves_no_trace_in_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "sam.pth"
    torch.save(random_checkpoint("sam", SMALL_SAM).state_dict, path)
    side = load_sam_checkpoint(path).preprocessing.input_size_hw
    found = _found(load_sam_checkpoint(path), side)
    assert (found["mean"].value, found["mean"].origin) == ("123.675, 116.28, 103.53", "family")
    assert found["input size"].origin == "file" and found["resize"].value == "longest-side"
    described = load_sam_checkpoint(path, {**SMALL_SAM, "pixel_mean": [0.0, 0.0, 0.0]})
    assert _found(described, side)["mean"].origin == "option"


def test_sam2_states_its_fixed_preprocessing() -> None:
    checkpoint = replace(random_checkpoint("sam2", ARGUMENTS), described=False)
    found = _found(checkpoint, checkpoint.preprocessing.input_size_hw)
    assert found["mean"].origin == "family" and found["resize"].value == "stretch"
