"""Tiny models for tests of sessions: built with onnx.helper, published by writing the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model

from seg_runtime.model_config import to_text
from seg_runtime.spec import ModelSpec, ServingSpec, TensorSpec

SIDE = 32


def semantic_spec(name: str = "tiny", version: int = 1, **changes: object) -> ModelSpec:
    """The contract of `semantic_graph`: uint8 (N, 32, 32, 1) to probabilities (N, 1, 32, 32)."""
    values: dict[str, object] = {
        "task": "semantic",
        "family": "unet",
        "inputs": (TensorSpec("image", "uint8", (SIDE, SIDE, 1)),),
        "outputs": (TensorSpec("probabilities", "float32", (1, SIDE, SIDE)),),
        "max_batch_size": 8,
        "input_size_hw": (SIDE, SIDE),
        "class_names": ("lung",),
        "checkpoint_sha256": "ab" * 32,
    }
    return ModelSpec(name, version, **(values | changes))  # type: ignore[arg-type]


def semantic_graph() -> ModelProto:
    """sigmoid(4 * image / 255 - 2), NHWC to NCHW."""
    nodes = [
        # TensorRT takes uint8 in a cast and nowhere else.
        helper.make_node("Cast", ["image"], ["nhwc"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["nhwc"], ["pixels"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["pixels", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    constants = {"scale": np.float32(4 / 255), "shift": np.float32(2)}
    return _model(
        nodes,
        helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 1]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 1, SIDE, SIDE]),
        constants,
    )


def invert_spec(name: str = "invert") -> ModelSpec:
    """The contract of `invert_graph`, which takes what the semantic model makes."""
    tensor = TensorSpec("probabilities", "float32", (1, SIDE, SIDE))
    return semantic_spec(name, inputs=(tensor,), outputs=(TensorSpec("inverted", "float32", tensor.shape),))


def invert_graph() -> ModelProto:
    """1 - probabilities."""
    shape = ["n", 1, SIDE, SIDE]
    return _model(
        [helper.make_node("Sub", ["one", "probabilities"], ["inverted"])],
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("inverted", TensorProto.FLOAT, shape),
        {"one": np.float32(1)},
    )


def rows_spec(name: str = "rows", axes: tuple[str, ...] = ("rows",)) -> ModelSpec:
    """The contract of `rows_graph`: two inputs of as many rows and one output, whose axes may have names."""
    inputs = tuple(TensorSpec(each, "float32", (-1, SIDE), axes) for each in ("left", "right"))
    outputs = (TensorSpec("joined", "float32", (-1, 2 * SIDE), axes),)
    return semantic_spec(name, inputs=inputs, outputs=outputs, max_batch_size=0)


def rows_graph(axis: int = 1) -> ModelProto:
    """left and right side by side; with axis 0 one below the other, which is not what `rows_spec` says."""
    shape = ["rows", SIDE]
    inputs = [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each in ("left", "right")]
    output = helper.make_tensor_value_info("joined", TensorProto.FLOAT, ["n", "m"])
    node = helper.make_node("Concat", ["left", "right"], ["joined"], axis=axis)
    graph = helper.make_graph([node], "rows", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def publish(repository: Path, spec: ModelSpec, graph: ModelProto) -> Path:
    """Write a version folder and `config.pbtxt`; returns the path of the graph."""
    folder = repository / spec.name / str(spec.version)
    folder.mkdir(parents=True)
    save_model(graph, folder / "model.onnx")
    serving = ServingSpec(instance_kind="cpu", warm_up=False)
    (repository / spec.name / "config.pbtxt").write_text(to_text(spec, serving))
    return folder / "model.onnx"


def publish_all(repository: Path) -> Path:
    """The models `tiny`, `tiny_dynamic` (the same with an output of unknown size) and `invert`."""
    publish(repository, semantic_spec(), semantic_graph())
    dynamic = (TensorSpec("probabilities", "float32", (-1, SIDE, SIDE)),)
    publish(repository, semantic_spec("tiny_dynamic", outputs=dynamic), semantic_graph())
    publish(repository, invert_spec(), invert_graph())
    return repository


def images(batch: int, seed: int = 0) -> np.ndarray:
    """Seeded noise, (batch, 32, 32, 1) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (batch, SIDE, SIDE, 1), dtype=np.uint8)


def _model(
    nodes: list[object], image: object, output: object, constants: dict[str, np.float32]
) -> ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], [output], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
