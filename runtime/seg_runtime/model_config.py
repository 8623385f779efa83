"""`ModelSpec` and `ServingSpec` as Triton's `ModelConfig` protobuf message, and back.

The message and its text format are tritonclient's and protobuf's own; nothing is templated. What
Triton does not know itself rides in `parameters`, one key per field of the spec.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from seg_runtime.contract import check_contract, check_stated, one_of
from seg_runtime.errors import RepositoryError
from seg_runtime.spec import (
    CONTRACT_VERSION,
    ChannelOrder,
    ClaheSpec,
    EnsembleStep,
    ModelSpec,
    Parity,
    Precision,
    Resize,
    ServingSpec,
    Task,
    TensorSpec,
    Weights,
)

__all__ = ["from_config", "from_text", "republished", "to_config", "to_text"]

_TYPES = {
    "bool": pb.TYPE_BOOL,
    "uint8": pb.TYPE_UINT8,
    "int32": pb.TYPE_INT32,
    "int64": pb.TYPE_INT64,
    "float16": pb.TYPE_FP16,
    "float32": pb.TYPE_FP32,
}
_DTYPES = {value: name for name, value in _TYPES.items()}
_KINDS = {
    "auto": pb.ModelInstanceGroup.KIND_AUTO,
    "cpu": pb.ModelInstanceGroup.KIND_CPU,
    "gpu": pb.ModelInstanceGroup.KIND_GPU,
}


def to_config(spec: ModelSpec, serving: ServingSpec | None = None) -> Any:
    """The `ModelConfig` message of a model; it serves exactly `spec.version`."""
    config = pb.ModelConfig(name=spec.name, max_batch_size=spec.max_batch_size)
    for tensors, messages in (
        (spec.inputs, config.input),
        ((*spec.outputs, *spec.by_products), config.output),
    ):
        for tensor in tensors:
            messages.add(name=tensor.name, data_type=_TYPES[tensor.dtype], dims=tensor.shape)
    config.version_policy.specific.versions.append(spec.version)
    if spec.steps:
        _add_steps(config, spec)
    else:
        config.backend = spec.backend
        _add_serving(config, spec, serving or ServingSpec())
    for key, value in _parameters(spec).items():
        config.parameters[key].string_value = value
    return config


def to_text(spec: ModelSpec, serving: ServingSpec | None = None) -> str:
    """The contents of `config.pbtxt`."""
    return str(text_format.MessageToString(to_config(spec, serving)))


def republished(text: str, spec: ModelSpec) -> str:
    """An earlier `config.pbtxt` with the backend, version and steps of a new version; all else stays.

    So what somebody set by hand outlives an engine's build.

    Raises:
        RepositoryError: it cannot be parsed.
    """
    config = _parse(text)
    config.version_policy.specific.versions[:] = [spec.version]
    for message, step in zip(config.ensemble_scheduling.step, spec.steps, strict=True):
        message.model_version = step.version
    if not spec.steps:
        config.backend = spec.backend
        config.ClearField("platform")
        config.ClearField("default_model_filename")
    if spec.backend == "tensorrt":
        for group in config.instance_group:
            if group.kind == pb.ModelInstanceGroup.KIND_CPU:
                group.kind = pb.ModelInstanceGroup.KIND_GPU
    return str(text_format.MessageToString(config))


def with_threshold(text: str, threshold: float, name: str = "threshold") -> str:
    """A `config.pbtxt` with another `threshold`, or `score_threshold`; all else but comments stays.

    It is no longer an assumed one.

    Raises:
        RepositoryError: it cannot be parsed.
    """
    config = _parse(text)
    config.parameters[name].string_value = repr(threshold)
    assumed = dict(json.loads(config.parameters["assumed"].string_value or "{}"))
    assumed.pop(name, None)
    if assumed:
        config.parameters["assumed"].string_value = json.dumps(assumed)
    else:
        del config.parameters["assumed"]
    return str(text_format.MessageToString(config))


def from_config(config: Any) -> ModelSpec:
    """Read a `ModelConfig`, from a file or over the wire, made by `to_config` or by hand.

    Raises:
        RepositoryError: the message lacks what a client must know, or says it wrongly.
    """
    values = {key: parameter.string_value for key, parameter in config.parameters.items()}
    number = values.get("contract", "1")
    if number.isdecimal() and len(number) < 10 and int(number) > CONTRACT_VERSION:
        raise RepositoryError(
            f"model '{config.name}' has a contract of version {number}, of edgeseg "
            f"{values.get('toolkit_version', '')}; this one reads up to {CONTRACT_VERSION}: upgrade edgeseg"
        )
    try:
        check_stated(values)
        spec = _spec(config, values)
        check_contract(spec)
        return spec
    except Exception as error:  # what a hand writes into JSON can raise anything
        raise RepositoryError(
            f"model '{config.name}' has no usable edgeseg contract in its config.pbtxt "
            f"({type(error).__name__}: {error}): publish it again with seg-export"
        ) from error


def from_text(text: str) -> ModelSpec:
    """Read the contents of a `config.pbtxt`. Raises RepositoryError."""
    return from_config(_parse(text))


def _parse(text: str) -> Any:
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except (text_format.ParseError, RecursionError) as error:
        raise RepositoryError(f"config.pbtxt cannot be parsed: {error}") from error


def _add_steps(config: Any, spec: ModelSpec) -> None:
    """An ensemble has no instances, queue or cache of its own: those of its models count."""
    config.platform = spec.backend
    for step in spec.steps:
        config.ensemble_scheduling.step.add(
            model_name=step.model,
            model_version=step.version,
            input_map=step.inputs,
            output_map=step.outputs,
        )


def _add_serving(config: Any, spec: ModelSpec, serving: ServingSpec) -> None:
    config.instance_group.add(kind=_KINDS[serving.instance_kind], count=serving.instances)
    if spec.max_batch_size > 1 and serving.preferred_batch_sizes:
        config.dynamic_batching.preferred_batch_size.extend(
            size for size in serving.preferred_batch_sizes if size <= spec.max_batch_size
        )
        config.dynamic_batching.max_queue_delay_microseconds = serving.max_queue_delay_us
    if serving.warm_up:
        _add_warm_up(config, spec)
    if serving.response_cache:
        config.response_cache.enable = True


def _add_warm_up(config: Any, spec: ModelSpec) -> None:
    sample = config.model_warmup.add(name="zeros", batch_size=1 if spec.max_batch_size else 0)
    for tensor in spec.inputs:
        value = sample.inputs[tensor.name]
        value.data_type = _TYPES[tensor.dtype]
        value.dims.extend(max(axis, 1) for axis in tensor.shape)
        value.zero_data = True


def _parameters(spec: ModelSpec) -> dict[str, str]:
    height, width = spec.input_size_hw
    values = {
        "task": spec.task,
        "family": spec.family,
        "input_size": f"{height}x{width}",
        "resize": spec.resize,
        "channels": str(spec.channels),
        "mean": json.dumps(spec.mean) if spec.mean else "",
        "std": json.dumps(spec.std) if spec.std else "",
        "scale": repr(spec.scale) if spec.mean else "",
        "channel_order": spec.channel_order if spec.channels == 3 else "",
        "class_names": json.dumps(spec.class_names),
        "threshold": repr(spec.threshold),
        "score_threshold": repr(spec.score_threshold) if spec.task == "instances" else "",
        "precision": spec.precision,
        "checkpoint_sha256": spec.checkpoint_sha256,
        "weights": spec.weights,
        "parameter_count": str(spec.parameter_count),
        "toolkit_version": spec.toolkit_version,
        "contract": str(spec.contract_version) if spec.contract_version > 1 else "",
    }
    if spec.assumed:
        values["assumed"] = json.dumps(dict(spec.assumed))
    if spec.clahe:
        clahe = {"clip_limit": spec.clahe.clip_limit, "tile_grid_hw": spec.clahe.tile_grid_hw}
        values["clahe"] = json.dumps(clahe)
    tensors = (*spec.inputs, *spec.outputs, *spec.by_products)
    axes = {tensor.name: tensor.axes for tensor in tensors if tensor.axes}
    if axes:
        values["dynamic_axes"] = json.dumps(axes)
    if spec.by_products:
        values["by_products"] = json.dumps([tensor.name for tensor in spec.by_products])
    if spec.parity:
        parity = {
            "max_abs": spec.parity.max_abs,
            "max_rel": spec.parity.max_rel,
            "mask_iou": spec.parity.mask_iou,
        }
        values["parity"] = json.dumps(parity)
    return {key: value for key, value in values.items() if value}


def _spec(config: Any, values: dict[str, str]) -> ModelSpec:
    height, width = (int(side) for side in values["input_size"].split("x"))
    clahe = json.loads(values["clahe"]) if "clahe" in values else None
    axes = json.loads(values.get("dynamic_axes", "{}"))
    by_products = json.loads(values.get("by_products", "[]"))
    outputs = _tensors(config.output, axes)
    versions = config.version_policy.specific.versions
    return ModelSpec(
        name=config.name,
        version=int(versions[0]) if versions else 1,
        task=one_of(Task, "task", values["task"]),
        family=values["family"],
        inputs=_tensors(config.input, axes),
        outputs=tuple(tensor for tensor in outputs if tensor.name not in by_products),
        backend=config.backend or config.platform,
        max_batch_size=config.max_batch_size,
        input_size_hw=(height, width),
        resize=one_of(Resize, "resize", values["resize"]),
        channels=int(values["channels"]),
        mean=tuple(map(float, json.loads(values.get("mean", "[]")))),
        std=tuple(map(float, json.loads(values.get("std", "[]")))),
        scale=float(values.get("scale", "255")),
        channel_order=one_of(ChannelOrder, "channel_order", values.get("channel_order", "rgb")),
        class_names=tuple(json.loads(values.get("class_names", "[]"))),
        threshold=float(values["threshold"]),
        score_threshold=float(values.get("score_threshold", "0.5")),
        clahe=ClaheSpec(clahe["clip_limit"], (clahe["tile_grid_hw"][0], clahe["tile_grid_hw"][1]))
        if clahe
        else None,
        precision=one_of(Precision, "precision", values["precision"]),
        checkpoint_sha256=values.get("checkpoint_sha256", ""),
        weights=one_of(Weights, "weights", values.get("weights", "trained")),
        parameter_count=int(values.get("parameter_count", "0")),
        parity=Parity(**json.loads(values["parity"])) if "parity" in values else None,
        toolkit_version=values.get("toolkit_version", ""),
        contract_version=int(values.get("contract", "1")),
        assumed=dict(json.loads(values.get("assumed", "{}"))),
        steps=tuple(
            EnsembleStep(step.model_name, step.model_version, dict(step.input_map), dict(step.output_map))
            for step in config.ensemble_scheduling.step
        ),
        by_products=tuple(tensor for tensor in outputs if tensor.name in by_products),
    )


def _tensors(messages: Any, axes: dict[str, list[str]]) -> tuple[TensorSpec, ...]:
    tensors = []
    for message in messages:
        if message.data_type not in _DTYPES:
            raise ValueError(f"tensor '{message.name}' has an unsupported data type")
        names = tuple(axes.get(message.name, ()))
        tensors.append(TensorSpec(message.name, _DTYPES[message.data_type], tuple(message.dims), names))
    return tuple(tensors)
