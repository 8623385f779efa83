"""The contract as Triton's `ModelConfig`, parsed back by protobuf itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from seg_runtime.errors import RepositoryError
from seg_runtime.model_config import from_config, from_text, to_config, to_text
from seg_runtime.spec import ClaheSpec, EnsembleStep, ModelSpec, Parity, ServingSpec, TensorSpec

SPEC = ModelSpec(
    name="unet_lung",
    version=3,
    task="semantic",
    family="unet",
    inputs=(TensorSpec("image", "uint8", (512, 384, 3)),),
    outputs=(TensorSpec("probabilities", "float32", (2, 512, 384)),),
    max_batch_size=8,
    input_size_hw=(512, 384),
    channels=3,
    class_names=("lung", "heart, größer"),
    threshold=0.4,
    clahe=ClaheSpec(2.5, (4, 8)),
    precision="fp16",
    checkpoint_sha256="0f" * 32,
    weights="random",
    parameter_count=31_000_000,
    parity=Parity(1e-6, 1e-4, 0.9999),
    toolkit_version="0.1.0",
)
PLAIN = ModelSpec("m", 1, "semantic", "unet", SPEC.inputs, SPEC.outputs)
ENSEMBLE = replace(
    SPEC,
    max_batch_size=0,
    backend="ensemble",
    steps=(
        EnsembleStep("encoder", 4, {"image": "photo", "valid_hw": "size"}, {"embedding": "between"}),
        EnsembleStep("decoder", 7, {"embedding": "between"}, {"masks": "masks", "scores": "scores"}),
    ),
)


def parse(text: str) -> Any:
    return text_format.Parse(text, pb.ModelConfig())


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        PLAIN,
        replace(SPEC, max_batch_size=0),
        replace(SPEC, max_batch_size=1, backend="tensorrt"),
        replace(
            PLAIN, inputs=(TensorSpec("points", "float32", (-1, 2)), TensorSpec("labels", "int32", (-1,)))
        ),
        replace(
            PLAIN,
            inputs=(TensorSpec("points", "float32", (-1, -1, 2), ("prompts", "points")),),
            outputs=(TensorSpec("masks", "float16", (4, -1), ("prompts",)),),
        ),
        replace(PLAIN, parity=Parity(0.0, 0.0, 1.0)),
        ENSEMBLE,
    ],
)
def test_contract_survives_the_text_and_the_message(spec: ModelSpec) -> None:
    assert from_text(to_text(spec)) == spec
    assert from_config(parse(to_text(spec))) == spec
    over_the_wire = pb.ModelConfig.FromString(to_config(spec).SerializeToString())
    assert from_config(over_the_wire) == spec


def test_triton_reads_its_own_fields() -> None:
    config = parse(to_text(SPEC, ServingSpec((2, 4, 16), 250, 3, "gpu", True, True)))
    assert (config.name, config.backend, config.max_batch_size) == ("unet_lung", "onnxruntime", 8)
    assert list(config.version_policy.specific.versions) == [3]
    assert (config.input[0].name, config.input[0].data_type) == ("image", pb.TYPE_UINT8)
    assert list(config.input[0].dims) == [512, 384, 3]
    assert (config.output[0].data_type, list(config.output[0].dims)) == (pb.TYPE_FP32, [2, 512, 384])
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4], "16 is more than the model takes"
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, pb.ModelInstanceGroup.KIND_GPU)
    assert config.response_cache.enable
    (warm_up,) = config.model_warmup
    assert warm_up.batch_size == 1
    assert warm_up.inputs["image"].zero_data
    assert list(warm_up.inputs["image"].dims) == [512, 384, 3]


def test_switches_that_are_off_leave_no_trace() -> None:
    config = parse(to_text(SPEC, ServingSpec((), warm_up=False)))
    assert not config.HasField("dynamic_batching") and not config.HasField("response_cache")
    assert len(config.model_warmup) == 0


def test_model_without_a_batch_axis_keeps_max_batch_size_0() -> None:
    """Text format leaves a zero out, which must not come back as something else."""
    text = to_text(replace(SPEC, max_batch_size=0))
    assert "max_batch_size" not in text
    config = parse(text)
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert config.model_warmup[0].batch_size == 0
    assert from_text(text).max_batch_size == 0


def test_ensemble_names_its_steps_and_has_nothing_that_triton_refuses_in_one() -> None:
    text = to_text(ENSEMBLE, ServingSpec(response_cache=True))
    config = parse(text)
    assert (config.platform, config.backend, config.max_batch_size) == ("ensemble", "", 0)
    assert "max_batch_size" not in text
    assert list(config.version_policy.specific.versions) == [3]
    encoder, decoder = config.ensemble_scheduling.step
    assert (encoder.model_name, encoder.model_version) == ("encoder", 4)
    assert dict(encoder.input_map) == {"image": "photo", "valid_hw": "size"}
    assert dict(encoder.output_map) == {"embedding": "between"}
    assert (decoder.model_name, decoder.model_version) == ("decoder", 7)
    assert not config.instance_group and not config.model_warmup
    assert not config.HasField("dynamic_batching") and not config.HasField("response_cache")
    assert config.parameters["checkpoint_sha256"].string_value == SPEC.checkpoint_sha256


def test_dynamic_axes_get_a_length_in_the_warm_up() -> None:
    spec = replace(PLAIN, inputs=(TensorSpec("points", "float32", (-1, 2)),))
    config = parse(to_text(spec))
    assert list(config.input[0].dims) == [-1, 2]
    assert list(config.model_warmup[0].inputs["points"].dims) == [1, 2]


@pytest.mark.parametrize("key", ["task", "input_size", "channels", "threshold", "resize"])
def test_configuration_without_a_needed_parameter_is_refused(key: str) -> None:
    config = to_config(SPEC)
    del config.parameters[key]
    with pytest.raises(
        RepositoryError, match=r"'unet_lung' has no usable edgeseg contract .*publish it again"
    ):
        from_config(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weights", "stolen"),
        ("resize", "crop"),
        ("input_size", "512"),
        ("parity", "{}"),
        ("channels", "one"),
        ("dynamic_axes", '{"image": ["height"]}'),
        ("dynamic_axes", "{"),
    ],
)
def test_configuration_with_a_wrong_parameter_is_refused(key: str, value: str) -> None:
    config = to_config(SPEC)
    config.parameters[key].string_value = value
    with pytest.raises(RepositoryError, match="no usable edgeseg contract"):
        from_config(config)


def test_configurations_that_are_no_text_format_or_of_unknown_types_are_refused() -> None:
    with pytest.raises(RepositoryError, match="cannot be parsed"):
        from_text("name: unquoted {")
    config = to_config(SPEC)
    config.input[0].data_type = pb.TYPE_STRING
    with pytest.raises(RepositoryError, match="tensor 'image' has an unsupported data type"):
        from_config(config)


def test_what_an_ensemble_makes_beside_its_answer_is_given_out_and_not_asked_for() -> None:
    """Triton refuses an ensemble with a tensor that is neither used nor given out."""
    aside = TensorSpec("levels", "float32", (-1, 4), ("rows",))
    spec = replace(ENSEMBLE, by_products=(aside,))
    config = to_config(spec)
    assert [tensor.name for tensor in config.output] == [*(tensor.name for tensor in spec.outputs), "levels"]
    read = from_config(config)
    assert read == spec
    assert read.output("levels") is None
