"""Checkpoints that cannot become a semantic graph."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seg_export.checkpoints.checkpoint import Checkpoint, Preprocessing
from seg_export.families import traceable_model
from seg_export.families.semantic.engine import semantic_labels
from seg_export.families.semantic.random import random_unet
from seg_runtime.errors import BadInputError, CheckpointError, EdgesegError
from seg_runtime.spec import ClaheSpec

TINY = random_unet(features=(4, 8, 16, 32))
FIVE = random_unet(in_channels=5, features=(4, 8))


def test_contract_carries_what_the_checkpoint_says() -> None:
    clahe = ClaheSpec(3.0, (4, 4))
    preprocessing = replace(TINY.preprocessing, clahe=clahe)
    checkpoint = replace(TINY, preprocessing=preprocessing, class_names=("lung",), sha256="ab" * 32)
    spec = traceable_model(checkpoint, "lungs", (64, 96), 4).spec
    assert (spec.name, spec.family, spec.task, spec.weights) == ("lungs", "unet", "semantic", "random")
    assert (spec.clahe, spec.class_names, spec.checkpoint_sha256) == (clahe, ("lung",), "ab" * 32)
    assert spec.inputs[0].shape == (64, 96, 1) and spec.outputs[0].shape == (1, 64, 96)
    assert spec.max_batch_size == 4
    network_parameters = sum(
        tensor.numel()
        for name, tensor in TINY.state_dict.items()
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    assert spec.parameter_count == network_parameters


def test_random_weights_are_seeded_and_leave_the_global_generator_alone() -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = (random_unet(features=(4, 8), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), expected)
    assert first.sha256 == second.sha256 != other.sha256


@pytest.mark.parametrize("size_hw", [(7, 64), (64, 4), (5000, 64), (0, 0)])
def test_sizes_that_the_network_cannot_take_are_refused(size_hw: tuple[int, int]) -> None:
    with pytest.raises(BadInputError, match=r"each side must be 8 to 4096 pixels"):
        traceable_model(TINY, "unet", size_hw, 8)


def test_no_batch_is_refused() -> None:
    with pytest.raises(BadInputError, match="largest batch 0"):
        traceable_model(TINY, "unet", (64, 64), 0)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        (replace(TINY, preprocessing=Preprocessing((0.5,) * 3, (0.2,) * 3)), "mean has 3 values"),
        (replace(TINY, preprocessing=Preprocessing((0.5,), (0.0,))), "must be above 0"),
        (replace(TINY, class_names=("left", "right")), "names 2 classes and its network has 1"),
        (
            replace(TINY, family="unknown"),
            "knows maskrcnn, module, onnx, sam, sam2, transunet, unet, unetpp",
        ),
        (random_unet(in_channels=17, features=(4, 8)), "takes 17 channels"),
        (replace(FIVE, preprocessing=replace(FIVE.preprocessing, clahe=ClaheSpec())), "takes 5 bands"),
        (replace(FIVE, preprocessing=replace(FIVE.preprocessing, channel_order="bgr")), "order is bgr and"),
    ],
)
def test_checkpoints_that_contradict_themselves_are_refused(checkpoint: Checkpoint, message: str) -> None:
    with pytest.raises(EdgesegError, match=message) as caught:
        traceable_model(checkpoint, "unet", (64, 64), 8)
    assert isinstance(caught.value, CheckpointError)


def test_labels_are_the_threshold_or_the_likeliest_class() -> None:
    import numpy as np

    spec = traceable_model(TINY, "unet", (64, 64), 1).spec
    binary = np.array([0.2, 0.5, 0.9], np.float32).reshape(1, 1, 1, 3)
    assert semantic_labels(spec, {"probabilities": binary}).tolist() == [[[0, 1, 1]]]
    several = np.array([[0.1, 0.7], [0.6, 0.2], [0.3, 0.1]], np.float32).reshape(1, 3, 1, 2)
    assert semantic_labels(spec, {"probabilities": several}).tolist() == [[[1, 0]]]
