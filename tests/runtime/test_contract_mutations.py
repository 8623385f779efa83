"""Every field of a contract with values of other types and ranges: one clear error, or a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness import BrightnessSession, brightness_spec

from seg_runtime.errors import EdgesegError
from seg_runtime.model_config import from_config, to_config, to_text
from seg_runtime.repository import Repository
from seg_runtime.semantic import SemanticSegmenter
from seg_runtime.spec import ClaheSpec, Parity

VALUES = (
    "", " ", "-1", "0", "²", "٣", "1.5", "1e999", "nan", "NaN", "true", "null", "text", "9" * 5000,
    "[" * 100_000, "{}", "[]", "[null]", "[0]", "[NaN]", '["a"]', "[true]", "[1e400]", "[[1]]", '{"a": 1}',
    "0x0",
    "-1x8", "8x100000",
    '{"clip_limit": 2, "tile_grid_hw": [0, 0]}', '{"clip_limit": 2, "tile_grid_hw": []}',
    '{"clip_limit": -1, "tile_grid_hw": [8, 8]}', '{"clip_limit": NaN, "tile_grid_hw": [8, 8]}',
    '{"clip_limit": "2", "tile_grid_hw": "88"}', '{"clip_limit": 2, "tile_grid_hw": [true, 8.0]}',
    '{"clip_limit": 1e300, "tile_grid_hw": [8, 8]}', '{"clip_limit": 2, "tile_grid_hw": [100000, 8]}',
    '{"max_abs": "x", "max_rel": 0, "mask_iou": 1}', '{"max_abs": 0, "max_rel": 0, "mask_iou": 7}',
)  # fmt: skip


SPEC = replace(
    brightness_spec(),
    mean=(0.5,),
    std=(0.5,),
    assumed={"mean": "0.5"},
    clahe=ClaheSpec(),
    parity=Parity(1e-5, 1e-4, 1.0),
)
KEYS = (*sorted(to_config(SPEC).parameters), "dynamic_axes", "by_products")


def works(config: Any) -> bool:
    """Whether a contract is read and an image is segmented by it; False for a clear refusal."""
    try:
        read = from_config(config)
        assert from_config(to_config(read)) == read
        segmenter = SemanticSegmenter(BrightnessSession(read), read.name)
        channels = () if read.channels == 1 else (read.channels,)
        segmenter.segment(np.zeros((40, 40, *channels), np.uint8))
    except EdgesegError as error:
        assert str(error).strip()
        return False
    return True


def test_the_contract_itself_works() -> None:
    assert works(to_config(SPEC))


@pytest.mark.parametrize("key", KEYS)
def test_every_parameter_is_refused_or_works(key: str) -> None:
    outcomes = []
    for value in VALUES:
        config = to_config(SPEC)
        config.parameters[key].string_value = value
        outcomes.append(works(config))
    if key in ("input_size", "mean", "std", "scale", "threshold", "clahe", "channels", "parity"):
        assert not outcomes[VALUES.index("nan")] and not outcomes[VALUES.index("-1")]
        assert not any(outcomes[VALUES.index('{"clip_limit": 2, "tile_grid_hw": [0, 0]}') :])


def test_every_number_outside_of_the_parameters_is_refused_or_works() -> None:
    for number in (-(2**31), -2, -1, 0, 2**31 - 1):
        for change in (
            lambda config, number=number: setattr(config, "max_batch_size", number),
            lambda config, number=number: config.input[0].dims.__setitem__(0, number),
            lambda config, number=number: config.output[0].dims.__setitem__(1, number),
            lambda config, number=number: config.version_policy.specific.versions.__setitem__(0, number),
            lambda config, number=number: config.input.pop(),
            lambda config, number=number: config.output.pop(),
        ):
            config = to_config(SPEC)
            change(config)
            works(config)


@pytest.mark.parametrize("name", ["²", "٣", "01", "0", "-1", "1.5", "9" * 200])
def test_a_folder_that_is_no_version_is_none(name: str, tmp_path: Path) -> None:
    (tmp_path / "brightness" / "3").mkdir(parents=True)
    (tmp_path / "brightness" / name).mkdir()
    (tmp_path / "brightness" / "config.pbtxt").write_text(to_text(SPEC), encoding="utf-8")
    assert Repository(tmp_path).versions("brightness") == (3,)
