"""Norms over the maps of an image: what the graph of a module has in place of PyTorch's."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from seg_export import Preprocessing, export_module
from seg_export.families.module.norms import RowwiseNorm, with_rowwise_norms
from seg_runtime import SemanticSegmenter, connect

NORMS = {
    "instance": nn.InstanceNorm2d(8),
    "instance with weights": nn.InstanceNorm2d(8, affine=True, eps=1e-3),
    "groups": nn.GroupNorm(4, 8),
    "group per channel": nn.GroupNorm(8, 8),
    "one group without weights": nn.GroupNorm(1, 8, affine=False),
}


class Subclass(nn.GroupNorm):
    """As norms of timm, which apply an activation too."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


class GrayNet(nn.Module):
    """Deep enough for a norm to take what an earlier one amplified."""

    def __init__(self, norm: type[nn.Module] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), self.norm(norm), nn.ReLU()) for _ in range(4)]
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), self.norm(norm), *layers, nn.Conv2d(8, 2, 1)
        )

    def norm(self, kind: type[nn.Module] | None) -> nn.Module:
        return nn.GroupNorm(8, 8) if kind is None else kind(8)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(pixels)
        return logits


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("shape", [(3, 8, 6, 5), (2, 8, 7, 7)])
def test_rowwise_norm_is_the_norm_of_pytorch(name: str, shape: tuple[int, ...]) -> None:
    norm = copy.deepcopy(NORMS[name]).double()
    for tensor in norm.parameters():
        nn.init.normal_(tensor)
    maps = 3 + 2 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(RowwiseNorm(norm)(maps), norm(maps))  # type: ignore[arg-type]


def test_other_norms_and_the_network_itself_stay_as_they_are() -> None:
    network = nn.Sequential(
        nn.InstanceNorm2d(8, affine=True),
        nn.InstanceNorm2d(8, track_running_stats=True),
        nn.BatchNorm2d(8),
        nn.Sequential(Subclass(2, 8), nn.GroupNorm(2, 8)),
    ).eval()
    copied = with_rowwise_norms(network)
    kinds = [type(part).__name__ for part in copied.modules()]
    assert kinds.count("RowwiseNorm") == 2 and {"Subclass", "BatchNorm2d", "InstanceNorm2d"} <= set(kinds)
    assert not any(isinstance(part, RowwiseNorm) for part in network.modules())
    pointers = [{tensor.data_ptr() for tensor in each.parameters()} for each in (network, copied)]
    assert pointers[0] == pointers[1]
    maps = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(copied(maps), network(maps))


@pytest.mark.slow
@pytest.mark.parametrize("norm", [None, nn.InstanceNorm2d])
def test_flat_gray_images_are_as_close_as_others(tmp_path: Path, norm: type[nn.Module] | None) -> None:
    """With InstanceNormalization in the graph, the probabilities of these are 1.4e-4 off."""
    side = 256
    network = GrayNet(norm).eval()
    prepared = Preprocessing((0.4,), (0.2,), input_size_hw=(side, side))
    exported = export_module(network, tmp_path, "gray", preprocessing=prepared)
    assert exported.report is not None and exported.report.worst.tolerance_needed <= 1e-5
    operators = {node.op_type for node in onnx.load(exported.published.folder / "model.onnx").graph.node}
    assert "InstanceNormalization" not in operators
    image = np.full((side, side), 255, np.uint8)
    pixels = torch.full((1, 1, side, side), (1 - 0.4) / 0.2, dtype=torch.float64)
    with connect(tmp_path) as session, torch.inference_mode():
        found = SemanticSegmenter(session, "gray").segment(image).probabilities
        exact = copy.deepcopy(network).double()(pixels).softmax(1)[0].numpy()
    assert np.abs(found - exact).max() < 1e-5
