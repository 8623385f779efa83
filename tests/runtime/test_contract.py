"""What a contract may hold, in every field, and which versions of it are read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from seg_runtime.contract import check_contract
from seg_runtime.errors import RepositoryError
from seg_runtime.model_config import from_text, to_text
from seg_runtime.spec import CONTRACT_VERSION, ClaheSpec, ModelSpec, TensorSpec

SPEC = ModelSpec(
    name="cells",
    version=1,
    task="semantic",
    family="unet",
    inputs=(TensorSpec("image", "uint8", (64, 64, 3)),),
    outputs=(TensorSpec("probabilities", "float32", (1, 64, 64)),),
    max_batch_size=8,
    input_size_hw=(64, 64),
    channels=3,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.3, 0.1),
    scale=1.0,
    channel_order="bgr",
    clahe=ClaheSpec(),
)
SINCE_2 = ("contract", "mean", "std", "scale", "channel_order")


def with_parameters(text: str, **values: str | None) -> str:
    """A `config.pbtxt` with other parameters, without those that are None."""
    config = text_format.Parse(text, pb.ModelConfig())
    for key, value in values.items():
        if value is None:
            del config.parameters[key]
        else:
            config.parameters[key].string_value = value
    return text_format.MessageToString(config)


def test_what_the_graph_does_to_pixels_survives_the_contract() -> None:
    read = from_text(to_text(SPEC))
    assert read == SPEC
    assert read.contract_version == CONTRACT_VERSION


def test_a_contract_of_the_first_version_is_read_and_says_so() -> None:
    old = from_text(with_parameters(to_text(SPEC), **dict.fromkeys(SINCE_2)))
    assert (old.contract_version, old.mean, old.std) == (1, (), ())
    unknown: dict[str, Any] = {"mean": (), "std": (), "scale": 255.0, "channel_order": "rgb"}
    assert old == replace(SPEC, contract_version=1, **unknown)
    assert from_text(to_text(old)) == old


@pytest.mark.parametrize("missing", ["scale", "channel_order"])
def test_no_default_is_taken_for_what_a_contract_of_version_2_lacks(missing: str) -> None:
    lacking = with_parameters(to_text(SPEC), **{missing: None})
    with pytest.raises(RepositoryError, match=f"no {missing}, which a contract of version 2 has next to"):
        from_text(lacking)
    # A gray model has no order, and a graph that takes pixels as they are no statistics.
    gray = from_text(to_text(replace(SPEC, channels=1, mean=(), std=(), channel_order="rgb", scale=255.0)))
    assert gray.contract_version == 2 and gray.mean == ()


def test_a_contract_of_a_later_version_is_refused_with_what_to_do() -> None:
    later = with_parameters(to_text(replace(SPEC, toolkit_version="9.1")), contract="9")
    expected = "'cells' has a contract of version 9, of edgeseg 9.1; this one reads up to 2: upgrade edgeseg"
    with pytest.raises(RepositoryError, match=re.escape(expected)):
        from_text(later)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("channels", 0, "channels 0, expected 1 to 16"),
        ("channels", 17, "channels 17, expected 1 to 16"),
        ("version", 0, "version 0, expected at least 1"),
        ("contract_version", 0, "contract 0, expected at least 1"),
        ("max_batch_size", -1, "max_batch_size -1, expected 0 to 4096"),
        ("input_size_hw", (0, 64), "height of the input 0, expected 1 to 16384"),
        ("input_size_hw", (64, 20000), "width of the input 20000, expected 1 to 16384"),
        ("parameter_count", -1, "parameter_count -1, expected at least 0"),
        ("mean", (0.5,), "mean has 1 values, expected 3, one per channel"),
        ("mean", (0.5, float("nan"), 0.1), "expected finite numbers"),
        ("mean", (), "std without mean"),
        ("std", (0.5, 0.0, 0.1), "expected numbers above 0"),
        ("scale", 0.0, "expected numbers above 0"),
        ("scale", float("inf"), "expected numbers above 0"),
        ("threshold", float("nan"), "threshold nan, expected a finite number"),
        ("clahe", ClaheSpec(0.0), "expected a limit above 0"),
        ("clahe", ClaheSpec(2.0, (0, 8)), "1 to 256 tiles each way"),
    ],
)
def test_values_out_of_range_are_refused_by_name(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_contract(replace(SPEC, **{field: value}))


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("task", "dreaming", "task 'dreaming', expected semantic or instances or sam"),
        ("precision", "fp7", "precision 'fp7', expected fp32 or fp16 or int8"),
        ("resize", "crop", "resize 'crop', expected stretch or longest-side"),
        ("channel_order", "gbr", "channel_order 'gbr', expected rgb or bgr"),
        ("weights", "borrowed", "weights 'borrowed', expected trained or random"),
        ("channels", "99", "channels 99, expected 1 to 16"),
        ("mean", "[0.1]", "mean has 1 values, expected 3"),
        ("scale", "lots", "could not convert string to float"),
        ("contract", "two", "invalid literal for int"),
    ],
)
def test_a_config_that_somebody_changed_is_one_error(parameter: str, value: str, message: str) -> None:
    with pytest.raises(RepositoryError, match=re.escape(message)):
        from_text(with_parameters(to_text(SPEC), **{parameter: value}))
