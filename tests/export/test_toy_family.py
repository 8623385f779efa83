"""A model family in one file: what CONTRIBUTING.md asks for, from the checkpoint to the masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn
from typer.testing import CliRunner

from seg_export.checkpoints.checkpoint import load_checkpoint, write_checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.checkpoints.types import Checkpoint, Preprocessing
from seg_export.cli.main import app as seg_export
from seg_export.engines.check import check_graphs
from seg_export.engines.parity import engine_parity
from seg_export.export import export_models
from seg_export.families import FAMILIES
from seg_export.families.family import Family
from seg_export.families.semantic.engine import semantic_engine_check
from seg_export.families.semantic.graph import semantic_model
from seg_export.tracing.traceable import TraceableModel
from seg_export.verification.comparison import Tensors
from seg_export.verification.graph_runner import GraphRunner
from seg_export.verification.published import verify_published
from seg_runtime.cli.run import app as seg_run
from seg_runtime.connection import connect
from seg_runtime.errors import CheckpointError
from seg_runtime.repository import Repository
from seg_runtime.semantic import SemanticSegmenter

SIZE_HW = (32, 48)


class Toy(nn.Module):
    """Two convolutions: (N, in_channels, H, W) float32 to (N, num_classes, H, W) logits."""

    def __init__(self, in_channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.norm = nn.InstanceNorm2d(width, affine=True)
        self.last = nn.Conv2d(width, num_classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(torch.relu(self.norm(self.first(image))))
        return logits


def toy_models(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> tuple[TraceableModel, ...]:
    return (semantic_model(checkpoint, name, size_hw, 8, max_batch_size),)


def toy_preprocessing(network: nn.Module, arguments: Mapping[str, Any]) -> Preprocessing:
    return Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), None, SIZE_HW)


TOY = Family(
    name="toy",
    title="Toy",
    build=Toy,
    models=toy_models,
    engine_check=semantic_engine_check,
    preprocessing=toy_preprocessing,
)


@pytest.fixture(autouse=True)
def toy_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "toy", TOY)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "toy.pth"
    write_checkpoint(path, random_checkpoint("toy", {"in_channels": 3, "num_classes": 2, "width": 4}))
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_family_goes_from_its_checkpoint_to_masks(
    weights: Path, tmp_path: Path, precision: Literal["fp32", "fp16"]
) -> None:
    repo = tmp_path / "repo"
    (exported,) = export_models(weights, repo, "toy", precision=precision)
    assert exported.report and exported.report.passed
    spec = Repository(repo).spec("toy")
    assert (spec.family, spec.channels, spec.mean, spec.std) == ("toy", 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    graph = Repository(repo).graph_path("toy")
    halved = {value.data_type for value in onnx.load(graph).graph.initializer} & {TensorProto.FLOAT16}
    assert bool(halved) == (precision == "fp16")
    assert verify_published(repo, "toy", weights).passed
    assert engine_parity(spec, graph, EngineOf(graph)).passed

    image = np.random.default_rng(0).integers(0, 256, (*SIZE_HW, 3), dtype=np.uint8)
    mask = SemanticSegmenter(connect(repo), "toy").segment(image).mask
    assert (mask == expected_mask(weights, image)).mean() >= (1 if precision == "fp32" else 0.99)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_its_graph_compiles_for_a_gpu(
    weights: Path, tmp_path: Path, precision: Literal["fp32", "fp16"]
) -> None:
    export_models(weights, tmp_path / "repo", "toy", precision=precision)
    assert all(item.built for item in check_graphs(["toy"], tmp_path / "repo", ("86",)))


def test_the_commands_know_it_by_its_name(weights: Path, tmp_path: Path) -> None:
    repo, images = tmp_path / "repo", tmp_path / "images"
    export_models(weights, repo, "toy")
    run = CliRunner()
    verified = run.invoke(seg_export, ["verify", "toy", "--repo", str(repo), "--checkpoint", str(weights)])
    assert verified.exit_code == 0, verified.output
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), np.full((40, 60, 3), 90, np.uint8))
    command = ["segment", str(images), "--repo", str(repo), "--model", "toy", "-o", str(tmp_path / "masks")]
    segmented = run.invoke(seg_run, command)
    assert segmented.exit_code == 0, segmented.output
    assert (tmp_path / "masks" / "a_mask.png").is_file()


def test_without_its_row_the_family_is_unknown(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FAMILIES, "toy")
    with pytest.raises(CheckpointError, match="unknown model family 'toy'"):
        load_checkpoint(weights)


def expected_mask(weights: Path, image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What PyTorch makes of it, without the toolkit."""
    document = torch.load(weights, weights_only=True)
    toy = Toy(3, 2, 4).eval()
    toy.load_state_dict(document["state_dict"])
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    pixels = (torch.from_numpy(image) / 255 - mean) / std
    with torch.inference_mode():
        return toy(pixels.permute(2, 0, 1)[None]).argmax(1)[0].numpy()


class EngineOf:
    """An engine that computes what the graph does."""

    def __init__(self, graph: Path) -> None:
        self._run = GraphRunner(graph, "the toy's engine")

    def run(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        return self._run(inputs)
