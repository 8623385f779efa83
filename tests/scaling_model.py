"""A tiny model for server tests: its probabilities are the image times a factor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg_runtime.model_config import to_text
from seg_runtime.spec import ModelSpec, ServingSpec, TensorSpec

SIDE = 8


def scaling_spec(name: str, version: int = 1) -> ModelSpec:
    return ModelSpec(
        name=name,
        version=version,
        task="semantic",
        family="unet",
        inputs=(TensorSpec("image", "uint8", (SIDE, SIDE, 1)),),
        outputs=(TensorSpec("probabilities", "float32", (1, SIDE, SIDE)),),
        max_batch_size=8,
        input_size_hw=(SIDE, SIDE),
        class_names=("lung",),
    )


def publish_scaling_model(
    repo: Path,
    name: str,
    version: int = 1,
    factor: float = 0.5,
    graph: bytes | None = None,
    serving: ServingSpec | None = None,
) -> Path:
    """Write a version and make it current, in the order and with the renames of `seg-export`.

    `graph` replaces the contents of model.onnx, for versions that are broken. Returns model.onnx.
    """
    staging = repo / ".staging" / f"{name}-{version}"
    staging.mkdir(parents=True)
    (staging / "model.onnx").write_bytes(scaling_graph(factor) if graph is None else graph)
    text = to_text(scaling_spec(name, version), serving)
    (staging / "config.pbtxt").write_text(text)
    config = repo / ".staging" / f"{name}.config.pbtxt"
    config.write_text(text)
    folder = repo / name / str(version)
    folder.parent.mkdir(exist_ok=True)
    staging.rename(folder)
    config.replace(folder.parent / "config.pbtxt")
    return folder / "model.onnx"


def int8_graph(layers: int = 1) -> bytes:
    """The mean of 3x3 pixels by 255, in int8: for a white image the largest sums that there can be.

    With more layers, which share one weight, the mean of such means.
    """
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 1])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])
    nodes = [
        helper.make_node("Transpose", ["image"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "share"], ["value_0"]),
    ]
    for index in range(layers):
        last = f"value_{index + 1}" if index + 1 < layers else "probabilities"
        nodes += [
            # Several channels: the kernel for a single one adds without overflow.
            helper.make_node("Concat", [f"value_{index}"] * 4, [f"four_{index}"], axis=1),
            helper.make_node("QuantizeLinear", [f"four_{index}", "step", "zero"], [f"q_{index}"]),
            helper.make_node("DequantizeLinear", [f"q_{index}", "step", "zero"], [f"x_{index}"]),
            helper.make_node("DequantizeLinear", ["weight", "weight_step", "zero"], [f"w_{index}"]),
            helper.make_node("Conv", [f"x_{index}", f"w_{index}"], [f"sum_{index}"], pads=[1, 1, 1, 1]),
            helper.make_node("QuantizeLinear", [f"sum_{index}", "step", "zero"], [f"r_{index}"]),
            helper.make_node("DequantizeLinear", [f"r_{index}", "step", "zero"], [last]),
        ]
    weights = [
        helper.make_tensor("share", TensorProto.FLOAT, [], [1 / 255]),
        helper.make_tensor("step", TensorProto.FLOAT, [], [1 / 127]),
        helper.make_tensor("weight_step", TensorProto.FLOAT, [], [1 / 127 / 36]),
        helper.make_tensor("zero", TensorProto.INT8, [], [0]),
        helper.make_tensor("weight", TensorProto.INT8, [1, 4, 3, 3], [127] * 36),
    ]
    graph = helper.make_graph(nodes, "int8", [image], [output], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def scaling_graph(factor: float) -> bytes:
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", SIDE, SIDE, 1])
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 1, SIDE, SIDE])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["channels_first", "factor"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["probabilities"]),
    ]
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    graph = helper.make_graph(nodes, "scaling", [image], [output], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def some_images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """(count, 8, 8, 1) uint8 of every value."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 1), dtype=np.uint8)
