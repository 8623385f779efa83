"""Folders that transformers saves: what is read of them, against what transformers itself computes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import huggingface_nets
import numpy as np
import pytest
import torch
import transformers
from export_command import run_export
from foreign_files import LONGEST_OF_FOLDER, assert_short
from huggingface_nets import AS_IS, NAMES, NETWORKS, SIDE, picture
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from seg_export.checkpoints.folders import read_folder
from seg_export.cli.main import app
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.cli.run import app as run_app
from seg_runtime.errors import CheckpointError, EdgesegError, MissingExtraError

pytestmark = pytest.mark.full


def call(*arguments: str) -> str:
    """What a command prints, without a word of the libraries. Raises the error that it ended with."""
    result = run_export(*arguments)
    assert not re.search(r"\[transformers\]|\d%\||Skipping", result.output)
    return result.stdout


def in_transformers(folder: Path, image: NDArray[np.uint8]) -> tuple[Any, NDArray[Any]]:
    """The output of an image and its labels, as the library's documentation computes them."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    network = getattr(transformers, config["architectures"][0]).from_pretrained(folder).eval()
    with torch.inference_mode():
        output = network(**processor(images=image, **AS_IS))
    labels = processor.post_process_semantic_segmentation(output, target_sizes=[image.shape[:2]])[0]
    return output, labels.numpy()


def prepared(folder: Path, image: NDArray[np.uint8]) -> torch.Tensor:
    """(1, C, H, W) float32 of an image (H, W, C), normalised as the folder's claims say."""
    claims = read_folder(folder).claims
    assert claims.mean is not None and claims.std is not None and claims.scale is not None
    ordered = image[..., ::-1] if claims.channel_order == "bgr" else image
    pixels = (ordered / claims.scale - np.array(claims.mean)) / np.array(claims.std)
    return torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1)[None].copy())


def change(path: Path, **values: Any) -> None:
    """Set values of a JSON file, or take those out that are None."""
    document = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SegFormer's folder, not to be written into."""
    return huggingface_nets.save(huggingface_nets.segformer(), tmp_path_factory.mktemp("saved") / "roads")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(saved, tmp_path / "roads"))


@pytest.mark.parametrize("name", NETWORKS)
def test_network_of_a_folder_computes_what_transformers_computes(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = huggingface_nets.save(NETWORKS[name](), tmp_path / name)
    capfd.readouterr()
    model = read_folder(folder)
    assert capfd.readouterr() == ("", "")
    assert model.claims.class_names == NAMES and model.size_hw == (SIDE, SIDE)

    image = picture()
    output, labels = in_transformers(folder, image)
    with torch.inference_mode():
        found = model.network(prepared(folder, image))
    if "logits" in output:
        torch.testing.assert_close(found, output.logits, rtol=1e-4, atol=1e-4)
        assert model.activation == "softmax" and len(np.unique(labels)) == len(NAMES)
    else:
        assert model.activation == "none" and found.min() >= 0 and found.max() <= 1
    found = torch.nn.functional.interpolate(found, image.shape[:2], mode="bilinear")
    assert np.mean(found.argmax(1)[0].numpy() == labels) >= 0.999


@pytest.mark.parametrize(
    "name",
    ["segformer", "upernet_convnext", "dpt", "beit", "mobilevit", "mask2former"],
)
def test_published_graph_labels_an_image_as_transformers_does(name: str, tmp_path: Path) -> None:
    folder, repo = huggingface_nets.save(NETWORKS[name](), tmp_path / name), tmp_path / "repo"
    printed = call("module", str(folder), "--repo", str(repo), "--json")
    report = json.loads(printed[: printed.rindex("}") + 1])
    assert {row["origin"] for row in report["assumptions"]} == {"file"}
    with connect(repo) as session:
        found = SemanticSegmenter(session, name).segment(picture())
    output, labels = in_transformers(folder, picture())
    assert np.mean(found.mask == labels) >= 0.999
    if "logits" in output:
        logits = torch.nn.functional.interpolate(output.logits, (SIDE, SIDE), mode="bilinear")
        assert np.abs(found.probabilities - logits.softmax(1)[0].numpy()).max() < 1e-4
    call("verify", name, "--repo", str(repo), "--module", str(folder))


def test_page_about_it_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
    page = page.partition("## A folder of transformers\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (commands,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    cv2.imwrite("street.png", cv2.resize(picture(), (200, 150)))
    assert commands.startswith("python roads.py\n")
    for command in commands.splitlines()[1:]:
        program, *arguments = shlex.split(command)
        result = CliRunner().invoke({"seg-export": app, "seg-run": run_app}[program], arguments)
        assert result.exit_code == 0, result.output
    assert cv2.imread("masks/street_mask.png", cv2.IMREAD_UNCHANGED).shape == (150, 200)


@pytest.mark.parametrize(
    ("processor", "said", "size_hw", "step"),
    [
        ({"size": 48}, {"scale": 255.0}, (48, 48), ""),
        ({"size": {"height": 32, "width": 64}}, {}, (32, 64), ""),
        ({"do_resize": False}, {}, None, ""),
        ({"do_normalize": False}, {"mean": (0.0,) * 3, "std": (1.0,) * 3, "scale": 255.0}, (64, 64), ""),
        ({"do_rescale": False, "image_mean": [123.0, 117.0, 104.0], "image_std": [58.0] * 3},
         {"mean": (123.0, 117.0, 104.0), "scale": 1.0}, (64, 64), ""),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
         {"mean": (1.0,) * 3, "scale": 127.5}, (64, 64), ""),
        ({"image_processor_type": "ViTImageProcessor", "image_mean": 0.5, "image_std": 0.25},
         {"mean": (0.5,) * 3, "std": (0.25,) * 3}, (64, 64), ""),
        ({"image_processor_type": "MobileNetV2ImageProcessor", "size": {"shortest_edge": 72},
          "do_center_crop": True, "crop_size": 64}, {}, (64, 64), "cuts 64x64 out of the middle"),
        ({"image_processor_type": "Mask2FormerImageProcessor",
          "size": {"shortest_edge": 96, "longest_edge": 160}}, {}, (96, 96), "keeps the proportions"),
        ({"image_processor_type": "DPTImageProcessor", "keep_aspect_ratio": True}, {}, (64, 64),
         "keeps the proportions"),
        ({"image_processor_type": "MobileViTImageProcessor", "do_center_crop": False, "do_normalize": None},
         {"channel_order": "bgr", "mean": (0.0,) * 3}, (64, 64), ""),
        ({"image_processor_type": None, "feature_extractor_type": "SegformerFeatureExtractor"},
         {"scale": 255.0, "channel_order": "rgb", "clahe": False}, (64, 64), ""),
    ],
)  # fmt: skip
def test_claims_are_what_the_image_processor_does(
    folder: Path,
    processor: Mapping[str, Any],
    said: Mapping[str, Any],
    size_hw: tuple[int, int] | None,
    step: str,
) -> None:
    change(folder / "preprocessor_config.json", **processor)
    model = read_folder(folder)
    assert model.claims.said() | said == model.claims.said()
    assert model.size_hw == size_hw
    assert step in " ".join(model.steps) and bool(step) == bool(model.steps)
    as_is = AS_IS | {"do_resize": False, "do_center_crop": False}
    wanted = transformers.AutoImageProcessor.from_pretrained(folder)(images=picture(), **as_is)
    torch.testing.assert_close(prepared(folder, picture()), wanted["pixel_values"], rtol=1e-5, atol=1e-5)


def test_images_of_five_bands_are_normalised_as_the_folder_says(tmp_path: Path) -> None:
    network, _ = huggingface_nets.segformer(num_channels=5)
    processor = transformers.SegformerImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=[0.1, 0.2, 0.3, 0.4, 0.5], image_std=[0.5] * 5
    )
    model = read_folder(huggingface_nets.save((network, processor), tmp_path / "bands"))
    assert model.channels == 5
    assert model.claims.mean == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert model.claims.channel_order is None and model.claims.clahe is None


def test_without_an_image_processor_the_user_is_asked(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    assert read_folder(folder).claims.said() == {"class_names": NAMES}
    with pytest.raises(EdgesegError, match=r"--mean \(3 values\), --std \(3 values\), --scale.*--size"):
        call("module", str(folder))


def test_one_class_has_a_sigmoid_and_its_name_and_threshold_are_asked_for(tmp_path: Path) -> None:
    labels = {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    folder = huggingface_nets.save(huggingface_nets.segformer(**labels), tmp_path / "lung")
    model = read_folder(folder)
    assert model.activation == "sigmoid" and model.claims.class_names is None
    with pytest.raises(EdgesegError, match=r"Missing: --class-names \(1 name\), --threshold\. "):
        call("module", str(folder))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_mean": [0.5, 0.5]}, "has the image_mean .*, expected 3 numbers: correct it"),
        ({"image_mean": [0.5, "x", 0.5]}, "image_mean|cannot be used"),
        ({"image_std": [0.5, 0.0, 0.5]}, "has the image_std .*, expected 3 numbers above 0"),
        ({"rescale_factor": 1e12}, "which do not belong together"),
        ({"rescale_factor": 0}, "has the rescale_factor 0, expected a number above 0"),
        ({"do_rescale": False}, r"image_mean \[0.485, 0.456, 0.406\] for pixels / 1, which do not belong"),
        ({"image_mean": [123.0, 117.0, 104.0]}, "for pixels / 255, which do not belong together"),
        ({"size": {"height": 0, "width": 64}}, "has the size .*, expected a height and width"),
        ({"auto_map": {"AutoImageProcessor": "code.Mine"}}, "names code .*which is not run"),
        ({"image_processor_type": "Nothing"}, "cannot be used: "),
        (
            {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True},
            "EfficientNetImageProcessor, which does other than its mean and std say: move it",
        ),
        ({"image_processor_type": "MobileViTImageProcessor"}, "which does other than its mean and std say"),
        (
            {"image_processor_type": "DPTImageProcessor", "do_pad": True, "size_divisor": 40},
            "makes 80x80 of an image of 64x64, as with do_pad",
        ),
    ],
)
def test_image_processor_that_cannot_be_is_refused(
    folder: Path, values: Mapping[str, Any], message: str
) -> None:
    change(folder / "preprocessor_config.json", **values)
    refused(folder, message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architectures": ["SegformerForImageClassification"]}, "which names whole images: expected one"),
        ({"architectures": ["DetrForObjectDetection"]}, "which draws boxes: expected one that ends in"),
        ({"architectures": ["DPTForDepthEstimation"]}, "which estimates depth"),
        ({"architectures": ["SegformerModel"]}, "which has no head for segmentation"),
        ({"architectures": ["LlamaForCausalLM"]}, "which writes text"),
        ({"architectures": ["SamModel"]}, "seg-export sam --checkpoint .*roads/model.safetensors"),
        ({"architectures": ["Sam2VideoModel"]}, "seg-export sam2 --checkpoint .*roads/model.safetensors"),
        ({"architectures": ["OneFormerForUniversalSegmentation"]}, "which is not read"),
        ({"architectures": ["NewForSemanticSegmentation"]}, "does not have: install a version that does"),
        ({"architectures": None}, "has the architectures None, expected the one class"),
        ({"auto_map": {"AutoModel": "code.Mine"}}, "its network as code .*which is not run: name a factory"),
        ({"quantization_config": {"load_in_4bit": True}}, "holds quantised weights"),
        ({"architectures": None, "model_type": None, "_diffusers_version": "0.30"}, "is of diffusers"),
        ({"model_type": "dpt"}, "is of a dpt and names a SegformerForSemanticSegmentation"),
        ({"hidden_sizes": [8, 8]}, "cannot be built: "),
        ({"hidden_sizes": "wide"}, "cannot be built: "),
        ({"hidden_sizes": [8, 8, 16, 100_000]}, "describes a network of more than 100,000,000 weights"),
        ({"depths": [1, 1, 1, 10**9]}, "has 1000000000 for depths, expected 1000000 at most"),
        ({"num_labels": 10**9}, "has 1000000000 for num_labels, expected 1000000 at most"),
        ({"num_channels": "many"}, "has the num_channels 'many': 1 to 16"),
        (
            {"architectures": ["AutoModelForSemanticSegmentation"]},
            "does not have: install a version that does",
        ),
        ({"depths": [1, 1, 1, 2]}, r"do not fit .*: no segformer\.stages\.3\.blocks\.1|do not fit .*: no "),
        ({"depths": [1, 1, 1, 0]}, "do not fit .* that it does not have"),
        ({"hidden_sizes": [8, 8, 16, 32]}, r"do not fit .* of \(16, 16\) for \(16, 32\)"),
        ({"id2label": {"0": "a", "2": "b"}}, 'does not name the classes "0", "1", "2" and so on'),
        ({"id2label": {"0": "a", "1": "a"}}, "has the name 'a', expected different names"),
        ({"id2label": {"0": "a", "1": 7}}, "has the name 7, expected different names|cannot be built"),
        ({"id2label": ["a", "b"]}, "does not name the classes|cannot be built"),
    ],
)
def test_configuration_of_another_network_is_refused(
    folder: Path, values: Mapping[str, Any], message: str
) -> None:
    change(folder / "config.json", **values)
    refused(folder, message)


def refused(folder: Path, message: str) -> None:
    """A folder is refused in one short line that matches."""
    with pytest.raises(CheckpointError, match=message) as caught:
        read_folder(folder)
    assert_short(caught.value, folder, LONGEST_OF_FOLDER)


def test_adapters_and_pipelines_without_a_configuration_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, r"adapter of PEFT.*merge_and_unload\(\)")
    (tmp_path / "adapter_config.json").rename(tmp_path / "model_index.json")
    refused(tmp_path, "is of diffusers")


def test_weights_of_a_head_that_are_missing_are_never_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["decode_head.classifier.weight"]
    save_file(weights, folder / "model.safetensors")
    refused(
        folder, r"do not fit the SegformerForSemanticSegmentation .*: no decode_head\.classifier\.weight$"
    )


def test_weights_that_no_image_passes_may_be_missing(tmp_path: Path) -> None:
    folder = huggingface_nets.save(huggingface_nets.dpt(), tmp_path / "dpt")
    _, labels = in_transformers(folder, picture())
    weights = load_file(folder / "model.safetensors")
    kept = {
        name: tensor
        for name, tensor in weights.items()
        # As of Intel/dpt-large-ade, which was saved when transformers did not have the first.
        if "fusion_stage.layers.0.residual_layer1" not in name and not name.startswith("auxiliary_head")
    }
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors")
    with torch.inference_mode():
        found = read_folder(folder).network(prepared(folder, picture()))
    assert np.mean(found.argmax(1)[0].numpy() == labels) >= 0.999
    states = [read_folder(folder).network.state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["decode_head.classifier.bias"][1] = torch.nan
    save_file(weights, folder / "model.safetensors")
    refused(folder, "'decode_head.classifier.bias' has NaN")


def test_parts_and_pickled_tensors_are_the_same_weights(saved: Path, folder: Path, tmp_path: Path) -> None:
    wanted = read_folder(saved).network.state_dict()
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(saved)
    parts = tmp_path / "parts"
    network.save_pretrained(parts, max_shard_size="30KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for each in (parts, folder):
        found = read_folder(each).network.state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), each
    change(parts / "model.safetensors.index.json", weight_map={"a": "../roads/model.safetensors"})
    refused(parts, "has no weight_map to names of files in its folder")


class Runs:
    """Pickles to a call that leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "has no weights: expected model.safetensors or pytorch_model.bin")
    torch.save({"weight": Runs(tmp_path / "ran")}, folder / "pytorch_model.bin")
    refused(folder, re.escape(str(folder / "pytorch_model.bin")))
    assert not (tmp_path / "ran").exists()


def test_backbone_of_the_hub_is_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: asked.append(address))
    folder = huggingface_nets.save(huggingface_nets.upernet_convnext(), tmp_path / "upernet")
    change(folder / "config.json", backbone="microsoft/resnet-50", backbone_config=None)
    refused(folder, "UperNetForSemanticSegmentation that cannot be built: .*offline")
    assert not asked and not constants.HF_HUB_OFFLINE


def test_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="pip install transformers"):
        read_folder(folder)
