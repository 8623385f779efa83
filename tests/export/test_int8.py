"""Int8: what is written, against PyTorch's own rounding; which layers stay out; masks on real X-rays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from marks import full_size
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sam_models import WEIGHTS
from typer.testing import CliRunner

from seg_export import export as export_steps
from seg_export.checkpoints.checkpoint import Checkpoint, load_checkpoint
from seg_export.cli.main import app
from seg_export.engines.check import CAPABILITIES, check_graphs
from seg_export.export import ExportedModel, export_model, export_models
from seg_export.families import traceable_model
from seg_export.families.semantic.random import random_unet
from seg_export.precision.calibration import calibrate, calibration_images
from seg_export.precision.int8 import layers, quantised, ranges_of, sampled_values
from seg_export.precision.sensitivity import layer_errors
from seg_export.tracing.trace import optimise, trace
from seg_export.verification.graph_runner import GraphRunner
from seg_export.verification.published import verify_published
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError, ParityError
from seg_runtime.files.images import list_images, read_image
from seg_runtime.semantic import SemanticSegmenter

LUNG = WEIGHTS.with_name("unet_lung.pth")
RNG = np.random.default_rng(0)
Array = NDArray[np.float32]


def layer_graph(weights: Array, bias: Array) -> onnx.ModelProto:
    """One 3x3 convolution with a ReLU, and a product with a matrix."""
    matrix = RNG.normal(size=(6, 5)).astype(np.float32)
    body = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("MatMul", ["r", "m"], ["y"], name="product"),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", len(weights), 8, 5])],
        [numpy_helper.from_array(*pair) for pair in ((weights, "w"), (bias, "b"), (matrix, "m"))],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    weights = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
    return layer_graph(weights, RNG.normal(size=4).astype(np.float32))


@pytest.fixture(scope="module")
def image() -> Array:
    return RNG.normal(size=(2, 3, 8, 6)).astype(np.float32)


def weight(graph: onnx.ModelProto, name: str) -> torch.Tensor:
    tensor = next(item for item in graph.graph.initializer if item.name == name)
    return torch.from_numpy(numpy_helper.to_array(tensor).copy())


def as_int8(values: torch.Tensor, largest: float) -> torch.Tensor:
    return torch.fake_quantize_per_tensor_affine(values, largest / 127, 0, -128, 127)


def as_int8_per_channel(values: torch.Tensor, axis: int) -> torch.Tensor:
    others = [index for index in range(values.ndim) if index != axis]
    scales = values.abs().amax(dim=others) / 127
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(values, scales, zeros, axis, -128, 127)


def test_graph_computes_what_pytorchs_own_rounding_gives(graph: onnx.ModelProto, image: Array) -> None:
    largest = {"x": 2.5, "c": 9.0, "r": 8.0}
    ranges = {name: (np.float32(-value), np.float32(value)) for name, value in largest.items()}
    (got,) = GraphRunner(quantised(graph, ranges), "int8")({"x": image}).values()
    w, b, m = (weight(graph, name) for name in "wbm")
    conv = torch.nn.functional.conv2d(
        as_int8(torch.from_numpy(image), 2.5), as_int8_per_channel(w, 0), b, padding=1
    )
    relu = as_int8(torch.relu(as_int8(conv, 9.0)), 8.0)
    want = (relu @ as_int8_per_channel(m, 1)).numpy()
    # A sum in another order may round one value of int8 the other way.
    assert np.mean(np.abs(got - want) > 1e-4) < 0.02
    np.testing.assert_allclose(got, want, atol=0.5)


def test_what_is_written_is_what_tensorrt_takes(graph: onnx.ModelProto, image: Array) -> None:
    ranges = ranges_of(sampled_values(graph, [{"x": image}]), "percentile")
    written = quantised(graph, ranges)
    onnx.checker.check_model(written, full_check=True)
    tensors = {item.name: numpy_helper.to_array(item) for item in written.graph.initializer}
    for node in written.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = tensors[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()
    assert not [name for name, values in tensors.items() if values.dtype == np.int32]
    assert tensors["b"].dtype == np.float32
    assert {item.domain for item in written.opset_import} == {""}


def test_layer_that_is_left_out_has_its_weights_in_fp32(graph: onnx.ModelProto, image: Array) -> None:
    ranges = ranges_of(sampled_values(graph, [{"x": image}]), "percentile")
    written = quantised(graph, ranges, {"conv"})
    kinds = {item.name: item.data_type for item in written.graph.initializer}
    assert kinds["w"] == TensorProto.FLOAT
    assert "m" not in kinds
    inputs = {node.name: node.input[0] for node in written.graph.node}
    assert inputs["conv"] == "x"
    assert inputs["product"] != "r"


def test_samples_are_the_values_themselves(graph: onnx.ModelProto, image: Array) -> None:
    samples = sampled_values(graph, [{"x": image}, {"x": 2 * image}])
    assert samples.keys() == {"x", "c", "r"}
    np.testing.assert_array_equal(samples["x"], np.concatenate([image.ravel(), 2 * image.ravel()]))
    np.testing.assert_array_equal(samples["r"], np.maximum(samples["c"], 0))


def test_long_values_are_sampled_all_over() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    shape = [1, 1, 512, 512]
    body = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")],
    )
    graph = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    column = np.tile(np.arange(512, dtype=np.float32), (512, 1))
    for axis in (column, column.T):
        (values, _) = sampled_values(graph, [{"x": axis[None, None]}]).values()
        assert 15_000 < len(values) < 40_000
        assert len(np.unique(values)) > 500


def test_percentile_cuts_where_numpy_says_and_entropy_cuts_outliers() -> None:
    values = RNG.normal(size=200_000).astype(np.float32)
    values[:5] = 40
    found = {method: float(ranges_of({"x": values}, method)["x"][1]) for method in ("percentile", "entropy")}
    # A histogram of 512 bins over both signs knows a place to one of them.
    assert found["percentile"] == pytest.approx(np.percentile(np.abs(values), 99.99), abs=80 / 512)
    assert found["entropy"] < 20


def test_error_of_a_layer_is_that_of_pytorch(graph: onnx.ModelProto, image: Array) -> None:
    ranges = {name: (np.float32(-3), np.float32(3)) for name in "xcr"}
    errors = layer_errors(graph, quantised(graph, ranges), [{"x": image}])
    w, b, m = (weight(graph, name) for name in "wbm")
    exact = torch.nn.functional.conv2d(torch.from_numpy(image), w, b, padding=1)
    rounded = torch.nn.functional.conv2d(
        as_int8(torch.from_numpy(image), 3), as_int8_per_channel(w, 0), b, padding=1
    )
    product = torch.relu(exact) @ m
    rounded_product = as_int8(torch.relu(exact), 3) @ as_int8_per_channel(m, 1)

    def lost(want: torch.Tensor, got: torch.Tensor, axes: tuple[int, ...]) -> float:
        return float((((want - got) ** 2).sum(axes) / (want**2).sum(axes)).mean())

    # A convolution's result is rounded as well; channels of a product with a matrix come last.
    assert errors["conv"] == pytest.approx(lost(exact, as_int8(rounded, 3), (0, 2, 3)), rel=1e-3)
    assert errors["product"] == pytest.approx(lost(product, rounded_product, (0, 1, 2)), rel=1e-3)
    assert errors.keys() == {"conv", "product"}


def test_errors_are_found_whatever_values_are_called(image: Array) -> None:
    weights = numpy_helper.from_array(RNG.normal(size=(3, 3, 1, 1)).astype(np.float32), "w")
    names = ["x", "pad", "pad_1", "pad_1_1"]
    nodes = [
        helper.make_node("Conv", [names[index], "w"], [names[index + 1]], name=f"conv_{index}")
        for index in range(3)
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3, 8, 6]) for name in names]
    body = helper.make_graph(nodes, "graph", values[:1], values[-1:], [weights])
    graph = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    ranges = ranges_of(sampled_values(graph, [{"x": image}]), "percentile")
    errors = layer_errors(graph, quantised(graph, ranges), [{"x": image}])
    assert all(0 < error < 0.01 for error in errors.values())
    assert len(errors) == 3


@pytest.mark.slow
def test_products_of_two_values_are_no_layers() -> None:
    model = traceable_model(load_checkpoint(WEIGHTS), "sam_tiny_encoder", (1024, 1024), 1)
    ops = [node.op_type for node in layers(optimise(trace(model), model))]
    # Two convolutions of each end, and four products with weights in each of six blocks, less one norm's.
    assert len(ops) == 27


@pytest.fixture(scope="module")
def few_xrays(tmp_path_factory: pytest.TempPathFactory, xray_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("few")
    for file in list_images([xray_folder / "images"])[:3]:
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
@full_size
def int8_models(
    tmp_path_factory: pytest.TempPathFactory, xray_folder: Path, few_xrays: Path
) -> tuple[Path, tuple[ExportedModel, ...]]:
    """The shipped models in int8."""
    repo = tmp_path_factory.mktemp("int8")
    # Half of the X-rays, so that Dice can be measured on the others.
    seen = tmp_path_factory.mktemp("seen")
    for file in list_images([xray_folder / "images"])[:4]:
        shutil.copy(file, seen)
    lung = export_model(load_checkpoint(LUNG), repo, "unet_lung", precision="int8", calibrate=seen)
    sam = export_models(WEIGHTS, repo, "sam_tiny", precision="int8", calibrate=few_xrays)
    export_model(load_checkpoint(LUNG), repo, "fp32")
    return repo, (lung, *sam)


@pytest.mark.slow
def test_shipped_models_lose_nothing_worth_leaving_a_layer_out(
    int8_models: tuple[Path, tuple[ExportedModel, ...]],
) -> None:
    _, (lung, encoder, decoder, _) = int8_models
    for exported, layer_count, wanted in ((lung, 23, 0.99), (encoder, 27, 0.97)):
        assert exported.published.spec.precision == "int8"
        assert exported.precision
        assert exported.precision.calibration
        assert exported.precision.nodes == layer_count
        assert not exported.precision.kept
        assert exported.precision.calibration.mask_iou >= wanted
    assert decoder.published.spec.precision == "fp32"
    assert lung.published.size_bytes < 2_500_000


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_dice_of_lungs_that_it_never_saw_drops_by_less_than_half_a_percent(
    int8_models: tuple[Path, tuple[ExportedModel, ...]], xray_folder: Path, engine: str
) -> None:
    repo, _ = int8_models
    files = list_images([xray_folder / "images"])[4:]
    images = [read_image(file, 1) for file in files]
    truth = [read_image(xray_folder / "masks" / file.name, 1) > 127 for file in files]
    dice = {}
    with connect(repo, engine=engine) as session:
        for model in ("fp32", "unet_lung"):
            masks = [SemanticSegmenter(session, model).segment(image).mask > 0 for image in images]
            both = [2 * (m & t).sum() / (m.sum() + t.sum()) for m, t in zip(masks, truth, strict=True)]
            dice[model] = float(np.mean(both))
    assert dice["fp32"] > 0.97
    assert dice["unet_lung"] > dice["fp32"] - 0.005


@pytest.mark.slow
def test_graphs_in_int8_compile_with_tensorrt(
    int8_models: tuple[Path, tuple[ExportedModel, ...]],
) -> None:
    """What stays in fp32 of SAM's encoder needs Ampere, as SAM in fp32 does."""
    repo, _ = int8_models
    results = check_graphs(["unet_lung"], repo)
    results += check_graphs(["sam_tiny_encoder"], repo, CAPABILITIES[1:])
    assert [(item.model, item.reason) for item in results if not item.built] == []
    assert len(results) == 2 * len(CAPABILITIES) - 1


@pytest.mark.full
@pytest.mark.parametrize("family", ["unetpp", "transunet"])
def test_nested_and_transformer_networks_keep_their_dice_and_compile(
    family: str, xray_folder: Path, few_xrays: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(LUNG.with_name(f"{family}_lung.pth"))
    exported = export_model(checkpoint, tmp_path, family, precision="int8", calibrate=few_xrays)
    assert exported.precision and exported.precision.calibration
    assert not exported.precision.kept
    assert exported.precision.calibration.mask_iou >= 0.99
    dice = []
    with connect(tmp_path, engine="onnxruntime") as session:
        segmenter = SemanticSegmenter(session, family)
        for file in list_images([xray_folder / "images"])[3:]:
            truth = read_image(xray_folder / "masks" / file.name, 1) > 127
            mask = segmenter.segment(read_image(file, 1)).mask > 0
            dice.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert np.mean(dice) > 0.965
    results = check_graphs([family], tmp_path, CAPABILITIES[1:])
    assert [item.reason for item in results if not item.built] == []
    assert len(results) == len(CAPABILITIES) - 1


@pytest.fixture(scope="module")
def uneven_checkpoint() -> Checkpoint:
    """The lung U-Net, with one channel of its first activations a thousand times as large, read as much less.

    The same function in fp32; in int8 that channel leaves the others nothing but zeros.
    """
    checkpoint = load_checkpoint(LUNG)
    weights = {name: tensor.clone() for name, tensor in checkpoint.state_dict.items()}
    for name in ("1.weight", "1.bias"):
        weights[f"inc.double_conv.{name}"][0] *= 1000
    weights["inc.double_conv.3.weight"][:, 0] /= 1000
    return replace(checkpoint, state_dict=weights)


@pytest.mark.full
def test_layer_that_ruins_the_masks_is_left_out(uneven_checkpoint: Checkpoint, few_xrays: Path) -> None:
    model = traceable_model(uneven_checkpoint, "unet", (256, 256), 1)
    graph = optimise(trace(model), model)
    images = calibration_images(model, few_xrays)
    assert images
    found = calibrate(graph, model, images)
    assert {node.name for node in layers(graph)[:2]} & found.left_out.keys()
    assert len(found.left_out) <= 4, "the others stay in int8"
    assert found.mask_iou >= 0.99
    everything = quantised(graph, ranges_of(sampled_values(graph, [images.ranges_from[0].inputs]), "entropy"))
    run, case = GraphRunner(everything, "all in int8"), images.judged_on[0]
    mask, exact = run(case.inputs), GraphRunner(graph, "fp32")(case.inputs)
    ours, theirs = model.labels(mask) > 0, model.labels(exact) > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() < 0.9


def test_network_whose_masks_hold_in_no_layer_is_refused(
    monkeypatch: pytest.MonkeyPatch, few_xrays: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("seg_export.precision.calibration.WANTED_IOU", {"semantic": 1.1})
    checkpoint = random_unet(features=(4, 8))
    with pytest.raises(ParityError, match=r"no layer can be in int8 .* publish --precision fp16"):
        export_model(checkpoint, tmp_path / "repo", size_hw=(32, 32), precision="int8", calibrate=few_xrays)
    assert not list((tmp_path / "repo").glob("*/*"))


def test_folders_that_cannot_calibrate_are_refused(tmp_path: Path, xray_folder: Path) -> None:
    def refused(folder: Path | None, precision: str = "int8") -> str:
        with pytest.raises(BadInputError) as caught:
            export_model(
                random_unet(features=(4, 8)), tmp_path / "repo", precision=precision, calibrate=folder
            )
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "repo").exists()
        return str(caught.value)

    folder = tmp_path / "images"
    assert "--calibrate FOLDER" in refused(None)
    assert "is for int8" in refused(xray_folder / "images", "fp16")
    assert f"{folder} is no folder" in refused(folder)
    folder.mkdir()
    assert str(folder) in refused(folder)
    shutil.copy(list_images([xray_folder / "images"])[0], folder)
    assert "at least 2" in refused(folder)
    (folder / "empty.png").write_bytes(b"")
    assert "empty.png" in refused(folder)


def test_weights_beside_the_graph_are_refused(
    monkeypatch: pytest.MonkeyPatch, few_xrays: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(export_steps, "trace", partial(trace, external_data_above=1000))
    with pytest.raises(BadInputError, match="over 1 GB of weights: int8 takes smaller models"):
        export_model(random_unet(features=(4, 8)), tmp_path, precision="int8", calibrate=few_xrays)


def test_command_publishes_int8_and_verifies_it_on_images(few_xrays: Path, tmp_path: Path) -> None:
    repo, images = str(tmp_path / "repo"), str(few_xrays)
    command = ["unet", "--random", "--features", "4,8", "--size", "32", "--repo", repo, "--json"]
    done = CliRunner().invoke(app, [*command, "--precision", "int8", "--calibrate", images])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["spec"]["precision"] == "int8"
    assert told["calibration"]["images"] == 2
    assert told["calibration"]["judged_on"] == 1
    assert told["calibration"]["method"] in ("percentile", "entropy")
    checkpoint = random_unet(features=(4, 8))
    with pytest.raises(BadInputError, match="name a folder of some with --images"):
        verify_published(tmp_path / "repo", "unet", checkpoint)
    report = verify_published(tmp_path / "repo", "unet", checkpoint, images=few_xrays)
    assert len(report.comparisons) == 3
