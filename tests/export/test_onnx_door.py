"""ONNX files that were exported elsewhere: wrapped, verified, published, served; the rest is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from published import WEIGHTS, XRAYS
from torch import nn
from typer.testing import CliRunner

import seg_export
from seg_export.checkpoints.checkpoint import build_model, load_checkpoint
from seg_export.checkpoints.types import Preprocessing
from seg_export.cli.main import app
from seg_export.engines.check import check_graphs
from seg_export.engines.parity import engine_parity
from seg_export.families.onnx.interface import Wishes
from seg_export.families.onnx.read import read_original
from seg_export.tracing.external_weights import move_weights_of_graph
from seg_export.verification.comparison import VerificationError
from seg_export.verification.graph_runner import GraphRunner
from seg_export.verification.published import verify_published
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError, CheckpointError, EdgesegError
from seg_runtime.repository import Repository
from seg_runtime.semantic import SemanticSegmenter

SIZE_HW = (32, 48)
GRAY = Preprocessing(mean=(0.4,), std=(0.3,), input_size_hw=SIZE_HW)
COLOR = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), None, SIZE_HW, 128.0, "bgr")
BANDS = Preprocessing((0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1), None, SIZE_HW)


class Net(nn.Module):
    """A small network with batch norm and skip; parts of it are what others export."""

    def __init__(self, channels: int = 3, classes: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(16, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.norm(self.first(image)))
        logits: torch.Tensor = self.last(torch.cat([first, torch.relu(self.middle(first))], 1))
        return logits


class Around(nn.Module):
    """A network with something before it and something behind it."""

    def __init__(self, net: nn.Module, before: Callable[[Any], Any], behind: Callable[[Any], Any]) -> None:
        super().__init__()
        self.net, self.before, self.behind = net, before, behind

    def forward(self, image: torch.Tensor) -> Any:
        return self.behind(self.net(self.before(image)))


def same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Export:
    """How a file is made."""

    channels: int = 3
    classes: int = 3
    stride: int = 1
    before: Callable[[Any], Any] = same
    behind: Callable[[Any], Any] = same
    nhwc: bool = False
    uint8: bool = False
    dynamic: tuple[int, ...] = (0,)
    opset: int = 17
    outputs: tuple[str, ...] = ("logits",)
    size_hw: tuple[int, int] = SIZE_HW

    def write(self, path: Path) -> Path:
        """Write the file with PyTorch's own exporter."""
        torch.manual_seed(0)
        net = Around(Net(self.channels, self.classes, self.stride), self.before, self.behind).eval()
        shape = (*self.size_hw, self.channels) if self.nhwc else (self.channels, *self.size_hw)
        image = torch.zeros(1, *shape, dtype=torch.uint8 if self.uint8 else torch.float32)
        axes = {"x": {axis: f"axis{axis}" for axis in self.dynamic}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                net,
                (image,),
                str(path),
                input_names=["x"],
                output_names=list(self.outputs),
                dynamic_axes=axes,
                opset_version=self.opset,
                dynamo=False,
            )
        return path


def to_nchw(image: torch.Tensor) -> torch.Tensor:
    return image.permute(0, 3, 1, 2)


def to_nhwc(logits: torch.Tensor) -> torch.Tensor:
    return logits.permute(0, 2, 3, 1)


def of_pixels(image: torch.Tensor) -> torch.Tensor:
    return image.float().permute(0, 3, 1, 2) / 255


def with_auxiliary(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return logits * 2 + 1, logits


FILES = {
    "nchw": Export(),
    "gray, one class": Export(channels=1, classes=1),
    "five bands": Export(channels=5),
    "nhwc in and out": Export(before=to_nchw, behind=to_nhwc, nhwc=True),
    "nhwc in, nchw out": Export(before=to_nchw, nhwc=True),
    "fixed batch": Export(dynamic=()),
    "any size": Export(dynamic=(0, 2, 3)),
    "a quarter of the size": Export(stride=4),
    "odd sizes": Export(stride=3, size_hw=(35, 50)),
    "probabilities": Export(behind=lambda logits: torch.softmax(logits, 1)),
    "one class, sigmoid, nhwc": Export(
        1, 1, before=to_nchw, behind=lambda logits: torch.sigmoid(to_nhwc(logits)), nhwc=True
    ),
    "pixels": Export(before=of_pixels, nhwc=True, uint8=True),
    "pixels, nchw": Export(before=lambda image: image.float() / 255, uint8=True),
    "two outputs": Export(behind=with_auxiliary, outputs=("auxiliary", "logits")),
    "opset 9": Export(opset=9, stride=2),
    "opset 11": Export(opset=11, stride=2),
    "opset 20": Export(opset=20),
    "norms per channel": Export(before=nn.InstanceNorm2d(3, eps=1e-8)),
    "a batch that is baked in": Export(behind=lambda logits: logits.reshape(1, 3, *SIZE_HW)),
}


def wishes_of(export: Export) -> Wishes:
    return Wishes(output="logits" if len(export.outputs) > 1 else "")


def preprocessing_of(export: Export) -> Preprocessing:
    given = {1: GRAY, 3: COLOR}.get(export.channels, BANDS)
    return replace(given, input_size_hw=export.size_hw)


def expected(path: Path, export: Export, image: NDArray[np.uint8]) -> NDArray[Any]:
    """(classes, H, W) probabilities: ONNX Runtime and NumPy, without the toolkit."""
    given = preprocessing_of(export)
    pixels = image[..., ::-1] if given.channel_order == "bgr" else image
    if not export.uint8:
        pixels = ((pixels / given.scale - np.array(given.mean)) / np.array(given.std)).astype(np.float32)
    batch = pixels[None] if export.nhwc else np.moveaxis(pixels, -1, 0)[None]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    half = session.get_inputs()[0].type == "tensor(float16)"
    batch = np.ascontiguousarray(batch.astype(np.float16) if half else batch)
    (maps,) = session.run(["logits"], {"x": batch})
    maps = maps[0].astype(np.float32)
    maps = np.moveaxis(maps, -1, 0) if maps.shape[-1] == export.classes else maps
    if maps.shape[1:] != export.size_hw:
        height, width = export.size_hw
        maps = np.stack([cv2.resize(np.ascontiguousarray(each), (width, height)) for each in maps])
    if maps.min() >= 0 and maps.max() <= 1:
        return maps
    if export.classes == 1:
        return 1 / (1 + np.exp(-maps))
    return np.exp(maps) / np.exp(maps).sum(0)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_served_as_the_original_computes(name: str, tmp_path: Path) -> None:
    export, repo = FILES[name], tmp_path / "repo"
    file = export.write(tmp_path / "net.onnx")
    exported = seg_export.export_onnx(
        file, repo, "net", preprocessing=preprocessing_of(export), wishes=wishes_of(export)
    )
    assert exported.report and exported.report.passed and exported.report.reference == "its original"
    spec = Repository(repo).spec("net")
    single = export.dynamic == () or "baked" in name
    assert (spec.family, spec.task, spec.max_batch_size) == ("onnx", "semantic", 1 if single else 8)
    assert (spec.input_size_hw, spec.channels) == (export.size_hw, export.channels)
    assert spec.mean == (() if export.uint8 else preprocessing_of(export).mean)
    segmenter = SemanticSegmenter(connect(repo), "net")
    shape = export.size_hw if export.channels == 1 else (*export.size_hw, export.channels)
    image = np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)
    result = segmenter.segment(image)
    want = expected(file, export, image.reshape(*export.size_hw, export.channels))
    np.testing.assert_allclose(result.probabilities, want, atol=2e-5)
    assert want.std() > 0.05, "probabilities that are all alike prove nothing"


def test_batches_have_the_answers_of_single_images(tmp_path: Path) -> None:
    file = FILES["nchw"].write(tmp_path / "net.onnx")
    seg_export.export_onnx(file, tmp_path / "repo", preprocessing=COLOR)
    session = connect(tmp_path / "repo")
    images = np.random.default_rng(1).integers(0, 256, (3, *SIZE_HW, 3), dtype=np.uint8)
    together = session.infer("net", {"image": images})["probabilities"]
    for image, answer in zip(images, together, strict=True):
        np.testing.assert_allclose(answer, expected(file, FILES["nchw"], image), atol=2e-5)


def weights_in_half(path: Path, *, everywhere: bool) -> None:
    """Halve a file's weights; everywhere: inputs, outputs and what is computed too."""
    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor).astype(np.float16)
        name = tensor.name if everywhere else f"{tensor.name}_half"
        if not everywhere:
            casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(values, name))
    for value in (*model.graph.input, *model.graph.output) if everywhere else ():
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


@pytest.mark.parametrize("everywhere", [False, True])
def test_half_precision_of_a_file_stays(everywhere: bool, tmp_path: Path) -> None:
    export = FILES["a quarter of the size"]
    file = export.write(tmp_path / "net.onnx")
    weights_in_half(file, everywhere=everywhere)
    exported = seg_export.export_onnx(file, tmp_path / "repo", preprocessing=COLOR)
    spec = exported.published.spec
    assert spec.precision == ("fp16" if everywhere else "fp32")
    image = np.random.default_rng(5).integers(0, 256, (1, *SIZE_HW, 3), dtype=np.uint8)
    answer = connect(tmp_path / "repo").infer("net", {"image": image})["probabilities"][0]
    np.testing.assert_allclose(answer, expected(file, export, image[0]), atol=2e-2 if everywhere else 2e-5)
    with pytest.raises(BadInputError if everywhere else EdgesegError):
        seg_export.export_onnx(
            file, tmp_path / "repo", preprocessing=COLOR, precision="int8", calibrate=tmp_path / "none"
        )


def test_weights_next_to_the_file_are_taken_along(tmp_path: Path) -> None:
    inside = FILES["nchw"].write(tmp_path / "inside.onnx")
    model = onnx.load(inside)
    move_weights_of_graph(model, tmp_path / "weights.bin", 100)
    onnx.save(model, tmp_path / "outside.onnx")
    for name in ("inside", "outside"):
        seg_export.export_onnx(tmp_path / f"{name}.onnx", tmp_path / "repo", preprocessing=COLOR)
    repository = Repository(tmp_path / "repo")
    inside, outside = (repository.graph_path(name) for name in ("inside", "outside"))
    weights = [onnx.load(path).graph.initializer for path in (inside, outside)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))
    hashes = [repository.spec(name).checkpoint_sha256 for name in ("inside", "outside")]
    assert hashes[0] != hashes[1]
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"'weights.bin', which is truncated"):
        seg_export.export_onnx(tmp_path / "outside.onnx", tmp_path / "repo", preprocessing=COLOR)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(CheckpointError, match=r"'weights.bin', which is missing: copy it"):
        seg_export.export_onnx(tmp_path / "outside.onnx", tmp_path / "repo", preprocessing=COLOR)


def test_many_weights_lie_next_to_the_published_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seg_export.export.trace, "__defaults__", (18, None, 1000))
    file = FILES["nchw"].write(tmp_path / "net.onnx")
    seg_export.export_onnx(file, tmp_path / "repo", preprocessing=COLOR)
    assert (tmp_path / "repo" / "net" / "1" / "model.onnx.data").stat().st_size > 1000
    assert verify_published(tmp_path / "repo", "net", file).passed


@pytest.mark.parametrize("name", ["nchw", "nhwc in and out", "fixed batch", "opset 9"])
def test_fp16_is_written_into_a_file_in_fp32(name: str, tmp_path: Path) -> None:
    file = FILES[name].write(tmp_path / "net.onnx")
    exported = seg_export.export_onnx(file, tmp_path / "repo", preprocessing=COLOR, precision="fp16")
    graph = onnx.load(tmp_path / "repo" / "net" / "1" / "model.onnx")
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.graph.initializer}
    assert exported.published.spec.precision == "fp16"
    assert exported.published.size_bytes < file.stat().st_size + 4000


@pytest.mark.full
def test_int8_is_calibrated_on_images(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(WEIGHTS / "unet_lung.pth")
    file = tmp_path / "lung.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            build_model(checkpoint), (torch.zeros(1, 1, 128, 128),), str(file), opset_version=17, dynamo=False
        )
    given = replace(checkpoint.preprocessing, input_size_hw=(128, 128))
    exported = seg_export.export_onnx(
        file, tmp_path / "repo", preprocessing=given, precision="int8", calibrate=XRAYS
    )
    assert exported.precision and exported.precision.calibration
    graph = onnx.load(tmp_path / "repo" / "lung" / "1" / "model.onnx")
    assert "QuantizeLinear" in {node.op_type for node in graph.graph.node}


def test_what_is_published_verifies_again_against_its_file_and_no_other(tmp_path: Path) -> None:
    export = FILES["two outputs"]
    file = export.write(tmp_path / "net.onnx")
    repo = tmp_path / "repo"
    seg_export.export_onnx(
        file, repo, preprocessing=COLOR, wishes=Wishes(output="logits", activation="sigmoid")
    )
    run = ["verify", "net", "--repo", str(repo), "--checkpoint"]
    again = CliRunner().invoke(app, [*run, str(file), "--bisect"])
    assert again.exit_code == 0, again.output
    assert "graph against its original" in again.output and "strays from a fresh trace: none" in again.output
    other = onnx.load(file)
    bias = next(tensor for tensor in other.graph.initializer if tensor.name.endswith("last.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    onnx.save(other, tmp_path / "other.onnx")
    assert not verify_published(repo, "net", tmp_path / "other.onnx").passed
    fixed = Export(size_hw=(16, 16), dynamic=()).write(tmp_path / "fixed.onnx")
    with pytest.raises(CheckpointError, match="does not fit model 'net'"):
        verify_published(repo, "net", fixed)
    pretrained = CliRunner().invoke(app, ["verify", "net", "--repo", str(repo), "--pretrained", "lung"])
    assert isinstance(pretrained.exception, CheckpointError)
    assert "was made of an ONNX file" in str(pretrained.exception)


def test_engines_are_compared_with_the_published_graph(tmp_path: Path) -> None:
    file = FILES["a quarter of the size"].write(tmp_path / "net.onnx")
    seg_export.export_onnx(file, tmp_path / "repo", preprocessing=COLOR)
    spec, graph = Repository(tmp_path / "repo").spec("net"), Repository(tmp_path / "repo").graph_path("net")

    class Engine:
        run = staticmethod(GraphRunner(graph, "an engine"))

    assert engine_parity(spec, graph, Engine()).passed


@pytest.mark.parametrize(
    "name", ["nchw", "nhwc in, nchw out", "a quarter of the size", "pixels, nchw", "opset 9"]
)
def test_the_published_graph_compiles_for_a_gpu(name: str, tmp_path: Path) -> None:
    file = FILES[name].write(tmp_path / "net.onnx")
    seg_export.export_onnx(file, tmp_path / "repo", preprocessing=preprocessing_of(FILES[name]))
    (checked,) = check_graphs(["net"], tmp_path / "repo", ("86",))
    assert checked.built, checked.reason


def test_a_wrapper_that_strays_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seg_export.families.onnx import wrap

    right = wrap.wrapped

    def wrong(graph: Any, found: Any, given: Preprocessing, opset: int) -> onnx.ModelProto:
        return right(graph, found, replace(given, scale=99), opset)

    monkeypatch.setattr(wrap, "wrapped", wrong)
    with pytest.raises(VerificationError, match="strays from its original"):
        seg_export.export_onnx(
            FILES["nchw"].write(tmp_path / "net.onnx"), tmp_path / "repo", preprocessing=COLOR
        )
    assert not (tmp_path / "repo").exists()


def labels(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(1)


def labels_as_float(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(1, keepdim=True).float()


def table(logits: torch.Tensor) -> torch.Tensor:
    return logits.reshape(1, 6, -1).repeat(1, 1, 3)


REFUSED = {
    "labels": (Export(behind=labels), "has labels"),
    "labels as float": (Export(behind=labels_as_float), "export the graph without its argmax"),
    "boxes": (Export(behind=table), "is a detector .* a table of boxes, 1x6x2304"),
    "no class axis": (Export(behind=lambda logits: logits[:, 0]), "expected a map per class"),
    "two outputs": (
        FILES["two outputs"],
        r"several outputs \(auxiliary .*, logits .*\): choose one with --output",
    ),
    "logits as they are": (Export(), "which are no probabilities: pass sigmoid or softmax"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_map_per_class_is_refused(name: str, tmp_path: Path) -> None:
    export, message = REFUSED[name]
    file = export.write(tmp_path / "net.onnx")
    wishes = Wishes(activation="none") if name == "logits as they are" else None
    with pytest.raises(EdgesegError, match=message) as caught:
        seg_export.export_onnx(file, tmp_path / "repo", preprocessing=COLOR, wishes=wishes)
    assert caught.value.exit_code == 2 and not (tmp_path / "repo").exists()
    assert "\n" not in str(caught.value)


def graph_of(
    *nodes: onnx.NodeProto,
    inputs: tuple[tuple[str, int, list[Any]], ...] = (("x", TensorProto.FLOAT, ["n", 3, 32, 48]),),
    outputs: tuple[str, ...] = ("y",),
    opset: int = 17,
) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(*each) for each in inputs]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    domains = {node.domain for node in nodes} - {""}
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(each, 1) for each in domains)]
    return helper.make_model(helper.make_graph(nodes, "g", values, made), opset_imports=imports, ir_version=8)


RELU = helper.make_node("Relu", ["x"], ["y"])
FLOAT = TensorProto.FLOAT
BROKEN = {
    "custom operator": (graph_of(helper.make_node("Fold", ["x"], ["y"], domain="acme")), r"acme\.Fold"),
    "opset too new": (graph_of(RELU, opset=99), "has opset 99, and this version reads 7 to"),
    "opset too old": (graph_of(RELU, opset=6), "has opset 6, and this version reads 7 to"),
    "several inputs": (
        graph_of(
            helper.make_node("Add", ["a", "b"], ["y"]),
            inputs=(("a", FLOAT, ["n", 3, 32, 48]), ("b", FLOAT, ["n", 3, 32, 48])),
        ),
        r"has 2 inputs \(a, b\)",
    ),
    "ambiguous order": (
        graph_of(RELU, inputs=(("x", FLOAT, ["n", 3, 32, 3]),)),
        "pass --layout nchw or nhwc",
    ),
    "too many channels": (
        graph_of(RELU, inputs=(("x", FLOAT, ["n", 17, 32, 48]),)),
        "fixed to 1 to 16 channels",
    ),
    "two orders of bands": (
        graph_of(RELU, inputs=(("x", FLOAT, ["n", 5, 32, 8]),)),
        "pass --layout nchw or nhwc",
    ),
    "three axes": (graph_of(RELU, inputs=(("x", FLOAT, [3, 32, 48]),)), r"'x' of .* is FLOAT 3x32x48"),
    "double": (graph_of(RELU, inputs=(("x", TensorProto.DOUBLE, ["n", 3, 32, 48]),)), ".*"),
    "batches of two": (
        graph_of(RELU, inputs=(("x", FLOAT, [2, 3, 32, 48]),)),
        "takes batches of 2 and no others",
    ),
    "sam's decoder": (
        graph_of(
            helper.make_node("Add", ["image_embeddings", "point_coords"], ["y"]),
            inputs=(("image_embeddings", FLOAT, [1, 256, 64, 64]), ("point_coords", FLOAT, [1, 1, 1, 1])),
        ),
        "one half of a SAM that was exported elsewhere .* seg-export sam --checkpoint FILE",
    ),
    "sam's encoder": (
        graph_of(helper.make_node("Relu", ["x"], ["image_embeddings"]), outputs=("image_embeddings",)),
        "one half of a SAM .* seg-export sam --checkpoint FILE",
    ),
    "sam's encoder without names": (
        graph_of(
            helper.make_node("Resize", ["x", "", "", "sizes"], ["y"]),
            inputs=(("x", FLOAT, [1, 3, 64, 64]),),
        ),
        "one half of a SAM",
    ),
    "sam2's encoder": (
        graph_of(helper.make_node("Relu", ["x"], ["high_res_feats_0"]), outputs=("high_res_feats_0",)),
        "one half of a SAM .* seg-export sam2 --checkpoint FILE",
    ),
    "mask r-cnn": (
        graph_of(helper.make_node("RoiAlign", ["x", "x", "x"], ["y"])),
        "is a detector .*RoiAlign.* seg-export maskrcnn",
    ),
    "quantised": (
        graph_of(helper.make_node("DequantizeLinear", ["x", "x", "x"], ["y"])),
        "is quantised .* export it in fp32",
    ),
}
sizes = numpy_helper.from_array(np.array([1, 256, 4, 4]), "sizes")
BROKEN["sam's encoder without names"][0].graph.initializer.append(sizes)


@pytest.mark.parametrize("name", BROKEN)
def test_other_files_are_refused_with_one_line(name: str, tmp_path: Path) -> None:
    model, message = BROKEN[name]
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EdgesegError, match=message) as caught:
        seg_export.export_onnx(tmp_path / "net.onnx", tmp_path / "repo", preprocessing=COLOR)
    assert caught.value.exit_code == 2 and not (tmp_path / "repo").exists()
    assert "\n" not in str(caught.value)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    whole = FILES["nchw"].write(tmp_path / "whole.onnx").read_bytes()
    torch.save({"weights": torch.zeros(3)}, tmp_path / "torch.onnx")
    for name, contents in (
        ("empty", b""),
        ("text", b"not a graph\n" * 20),
        ("half", whole[: len(whole) // 2]),
        ("most", whole[:-40]),
    ):
        (tmp_path / f"{name}.onnx").write_bytes(contents)
    of_pytorch = "is a file of PyTorch and no ONNX graph"
    for name in ("empty", "text", "half", "most", "torch"):
        what = of_pytorch if name == "torch" else "is no ONNX file"
        with pytest.raises(CheckpointError, match=rf"{name}.onnx {what}") as caught:
            seg_export.export_onnx(tmp_path / f"{name}.onnx", tmp_path / "repo", preprocessing=COLOR)
        assert "\n" not in str(caught.value)
    for name in ("missing.onnx", "."):
        with pytest.raises(CheckpointError, match="cannot be read"):
            seg_export.export_onnx(tmp_path / name, tmp_path / "repo", preprocessing=COLOR)


STATED = ["--mean", "0.5", "--std", "0.25", "--scale", "255", "--no-clahe", "--class-names", "lung"]


def command(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["onnx", *map(str, arguments)])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.onnx")
    with pytest.raises(CheckpointError, match="it is not a regular file"):
        read_original(tmp_path / "net.onnx")


def test_the_command_publishes_and_says_what_it_read_and_assumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = FILES["gray, one class"].write(tmp_path / "chest.onnx")
    done = command(file, *STATED, "--json")
    assert done.exit_code == 0, done.output
    published = json.loads(done.stdout)
    assert published["spec"]["name"] == "chest" and published["spec"]["class_names"] == ["lung"]
    assert published["spec"]["assumed"] == {"activation": "sigmoid", "threshold": "0.5"}
    assert {"what": "layout", "value": "nchw", "origin": "file", "set_by": "--layout"} in published[
        "assumptions"
    ]
    assert "activation   sigmoid" in done.stderr and "set by --activation" in done.stderr
    assert "threshold    0.5" in done.stderr


def test_the_command_asks_for_what_the_graph_leaves_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gray = FILES["gray, one class"].write(tmp_path / "gray.onnx")
    color = FILES["any size"].write(tmp_path / "color.onnx")
    pixels = FILES["pixels"].write(tmp_path / "pixels.onnx")
    single = FILES["fixed batch"].write(tmp_path / "single.onnx")
    for arguments, message in (
        ((gray,), r"Missing: --mean \(1\), --std \(1\), --scale, --clahe or --no-clahe, --class-names \(1\)"),
        ((color,), "pass the one it was trained with, as --size 512"),
        ((color, "--size", "32x48", *STATED), r"Missing: --channel-order"),
        (
            (color, "--size", "32x48", "--assume-defaults", "--mean", "1,2"),
            "--mean 1,2: 2 values, expected 3",
        ),
        ((gray, *STATED, "--assume-defaults"), "--assume-defaults has no effect"),
        (
            (gray, *STATED, "--channel-order", "bgr"),
            "--channel-order has no effect on images of 1 channels",
        ),
        ((gray, *STATED, "--size", "64"), "--size 64x64: input 'x' takes 32x48 and no other size"),
        ((gray, *STATED, "--layout", "nhwc"), "--layout nhwc: input 'x' is .*, which has the order nchw"),
        ((gray, *STATED, "--input", "uint8"), "--input uint8: the graph's input 'x' is float32"),
        ((gray, *STATED, "--output", "y"), "--output y: .* has the outputs logits"),
        ((gray, *STATED, "--activation", "softmax"), "of one class it gives 1 everywhere"),
        ((gray, *STATED, "--class-names", "a,b"), "--class-names a,b: 2 names, expected 1"),
        ((gray, *STATED, "--std", "0"), "expected finite numbers above 0"),
        ((gray, *STATED, "--mean", "a"), "--mean 'a': expected numbers"),
        ((pixels, *STATED), "--mean has no effect on a graph that takes pixels"),
        ((pixels, "--assume-defaults", "--input", "float"), "--input float: the graph's input 'x' is uint8"),
        (
            (single, "--assume-defaults", "--max-batch", "4"),
            "--max-batch 4: the graph takes one image at a time",
        ),
        ((single, "--assume-defaults", "--queue-delay-us", "4"), "--queue-delay-us has no effect"),
        ((gray, *STATED, "--precision", "int8"), "int8 needs a folder of images"),
        ((gray, *STATED, "--name", "../x"), "cannot be a model's name"),
    ):
        result = command(*arguments)
        assert isinstance(result.exception, EdgesegError), (arguments, result.output)
        assert result.exception.exit_code == 2
        with pytest.raises(BadInputError, match=message):
            raise result.exception
    assert not (tmp_path / "triton_repo").exists()


def test_it_works_without_torch(tmp_path: Path) -> None:
    file = FILES["gray, one class"].write(tmp_path / "chest.onnx")
    code = "import sys; sys.modules['torch'] = None; from seg_export.cli.main import app; app(sys.argv[1:])"
    for arguments in (
        ["onnx", str(file), *STATED, "--repo", str(tmp_path / "repo")],
        ["verify", "chest", "--checkpoint", str(file), "--repo", str(tmp_path / "repo")],
    ):
        call = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
