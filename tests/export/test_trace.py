"""Tracing: names, shapes, normalisation and what must not be in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from seg_export.checkpoints.checkpoint import Checkpoint, build_model
from seg_export.families import traceable_model
from seg_export.families.semantic.random import random_unet
from seg_export.tracing.trace import optimise, save_graph, trace
from seg_export.tracing.traceable import TraceableModel
from seg_runtime.errors import BadInputError

SIZE_HW = (33, 50)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_unet(in_channels=3, num_classes=3, features=(4, 8, 16), seed=1)


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> TraceableModel:
    return traceable_model(checkpoint, "unet", SIZE_HW, max_batch_size=8)


@pytest.fixture(scope="module")
def graph(model: TraceableModel) -> onnx.ModelProto:
    return optimise(trace(model), model)


def run(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(["probabilities"], {"image": images})
    return np.asarray(probabilities)


def random_images(batch: int, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (batch, *SIZE_HW, channels), dtype=np.uint8)


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_graph_has_the_names_types_and_shapes_of_the_contract(graph: onnx.ModelProto) -> None:
    (image,), (probabilities,) = graph.graph.input, graph.graph.output
    assert image.name == "image"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shape_of(image) == ["batch", 33, 50, 3]
    assert probabilities.name == "probabilities"
    assert probabilities.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert shape_of(probabilities) == ["batch", 3, 33, 50]


@pytest.mark.parametrize("opset", [19, 20])
def test_graph_declares_the_opset_that_was_asked_for(opset: int) -> None:
    tiny = traceable_model(random_unet(features=(4, 8)), "unet", (16, 16), 1)
    graph = optimise(trace(tiny, opset), tiny)
    assert [(item.domain, item.version) for item in graph.opset_import] == [("", opset)]


def test_opset_17_is_refused(model: TraceableModel) -> None:
    with pytest.raises(BadInputError, match="opset 17: expected one of 18, 19, 20"):
        trace(model, 17)


def test_batch_normalisation_is_folded_into_the_convolutions(graph: onnx.ModelProto) -> None:
    operators = [node.op_type for node in graph.graph.node]
    assert "BatchNormalization" not in operators
    assert operators.count("Conv") == 11


@pytest.mark.parametrize("bilinear", [True, False])
def test_graph_equals_the_network_fed_by_hand_at_any_batch(bilinear: bool, tmp_path: Path) -> None:
    """Normalisation is done here as in training, without the wrapper that was traced."""
    checkpoint = random_unet(features=(4, 8, 16), bilinear=bilinear, seed=2)
    model = traceable_model(checkpoint, "unet", SIZE_HW, 8)
    save_graph(optimise(trace(model), model), tmp_path / "model.onnx")
    network = build_model(checkpoint)
    for batch in (1, 2, 5):
        images = random_images(batch, channels=1)
        normalised = (images.astype(np.float32) / 255 - 0.485) / 0.229
        with torch.inference_mode():
            logits = network(torch.from_numpy(normalised.astype(np.float32).transpose(0, 3, 1, 2)))
        expected = torch.sigmoid(logits).numpy()
        assert expected.std() > 0.05, "a flat output would hide a wrong graph"
        np.testing.assert_allclose(run(tmp_path / "model.onnx", images), expected, rtol=0, atol=1e-5)


def test_several_classes_become_probabilities_that_sum_to_one(graph: onnx.ModelProto, tmp_path: Path) -> None:
    save_graph(graph, tmp_path / "model.onnx")
    probabilities = run(tmp_path / "model.onnx", random_images(2))
    assert probabilities.shape == (2, 3, *SIZE_HW)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_file_says_nothing_about_its_builder(graph: onnx.ModelProto, tmp_path: Path) -> None:
    save_graph(graph, tmp_path / "model.onnx")
    contents = (tmp_path / "model.onnx").read_bytes()
    for trace_of_builder in (b".py", b"stack_trace", b"site-packages", str(Path.cwd()).encode()):
        assert trace_of_builder not in contents


def test_tracing_twice_gives_the_same_bytes(model: TraceableModel, graph: onnx.ModelProto) -> None:
    again = optimise(trace(model), model)
    assert again.SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def large(model: TraceableModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same graph, exported as if one file held no more than 1 kB of weights."""
    folder = tmp_path_factory.mktemp("built")
    traced = trace(model, weights_file=folder / "model.onnx.data", external_data_above=1000)
    save_graph(optimise(traced, model), folder / "model.onnx")
    return folder.rename(folder.with_name("moved"))


def test_large_weights_lie_beside_the_graph_and_move_with_it(
    large: Path, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    images = random_images(2)
    assert sorted(file.name for file in large.iterdir()) == ["model.onnx", "model.onnx.data"]
    save_graph(graph, tmp_path / "one_file.onnx")
    np.testing.assert_allclose(
        run(large / "model.onnx", images), run(tmp_path / "one_file.onnx", images), rtol=0, atol=1e-6
    )


def test_large_weights_are_named_and_typed_as_small_ones(large: Path, graph: onnx.ModelProto) -> None:
    written = onnx.load(large / "model.onnx", load_external_data=False).graph
    in_file = [item for item in written.initializer if onnx.external_data_helper.uses_external_data(item)]
    sizes = [onnx.numpy_helper.to_array(item).nbytes for item in graph.graph.initializer]
    assert len(in_file) == sum(size > 1024 for size in sizes) > 3
    assert [value.name for value in written.input] == ["image"]
    assert {item.name for item in in_file} <= {name for node in written.node for name in node.input}
    assert (large / "model.onnx").stat().st_size < (large / "model.onnx.data").stat().st_size


def test_weights_that_fit_write_no_second_file(model: TraceableModel, tmp_path: Path) -> None:
    trace(model, weights_file=tmp_path / "model.onnx.data")
    assert list(tmp_path.iterdir()) == []
