"""Checkpoints: what is written comes back, and what cannot be used is refused in one line."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from seg_export.checkpoints import files as checkpoint_file
from seg_export.checkpoints.checkpoint import (
    Checkpoint,
    Preprocessing,
    build_model,
    load_checkpoint,
    save_checkpoint,
)
from seg_export.checkpoints.files import read_plain
from seg_export.families.semantic.unet import UNet
from seg_runtime.errors import CheckpointError, MissingExtraError
from seg_runtime.spec import ClaheSpec

ARGUMENTS: dict[str, Any] = {"in_channels": 1, "num_classes": 1, "bilinear": True, "features": [4, 8]}
PREPROCESSING = Preprocessing((0.4,), (0.3,), ClaheSpec(2.0, (8, 8)), (64, 48))


class Malicious:
    """Unpickling it runs a command."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.victim}",)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return UNet(**ARGUMENTS).state_dict()


def save(path: Path, weights: dict[str, torch.Tensor], **changed: Any) -> Path:
    fields: dict[str, Any] = {
        "family": "unet",
        "arguments": ARGUMENTS,
        "state_dict": weights,
        "preprocessing": PREPROCESSING,
        "class_names": ("lung",),
        "metadata": {"val_dice": 0.97, "split": ("a", "b"), "seed": 3},
    }
    save_checkpoint(path, **{**fields, **changed})
    return path


def assert_one_line(error: pytest.ExceptionInfo[Exception]) -> None:
    assert "\n" not in str(error.value)


def test_checkpoint_comes_back_with_everything_in_it(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    path = save(tmp_path / "new" / "unet.pth", weights)
    loaded = load_checkpoint(path)
    assert loaded.family == "unet"
    assert loaded.arguments == ARGUMENTS
    assert loaded.preprocessing == PREPROCESSING
    assert loaded.class_names == ("lung",)
    assert loaded.metadata == {"val_dice": 0.97, "split": ["a", "b"], "seed": 3}
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in weights.items():
        assert torch.equal(loaded.state_dict[name], tensor)
    assert [file.name for file in path.parent.iterdir()] == ["unet.pth"]


def test_model_is_built_in_eval_mode_with_the_saved_weights(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    model = build_model(load_checkpoint(save(tmp_path / "unet.pth", weights)))
    reference = UNet(**ARGUMENTS)
    reference.load_state_dict(weights)
    image = torch.randn(1, 1, 16, 16)
    assert not model.training
    assert torch.equal(model(image), reference.eval()(image))


def test_half_storage_halves_the_file_and_loads_as_float32(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    big = {"features": [32, 64, 64]}
    state = UNet(**{**ARGUMENTS, **big}).state_dict()
    full = save(tmp_path / "full.pth", state, arguments={**ARGUMENTS, **big})
    half = save(tmp_path / "half.pth", state, arguments={**ARGUMENTS, **big}, half=True)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    for name, tensor in load_checkpoint(half).state_dict.items():
        assert tensor.dtype in (torch.float32, torch.int64)
        torch.testing.assert_close(tensor, state[name], rtol=1e-3, atol=1e-4)


def test_plain_state_dict_loads_with_the_articles_preprocessing(tmp_path: Path) -> None:
    arguments = {"in_channels": 3, "num_classes": 2, "bilinear": False, "features": [4, 8, 16]}
    path = tmp_path / "best_unet.pth"
    torch.save(UNet(**arguments).state_dict(), path)
    loaded = load_checkpoint(path)
    assert loaded.arguments == arguments
    assert loaded.preprocessing == Preprocessing((0.485,) * 3, (0.229,) * 3, None, (512, 512))
    assert loaded.class_names == ("class_0", "class_1")
    assert isinstance(build_model(loaded), UNet)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint file .*nothing\.pth") as error:
        load_checkpoint(tmp_path / "nothing.pth")
    assert_one_line(error)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(CheckpointError, match="is empty"):
        load_checkpoint(tmp_path / "empty.pth")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_file_is_refused(
    tmp_path: Path, weights: dict[str, torch.Tensor], share: float, zipped: bool
) -> None:
    path = tmp_path / "unet.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="truncated or damaged") as error:
        load_checkpoint(path)
    assert_one_line(error)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"weights: none\n" * 20, b"\x00" * 64])
def test_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize("protocol", [2, 4, None])
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, protocol: int | None) -> None:
    victim, path = tmp_path / "victim", tmp_path / "evil.pth"
    if protocol is None:
        torch.save({"state_dict": Malicious(victim)}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Malicious(victim)}, protocol=protocol))
    with pytest.raises(CheckpointError, match="could run code, and is refused") as error:
        load_checkpoint(path)
    assert not victim.exists()
    assert_one_line(error)


def test_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"save its state_dict\(\) alone"):
        load_checkpoint(tmp_path / "module.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(
    tmp_path: Path, weights: dict[str, torch.Tensor], value: float
) -> None:
    weights["down1.maxpool_conv.1.double_conv.0.weight"][0, 0, 0, 0] = value
    with pytest.raises(CheckpointError, match=r"'down1\.maxpool_conv\.1\.double_conv\.0\.weight' has NaN"):
        load_checkpoint(save(tmp_path / "unet.pth", weights))


def test_first_three_keys_that_do_not_fit_are_named(weights: dict[str, torch.Tensor]) -> None:
    renamed = {f"module.{name}": tensor for name, tensor in weights.items()}
    with pytest.raises(CheckpointError) as error:
        build_model(Checkpoint("unet", ARGUMENTS, renamed))
    message = str(error.value)
    assert "inc.double_conv.0.weight is missing, inc.double_conv.1.weight is missing" in message
    assert message.count("is missing") == 3
    assert f"and {2 * len(weights) - 3} more" in message


def test_weights_of_another_width_are_named_with_both_shapes(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(
        CheckpointError, match=r"inc\.double_conv\.0\.weight is \[4, 1, 3, 3\], not \[8, 1, 3, 3\]"
    ):
        build_model(Checkpoint("unet", {**ARGUMENTS, "features": [8, 16]}, weights))


def test_plain_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(CheckpointError, match=r"no known network \(weight and 1 more\): seg-export module"):
        load_checkpoint(tmp_path / "linear.pth")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([1, 2], "holds a list"),
        ({}, "holds no weights"),
        ({"epoch": 3}, "'epoch' is no tensor"),
        ({"format": "edgeseg/9"}, "expected 'edgeseg/1'"),
        ({"format": "edgeseg/1", "family": "vnet"}, "unknown model family 'vnet'"),
        ({"format": "edgeseg/1", "family": "unet"}, "lacks the field"),
    ],
)
def test_document_of_another_shape_is_refused(tmp_path: Path, document: Any, message: str) -> None:
    torch.save(document, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(tmp_path / "odd.pth")
    assert_one_line(error)


@pytest.mark.parametrize("arguments", [{"colour": 1}, {"features": [3]}, {"in_channels": 0}])
def test_arguments_that_build_no_unet_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="cannot build a unet"):
        build_model(Checkpoint("unet", arguments, {}))


def test_unknown_family_is_refused_when_building() -> None:
    with pytest.raises(CheckpointError, match="unknown model family 'vnet': this version knows maskrcnn"):
        build_model(Checkpoint("vnet", {}, {}))


def test_failed_write_keeps_the_old_checkpoint(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "unet.pth", weights)
    before = path.read_bytes()

    def full_disk(document: Any, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_file.torch, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save(path, weights)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["unet.pth"]


@pytest.mark.parametrize("begin", [b"\x80", b"PK", b"P", b"\x00"])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_safetensors_are_known_by_their_header_whatever_its_length(
    begin: bytes, suffix: str, tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / f"weights.{suffix}"
    # The header is padded to a multiple of 8; its length is the first bytes of the file.
    for length in range(8 * 3000):
        save_file(weights, path, metadata={"notes": "x" * 8 * length})
        if path.read_bytes()[: len(begin)] == begin:
            break
    found = read_plain(path)
    assert found.keys() == weights.keys() and all(torch.equal(found[key], weights[key]) for key in weights)


def test_tensors_of_whole_numbers_are_no_weights(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save({name: tensor.to(torch.int8) for name, tensor in weights.items()}, tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match="holds tensors of int8 and no weights: save those of the float"
    ):
        load_checkpoint(tmp_path / "a.pth")


def test_safetensors_without_the_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_installed(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(checkpoint_file.importlib, "import_module", not_installed)
    (tmp_path / "unet.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(MissingExtraError, match="safetensors is not installed"):
        load_checkpoint(tmp_path / "unet.safetensors")
