"""Results of nnU-Net v2: what is published computes what nnU-Net's preprocessing and its network do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from export_command import run_export
from foreign_files import assert_short
from torch import nn

from seg_export.checkpoints.folders import read_folder
from seg_export.families.module.folder import folder_checkpoint
from seg_export.families.module.graph import module_model
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import CheckpointError
from seg_runtime.repository import Repository

pytestmark = pytest.mark.full

PATCH = (48, 64)
LABELS = {"background": 0, "lung": 1, "heart": 2}
NETWORKS = {"PlainConvUNet": PlainConvUNet, "ResidualEncoderUNet": ResidualEncoderUNet}

ARGUMENTS = {
    "n_stages": 3,
    "features_per_stage": [8, 16, 16],
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "kernel_sizes": [[3, 3]] * 3,
    "strides": [[1, 1], [2, 2], [2, 2]],
    "n_conv_per_stage": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""As `plans.json` has them from nnU-Net 2.4 on."""

LAYERS = {
    "conv_op": nn.Conv2d,
    "norm_op": nn.InstanceNorm2d,
    "nonlin": nn.LeakyReLU,
}

OLD = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 8,
    "unet_max_num_features": 16,
    "n_conv_per_stage_encoder": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "num_pool_per_axis": [2, 2],
    "pool_op_kernel_sizes": [[1, 1], [2, 2], [2, 2]],
    "conv_kernel_sizes": [[3, 3]] * 3,
}
"""The same network in the plans of nnU-Net 2.0 to 2.3."""


def residual() -> dict[str, Any]:
    arguments = {name: value for name, value in ARGUMENTS.items() if name != "n_conv_per_stage"}
    return {**arguments, "n_blocks_per_stage": [1, 2, 2]}


def architecture(name: str = "PlainConvUNet", arguments: Mapping[str, Any] = ARGUMENTS) -> dict[str, Any]:
    return {
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
    }


def network(channels: int, classes: int, name: str = "PlainConvUNet") -> nn.Module:
    """As nnU-Net's trainer builds it from these plans, with norms that have been trained.

    Norms that shift by 0 make nothing but rounding of a flat image, and each of them amplifies it.
    """
    arguments = (residual() if name == "ResidualEncoderUNet" else ARGUMENTS) | LAYERS
    torch.manual_seed(0)
    made: nn.Module = NETWORKS[name](channels, num_classes=classes, deep_supervision=True, **arguments)
    for norm in made.modules():
        if isinstance(norm, nn.InstanceNorm2d):
            nn.init.normal_(norm.bias, std=0.5)
    return made


def write_result(
    folder: Path,
    schemes: list[str],
    settings: Mapping[str, Any] | None = None,
    *,
    labels: Mapping[str, Any] = LABELS,
    masked: bool = False,
    name: str = "PlainConvUNet",
    trainer: str = "nnUNetTrainer",
    folds: tuple[str, ...] = ("fold_0",),
    files: tuple[str, ...] = ("checkpoint_final.pth",),
    configuration: str = "2d",
    dataset: Mapping[str, Any] | None = None,
) -> Path:
    """`nnUNetTrainer__nnUNetPlans__2d` as `nnUNetv2_train` leaves it, with seeded weights."""
    plan = {
        "data_identifier": "nnUNetPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 12,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": [100.0, 120.0],
        "spacing": [1.0, 1.0],
        "normalization_schemes": schemes,
        "use_mask_for_norm": [masked] * len(schemes),
        "batch_dice": True,
        **(settings or architecture(name, residual() if name == "ResidualEncoderUNet" else ARGUMENTS)),
    }
    plans = {
        "dataset_name": "Dataset001_X",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "NaturalImage2DIO",
        "transpose_forward": [0, 1, 2],
        "configurations": {"2d": plan, "2d_small": {"inherits_from": "2d", "batch_size": 2}},
    }
    written = {
        "channel_names": {str(index): "R" for index in range(len(schemes))},
        "labels": labels,
        "numTraining": 4,
        "file_ending": ".png",
        **(dataset or {}),
    }
    regions = any(isinstance(value, list) for value in labels.values())
    classes = len(
        [label for label in labels if label not in ({"background", "ignore"} if regions else {"ignore"})]
    )
    weights = network(len(schemes), classes, name).state_dict()
    document = {
        "network_weights": weights,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 1e-2, "momentum": 0.99}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float32(0.5)], "train_losses": [np.float64(-0.75)]},
        "_best_ema": np.float32(0.7),
        "current_epoch": 1000,
        "init_args": {
            "plans": plans,
            "configuration": configuration,
            "fold": 0,
            "dataset_json": written,
            "device": torch.device("cpu"),
        },
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": (0, 1),
    }
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(written))
    for fold in folds:
        (folder / fold).mkdir()
        for file in files:
            torch.save(document, folder / fold / file)
    return folder


def normalised(image: np.ndarray, scheme: str) -> np.ndarray:
    """A channel (H, W) float32 as nnunetv2/preprocessing/normalization/default_normalization_schemes.py."""
    image = image.astype(np.float32)
    if scheme == "ZScoreNormalization":
        mean, std = image.mean(), image.std()
        image -= mean
        image /= max(std, 1e-8)
    elif scheme == "RescaleTo01Normalization":
        image -= image.min()
        image /= np.clip(image.max(), a_min=1e-8, a_max=None)
    elif scheme == "RGBTo01Normalization":
        image /= 255.0
    return image


def in_nnunet(image: np.ndarray, schemes: list[str], net: nn.Module) -> np.ndarray:
    """Logits (classes, height, width) of an image (H, W, C) uint8 of the patch's size.

    As its preprocessor cuts a black border off and normalises, its predictor pads to the patch and calls
    the network without mirroring.
    """
    data = image.transpose(2, 0, 1)
    rows, columns = (np.flatnonzero(data.any((0, axis))) for axis in (2, 1))
    data = data[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    data = np.stack([normalised(channel, scheme) for channel, scheme in zip(data, schemes, strict=True)])
    missing = [whole - part for whole, part in zip(image.shape, data.shape[1:], strict=False)]
    data = np.pad(data, [(0, 0), *((each // 2, each // 2 + each % 2) for each in missing)])
    net = net.eval()
    net.decoder.deep_supervision = False  # type: ignore[union-attr]
    with torch.inference_mode():
        result: np.ndarray = net(torch.from_numpy(data)[None])[0].numpy()
    return result


def photo(channels: int, border: int = 0) -> np.ndarray:
    """(H, W, C) uint8 of the patch's size, bright at its edges but for a black border."""
    generator = np.random.default_rng(3)
    image = generator.integers(0, 200, (*PATCH, channels)).astype(np.uint8)
    image[:, :, 0] = image[:, :, 0] // 2 + 40
    image[10:20, 30:40] = 0
    if border:
        image[:border], image[-border:], image[:, :border], image[:, -border:] = 0, 0, 0, 0
    return image


def computed(folder: Path, image: np.ndarray) -> np.ndarray:
    """Probabilities (classes, height, width) of the graph before it is traced."""
    checkpoint = folder_checkpoint(folder)
    model = module_model(checkpoint, "result", checkpoint.preprocessing.input_size_hw, 1)
    with torch.inference_mode():
        result: np.ndarray = model.module(torch.from_numpy(image)[None])[0].numpy()
    return result


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(0).numpy()


Z, TO_ONE, RGB, NONE = (f"{name}Normalization" for name in ("ZScore", "RescaleTo01", "RGBTo01", "No"))


@pytest.mark.parametrize(
    ("name", "schemes", "border"),
    [
        ("PlainConvUNet", [Z], 0),
        ("ResidualEncoderUNet", [Z, Z, Z], 6),
        ("PlainConvUNet", [RGB, RGB, RGB], 0),
        ("PlainConvUNet", [Z, TO_ONE, RGB, NONE], 6),
    ],
)
def test_graph_normalises_images_as_nnunet_does(
    tmp_path: Path, name: str, schemes: list[str], border: int
) -> None:
    folder = write_result(tmp_path / "result", schemes, name=name)
    image = photo(len(schemes), border)
    wanted = softmax(in_nnunet(image, schemes, network(len(schemes), 3, name)))
    assert np.abs(computed(folder, image) - wanted).max() < 1e-5


def test_result_is_published_and_verified_with_all_that_it_says(tmp_path: Path) -> None:
    files = ("checkpoint_best.pth", "checkpoint_final.pth")
    result = write_result(
        tmp_path / "nnUNetTrainer__nnUNetPlans__2d",
        [Z],
        labels={**LABELS, "ignore": 3},
        trainer="nnUNetTrainer_250epochs",
        files=files,
    )
    image, folder = photo(1, border=4), tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), image)
    options = ["--repo", str(tmp_path / "repo"), "--images", str(folder)]
    printed = run_export("module", str(result / "fold_0"), "--name", "lungs", *options).output
    for line in (
        "a PlainConvUNet of nnU-Net v2",
        "took checkpoint_final.pth and left checkpoint_best.pth",
        "images are resized to 48x64",
        "averages over mirrored images",
        "trained by nnUNetTrainer_250epochs",
    ):
        assert line in " ".join(printed.split())
    with connect(tmp_path / "repo") as session:
        found = SemanticSegmenter(session, "lungs").segment(image[..., 0])
    wanted = softmax(in_nnunet(image, [Z], network(1, 3)))
    assert np.abs(found.probabilities - wanted).max() < 1e-4
    assert Repository(tmp_path / "repo").spec("lungs").class_names == tuple(LABELS)
    run_export("verify", "lungs", "--module", str(result), *options)


@pytest.mark.parametrize(
    ("labels", "order", "names"),
    [
        ({"background": 0, "whole": [1, 2], "core": 2}, [1, 2], ("background", "whole", "core")),
        ({"background": 0, "core": 2, "whole": [1, 2]}, [2, 1], ("background", "whole", "core")),
        ({"background": 0, "whole": [1, 2], "ignore": 3}, [1], ("whole",)),
    ],
)
def test_regions_are_the_labels_that_nnunet_paints(
    tmp_path: Path, labels: dict[str, Any], order: list[int], names: tuple[str, ...]
) -> None:
    dataset = {"regions_class_order": order}
    folder = write_result(tmp_path / "result", [Z], labels=labels, dataset=dataset)
    image = photo(1)
    found = in_nnunet(image, [Z], network(1, len(order))) > 0  # a sigmoid above 0.5
    wanted = np.zeros(PATCH, np.int64)
    for region, label in enumerate(order):
        wanted[found[region]] = label
    scores = computed(folder, image)
    painted = scores.argmax(0) if len(scores) > 1 else scores[0] > 0.5
    assert len(np.unique(wanted)) > 1 and np.mean(painted == wanted) > 0.999
    assert read_folder(folder).claims.class_names == names


@pytest.mark.parametrize(
    ("forward", "swapped"), [([0, 1, 2], False), ([2, 0, 1], False), ([0, 2, 1], True), ([1, 2, 0], True)]
)
def test_network_that_sees_rows_as_columns_is_refused(
    tmp_path: Path, forward: list[int], swapped: bool
) -> None:
    folder = write_result(tmp_path / "result", [Z])
    path = folder / "plans.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"transpose_forward": forward}))
    if not swapped:
        assert read_folder(folder).size_hw == PATCH
        return
    with pytest.raises(CheckpointError, match="which makes columns of rows") as raised:
        read_folder(folder)
    assert_short(raised.value, folder)


def test_plans_of_nnunet_before_2_4_describe_the_same_network(tmp_path: Path) -> None:
    folder = write_result(
        tmp_path / "result", [Z], OLD, configuration="2d_small", dataset={"modality": {"0": "XR"}}
    )
    image = photo(1)
    assert np.abs(computed(folder, image) - softmax(in_nnunet(image, [Z], network(1, 3)))).max() < 1e-5


def without(arguments: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return architecture("PlainConvUNet", {**arguments, **changes})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "several folds": (
        {"folds": ("fold_0", "fold_1", "fold_all")},
        "has 3 networks, fold_0, fold_1, fold_all, which nnU-Net averages: name the folder of one",
    ),
    "no fold": ({"folds": ()}, "has no fold_"),
    "no checkpoint": ({"files": ("checkpoint_latest.pth",)}, "has no fold_"),
    "3-D": ({"settings": {"patch_size": [32, 48, 64]}}, "a 3-D network: only 2-D ones"),
    "no such configuration": ({"configuration": "2d_large"}, "there are 2d, 2d_small"),
    "CT": ({"schemes": ["CTNormalization"]}, "Hounsfield units"),
    "of what is not black": ({"masked": True}, "which no graph can find"),
    "somebody's scheme": ({"schemes": ["MyNormalization"]}, "none of nnU-Net's own"),
    "somebody's network": (
        {"settings": architecture("Primus")},
        "expected PlainConvUNet or ResidualEncoderUNet",
    ),
    "somebody's layer": (
        {"settings": without(ARGUMENTS, nonlin="os.system")},
        "expected a layer of torch.nn",
    ),
    "no layer": (
        {"settings": without(ARGUMENTS, nonlin="torch.nn.modules.os.Path")},
        "expected a layer of torch.nn",
    ),
    "argument too many": ({"settings": without(ARGUMENTS, depth=3)}, "cannot be built"),
    "no network": ({"settings": {"UNet_class_name": "PlainConvUNet"}}, "describes no network"),
    "no labels": ({"dataset": {"labels": {}}}, "has no labels"),
    "strange labels": ({"dataset": {"labels": {"background": 0, "lung": "1"}}}, "others than numbers"),
    "labels with a gap": (
        {"dataset": {"labels": {"background": 0, "lung": 1, "heart": 3}}},
        "expected 0, 1, 2 and so on",
    ),
    "two names of a label": (
        {"dataset": {"labels": {"background": 0, "lung": 1, "heart": 1}}},
        "expected 0, 1, 2 and so on",
    ),
    "regions without an order": (
        {"labels": {"background": 0, "whole": [1, 2], "core": 2}},
        "has the regions_class_order None, expected each of 1 to 2 once",
    ),
    "patch of text": ({"settings": {"patch_size": ["48", "64"]}}, "does not describe the configuration '2d'"),
    "channels without names": ({"dataset": {"channel_names": "R"}}, "as channel_names, expected an object"),
    "schemes of another type": (
        {"settings": {"normalization_schemes": 1}},
        "is a result of nnU-Net v2 that cannot be read: TypeError",
    ),
    "negative features": (
        {"settings": without(ARGUMENTS, features_per_stage=[-8, 16, 16])},
        "cannot be built: Trying to create tensor with negative dimension",
    ),
    "features that no file holds": (
        {"settings": without(ARGUMENTS, features_per_stage=[8, 16, 10**6])},
        "describes a network of more than 100,000,000 weights",
    ),
    "strange plans": (
        {"settings": {"architecture": ["PlainConvUNet"]}},
        "as architecture, expected an object",
    ),
    "other channels": (
        {"dataset": {"channel_names": {"0": "R", "1": "G"}}},
        "2 channels in dataset.json and 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_is_one_line_that_says_why(tmp_path: Path, case: str) -> None:
    arguments, message = REFUSED[case]
    folder = write_result(tmp_path / "result", **({"schemes": [Z]} | arguments))
    with pytest.raises(CheckpointError) as raised:
        read_folder(folder)
    assert message in str(raised.value)
    assert_short(raised.value, folder)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "result", [Z], without(ARGUMENTS, norm_op="torch.nn.BatchNorm2d"))
    with pytest.raises(CheckpointError, match="does not fit a PlainConvUNet"):
        run_export("module", str(folder), "--repo", str(tmp_path / "repo"))
