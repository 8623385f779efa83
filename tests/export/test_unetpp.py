"""The U-Net++ against a plain rendering of its definition, and its pruned depths against the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seg_export.checkpoints.checkpoint import Checkpoint, build_model
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.families.semantic.pruning import pruned
from seg_export.families.semantic.unetpp import UNetPlusPlus, pruned_unetpp, unetpp_arguments
from seg_runtime.errors import BadInputError

ARGUMENTS = {"in_channels": 3, "num_classes": 2, "bilinear": True, "features": [4, 6, 8, 10]}


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def node(weights: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> torch.Tensor:
    """Two convolutions with batch normalisation, from the tensors alone."""
    for number in (1, 2):
        conv, norm = f"{name}.conv{number}", f"{name}.bn{number}"
        x = F.conv2d(x, weights[f"{conv}.weight"], weights[f"{conv}.bias"], padding=1)
        x = F.batch_norm(
            x,
            weights[f"{norm}.running_mean"],
            weights[f"{norm}.running_var"],
            weights[f"{norm}.weight"],
            weights[f"{norm}.bias"],
        )
        x = torch.relu(x)
    return x


def definition(weights: dict[str, torch.Tensor], x: torch.Tensor, levels: int) -> dict[int, torch.Tensor]:
    """Equation 1 of the paper, recursively: the nodes (0, j)."""

    def value(level: int, step: int) -> torch.Tensor:
        name = f"conv{level}_{step}"
        if step == 0:
            return node(weights, name, F.max_pool2d(value(level - 1, 0), 2) if level else x)
        below = value(level + 1, step - 1)
        if f"up{level}_{step}.weight" in weights:
            up = F.conv_transpose2d(
                below, weights[f"up{level}_{step}.weight"], weights[f"up{level}_{step}.bias"], stride=2
            )
        else:
            up = F.interpolate(below, scale_factor=2.0, mode="bilinear", align_corners=True)
        return node(weights, name, torch.cat([*(value(level, other) for other in range(step)), up], dim=1))

    return {step: value(0, step) for step in range(1, levels)}


@pytest.mark.slow
@pytest.mark.parametrize("bilinear", [True, False])
def test_every_head_gives_what_the_papers_equation_gives(bilinear: bool) -> None:
    checkpoint = random_checkpoint("unetpp", {**ARGUMENTS, "bilinear": bilinear}, seed=1)
    weights, image = (
        checkpoint.state_dict,
        torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)),
    )
    with torch.no_grad():
        expected = {
            step: F.conv2d(x, weights[f"final{step}.weight"], weights[f"final{step}.bias"])
            for step, x in definition(weights, image, levels=4).items()
        }
        torch.testing.assert_close(build_model(checkpoint)(image), expected[3])
        for depth, logits in expected.items():
            torch.testing.assert_close(build_model(pruned(checkpoint, depth))(image), logits)


def test_training_gives_the_logits_of_every_depth_at_full_size() -> None:
    heads = UNetPlusPlus(**ARGUMENTS)(torch.randn(2, 3, 19, 16))
    assert [tuple(head.shape) for head in heads] == [(2, 2, 19, 16)] * 3
    alone = UNetPlusPlus(**ARGUMENTS, deep_supervision=False)(torch.randn(2, 3, 16, 16))
    assert isinstance(alone, torch.Tensor)


def test_parameter_counts_are_the_papers_and_those_of_the_bilinear_version() -> None:
    """The paper's 9.04M has no batch normalisation, which adds 7296; pytorch-nested-unet has 9.16M."""
    with torch.device("meta"):
        transposed = UNetPlusPlus(bilinear=False)
        norms = sum(p.numel() for name, p in transposed.named_parameters() if ".bn" in name)
        assert parameter_count(transposed) - norms == 9_041_700
        assert norms == 7_296
        assert parameter_count(UNetPlusPlus(3, deep_supervision=False)) == 9_163_329


def test_each_depth_has_fewer_parameters_and_nothing_that_it_does_not_need() -> None:
    whole = random_checkpoint("unetpp", ARGUMENTS)
    counts = [parameter_count(build_model(pruned(whole, depth))) for depth in (1, 2, 3)]
    heads = 2 * (2 * 4 + 2)  # two heads are left out, each of 2 classes over 4 channels
    assert counts[0] < counts[1] < counts[2] == parameter_count(build_model(whole)) - heads
    cut = pruned(whole, 1)
    assert {name.split(".")[0] for name in cut.state_dict} == {"conv0_0", "conv1_0", "conv0_1", "final"}
    assert cut.sha256 != whole.sha256 and cut.metadata["pruned_from"] == whole.sha256


@pytest.mark.parametrize("changes", [{}, {"bilinear": False}, {"deep_supervision": False}])
def test_constructor_arguments_are_read_off_the_weights(changes: dict[str, Any]) -> None:
    arguments = {**ARGUMENTS, "deep_supervision": True, **changes}
    assert unetpp_arguments(UNetPlusPlus(**arguments).state_dict()) == arguments


def test_weights_of_another_network_give_no_arguments() -> None:
    assert unetpp_arguments(nn.Linear(2, 2).state_dict()) is None
    assert unetpp_arguments(random_checkpoint("unet", {"features": [4, 8]}).state_dict) is None


def test_what_cannot_be_pruned_or_built_is_refused() -> None:
    weights = random_checkpoint("unetpp", ARGUMENTS)
    with pytest.raises(BadInputError, match="has the depths 1 to 3"):
        pruned(weights, 4)
    with pytest.raises(BadInputError, match="without deep supervision"):
        pruned_unetpp({**ARGUMENTS, "deep_supervision": False}, {}, 1)
    with pytest.raises(BadInputError, match="this checkpoint is a unet"):
        pruned(Checkpoint("unet", {}, {}), 1)
    with pytest.raises(BadInputError, match="two or more channel counts"):
        UNetPlusPlus(features=(8,))
