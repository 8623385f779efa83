"""MONAI bundles: what is published computes what MONAI's own parser, transforms and network do."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from export_command import run_export
from foreign_files import assert_short
from monai.bundle import ConfigParser

from seg_export.checkpoints.folders import read_folder
from seg_export.families.module.folder import folder_checkpoint
from seg_export.families.module.graph import module_model
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import BadInputError, CheckpointError, EdgesegError, MissingExtraError
from seg_runtime.files.images import read_image
from seg_runtime.repository import Repository

# MONAI's own, for a reader that is not needed here.
pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),
]

SIZE_WH = [64, 48]
"""As bundles write it: MONAI's images are (C, W, H)."""

LOAD = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": 3,
    "out_channels": "@classes",
    "channels": [8, 16],
    "strides": [2],
}
SOFTMAX = [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]


def write_bundle(
    folder: Path,
    transforms: list[Any] | None,
    network: Mapping[str, Any] = UNET,
    *,
    after: list[Any] = SOFTMAX,
    metadata: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """A bundle as MONAI's model zoo lays it out, with seeded weights."""
    config = {"classes": 2, "network_def": network, "network": "$@network_def.to(@device)", **more}
    config["device"] = "$torch.device('cpu')"
    if transforms is not None:
        config["preprocessing"] = {"_target_": "Compose", "transforms": transforms}
    config["postprocessing"] = {"_target_": "Compose", "transforms": after}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata or described()))
    torch.manual_seed(0)
    weights = ConfigParser(config).get_parsed_content("network_def").state_dict()
    # Smaller than MONAI's: networks that were never trained amplify the rounding of flat images.
    halved = {name: each / 2 if each.is_floating_point() else each for name, each in weights.items()}
    torch.save(halved, folder / "models" / "model.pt")
    return folder


def described(channels: int = 3, names: tuple[str, ...] = ("background", "tool")) -> dict[str, Any]:
    """The metadata of a bundle, as far as it describes a network."""
    image = {"type": "image", "num_channels": channels, "spatial_shape": SIZE_WH, "dtype": "float32"}
    pred = {"type": "image", "channel_def": {str(index): name for index, name in enumerate(names)}}
    return {
        "version": "0.1.0",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def in_monai(folder: Path, path: Path) -> np.ndarray:
    """Probabilities (classes, height, width) of an image, all by MONAI itself."""
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt"))
    transforms = parser.get_parsed_content("preprocessing")
    dictionary = parser["preprocessing"]["transforms"][0]["_target_"].endswith("d")
    image = transforms({"image": str(path)})["image"] if dictionary else transforms(str(path))
    with torch.inference_mode():
        logits = network(image[None])[0]
    result: np.ndarray = parser.get_parsed_content("postprocessing")({"pred": logits})["pred"].numpy()
    return result


def computed(folder: Path, path: Path) -> np.ndarray:
    """Probabilities (classes, height, width) of the graph before it is traced."""
    checkpoint = folder_checkpoint(folder)
    model = module_model(checkpoint, "bundle", checkpoint.preprocessing.input_size_hw, 1)
    with torch.inference_mode():
        image = torch.from_numpy(read_image(path, model.spec.channels))
        result: np.ndarray = model.module(image.reshape(1, *image.shape[:2], -1))[0].numpy()
    return result


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A PNG of 48 rows and 64 columns that is no mirror image of itself, with a black corner."""
    row, column = np.mgrid[:48, :64]
    planes = [3 * row + column, 255 - 2 * column, (row * column) // 12]
    image = np.dstack(planes).clip(0, 255).astype(np.uint8)
    image[:10, :20] = 0
    cv2.imwrite(str(tmp_path / "photo.png"), image)
    return tmp_path / "photo.png"


def on_images(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": name, "keys": "image", **arguments}


TO_ONE = on_images("ScaleIntensityRanged", a_min=0, a_max=255, b_min=0, b_max=1, clip=True)
STATISTICS = {"subtrahend": [0.4, 0.5, 0.6], "divisor": [0.2, 0.25, 0.5], "channel_wise": True}

FIXED = {
    "range": [TO_ONE],
    "range without target": [on_images("ScaleIntensityRanged", a_min=0, a_max=128)],
    "around zero": [on_images("ScaleIntensityRangeD", a_min=0, a_max=255, b_min=-1, b_max=1, clip=True)],
    "statistics": [TO_ONE, on_images("NormalizeIntensityd", **STATISTICS)],
    "one for all channels": [on_images("NormalizeIntensityDict", subtrahend=120, divisor=60)],
    "nothing": [],
}

PER_IMAGE = {
    "min and max": [on_images("ScaleIntensityd")],
    "min and max of channels": [on_images("ScaleIntensityd", minv=-1, maxv=2, channel_wise=True)],
    "z-score": [on_images("NormalizeIntensityd")],
    "z-score of channels": [TO_ONE, on_images("NormalizeIntensityd", channel_wise=True)],
    "z-score of what is not black": [on_images("NormalizeIntensityd", nonzero=True)],
    "z-score of channels, nonzero": [on_images("NormalizeIntensityd", nonzero=True, channel_wise=True)],
    "clipped": [on_images("ScaleIntensityRanged", a_min=50, a_max=200, b_min=0, b_max=1, clip=True)],
    "min and max, then statistics": [
        on_images("ScaleIntensityd"),
        on_images("NormalizeIntensityd", **STATISTICS),
    ],
}


@pytest.mark.parametrize("name", [*FIXED, *PER_IMAGE])
def test_graph_prepares_images_as_monai_does(tmp_path: Path, photo: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "bundle", LOAD + (FIXED | PER_IMAGE)[name])
    found, wanted = computed(folder, photo), in_monai(folder, photo)
    assert np.abs(found - wanted.transpose(0, 2, 1)).max() < 1e-5
    assert (read_folder(folder).claims.scale == 255) == (name in FIXED)


AXES = {
    "as LoadImage has them": LOAD,
    "as rows": [{**LOAD[0], "reverse_indexing": False}, LOAD[1]],
    "as rows, by its reader": [
        {**LOAD[0], "reader": {"_target_": "PILReader", "reverse_indexing": False}},
        LOAD[1],
    ],
    "transposed": [*LOAD, on_images("Transposed", indices=[0, 2, 1])],
    "of arrays": [{"_target_": "LoadImage", "ensure_channel_first": True}, {"_target_": "ToTensor"}],
}


@pytest.mark.parametrize("name", AXES)
def test_network_sees_rows_and_columns_as_in_monai(tmp_path: Path, photo: Path, name: str) -> None:
    folder = write_bundle(tmp_path / "bundle", AXES[name])
    by_rows = name in {"as rows", "as rows, by its reader", "transposed"}
    metadata = described()
    if by_rows:
        metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = SIZE_WH[::-1]
        (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    found, wanted = computed(folder, photo), in_monai(folder, photo)
    assert found.shape == (2, 48, 64)
    assert np.abs(found - (wanted if by_rows else wanted.transpose(0, 2, 1))).max() < 1e-5
    assert any("(C, W, H)" in step for step in read_folder(folder).steps) != by_rows


def test_axes_are_those_of_load_image_where_nothing_loads(tmp_path: Path) -> None:
    model = read_folder(write_bundle(tmp_path / "bundle", [TO_ONE]))
    assert model.size_hw == (48, 64) and model.steps[0].startswith("nothing loads its images")
    with torch.inference_mode():
        rows = model.network(torch.zeros(1, 3, 48, 64))
    assert rows.shape == (1, 2, 48, 64)


def test_published_bundle_paints_the_mask_that_monai_saves(tmp_path: Path, photo: Path) -> None:
    save = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": str(tmp_path / "out"),
        "output_ext": ".png",
    }
    save |= {
        "output_postfix": "",
        "separate_folder": False,
        "resample": False,
        "print_log": False,
        "scale": 255,
    }
    folder = write_bundle(
        tmp_path / "bundle",
        [*LOAD, on_images("Resized", spatial_size=SIZE_WH, mode="bilinear"), TO_ONE],
        after=[*SOFTMAX, {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}, save],
    )
    parser = ConfigParser(json.loads((folder / "configs" / "inference.json").read_text()))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt"))
    image = parser.get_parsed_content("preprocessing")({"image": str(photo)})["image"]
    with torch.inference_mode():
        parser.get_parsed_content("postprocessing")({"pred": network(image[None])[0]})

    repo = ["--repo", str(tmp_path / "repo")]
    printed = " ".join(run_export("module", str(folder), "--name", "tools", *repo).output.split())
    assert "a UNet of a MONAI bundle" in printed and "MONAI interpolates (bilinear)" in printed
    with connect(tmp_path / "repo") as session:
        found = SemanticSegmenter(session, "tools").segment(read_image(photo, 3))
    mask = cv2.imread(str(tmp_path / "out" / "photo.png"), cv2.IMREAD_UNCHANGED)
    assert 0.02 < np.mean(mask == 255) < 0.98
    assert np.mean((mask == 255) == (found.mask == 1)) > 0.999
    run_export("verify", "tools", "--module", str(folder), *repo)
    spec = Repository(tmp_path / "repo").spec("tools")
    assert (spec.class_names, spec.input_size_hw) == (("background", "tool"), (48, 64))


SUPERVISED = {
    "_target_": "BasicUNetPlusPlus",
    "spatial_dims": 2,
    "in_channels": 3,
    "out_channels": "@classes",
    "features": [4] * 6,
    "norm": "batch",
    "deep_supervision": True,
}
"""A network that gives a list of four."""


def write_supervised(folder: Path, network: Mapping[str, Any] = SUPERVISED, **more: Any) -> Path:
    """A bundle of that network with weights that make more than flat maps."""
    path = write_bundle(folder, [*LOAD, TO_ONE], network, **more) / "models" / "model.pt"
    torch.save({name: 8 * each if each.ndim == 4 else each for name, each in torch.load(path).items()}, path)
    return folder


def outputs_in_monai(folder: Path, path: Path) -> list[torch.Tensor]:
    """The logits (classes, height, width) of a network that gives a list, by MONAI itself."""
    parser = ConfigParser(json.loads((folder / "configs" / "inference.json").read_text()))
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt"))
    with torch.inference_mode():
        found = network(parser.get_parsed_content("preprocessing")({"image": str(path)})["image"][None])
    return [each[0].mT for each in found]  # of images that lie on their side


def test_output_of_a_bundle_with_several_is_chosen(tmp_path: Path, photo: Path) -> None:
    folder, repo = write_supervised(tmp_path / "bundle"), tmp_path / "repo"
    wanted = [torch.softmax(logits, 0).numpy() for logits in outputs_in_monai(folder, photo)]
    assert np.abs(wanted[2] - wanted[3]).max() > 0.1
    with pytest.raises(BadInputError, match=r"has 4 outputs: choose with --output one of 0 \(1x2x48x64\), 1"):
        run_export("module", str(folder), "--repo", str(repo))
    run_export("module", str(folder), "--output", "2", "--repo", str(repo))
    with connect(repo) as session:
        found = SemanticSegmenter(session, "bundle").segment(read_image(photo, 3))
    assert np.abs(found.probabilities - wanted[2]).max() < 1e-4
    verify = ["verify", "bundle", "--module", str(folder), "--repo", str(repo)]
    run_export(*verify, "--output", "2")
    with pytest.raises(EdgesegError, match="strays from PyTorch"):
        run_export(*verify, "--output", "3")


def test_classes_of_a_sigmoid_in_a_list_leave_a_background_too(tmp_path: Path, photo: Path) -> None:
    after = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.55},
    ]
    network, metadata = {**SUPERVISED, "deep_supervision": False}, described(names=("vessel", "tool"))
    folder = write_supervised(tmp_path / "bundle", network, after=after, metadata=metadata)
    (logits,) = outputs_in_monai(folder, photo)
    reached = logits.sigmoid().amax(0).numpy() > 0.55
    assert 0.02 < np.mean(reached) < 0.98
    assert np.mean((computed(folder, photo).argmax(0) > 0) == reached) > 0.999


@pytest.mark.parametrize(
    ("after", "classes", "activation", "threshold"),
    [
        ([{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}], 2, "sigmoid", None),
        (
            [
                {"_target_": "Activations", "sigmoid": True},
                {"_target_": "AsDiscrete", "threshold": 0.3},
            ],
            1,
            "sigmoid",
            0.3,
        ),
        (
            [{"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False]}],
            2,
            "softmax",
            None,
        ),
        ([{"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}], 1, None, None),
    ],
)
def test_activation_and_threshold_are_those_of_the_postprocessing(
    tmp_path: Path, after: list[Any], classes: int, activation: str | None, threshold: float | None
) -> None:
    metadata = described(names=("background", "tool")[-classes:])
    folder = write_bundle(tmp_path / "bundle", LOAD, after=after, metadata=metadata, classes=classes)
    model = read_folder(folder)
    assert (model.activation, model.claims.threshold) == (activation, threshold)
    assert model.claims.class_names == ("background", "tool")[-classes:]


def test_classes_of_a_sigmoid_leave_a_background_below_the_threshold(tmp_path: Path, photo: Path) -> None:
    after = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.55},
    ]
    metadata = described(names=("vessel", "tool"))
    folder = write_bundle(tmp_path / "bundle", [*LOAD, TO_ONE], after=after, metadata=metadata)
    found, claimed = in_monai(folder, photo).transpose(0, 2, 1), computed(folder, photo).argmax(0)
    assert read_folder(folder).claims.class_names == ("background", "vessel", "tool")
    assert 0.02 < np.mean(found.any(0)) < 0.98
    assert np.mean((claimed > 0) == found.any(0)) > 0.999
    alone = (found[0] > 0) & (found[1] == 0)
    assert np.all(claimed[alone] == 1)


@pytest.mark.parametrize(
    "more",
    [
        {"_target_": "Activationsd", "keys": "label", "sigmoid": True},
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True, "_disabled_": True},
    ],
)
def test_activation_of_something_else_is_not_that_of_the_outputs(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    model = read_folder(write_bundle(tmp_path / "bundle", LOAD, after=[*SOFTMAX, more]))
    assert model.activation == "softmax"


def test_what_follows_the_network_and_is_left_out_is_named(tmp_path: Path) -> None:
    largest = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1]}
    model = read_folder(write_bundle(tmp_path / "bundle", LOAD, after=[*SOFTMAX, largest]))
    assert "left out of what follows the network: KeepLargestConnectedComponentd" in model.steps


def test_yaml_with_references_is_read_and_its_code_is_not_run(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", LOAD)
    (folder / "configs" / "inference.json").unlink()
    (folder / "configs" / "train.yaml").write_text(
        f"""
imports: ["$open('{tmp_path}/run', 'w')"]
spatial: 2
shape: {{channels: [8, 16], strides: [2]}}
network_def:
  _target_: monai.networks.nets.unet.UNet
  spatial_dims: "$@spatial"
  in_channels: 3
  out_channels: 2
  channels: "@shape#channels"
  strides: "%shape::strides"
train:
  transforms:
    - {{_target_: LoadImaged, keys: [image, label]}}
    - {{_target_: EnsureChannelFirstd, keys: [image, label]}}
    - {{_target_: RandFlipd, keys: [image, label], prob: 0.5}}
    - {{_target_: CropForegroundd, keys: label}}
    - {{_target_: ScaleIntensityRanged, keys: image, a_min: 0, a_max: 255, b_min: 0, b_max: 1}}
validate:
  preprocessing: {{_target_: Compose, transforms: "%train#transforms"}}
inferer: {{_target_: SlidingWindowInferer, roi_size: [96, 32]}}
"""
    )
    model = read_folder(folder)
    assert model.claims.mean == (0, 0, 0) and model.claims.std == (1, 1, 1) and model.claims.scale == 255
    assert model.size_hw == (32, 96) and model.activation is None
    assert not (tmp_path / "run").exists()


def test_unknown_transform_leaves_mean_and_std_open(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", [*LOAD, on_images("HistogramNormalized"), TO_ONE])
    asked = r"images by HistogramNormalized, which is not understood\. Missing: --mean \(3 values\), --std"
    with pytest.raises(BadInputError, match=asked):
        run_export("module", str(folder), "--repo", str(tmp_path / "repo"))
    assert "not understood, so that mean and std are open: HistogramNormalized" in read_folder(folder).steps


def of_key(key: str, *transforms: Any) -> list[Any]:
    return [{**transform, "keys": key} for transform in transforms]


OTHER_KEYS = {
    "of another name": (of_key("img", *LOAD, TO_ONE), "transforms of other than 'image'"),
    "put together": (
        [*of_key("a", *LOAD, TO_ONE), {"_target_": "ConcatItemsd", "keys": ["a", "a"], "name": "image"}],
        "ConcatItemsd",
    ),
    "copied": (
        [*of_key("a", *LOAD, TO_ONE), {"_target_": "CopyItemsd", "keys": "a", "names": ["image"]}],
        "CopyItemsd",
    ),
    "no transform": ([*LOAD, "Flipd"], "Flipd"),
    "read by code": (
        [{**LOAD[0], "converter": "$lambda image: image.convert('HSV')"}, LOAD[1]],
        "LoadImaged",
    ),
}


@pytest.mark.parametrize("name", OTHER_KEYS)
def test_transforms_that_make_the_image_of_others_leave_mean_and_std_open(tmp_path: Path, name: str) -> None:
    transforms, title = OTHER_KEYS[name]
    model = read_folder(write_bundle(tmp_path / "bundle", transforms))
    assert model.claims.mean is None and model.claims.std is None and model.claims.scale is None
    assert f"not understood, so that mean and std are open: {title}" in model.steps


def test_image_converted_to_rgb_is_what_is_read_here_too(tmp_path: Path) -> None:
    load = {**LOAD[0], "converter": "$lambda image: image.convert('RGB')"}
    assert read_folder(write_bundle(tmp_path / "bundle", [load, LOAD[1], TO_ONE])).claims.scale == 255


def test_pretrained_weights_of_a_backbone_are_not_fetched(tmp_path: Path) -> None:
    network = {
        "_target_": "FlexibleUNet",
        "in_channels": 3,
        "out_channels": 2,
        "backbone": "efficientnet-b0",
        "pretrained": "@fetch",
    }
    folder = write_bundle(tmp_path / "bundle", LOAD, network, fetch=False)
    path = folder / "configs" / "inference.json"
    path.write_text(path.read_text().replace('"fetch": false', '"fetch": true'))
    assert type(read_folder(folder).network).__name__ == "FlexibleUNet"


def changed(**changes: Any) -> dict[str, Any]:
    return {"network_def": {**UNET, **changes}}


HOUNSFIELD = on_images("ScaleIntensityRanged", a_min=-175, a_max=250, b_min=0, b_max=1)

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "3-D": (changed(spatial_dims=3), "only networks with spatial_dims of 2"),
    "code": (
        changed(act="$torch.nn.ReLU"),
        "by code, $torch.nn.ReLU, which is not run: seg-export module PACKAGE",
    ),
    "unknown reference": (changed(act="@activation"), "by code, @activation"),
    "circle": ({**changed(act="@a"), "a": ["@b"], "b": ["@a"]}, "go round in a circle"),
    "no network": ({"network_def": "$make()", "network": "$@network_def"}, "has no configs/inference.json"),
    "not MONAI's": (changed(_target_="os.system"), "is a os.system, expected one of monai.networks.nets"),
    "of another library": (changed(_target_="torch.nn.UNet"), "is a torch.nn.UNet, expected one of"),
    "not there": (changed(_target_="monai.networks.nets.UNet9"), "expected one of monai.networks.nets"),
    "argument too many": (changed(depth=3), "cannot be built"),
    "negative channels": (
        changed(channels=[-8, 16]),
        "cannot be built: Trying to create tensor with negative",
    ),
    "channels that no file holds": (
        changed(channels=[100, 10**6]),
        "describes a network of more than 100,000,000 weights",
    ),
    "layers without end": (changed(num_res_units=10**9), "has 1000000000 for num_res_units, expected"),
    "references without end": (
        {**changed(act="@a"), "a": ["@b"] * 99, "b": ["@c"] * 99, "c": ["@d"] * 99, "d": [0] * 99},
        "make more than 100000 values",
    ),
    "probabilities by code": (
        {"postprocessing": [{"_target_": "Activationsd", "keys": "pred", "other": "$lambda x: 1 - x"}]},
        "makes probabilities by code, $lambda x: 1 - x, which is not run",
    ),
    "CT": ({"preprocessing": [*LOAD, HOUNSFIELD]}, "not for images of 8 bits, 0 to 255"),
    "unknown next to statistics": (
        {"preprocessing": [*LOAD, on_images("CropForegroundd"), on_images("ScaleIntensityd")]},
        "by CropForegroundd, which is not understood, and by their own statistics",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_is_one_line_that_says_why(tmp_path: Path, case: str) -> None:
    changes, message = REFUSED[case]
    folder = write_bundle(tmp_path / "bundle", LOAD)
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError) as raised:
        read_folder(folder)
    assert message in str(raised.value)
    assert_short(raised.value, folder)


@pytest.mark.parametrize(("file", "message"), [("model.ts", "holds code"), ("", "download the bundle")])
def test_bundle_without_a_state_dict_is_refused(tmp_path: Path, file: str, message: str) -> None:
    folder = write_bundle(tmp_path / "bundle", LOAD)
    weights = folder / "models" / "model.pt"
    weights.rename(weights.with_name(file)) if file else weights.unlink()
    with pytest.raises(CheckpointError, match=message) as raised:
        read_folder(folder)
    assert_short(raised.value, folder)


def test_missing_monai_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "bundle", LOAD)
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(MissingExtraError, match="pip install monai"):
        read_folder(folder)
