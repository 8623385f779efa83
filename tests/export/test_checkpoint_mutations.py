"""Every field of a checkpoint with values of other types and ranges: one clear error, or a model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seg_export.checkpoints.checkpoint import build_model, load_checkpoint
from seg_export.families import traceable_model
from seg_export.families.semantic.unet import UNet
from seg_runtime.contract import check_contract
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.preprocess import to_batch

pytestmark = pytest.mark.full

ARGUMENTS: dict[str, Any] = {"in_channels": 1, "num_classes": 1, "bilinear": True, "features": [4, 8]}
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 3, 10**6, 2**63, 0.5, -0.5, 1e300, float("nan"), float("inf"), "", "unet", "²",
    b"bytes", [], [0], [-1, -1], [0, 0], [100_000, 100_000], [10_000, 10_000], [1e9, 2], ["a"], [None], [[1]],
    {}, {"a": 1}, {1: 2}, torch.zeros(2), torch.tensor(3),
)  # fmt: skip


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    torch.manual_seed(0)
    return {
        "format": "edgeseg/1",
        "family": "unet",
        "arguments": ARGUMENTS,
        "state_dict": UNet(**ARGUMENTS).state_dict(),
        "preprocessing": {
            "mean": [0.5],
            "std": [0.5],
            "clahe": {"clip_limit": 2.0, "tile_grid_hw": [8, 8]},
            "input_size_hw": [16, 16],
            "scale": 255.0,
            "channel_order": "rgb",
            "threshold": 0.5,
            "resize": None,
        },
        "class_names": ["lung"],
        "metadata": {"val_dice": 0.9},
    }


PLACES = (
    ("family",), ("arguments",), ("preprocessing",), ("class_names",), ("metadata",), ("state_dict",),
    ("preprocessing", "clahe", "clip_limit"), ("preprocessing", "clahe", "tile_grid_hw"),
    *(("preprocessing", name) for name in (
        "mean", "std", "clahe", "input_size_hw", "scale", "channel_order", "threshold", "resize",
    )),
    *(("arguments", name) for name in (*ARGUMENTS, "unknown")),
    ("state_dict", "inc.double_conv.0.weight"),
)  # fmt: skip


def works(document: dict[str, Any], path: Path) -> bool:
    """Whether an image goes through a checkpoint's model; False for one clear line."""
    torch.save(document, path)
    try:
        checkpoint = load_checkpoint(path)
        size_hw = checkpoint.preprocessing.input_size_hw
        if max(size_hw) > 64:
            return True
        spec = traceable_model(checkpoint, "lungs", size_hw, 1).spec
        try:
            check_contract(spec)
        except ValueError:  # as publishing does
            return False
        channels = spec.channels
        shape = (20, 20) if channels == 1 else (20, 20, channels)
        batch = to_batch([np.zeros(shape, np.uint8)], size_hw, channels, checkpoint.preprocessing.clahe)
        with torch.no_grad():
            build_model(checkpoint)(torch.from_numpy(batch).permute(0, 3, 1, 2).float())
    except BadInputError as error:
        assert str(error).strip() and "\n" not in str(error)
        return False
    return True


def test_the_checkpoint_itself_works(document: dict[str, Any], tmp_path: Path) -> None:
    assert works(document, tmp_path / "unet.pth")


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_every_field_is_refused_or_works(
    place: tuple[str, ...], document: dict[str, Any], tmp_path: Path
) -> None:
    for value in VALUES:
        changed = copy.deepcopy(document)
        fields = changed
        for name in place[:-1]:
            fields = fields[name]
        fields[place[-1]] = value
        works(changed, tmp_path / "unet.pth")


@pytest.mark.parametrize("name", ["family", "arguments", "state_dict", "preprocessing", "class_names"])
def test_a_field_that_is_missing_is_said(name: str, document: dict[str, Any], tmp_path: Path) -> None:
    changed = {key: value for key, value in document.items() if key != name}
    torch.save(changed, tmp_path / "unet.pth")
    with pytest.raises(CheckpointError, match=name.replace("_", ".")):
        load_checkpoint(tmp_path / "unet.pth")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clahe", {"clip_limit": 2.0, "tile_grid_hw": [0, 0]}, "clahe grid 0, expected 1 to 256"),
        ("clahe", {"clip_limit": -1, "tile_grid_hw": [8, 8]}, "clahe limit -1"),
        ("input_size_hw", [-1, 16], "height of the input -1, expected 1 to 16384"),
        ("input_size_hw", [16, 100_000], "width of the input 100000, expected 1 to 16384"),
        ("std", [0.0], "std .*above 0"),
        ("threshold", 2.0, "expected a probability"),
    ],
)
def test_values_out_of_range_are_refused_by_name(
    field: str, value: Any, message: str, document: dict[str, Any], tmp_path: Path
) -> None:
    changed = copy.deepcopy(document)
    changed["preprocessing"][field] = value
    torch.save(changed, tmp_path / "unet.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "unet.pth")
