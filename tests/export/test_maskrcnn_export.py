"""`seg-export maskrcnn`: one graph of fixed shapes, equal to torchvision, that real builders take."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torchvision.models.detection.roi_heads import paste_masks_in_image
from typer.testing import CliRunner

from seg_export.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint, save_checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import app
from seg_export.engines.check import CAPABILITIES, check_graphs
from seg_export.engines.parity import engine_parity
from seg_export.export import export_models
from seg_export.families import traceable_model
from seg_export.families.maskrcnn.checkpoints import load_maskrcnn_checkpoint
from seg_export.families.maskrcnn.detections import match_rows
from seg_export.families.maskrcnn.network import build_maskrcnn
from seg_export.verification.graph_runner import GraphRunner
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.repository import Repository

SIZE_HW = (256, 320)
LIGHT = {"arch": "maskrcnn_light_fpn", "num_classes": 4}
V2 = "maskrcnn_resnet50_fpn_v2"
DATA = Path(__file__).parents[1] / "data"
XRAYS = DATA / "montgomery"


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_checkpoint("maskrcnn", LIGHT)


@pytest.fixture
def repo(tiny_maskrcnn_repo: Path) -> Path:
    """With `checkpoint`, for images of `SIZE_HW`."""
    return tiny_maskrcnn_repo


def fit(image: NDArray[np.uint8], size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    scale = min(limit / side for limit, side in zip(size_hw, image.shape[:2], strict=True))
    height, width = (int(side * scale) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height)), dtype=np.uint8)


def run_graph(graph: GraphRunner, image: NDArray[np.uint8], size_hw: tuple[int, int]) -> dict[str, Any]:
    canvas = np.zeros((1, *size_hw, 3), np.uint8)
    canvas[0, : image.shape[0], : image.shape[1]] = image
    outputs = graph({"image": canvas, "valid_hw": np.array([image.shape[:2]], np.int32)})
    rows = min(int(outputs["count"][0, 0]), outputs["scores"].shape[1])
    return {name: outputs[name][0, :rows] for name in ("boxes", "scores", "labels", "mask_logits")}


def run_torchvision(model: Any, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """The whole model, as its users call it; its masks are pasted already."""
    with torch.inference_mode():
        found = model([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
    return {name: value.numpy() for name, value in found.items()} | {"pasted": found["masks"][:, 0] >= 0.5}


def pasted(masks: NDArray[Any], boxes: NDArray[Any], size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    height, width = size_hw[:2]
    probabilities = torch.from_numpy(np.ascontiguousarray(masks))
    found = paste_masks_in_image(probabilities, torch.from_numpy(boxes), (height, width))
    return np.asarray(found[:, 0].numpy() >= 0.5)


def assert_same_detections(
    ours: dict[str, Any], theirs: dict[str, Any], size_hw: tuple[int, ...]
) -> tuple[int, int]:
    """Rows that have a partner agree; returns how many there are and how many have none."""
    keys = ("boxes", "scores", "labels")
    pairs = match_rows(*(found[key] for found in (theirs, ours) for key in keys))
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    np.testing.assert_allclose(ours["boxes"][second], theirs["boxes"][first], atol=0.05)
    np.testing.assert_allclose(ours["scores"][second], theirs["scores"][first], atol=1e-4)
    probabilities = 1 / (1 + np.exp(-ours["mask_logits"][second, None].astype(np.float32)))
    mine = pasted(probabilities, ours["boxes"][second], size_hw)
    other = np.asarray(theirs["pasted"])[first]
    either = (mine | other).sum(axis=(1, 2))
    ious = np.where(either > 0, (mine & other).sum(axis=(1, 2)) / np.maximum(either, 1), 1.0)
    # A box whose corner is within rounding of a whole pixel is pasted a pixel off: 1 pixel of a small mask.
    assert np.mean(ious >= 0.999) >= 0.99
    return len(pairs), len(theirs["scores"]) + len(ours["scores"]) - 2 * len(pairs)


@pytest.mark.full
def test_equals_torchvision_called_as_its_users_call_it(repo: Path, checkpoint: Checkpoint) -> None:
    model: Any = build_model(checkpoint)
    model.transform.min_size, model.transform.max_size = (SIZE_HW[0],), SIZE_HW[1]
    graph = GraphRunner(Repository(repo).graph_path("cells"), "cells")
    matched = unmatched = 0
    for file in sorted((XRAYS / "images").glob("*.png")):
        image = cv2.resize(cv2.imread(str(file)), SIZE_HW[::-1])
        found = assert_same_detections(
            run_graph(graph, image, SIZE_HW), run_torchvision(model, image), SIZE_HW
        )
        matched, unmatched = matched + found[0], unmatched + found[1]
    assert matched >= 100
    assert unmatched <= 0.005 * matched


def fifty_images() -> Iterator[NDArray[np.uint8]]:
    """Cells, X-rays and photographs, whole and in parts of other shapes."""
    folders = DATA / "nuclei" / "images", XRAYS / "images", DATA / "photographs"
    images = [cv2.imread(str(file)) for folder in folders for file in sorted(folder.iterdir())]
    shares = np.random.default_rng(0).uniform(0.4, 1, (50, 2))
    shares[: len(images)] = 1
    for image, share in zip(itertools.cycle(images), shares, strict=False):
        height, width = (np.array(image.shape[:2]) * share).astype(int)
        yield image[:height, :width]


@pytest.mark.full
def test_equals_torchvision_on_fifty_images_of_many_sizes(repo: Path, checkpoint: Checkpoint) -> None:
    """Images that do not fill the canvas: torchvision pads them to it, as in a batch."""
    model = traceable_model(checkpoint, "cells", SIZE_HW, 8)
    assert model.reference is not None
    graph = GraphRunner(Repository(repo).graph_path("cells"), "cells")
    matched, unmatched, sizes = 0, 0, set()
    images = [fit(image, SIZE_HW) for image in fifty_images()]
    for image in images:
        sizes.add(image.shape)
        canvas = np.zeros((1, *SIZE_HW, 3), np.uint8)
        canvas[0, : image.shape[0], : image.shape[1]] = image
        with torch.inference_mode():
            tensors = model.reference(torch.from_numpy(canvas), torch.tensor([image.shape[:2]]))
        boxes, scores, labels, logits, count = (tensor[0].numpy() for tensor in tensors)
        rows = min(int(count[0]), len(scores))
        theirs = {"boxes": boxes[:rows], "scores": scores[:rows], "labels": labels[:rows]}
        theirs["pasted"] = pasted(1 / (1 + np.exp(-logits[:rows, None])), boxes[:rows], image.shape)
        found = assert_same_detections(run_graph(graph, image, SIZE_HW), theirs, image.shape)
        matched, unmatched = matched + found[0], unmatched + found[1]
    assert len(images) == 50 and len(sizes) >= 20
    assert matched >= 2000
    assert unmatched <= 0.005 * matched


def test_the_graph_has_fixed_shapes_and_no_operator_that_makes_others(repo: Path) -> None:
    graph = onnx.load(Repository(repo).graph_path("cells"))
    ops = {node.op_type for node in graph.graph.node}
    assert not ops & {"NonZero", "If", "Loop", "Scan", "NonMaxSuppression", "RoiAlign", "Compress", "Unique"}
    inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    for value in (*graph.graph.output, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        assert dims[0].dim_param == "batch"
        assert all(dim.dim_value > 0 for dim in dims[1:])


def test_a_batch_gives_what_single_images_give_and_noise_in_the_padding_does_not_count(repo: Path) -> None:
    graph = GraphRunner(Repository(repo).graph_path("cells"), "cells")
    generator = np.random.default_rng(0)
    canvas = generator.integers(0, 256, (3, *SIZE_HW, 3), dtype=np.uint8)
    valid = np.array([[256, 320], [256, 100], [90, 320]], np.int32)
    together = graph({"image": canvas, "valid_hw": valid})
    for index, (height, width) in enumerate(valid):
        alone = run_graph(graph, canvas[index, :height, :width], SIZE_HW)
        rows = len(alone["scores"])
        assert rows > 0
        np.testing.assert_allclose(together["scores"][index, :rows], alone["scores"], atol=1e-5)
        np.testing.assert_allclose(together["boxes"][index, :rows], alone["boxes"], atol=0.05)
        assert (alone["boxes"] <= [width, height, width, height]).all()


@pytest.mark.slow
def test_rows_without_a_detection_are_empty() -> None:
    model = traceable_model(
        random_checkpoint("maskrcnn", {**LIGHT, "max_detections": 400}), "cells", SIZE_HW, 8
    )
    with torch.inference_mode():
        results = model.module(torch.zeros(1, *SIZE_HW, 3, dtype=torch.uint8), torch.tensor([[33, 40]]))
    boxes, scores, labels, logits, count = (result[0].numpy() for result in results)
    assert 0 < count[0] < 400
    for values in (boxes, scores, labels):
        assert values[: count[0]].any() and not values[count[0] :].any()
    assert (logits[count[0] :] < 0).all() and np.isfinite(logits).all()


@pytest.mark.full
@pytest.mark.slow
def test_compiles_with_a_real_builder_in_fp32(repo: Path) -> None:
    (result,) = check_graphs(["cells"], repo, ("86",))
    assert result.built, result.reason


@pytest.mark.full
def test_half_precision_holds_is_finite_on_extremes_and_compiles_for_all(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    (exported,) = export_models(checkpoint, tmp_path, "cells", size_hw=SIZE_HW, precision="fp16")
    assert exported.report is not None and exported.report.passed
    graph = GraphRunner(Repository(tmp_path).graph_path("cells"), "cells")
    for value in (0, 255):
        image = np.full((1, *SIZE_HW, 3), value, np.uint8)
        outputs = graph({"image": image, "valid_hw": np.array([SIZE_HW], np.int32)})
        assert all(np.isfinite(array).all() for array in outputs.values())
    results = check_graphs((), tmp_path)
    assert {item.compute_capability for item in results if item.built} == set(CAPABILITIES)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [*(f"maskrcnn_resnet{body}_fpn" for body in (18, 50, 101)), V2])
def test_a_state_dict_says_what_it_is(tmp_path: Path, arch: str) -> None:
    model = build_maskrcnn(arch=arch, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = load_maskrcnn_checkpoint(tmp_path / "weights.pth", max_detections=7)
    assert loaded.arguments["arch"] == arch
    assert loaded.class_names == ("class_1", "class_2")
    built: Any = build_model(loaded)
    assert built.roi_heads.detections_per_img == 7
    with pytest.raises(CheckpointError, match=f"is a {arch}, not a maskrcnn_resnet34_fpn"):
        load_maskrcnn_checkpoint(tmp_path / "weights.pth", "maskrcnn_resnet34_fpn")


@pytest.mark.full
@pytest.mark.slow
def test_names_of_old_torchvision_files_are_understood_as_torchvision_understands_them(
    tmp_path: Path,
) -> None:
    """As its COCO weights are stored: no counts of batches, and older names."""
    model: Any = build_maskrcnn(arch="maskrcnn_resnet50_fpn", num_classes=91, norm="frozen")
    new = model.state_dict()
    old = {
        re.sub(r"(blocks\.\d)\.0\.", r"\1.", name)
        .replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        .replace("mask_head.0.0", "mask_head.mask_fcn1")
        .replace("mask_head.1.0", "mask_head.mask_fcn2")
        .replace("mask_head.2.0", "mask_head.mask_fcn3")
        .replace("mask_head.3.0", "mask_head.mask_fcn4"): tensor
        for name, tensor in new.items()
    }
    assert set(old) != set(new)
    torch.save(old, tmp_path / "coco.pth")
    torchvisions: Any = build_maskrcnn(arch="maskrcnn_resnet50_fpn", num_classes=91, norm="frozen")
    torchvisions.load_state_dict(torch.load(tmp_path / "coco.pth", weights_only=True))
    checkpoint = load_checkpoint(tmp_path / "coco.pth")
    assert checkpoint.class_names[0] == "person" and len(checkpoint.class_names) == 90
    for name, tensor in build_model(checkpoint).state_dict().items():
        torch.testing.assert_close(tensor, torchvisions.state_dict()[name])


@pytest.mark.slow
def test_a_checkpoint_of_another_class_count_or_anchors_is_refused(tmp_path: Path) -> None:
    state = build_maskrcnn(**LIGHT).state_dict()
    path = tmp_path / "cells.pth"
    save_checkpoint(
        path,
        family="maskrcnn",
        arguments={**LIGHT, "num_classes": 3},
        state_dict=state,
        preprocessing=random_checkpoint("maskrcnn", LIGHT).preprocessing,
        class_names=("a", "b"),
    )
    with pytest.raises(CheckpointError, match=r"cls_score.weight is \[4, 128\], not \[3, 128\]"):
        build_model(load_checkpoint(path))
    state["rpn.head.cls_logits.weight"] = torch.zeros(5, 64, 1, 1)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="5 anchors per place"):
        load_checkpoint(path)


@pytest.mark.slow
def test_sizes_that_cannot_be_served_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for size_hw in ((32, 320), (256, 5000)):
        with pytest.raises(BadInputError, match="each side must be 64 to 4096"):
            export_models(checkpoint, tmp_path / "repo", "cells", size_hw=size_hw)
    assert not (tmp_path / "repo").exists()


@pytest.mark.full
def test_the_command_publishes_a_size_that_is_no_multiple_of_32(tmp_path: Path) -> None:
    command = ["maskrcnn", "--arch", "maskrcnn_light_fpn", "--random", "--classes", "2", "--size", "100x150"]
    result = CliRunner().invoke(app, [*command, "--max-detections", "12", "--repo", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    spec = json.loads(result.stdout)["spec"]
    assert spec["task"] == "instances" and spec["weights"] == "random"
    assert spec["inputs"][0]["shape"] == [100, 150, 3]
    assert spec["outputs"][0]["shape"] == [12, 4]
    assert spec["class_names"] == ["class_1", "class_2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "exactly one of --checkpoint FILE, --pretrained nuclei, --download"),
        (["--random", "--arch", "maskrcnn_resnet5_fpn"], "did you mean maskrcnn_resnet50_fpn"),
        (["--download", "--arch", "maskrcnn_resnet18_fpn"], "torchvision has no weights for"),
        (["--checkpoint", "missing.pth"], "missing.pth"),
        (["--random", "--size", "0x"], "expected pixels as 512"),
    ],
)
def test_wrong_arguments_are_one_clear_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["maskrcnn", *arguments, "--repo", str(tmp_path / "repo")])
    assert result.exit_code != 0
    assert message in str(result.exception)
    assert not (tmp_path / "repo").exists()


class _Runner:
    """A graph in an engine's place, whose scores are moved."""

    def __init__(self, graph: GraphRunner, move: float) -> None:
        self.graph, self.move = graph, move

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        outputs = dict(self.graph(inputs))
        # As engines may: rows of nearly equal score in another order.
        order = np.r_[1, 0, 2 : outputs["scores"].shape[1]]
        for name in ("boxes", "scores", "labels", "mask_logits"):
            outputs[name] = outputs[name][:, order]
        outputs["scores"] = np.maximum(outputs["scores"] - np.float32(self.move), 0)
        return outputs


@pytest.mark.full
def test_an_engine_is_compared_with_its_graph_row_by_row(repo: Path) -> None:
    published = Repository(repo)
    spec, path = published.spec("cells"), published.graph_path("cells")
    for move, passed in ((0.0, True), (0.2, False)):
        report = engine_parity(spec, path, _Runner(GraphRunner(path, "cells"), move))
        assert report.passed is passed


@pytest.mark.full
def test_the_full_size_model_is_verified_on_a_photograph_and_compiles(
    tmp_path: Path, one_xray_folder: Path
) -> None:
    """ResNet-50, 91 classes, 800x1333, in processes of their own."""
    script = "from seg_export.cli.main import main; main()"
    for arguments in (
        ["maskrcnn", "--random", "--images", str(one_xray_folder), "--max-batch", "1", "--json"],
        ["check", "--compute-capability", "86", "--json"],
    ):
        command = [sys.executable, "-c", script, *arguments, "--repo", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert [item["built"] for item in json.loads(done.stdout)] == [True]
