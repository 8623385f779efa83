"""`seg-export check`: what is published compiles with a real TensorRT builder, what cannot says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sam_models import SMALL_SAM
from typer.testing import CliRunner

from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import app
from seg_export.engines.check import CAPABILITIES, CheckedGraph, check_graphs, require_built
from seg_export.engines.reasons import BuildError
from seg_export.export import export_models
from seg_export.families.semantic.random import random_unet
from seg_export.families.semantic.transunet import VARIANTS
from seg_runtime.errors import BadInputError, MissingExtraError, ModelNotFoundError, RepositoryError

FULL = TensorProto.FLOAT
AMPERE = ("86",)


def failures(results: tuple[CheckedGraph, ...]) -> list[tuple[str, str, str]]:
    return [(item.model, item.compute_capability, item.reason) for item in results if not item.built]


def value(name: str, shape: list[int | str], kind: int = FULL) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    **weights: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
) -> str:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    body = helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(body, opset_imports=opset, ir_version=9), path)
    return str(path)


def reason(path: str, tmp_path: Path) -> str:
    (result,) = check_graphs([path], tmp_path, AMPERE)
    assert not result.built
    assert result.size_bytes == 0
    return result.reason


@pytest.fixture(scope="module")
def fp16_repo(tmp_path_factory: pytest.TempPathFactory, half_folder: Path) -> Path:
    """Every kind of graph that is published, in half precision, at full size where weights ship."""
    repo = tmp_path_factory.mktemp("engines_fp16")
    for half in ("lung", "sam"):
        shutil.copytree(half_folder / half, repo, dirs_exist_ok=True)
    export_models(random_unet(bilinear=False, features=(8, 16)), repo, "unet_transposed", precision="fp16")
    export_models(random_checkpoint("sam", SMALL_SAM), repo, "sam_small", precision="fp16", embeddings="fp16")
    return repo


def test_every_graph_in_half_precision_compiles_for_every_capability(fp16_repo: Path) -> None:
    results = check_graphs((), fp16_repo)
    assert failures(results) == []
    assert {item.model for item in results} == {
        "unet_lung",
        "unet_transposed",
        "sam_tiny_encoder",
        "sam_tiny_decoder",
        "sam_small_encoder",
        "sam_small_decoder",
    }
    assert {item.compute_capability for item in results} == set(CAPABILITIES)
    assert all(item.precision == "fp16" and item.size_bytes > 0 and item.layers > 0 for item in results)


@pytest.mark.full
def test_sam_in_fp32_compiles_from_ampere_on_and_says_what_turing_wants(tiny_sam_repo: Path) -> None:
    """TensorRT for RTX has no matrix product in fp32 for Turing."""
    assert failures(check_graphs((), tiny_sam_repo, CAPABILITIES[1:])) == []
    (turing,) = check_graphs(["sam_tiny_encoder"], tiny_sam_repo, ("75",))
    assert "FP32 GEMM is not supported" in turing.reason
    assert "publish the graph in fp16" in turing.reason


def test_convolutional_networks_in_fp32_compile_for_every_capability(tiny_repo: Path) -> None:
    results = check_graphs(["unet_tiny"], tiny_repo)
    assert len(results) == len(CAPABILITIES)
    assert failures(results) == []


@pytest.mark.full
def test_nested_and_transformer_networks_in_half_precision_compile(tmp_path: Path) -> None:
    nested = random_checkpoint("unetpp", {"features": [8, 16, 16]}, seed=2)
    export_models(nested, tmp_path, "unetpp", size_hw=(64, 64), precision="fp16")
    small = {**VARIANTS["small"], "image_size": 64, "layers": 1}
    (made,) = export_models(
        random_checkpoint("transunet", small, seed=2), tmp_path, "transunet", precision="fp16"
    )
    assert made.precision and "leads to InstanceNormalization" in made.precision.kept.values()
    results = check_graphs((), tmp_path, AMPERE)
    assert [(item.model, item.precision) for item in results] == [("transunet", "fp16"), ("unetpp", "fp16")]
    assert failures(results) == []


def test_nested_and_transformer_networks_in_fp32_compile_from_ampere_on(tiny_families_repo: Path) -> None:
    results = check_graphs((), tiny_families_repo, AMPERE)
    assert len(results) == 3
    assert failures(results) == []


def test_roi_align_is_named_with_what_to_write_instead(tmp_path: Path) -> None:
    node = helper.make_node("RoiAlign", ["x", "rois", "batch"], ["y"], name="pool", output_height=7)
    inputs = [value("x", [1, 4, 32, 32]), value("rois", [5, 4]), value("batch", [5], TensorProto.INT64)]
    told = reason(save(tmp_path / "roi.onnx", [node], inputs, [value("y", [5, 4, 7, 1])]), tmp_path)
    assert "'pool' (RoiAlign)" in told
    assert "GridSample" in told


def test_nonzero_is_named_with_what_to_write_instead(tmp_path: Path) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"], name="where")
    output = value("y", [2, "n"], TensorProto.INT64)
    told = reason(save(tmp_path / "nonzero.onnx", [node], [value("x", [4, 4])], [output]), tmp_path)
    assert "'where' (NonZero)" in told
    assert "TopK" in told


def test_size_from_a_float_input_is_explained(tmp_path: Path) -> None:
    """As segment_anything's own decoder does with `orig_im_size`."""
    nodes = [
        helper.make_node("Cast", ["orig_im_size"], ["whole"], to=TensorProto.INT64, name="whole"),
        helper.make_node("Concat", ["front", "whole"], ["sizes"], axis=0, name="sizes"),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear", name="resize"),
    ]
    inputs = [value("x", [1, 1, 16, 16]), value("orig_im_size", [2])]
    front = np.array([1, 1], np.int64)
    told = reason(
        save(tmp_path / "size.onnx", nodes, inputs, [value("y", [1, 1, "h", "w"])], front=front), tmp_path
    )
    assert "'orig_im_size'" in told
    assert "resize them in the client" in told


def test_dynamic_quantisation_is_named_with_what_to_do_instead(tmp_path: Path) -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "scale", "zero"], name="quantise")
    outputs = [value("y", [4, 4], TensorProto.UINT8)]
    told = reason(save(tmp_path / "dynamic.onnx", [node], [value("x", [4, 4])], outputs), tmp_path)
    assert "'quantise' (DynamicQuantizeLinear)" in told
    assert "statically" in told


def test_uint8_that_is_not_cast_first_is_explained(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2], name="permute"),
        helper.make_node("Cast", ["nchw"], ["y"], to=FULL, name="cast"),
    ]
    image = value("image", [1, 8, 8, 3], TensorProto.UINT8)
    told = reason(save(tmp_path / "uint8.onnx", nodes, [image], [value("y", [1, 3, 8, 8])]), tmp_path)
    assert "'permute' (Transpose)" in told
    assert "cast uint8 inputs" in told


def test_broken_file_fails_without_a_word_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    assert reason(str(path), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_unknown_capability_is_refused_and_the_known_ones_are_listed(tiny_repo: Path) -> None:
    with pytest.raises(BadInputError, match=r"compute capability '87' is not one .* 75, 80, 86, 89, 120"):
        check_graphs((), tiny_repo, ("87",))


def test_what_is_not_there_is_refused(tiny_repo: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="unet_tiny"):
        check_graphs(["unet_tin"], tiny_repo, AMPERE)
    with pytest.raises(BadInputError, match=r"there is no file 'missing\.onnx'"):
        check_graphs(["missing.onnx"], tiny_repo, AMPERE)
    with pytest.raises(RepositoryError, match="no graph to check"):
        check_graphs((), tmp_path, AMPERE)


def test_missing_tensorrt_names_its_extra(tiny_repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r"edgeseg\[tensorrt-rtx\]"):
        check_graphs((), tiny_repo, AMPERE)


def test_failure_names_the_first_and_counts_the_others() -> None:
    failed = CheckedGraph("unet", "fp32", "86", False, 0.0, 0, 0, "no kernel")
    with pytest.raises(BuildError, match=r"'unet' .* capability 86: no kernel \(and 1 more\)"):
        require_built([failed, failed])


def test_command_prints_a_table_or_json_and_exits_with_3_when_a_graph_fails(
    tiny_repo: Path, tmp_path: Path
) -> None:
    run = CliRunner()
    call = ["check", "unet_tiny", "--repo", str(tiny_repo), "--compute-capability", "8.6,89"]
    shown = run.invoke(app, call)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("built") == 2
    rows = json.loads(run.invoke(app, [*call, "--json"]).stdout)
    assert [(row["compute_capability"], row["built"]) for row in rows] == [("86", True), ("89", True)]
    node = helper.make_node("NonZero", ["x"], ["y"], name="where")
    output = value("y", [2, "n"], TensorProto.INT64)
    path = save(tmp_path / "nonzero.onnx", [node], [value("x", [4, 4])], [output])
    failed = run.invoke(app, ["check", path])
    assert isinstance(failed.exception, BuildError)
    assert failed.exception.exit_code == 3
