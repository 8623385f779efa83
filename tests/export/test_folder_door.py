"""Folders that segmentation_models_pytorch saves, and what the command asks of any folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_command import run_export
from foreign_files import LONGEST_OF_FOLDER, assert_short

from seg_export.checkpoints import folders
from seg_export.checkpoints.claims import Claims
from seg_export.checkpoints.folders import FolderModel, folder
from seg_export.families.module.folder import folder_checkpoint
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import BadInputError, CheckpointError, MissingExtraError

pytestmark = pytest.mark.full

smp = folder.library("segmentation_models_pytorch", "segmentation-models-pytorch")

CLAIMS = ["--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.4", "--scale", "255", "--channel-order", "rgb"]
CLAIMS += ["--no-clahe", "--class-names", "road,sky", "--size", "64"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with a ResNet-18 of few channels, as the library saves it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("saved") / "roads"
    smp.Unet("resnet18", encoder_weights=None, decoder_channels=(16, 8, 8, 8, 4), classes=2).save_pretrained(
        path
    )
    return path


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch, saved: Path) -> Iterator[FolderModel]:
    """A folder of the same network that says how images are prepared, as other libraries' do."""
    network = smp.from_pretrained(saved)
    claims = Claims(mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5), scale=255.0, channel_order="rgb", clahe=False)
    model = FolderModel(
        kind="network", network=network, channels=3, claims=claims, size_hw=(64, 96), activation="softmax"
    )
    monkeypatch.setattr(folders, "READERS", {"a network": _Reader(model)})
    yield model


class _Reader:
    def __init__(self, model: FolderModel) -> None:
        self.model = model

    def recognises(self, path: Path) -> bool:
        return True

    def read(self, path: Path) -> FolderModel:
        return self.model


def test_saved_network_is_served_as_its_library_computes_it(saved: Path, tmp_path: Path) -> None:
    repo = str(tmp_path / "repo")
    made = json.loads(run_export("module", str(saved), *CLAIMS, "--repo", repo, "--json").stdout)
    assert made["spec"]["name"] == "roads" and made["verification"]["passed"]
    assert made["steps"] == ["a Unet of segmentation_models_pytorch"]

    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels = (image / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    network = smp.from_pretrained(saved).eval()
    with torch.inference_mode():
        logits = network(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])
    with connect(tmp_path / "repo") as session:
        found = SemanticSegmenter(session, "roads").segment(image)
    wanted = logits.softmax(1)[0].numpy()
    assert np.mean(found.mask == wanted.argmax(0)) > 0.999
    assert np.abs(found.probabilities - wanted).max() < made["verification"]["tolerance"]["atol"]
    run_export("verify", "roads", "--module", str(saved), "--repo", repo)


def test_what_a_folder_says_is_not_asked_for_and_not_overruled(
    described: FolderModel, tmp_path: Path
) -> None:
    repo = str(tmp_path / "repo")
    with pytest.raises(BadInputError, match=r"Missing: --class-names \(2 names\)\. Give"):
        run_export("module", str(tmp_path), "--repo", repo)
    with pytest.raises(BadInputError, match="the checkpoint says its own mean: leave --mean out"):
        run_export("module", str(tmp_path), "--repo", repo, "--mean", "0,0,0")
    with pytest.raises(
        BadInputError, match="the folder says its activation, softmax: leave --activation out"
    ):
        run_export("module", str(tmp_path), "--repo", repo, "--activation", "softmax")
    made = run_export(
        "module", str(tmp_path), "--repo", repo, "--class-names", "a,b", "--name", "net", "--json"
    ).stdout
    rows = {row["what"]: row for row in json.loads(made)["assumptions"]}
    assert {rows[what]["origin"] for what in ("mean", "std", "activation", "input size")} == {"file"}
    assert rows["input size"]["value"] == "64x96" and rows["class names"]["origin"] == "option"


def test_folder_that_says_otherwise_since_it_was_published_is_no_longer_the_models(
    described: FolderModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    verify = ["verify", "net", "--module", str(tmp_path), "--repo", str(tmp_path / "repo")]
    options = ["--class-names", "a,b", "--name", "net", "--size", "64", "--repo", str(tmp_path / "repo")]
    run_export("module", str(tmp_path), *options)
    run_export(*verify)
    for change, message in (
        (
            {"mean": (0.4, 0.2, 0.3)},
            r"has the mean \(0.4, 0.2, 0.3\) and model 'net' was published with \(0.1",
        ),
        ({"channel_order": "bgr"}, "has the channel order bgr and model 'net' was published with rgb"),
        ({"class_names": ("b", "a")}, r"has the class names \('b', 'a'\) and model 'net' was published with"),
    ):
        model = replace(described, claims=replace(described.claims, **change))
        monkeypatch.setattr(folders, "READERS", {"a network": _Reader(model)})
        with pytest.raises(CheckpointError, match=f"{message}.*: export it again"):
            run_export(*verify)


def test_folder_of_a_network_with_a_head_for_labels_is_verified(tmp_path: Path) -> None:
    few, aux = {"decoder_channels": (16, 8, 8, 8, 4)}, {"classes": 3}
    network = smp.Unet("resnet18", encoder_weights=None, classes=2, aux_params=aux, **few)
    network.save_pretrained(tmp_path / "roads")
    repo = ["--repo", str(tmp_path / "repo")]
    with pytest.raises(BadInputError, match="the folder says its output, 0: leave --output out"):
        run_export("module", str(tmp_path / "roads"), *CLAIMS, *repo, "--output", "1")
    run_export("module", str(tmp_path / "roads"), *CLAIMS, *repo)
    run_export("verify", "roads", "--module", str(tmp_path / "roads"), *repo)


def test_size_may_be_another_than_the_folder_says(described: FolderModel, tmp_path: Path) -> None:
    checkpoint = folder_checkpoint(tmp_path, size_hw=(32, 32))
    assert checkpoint.preprocessing.input_size_hw == (32, 32)
    assert checkpoint.preprocessing.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("option", ["--args", "--checkpoint"])
@pytest.mark.parametrize("command", [("module",), ("verify", "roads", "--module")])
def test_options_of_a_factory_are_refused(saved: Path, command: tuple[str, ...], option: str) -> None:
    with pytest.raises(BadInputError, match=f"{option} has no effect on a folder"):
        run_export(*command, str(saved), option, "{}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "0"], "--output 0: the module returns one tensor; leave it out"),
        (["--name", ""], "'' cannot be a model's name"),
    ],
)
def test_option_that_no_folder_can_have_is_refused(
    saved: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        run_export("module", str(saved), *CLAIMS, *options, "--repo", str(tmp_path / "repo"))


LAYOUTS = {
    "segmentation_models_pytorch": {"config.json": '{"_model_class": "Unet"}'},
    "transformers": {"config.json": '{"model_type": "segformer"}', "model.safetensors": ""},
    "nnU-Net": {"plans.json": "{}", "dataset.json": "{}"},
    "MONAI": {"configs/metadata.json": "{}", "models/model.pt": ""},
}


@pytest.mark.parametrize("library", LAYOUTS)
def test_folder_a_level_off_is_refused_with_the_one_that_was_meant(tmp_path: Path, library: str) -> None:
    meant = tmp_path / "above" / "snapshots" / "roads"
    for name, text in LAYOUTS[library].items():
        (meant / name).parent.mkdir(parents=True, exist_ok=True)
        (meant / name).write_text(text)
    below = [path for path in meant.rglob("*") if library != "nnU-Net" or path.is_file()]
    for named in (meant.parent, meant.parent.parent, *below):
        with pytest.raises(CheckpointError, match=f"found .*{library}.* in '{meant}': name that one"):
            run_export("module", str(named))
    with pytest.raises(CheckpointError, match="is none that is known"):
        run_export("module", str(tmp_path))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "holds a list, expected a JSON object"),
        ("{", "cannot be read as JSON"),
        ('{"_model_class": "Net"}', "is a Net, which segmentation_models_pytorch .* does not have"),
        ('{"_model_class": "encoders"}', "is a encoders, which"),
        (
            '{"_model_class": "Unet", "encoder_name": "resnet19"}',
            "is a Unet that cannot be built: .*resnet19",
        ),
        ('{"_model_class": "Unet", "decoder_channels": [4]}', "is a Unet that cannot be built: Model depth"),
        ('{"_model_class": "Unet", "classes": "two"}', "is a Unet that cannot be built"),
        ('{"_model_class": "Unet", "classes": 3}', "does not fit a Unet: "),
        (
            '{"_model_class": "Unet", "decoder_channels": [60000, 8, 8, 8, 4]}',
            "describes a network of more than 100,000,000 weights and holds .* MB of them: give it the conf",
        ),
        ('{"_model_class": "Unet", "classes": 5000000000}', "has 5000000000 for classes, expected 1000000"),
        ('{"_model_class": "Unet", "classes": -1}', "is a Unet that cannot be built: .*negative dimension"),
        ('{"_model_class": "Unet", "encoder_name": "tu-nope18"}', "cannot be built: Unknown model"),
        ('{"_model_class": "Unet", "encoder_name": ["resnet18"]}', r"has the encoder_name \['resnet18'\]"),
        ('{"_model_class": "Unet", "encoder_name": "tu-hf-hub:a/b"}', "name of an encoder and no address"),
        ('{"_model_class": "Unet", "encoder_name": "tu-local-dir:/a"}', "name of an encoder and no address"),
        ("[" * 100_000, "cannot be read as JSON: it is nested too deeply"),
        ("{}", r"is none that is known \("),
    ],
)
def test_folder_that_cannot_be_read_is_one_line(
    saved: Path, tmp_path: Path, config: str, message: str
) -> None:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").symlink_to(saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=message) as caught:
        run_export("module", str(tmp_path), "--assume-defaults")
    assert_short(caught.value, tmp_path, LONGEST_OF_FOLDER)


class Runs:
    """Pickles to a call that leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_no_file_that_a_configuration_names_is_unpickled(saved: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": Runs(tmp_path / "ran")}, tmp_path / "other.pth")
    config = json.loads((saved / "config.json").read_text())
    config |= {"encoder_name": "tu-resnet18", "checkpoint_path": str(tmp_path / "other.pth")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"has 'checkpoint_path' for timm, which is not passed on"):
        run_export("module", str(tmp_path), *CLAIMS)
    assert not (tmp_path / "ran").exists()


def test_size_that_no_memory_holds_is_refused_before_the_network_runs(
    described: FolderModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        folders, "READERS", {"a network": _Reader(replace(described, size_hw=(10**9, 10**9)))}
    )
    with pytest.raises(BadInputError, match="input size 1000000000x1000000000: each side must be 8 to 4096"):
        run_export("module", str(tmp_path), "--class-names", "a,b", "--repo", str(tmp_path / "repo"))


def test_error_of_a_reader_is_one_of_the_folder(
    described: FolderModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def read(path: Path) -> FolderModel:
        raise RuntimeError("an error\nof two lines")

    reader = _Reader(described)
    monkeypatch.setattr(reader, "read", read)
    monkeypatch.setattr(folders, "READERS", {"a network": reader})
    with pytest.raises(
        CheckpointError, match=r"is a network that cannot be read: RuntimeError: an error of two"
    ):
        run_export("module", str(tmp_path))


def test_folder_without_its_weights_or_library_says_so(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").symlink_to(saved / "config.json")
    with pytest.raises(CheckpointError, match=r"no checkpoint file .*model\.safetensors"):
        run_export("module", str(tmp_path), "--assume-defaults")

    def not_installed(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(folder.importlib, "import_module", not_installed)
    with pytest.raises(MissingExtraError, match="pip install segmentation-models-pytorch"):
        run_export("module", str(saved), "--assume-defaults")
