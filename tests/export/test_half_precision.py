"""Half precision: the types are in the graph, nothing overflows, masks stay, and `--bisect` says why."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sam_models import WEIGHTS
from typer.testing import CliRunner

from seg_export.checkpoints.checkpoint import Checkpoint
from seg_export.cli.main import app
from seg_export.engines.check import CAPABILITIES, check_graphs
from seg_export.export import export_models
from seg_export.families import FAMILIES, traceable_model
from seg_export.families.semantic.random import random_unet
from seg_export.precision.divergence import first_divergence, ops_to_keep
from seg_export.precision.half import element_types, rounded, to_half
from seg_export.precision.kept import KEPT_BY_DEFAULT, LARGEST_IN_HALF, kept_nodes
from seg_export.precision.ranges import largest_values
from seg_export.tracing.external_weights import write_weights
from seg_export.tracing.trace import optimise, save_graph, trace
from seg_export.verification.bisect import bisect_published
from seg_export.verification.graph_runner import GraphRunner
from seg_export.verification.published import verify_published
from seg_export.verification.tolerances import Tolerance
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import list_images, read_image
from seg_runtime.repository import Repository
from seg_runtime.sam import SamPredictor
from seg_runtime.semantic import SemanticSegmenter

SIZE_HW = (32, 48)
LUNG = WEIGHTS.with_name("unet_lung.pth")
HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def traced(checkpoint: Checkpoint) -> onnx.ModelProto:
    model = traceable_model(checkpoint, "unet", SIZE_HW, 8)
    return optimise(trace(model), model)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return traced(random_unet(features=(4, 8)))


@pytest.fixture(scope="module")
def hot_checkpoint() -> Checkpoint:
    """The same function as without the two factors, but its first activations reach hundreds of thousands."""
    checkpoint = random_unet(features=(4, 8))
    weights = {name: tensor.clone() for name, tensor in checkpoint.state_dict.items()}
    for name, factor in (("1.weight", 1e5), ("1.bias", 1e5), ("3.weight", 1e-5)):
        weights[f"inc.double_conv.{name}"] *= factor
    return replace(checkpoint, state_dict=weights)


@pytest.fixture(scope="module")
def sam_repo(half_folder: Path) -> Path:
    return half_folder / "sam"


@pytest.fixture(scope="module")
def half_lung_repo(half_folder: Path) -> Path:
    return half_folder / "lung"


def images(batch: int = 2) -> dict[str, NDArray[np.uint8]]:
    return {"image": np.random.default_rng(0).integers(0, 256, (batch, *SIZE_HW, 1), dtype=np.uint8)}


def chain(*operators: str) -> onnx.ModelProto:
    """x (4) float32 through unary operators to y, and 100 times larger before the first of them."""
    names = ["large", *(f"value_{index}" for index in range(len(operators) - 1)), "y"]
    nodes = [helper.make_node("Mul", ["x", "hundred"], ["large"], name="times_hundred")]
    nodes += [
        helper.make_node(op, [names[index]], [names[index + 1]], name=f"{op}_{index}".lower())
        for index, op in enumerate(operators)
    ]
    values = [helper.make_tensor_value_info(name, FULL, [4]) for name in ("x", "y")]
    hundred = numpy_helper.from_array(np.array([100], np.float32), "hundred")
    body = helper.make_graph(nodes, "chain", values[:1], values[1:], [hundred])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_types_are_in_the_graph_and_the_contract_is_as_before(graph: onnx.ModelProto) -> None:
    half = to_half(graph, ())
    onnx.checker.check_model(half, full_check=True)
    types = element_types(half)
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert {types[name] for node in convolutions for name in (*node.input, *node.output)} == {HALF}
    assert list(half.graph.output) == list(graph.graph.output)
    assert list(half.graph.input) == list(graph.graph.input)
    assert element_types(graph)[convolutions[0].output[0]] == FULL


def test_scales_of_a_resize_stay_in_fp32_because_the_operator_wants_them_so(graph: onnx.ModelProto) -> None:
    types = element_types(to_half(graph, ()))
    resizes = [node for node in to_half(graph, ()).graph.node if node.op_type == "Resize"]
    assert resizes
    assert {types[node.input[0]] for node in resizes} == {HALF}
    assert all(types[name] != HALF for node in resizes for name in node.input[2:] if name)


def test_kept_nodes_compute_in_fp32_between_casts() -> None:
    half = to_half(chain("Sqrt", "Abs"), ["sqrt_0"])
    types = element_types(half)
    (root,) = (node for node in half.graph.node if node.op_type == "Sqrt")
    assert types[root.input[0]] == types[root.output[0]] == FULL
    (absolute,) = (node for node in half.graph.node if node.op_type == "Abs")
    assert types[absolute.input[0]] == HALF


def test_weight_of_a_half_and_a_kept_node_is_there_in_both_types() -> None:
    graph = chain("Abs")
    graph.graph.node.append(helper.make_node("Add", ["x", "hundred"], ["z"], name="kept"))
    graph.graph.output.append(helper.make_tensor_value_info("z", FULL, [4]))
    weights = {item.name: item.data_type for item in to_half(graph, ["kept"]).graph.initializer}
    assert weights == {"hundred": FULL, "hundred_fp16": HALF}


def test_rounding_shows_the_overflow_that_a_cpu_hides() -> None:
    half = to_half(chain("Abs", "Neg"), ())
    feed = {"x": np.array([1, 10, 1000, 2049], np.float32)}
    assert np.isfinite(GraphRunner(half, "half")(feed)["y"]).all()
    shown = GraphRunner(rounded(half), "rounded")(feed)["y"]
    np.testing.assert_array_equal(shown, [-100, -1000, -np.inf, -np.inf])


def test_rounding_equals_numpy_in_half_precision() -> None:
    x = np.random.default_rng(0).normal(size=4).astype(np.float32)
    got = GraphRunner(rounded(to_half(chain("Abs", "Sqrt"), ())), "rounded")({"x": x})["y"]
    np.testing.assert_array_equal(got, np.sqrt(np.abs(x.astype(np.float16) * np.float16(100))))


def test_largest_values_are_those_of_the_whole_run(graph: onnx.ModelProto, tmp_path: Path) -> None:
    largest = largest_values(graph, [images(), {"image": np.full((1, *SIZE_HW, 1), 255, np.uint8)}])
    probe = onnx.ModelProto()
    probe.CopyFrom(graph)
    name = next(node.output[0] for node in graph.graph.node if node.op_type == "Conv")
    probe.graph.output.append(helper.make_tensor_value_info(name, FULL, None))
    run = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    white = {"image": np.full((1, *SIZE_HW, 1), 255, np.uint8)}
    expected = max(float(np.abs(run.run([name], feed)[0]).max()) for feed in (images(), white))
    assert largest[name] == pytest.approx(expected, rel=1e-5)


def test_naive_conversion_overflows_where_ours_does_not(hot_checkpoint: Checkpoint) -> None:
    graph = traced(hot_checkpoint)
    kinds = [images(), *({"image": np.full((1, *SIZE_HW, 1), value, np.uint8)} for value in (0, 255))]
    largest = largest_values(graph, kinds)
    assert max(largest.values()) > 65504
    kept = kept_nodes(graph, KEPT_BY_DEFAULT, largest)
    naive, ours = (GraphRunner(rounded(to_half(graph, nodes)), "half") for nodes in ((), kept))
    full = GraphRunner(graph, "fp32")
    assert not all(np.isfinite(naive(feed)["probabilities"]).all() for feed in kinds)
    for feed in kinds:
        np.testing.assert_allclose(ours(feed)["probabilities"], full(feed)["probabilities"], atol=5e-3)
    assert 0 < len(kept) < len(graph.graph.node)


def test_hot_checkpoint_is_published_in_half_precision_and_says_what_stayed(
    hot_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (exported,) = export_models(hot_checkpoint, tmp_path, "hot", size_hw=SIZE_HW, precision="fp16")
    assert exported.precision is not None
    assert any(reason.startswith("values up to") for reason in exported.precision.kept.values())
    assert exported.published.spec.precision == Repository(tmp_path).spec("hot").precision == "fp16"
    assert "nodes in fp32" in exported.precision.summary()


def test_margin_keeps_nodes_before_they_overflow() -> None:
    feed = {"x": np.full(4, 1.01 * LARGEST_IN_HALF / 100, np.float32)}
    graph = chain("Abs", "Neg")
    assert set(kept_nodes(graph, KEPT_BY_DEFAULT, largest_values(graph, [feed]))) == {
        "times_hundred",
        "abs_0",
        "neg_1",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_and_softmax_are_kept_or_never_halved_in_every_family(family: str) -> None:
    summing = {"LayerNormalization", "Softmax", "ReduceMean", "Pow", "Sqrt"}
    for row in (KEPT_BY_DEFAULT, *FAMILIES[family].kept.values()):
        assert summing <= row.ops if row.only is None else not summing & row.only


def test_sam_keeps_norms_the_norm_written_out_and_the_prompts_positions(sam_repo: Path) -> None:
    repository = Repository(sam_repo)
    for model in ("sam_tiny_encoder", "sam_tiny_decoder"):
        graph = onnx.load(repository.graph_path(model))
        types = element_types(graph)
        for node in graph.graph.node:
            if node.op_type in ("LayerNormalization", "Softmax", "Sin", "Cos", "Exp", "Pow", "Sqrt"):
                assert types[node.output[0]] == FULL, node.name
    centred = [node for node in graph.graph.node if node.op_type == "Pow"]
    makers = {name: node for node in graph.graph.node for name in node.output}
    assert len(centred) == 2
    assert {makers[node.input[0]].op_type for node in centred} == {"Sub"}


def test_masks_of_the_lung_network_in_half_precision(
    lung_repo: Path, half_lung_repo: Path, xray_folder: Path
) -> None:
    for file in list_images([xray_folder / "images"]):
        image = read_image(file, 1)
        masks = []
        for repo in (lung_repo, half_lung_repo):
            with connect(repo) as session:
                masks.append(SemanticSegmenter(session, "unet_lung").segment(image).mask > 0)
        assert np.count_nonzero(masks[0] & masks[1]) / np.count_nonzero(masks[0] | masks[1]) >= 0.995


def test_masks_of_the_tiny_sam_in_half_precision(
    sam_repo: Path, tiny_sam_repo: Path, xray_folder: Path
) -> None:
    image = read_image(list_images([xray_folder / "images"])[0], 3)
    boxes = ([45, 55, 245, 368], [278, 56, 480, 353])
    found = []
    for repo in (tiny_sam_repo, sam_repo):
        with connect(repo) as session, SamPredictor(session, "sam_tiny") as predictor:
            predictor.set_image(image)
            found.append([predictor.predict(box=np.array(box), multimask_output=False)[0] for box in boxes])
    for full, half in zip(*found, strict=True):
        assert np.count_nonzero(full & half) / np.count_nonzero(full | half) >= 0.995


def test_trained_sam_holds_on_images_that_are_none(sam_repo: Path, tiny_sam_repo: Path) -> None:
    """Embeddings of black, white, noise and checks, from the encoder in half precision into its decoder."""
    checks = (np.indices((1024, 1024, 3)).sum(axis=0) % 2 * 255).astype(np.uint8)
    noise = np.random.default_rng(1).integers(0, 256, checks.shape, dtype=np.uint8)
    prompts = {
        "point_coords": np.array(
            [[[0, 0], [1024, 1024]], [[-5000, 9000], [0, 0]], [[0, 0], [900, 500]]], "f4"
        ),
        "point_labels": np.array([[1, 0], [1, -1], [2, 3]], np.int32),
        "mask_input": np.full((1, 1, 256, 256), 100, np.float32),
        "has_mask_input": np.array([0, 1, 1], np.float32),
    }
    graphs = {
        repo: [Repository(repo).graph_path(f"sam_tiny_{half}") for half in ("encoder", "decoder")]
        for repo in (sam_repo, tiny_sam_repo)
    }
    half = [GraphRunner(rounded(onnx.load(path)), "fp16") for path in graphs[sam_repo]]
    full = [GraphRunner(path, "fp32") for path in graphs[tiny_sam_repo]]
    for image in (np.zeros_like(checks), np.full_like(checks, 255), noise, checks):
        masks = []
        for encoder, decoder in (half, full):
            feed = {"image": image[None], "valid_hw": np.array([[1024, 1024]], np.int32)}
            embedding = encoder(feed)["image_embeddings"]
            outputs = decoder(prompts | {"image_embeddings": embedding})
            assert all(np.isfinite(values).all() for values in (embedding, *outputs.values()))
            masks.append(outputs["low_res_masks"] > 0)
        # There is nothing to see in them, and no edge that would hold a mask to its place.
        assert np.count_nonzero(masks[0] ^ masks[1]) <= 0.02 * max(1, np.count_nonzero(masks[0] | masks[1]))


@pytest.mark.full
def test_vit_b_in_half_precision_is_verified_and_compiles_with_tensorrt(
    vit_b_folder: Path, tmp_path: Path
) -> None:
    # In a process of its own, which gives its memory back.
    command = [str(Path(sys.executable).with_name("seg-export")), "sam", "--precision", "fp16", "--json"]
    command += ["--checkpoint", str(vit_b_folder / "weights.pth"), "--name", "vit_b", "--repo", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    # The tiny SAM's graphs, of the same operators, are built for every capability.
    oldest_and_newest = (CAPABILITIES[0], CAPABILITIES[-1])
    results = check_graphs(["vit_b_encoder", "vit_b_decoder"], tmp_path, oldest_and_newest)
    assert [(item.model, item.reason) for item in results if not item.built] == []
    assert len(results) == 2 * len(oldest_and_newest)


def test_bisect_finds_nothing_in_a_right_graph_and_the_sine_in_one_all_in_half(sam_repo: Path) -> None:
    found = bisect_published(sam_repo, "sam_tiny_decoder", WEIGHTS)
    assert found.first is None
    assert found.first_all_half is not None
    assert found.first_all_half.op in ("Sin", "Cos")
    assert verify_published(sam_repo, "sam_tiny_decoder", WEIGHTS).passed


def test_bisect_names_the_overflowing_operator_and_what_must_stay(
    hot_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    export_models(hot_checkpoint, tmp_path, "hot", size_hw=SIZE_HW, precision="fp16")
    found = bisect_published(tmp_path, "hot", hot_checkpoint)
    assert found.first is None
    assert found.first_all_half is not None
    assert found.first_all_half.op == "Conv"
    assert found.first_all_half.difference == math.inf
    assert "Conv" in found.ops_to_keep
    assert found.as_dict()["first_all_half"]["difference"] is None


def test_bisect_finds_the_first_of_other_weights(tmp_path: Path) -> None:
    export_models(random_unet(features=(4, 8)), tmp_path, "unet", size_hw=SIZE_HW)
    found = bisect_published(tmp_path, "unet", random_unet(features=(4, 8), seed=1))
    assert found.first is not None
    assert found.first.op == "Conv"


def test_first_divergence_is_the_first_in_order() -> None:
    graph, other = chain("Abs", "Neg", "Neg"), chain("Abs", "Neg", "Neg")
    other.graph.node[2].op_type = "Identity"
    tolerance = Tolerance(rtol=0, atol=1e-3, mask_iou=1)
    found = first_divergence(graph, other, [{"x": np.ones(4, np.float32)}], tolerance)
    assert found is not None
    assert (found.node, found.difference, found.magnitude) == ("neg_1", 200.0, 100.0)
    assert first_divergence(graph, graph, [{"x": np.ones(4, np.float32)}], tolerance) is None


@pytest.mark.parametrize(("rtol", "atol", "strays"), [(2e-2, 0, False), (0, 2e-2, False), (5e-3, 4e-3, True)])
def test_divergence_is_judged_as_outputs_are(rtol: float, atol: float, strays: bool) -> None:
    graph, other = chain("Abs"), chain("Abs")
    other.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([101], np.float32), "hundred"))
    tolerance = Tolerance(rtol, atol, 1)
    found = first_divergence(graph, other, [{"x": np.array([1, 2, 3, 4], np.float32)}], tolerance)
    assert (found is not None) == strays


def test_greedy_search_keeps_the_one_type_that_overflows() -> None:
    graph, feed = chain("Exp", "Log", "Neg"), {"x": np.full(4, 0.2, np.float32)}

    def distance(half: onnx.ModelProto) -> float:
        got = GraphRunner(rounded(half), "half")(feed)["y"]
        return float(np.abs(got + 20).max() / 0.1) if np.isfinite(got).all() else math.inf

    kept = ops_to_keep(graph, distance, lambda step: None)
    assert set(kept) == {"Exp", "Log"}


def test_weights_beside_the_graph_are_halved_too(graph: onnx.ModelProto, tmp_path: Path) -> None:
    checkpoint = random_unet(features=(4, 8))
    model = traceable_model(checkpoint, "unet", SIZE_HW, 8)
    weights_file = tmp_path / "model.onnx.data"
    large = optimise(trace(model, weights_file=weights_file, external_data_above=1000), model)
    before = weights_file.stat().st_size
    half = to_half(large, (), tmp_path)
    write_weights(half, weights_file, external_data_above=1000)
    save_graph(half, tmp_path / "model.onnx")
    assert weights_file.stat().st_size < 0.6 * before
    inside = GraphRunner(rounded(to_half(graph, ())), "inside")(images())
    beside = GraphRunner(rounded(half), "beside", tmp_path)(images())
    np.testing.assert_array_equal(beside["probabilities"], inside["probabilities"])


def test_halved_weights_that_fit_move_into_the_graph(tmp_path: Path) -> None:
    model = traceable_model(random_unet(features=(4, 8)), "unet", SIZE_HW, 8)
    weights_file = tmp_path / "model.onnx.data"
    large = optimise(trace(model, weights_file=weights_file, external_data_above=1000), model)
    largest = largest_values(large, [images()], tmp_path)
    assert max(largest.values()) > 0
    half = to_half(large, (), tmp_path)
    write_weights(half, weights_file)
    assert not weights_file.exists()
    save_graph(half, tmp_path / "model.onnx")


def test_bisect_refuses_weights_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = random_unet(features=(4, 8))
    monkeypatch.setattr("seg_export.tracing.trace.EXTERNAL_DATA_ABOVE", 1000)
    monkeypatch.setattr(trace, "__defaults__", (18, None, 1000))
    export_models(checkpoint, tmp_path, "unet", size_hw=SIZE_HW)
    with pytest.raises(BadInputError, match="--bisect takes smaller models only"):
        bisect_published(tmp_path, "unet", checkpoint)


@pytest.mark.full
def test_command_publishes_verifies_and_bisects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    made = run.invoke(app, ["unet", "--pretrained", "lung", "--size", "64", "--precision", "fp16"])
    assert made.exit_code == 0, made.output
    assert "fp16: 0 of" in made.output
    checked = run.invoke(app, ["verify", "unet_lung", "--pretrained", "lung", "--bisect"])
    assert checked.exit_code == 0, checked.output
    assert "first node that strays from a fresh trace: none" in checked.output
    assert "must stay in fp32: nothing" in checked.output
