"""Files that look like weights edgeseg knows and are not: each is named, with the step that gets it in."""

from __future__ import annotations

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import LONGEST, assert_short, family_weights, stand_in
from sam2_small import ARGUMENTS as SMALL_SAM2
from torch import nn

from seg_export.checkpoints.checkpoint import build_model, load_checkpoint
from seg_export.checkpoints.near_misses import _CLASSES, IMPOSTORS, NEAR_MISSES
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_runtime.errors import CheckpointError, EdgesegError

Document = Callable[[], Any]
MODULE = "seg-export module PACKAGE.MODULE:FACTORY --checkpoint FILE"
SMP_CLASS = "seg-export module segmentation_models_pytorch:CLASS --args JSON --checkpoint FILE"


def named(*names: str, ndim: int = 4) -> Document:
    """Tensors of these names, as a library has them that is not installed here."""
    return lambda: {name: torch.ones((2,) * ndim) for name in names}


def sam_with(*names: str, without: str = "nothing") -> Document:
    """A SAM with more tensors, and less those that begin so."""
    return lambda: {
        **{name: tensor for name, tensor in family_weights("sam").items() if not name.startswith(without)},
        **{name: torch.ones(2, 2) for name in names},
    }


@cache
def torchvision_weights(name: str) -> dict[str, torch.Tensor]:
    """The names and shapes of one of torchvision's networks."""
    from torchvision import models

    with torch.device("meta"):
        weights = models.get_model(name, weights=None, weights_backbone=None).state_dict()
    return {name: torch.zeros((), dtype=each.dtype).expand(each.shape) for name, each in weights.items()}


def torchvision(name: str) -> Document:
    return lambda: torchvision_weights(name)


def classifier(name: str) -> Document:
    from torchvision import models

    return lambda: models.get_model(name, weights=None).state_dict()


SMP = (
    "encoder.conv1.weight",
    "encoder.layer1.0.conv1.weight",
    "decoder.blocks.0.conv1.0.weight",
    "segmentation_head.0.weight",
)
SEGFORMER = (
    "segformer.encoder.patch_embeddings.0.proj.weight",
    "segformer.encoder.block.0.0.attention.self.query.weight",
    "decode_head.linear_c.0.proj.weight",
    "decode_head.classifier.weight",
)
NNUNET = (
    "encoder.stages.0.0.convs.0.conv.weight",
    "encoder.stages.0.0.convs.0.all_modules.0.weight",
    "decoder.transpconvs.0.weight",
    "decoder.seg_layers.0.weight",
)
YOLO = (
    "model.0.conv.weight",
    "model.2.cv1.conv.weight",
    "model.22.proto.cv1.conv.weight",
    "model.22.dfl.conv.weight",
)

NEAR: dict[str, tuple[Document, str]] = {
    "MobileSAM": (
        sam_with(
            "image_encoder.patch_embed.seq.0.c.weight",
            "image_encoder.layers.0.blocks.0.conv1.c.weight",
            without="image_encoder",
        ),
        f"is a MobileSAM: {MODULE}",
    ),
    "SAM-HQ": (
        sam_with("mask_decoder.hf_token.weight", "mask_decoder.hf_mlp.layers.0.weight"),
        "is a SAM-HQ",
    ),
    "SAM-HQ in DataParallel": (
        lambda: {f"module.{n}": t for n, t in sam_with("mask_decoder.hf_token.weight")().items()},
        "is a SAM-HQ",
    ),
    "EfficientSAM": (
        lambda: {
            "model": {
                **sam_with("prompt_encoder.bbox_top_left_embeddings.weight")(),
                "image_encoder.pos_embed": torch.ones(1, 197, 192),
            }
        },
        "is an EfficientSAM",
    ),
    "EdgeSAM": (
        sam_with("image_encoder.backbone.stem.weight", without="image_encoder"),
        "is a SAM with another image encoder",
    ),
    "Medical SAM Adapter": (
        sam_with("image_encoder.blocks.0.MLP_Adapter.D_fc1.weight"),
        "is a SAM with adapters",
    ),
    "SAM 3": (named("detector.backbone.vision_backbone.trunk.pos_embed", "tracker.a.weight"), "is a SAM 3"),
    "SAM of transformers": (
        named(
            "vision_encoder.patch_embed.projection.weight",
            "shared_image_embedding.positional_embedding",
            "mask_decoder.iou_token.weight",
        ),
        "is a SAM of Hugging Face transformers",
    ),
    "decoder of a SAM": (
        lambda: {n: t for n, t in family_weights("sam").items() if n.startswith("mask_decoder")},
        "is a part of a SAM and not all of it",
    ),
    "LoRA of a SAM": (named("w_a_000", "w_b_000", ndim=2), "is a LoRA adapter"),
    "LoRA of peft": (
        named("base_model.model.encoder.q.lora_A.weight", "base_model.model.encoder.q.lora_B.weight"),
        "merge it into its base model",
    ),
    "SegFormer": (
        named(*SEGFORMER),
        "is a SegFormer of Hugging Face transformers: name the folder of its save_pretrained,",
    ),
    "Mask2Former": (
        named("model.pixel_level_module.encoder.a.weight", "class_predictor.weight"),
        "is a Mask2Former or MaskFormer",
    ),
    "smp": (named(*SMP), f"is a network of segmentation_models_pytorch: {SMP_CLASS}"),
    "smp in Lightning": (
        lambda: {"state_dict": {f"model.{n}": torch.ones(2, 2) for n in SMP}, "epoch": 2},
        "is a network of segmentation_models_pytorch",
    ),
    "MONAI UNet": (
        named("model.0.conv.unit0.conv.weight", "model.1.submodule.0.conv.unit0.conv.weight"),
        "is a network of MONAI",
    ),
    "MONAI BasicUNet": (
        named("conv_0.conv_0.conv.weight", "upcat_4.upsample.deconv.weight", "final_conv.weight"),
        "is a BasicUNet of MONAI",
    ),
    "MONAI SwinUNETR": (named("swinViT.patch_embed.proj.weight", "out.conv.conv.weight"), "is a SwinUNETR"),
    "MONAI UNETR": (named("vit.patch_embedding.cls_token", "encoder1.layer.conv1.conv.weight"), "is a UNETR"),
    "MONAI SegResNet": (named("convInit.conv.weight", "down_layers.0.1.conv1.conv.weight"), "is a SegResNet"),
    "MONAI in 3-D": (
        named("model.0.conv.unit0.conv.weight", "model.1.submodule.0.weight", ndim=5),
        "is a 3-D network",
    ),
    "nnU-Net": (
        lambda: {"network_weights": named(*NNUNET)(), "current_epoch": 3},
        f"is an nnU-Net: {MODULE}",
    ),
    "nnU-Net in 3-D": (lambda: {"network_weights": named(*NNUNET, ndim=5)()}, "is a 3-D network"),
    "nnU-Net 1": (
        named("conv_blocks_context.0.blocks.0.conv.weight", "seg_outputs.0.weight"),
        "is an nnU-Net (version 1)",
    ),
    "U-Net in 3-D": (
        lambda: {n: t[..., None] if t.ndim == 4 else t for n, t in family_weights("unet").items()},
        "is a 3-D network",
    ),
    "detectron2": (
        lambda: {
            "model": named(
                "backbone.bottom_up.stem.conv1.weight",
                "backbone.fpn_lateral2.weight",
                "proposal_generator.rpn_head.conv.weight",
                "roi_heads.box_predictor.cls_score.weight",
                "roi_heads.mask_head.predictor.weight",
            )(),
            "iteration": 9,
        },
        f"is a network of detectron2: {MODULE}",
    ),
    "mmdet": (
        lambda: {
            "meta": {"epoch": 12},
            "state_dict": named(
                "backbone.conv1.weight",
                "neck.lateral_convs.0.conv.weight",
                "roi_head.bbox_head.fc_cls.weight",
            )(),
        },
        "is a detector of mmdet",
    ),
    "mmseg": (
        named("backbone.layer1.0.conv1.weight", "decode_head.conv_seg.weight"),
        "is a network of mmsegmentation",
    ),
    "YOLO": (
        named(*YOLO),
        "is a YOLO of ultralytics: export it to ONNX there, and then  seg-export onnx FILE",
    ),
    "DeepLabV3": (
        torchvision("deeplabv3_resnet50"),
        "is a DeepLabV3 of torchvision: seg-export module torchvision.models.segmentation:NAME --args JSON",
    ),
    "FCN": (torchvision("fcn_resnet50"), "is an FCN of torchvision"),
    "LRASPP": (torchvision("lraspp_mobilenet_v3_large"), "is an LRASPP of torchvision"),
    "RetinaNet": (torchvision("retinanet_resnet50_fpn"), "is a one-stage detector of torchvision"),
    "Faster R-CNN": (torchvision("fasterrcnn_resnet50_fpn"), "a detector without masks"),
    "ResNet": (classifier("resnet18"), "is a classifier and no segmentation network"),
    "MobileNet": (classifier("mobilenet_v3_small"), "is a classifier and no segmentation network"),
    "own decoder around a classifier": (
        lambda: {
            **{f"backbone.{name}": tensor for name, tensor in classifier("resnet18")().items()},
            "up.weight": torch.ones(2, 2, 3, 3),
        },
        "is a plain state dict of no known network (backbone.conv1.weight",
    ),
    "another network": (
        named("down_path.0.block.0.weight", "last.weight"),
        f"no known network (down_path.0.block.0.weight and 1 more): {MODULE}",
    ),
    "long names": (named("a" * 90 + ".weight"), "is a plain state dict of no known network"),
    "pruned": (
        lambda: {f"{n}_orig" if n == "out.weight" else n: t for n, t in family_weights("unet").items()},
        "has pruned or parametrised weights",
    ),
    "spectral norm": (named("conv.parametrizations.weight.original"), "has pruned or parametrised weights"),
    "quantisation-aware": (
        lambda: {**family_weights("unet"), "inc.activation_post_process.scale": torch.ones(1)},
        "is of quantisation-aware training",
    ),
    "quantised": (
        lambda: {
            "conv.weight": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8),
            "a.b": torch.ones(2, 2),
        },
        "tensor 'conv.weight' is quantised",
    ),
    "sparse": (lambda: {"conv.weight": torch.ones(2, 2).to_sparse(), "a.b": torch.ones(2, 2)}, "is sparse"),
    "meta": (lambda: {"conv.weight": torch.ones(2, 2, device="meta")}, "is without values"),
    "optimiser": (
        lambda: torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict(),
        "holds an optimiser's state and no weights",
    ),
    "optimiser in a container": (
        lambda: {"optimizer": torch.optim.SGD(nn.Linear(2, 2).parameters()).state_dict(), "epoch": 3},
        "holds an optimiser's state and no weights",
    ),
    "a tensor": (lambda: torch.ones(3, 3), "holds a Tensor, expected a dict of tensors"),
    "numbers": (lambda: [1, 2], "holds a list"),
    "arguments": (lambda: argparse.Namespace(lr=0.1), "holds a Namespace"),
    "an array": (lambda: np.ones((3, 3)), "holds a ndarray"),
    "nothing": (dict, "holds no weights"),
    "text": (lambda: {"name": "unet", "path": "weights.pth"}, "'name' is no tensor"),
    "arrays": (lambda: {"conv.weight": np.ones((2, 2))}, "'conv.weight' is no tensor"),
    "losses": (lambda: {"losses": torch.ones(9)}, "no weights"),
    "names of a SAM2 alone": (
        named("maskmem_tpos_enc", "image_encoder.trunk.patch_embed.proj.weight"),
        "describe it with seg-export sam2",
    ),
    "names of a TransUNet alone": (
        named(
            "transformer.embeddings.hybrid_model.root.conv.weight",
            "transformer.embeddings.position_embeddings",
            "segmentation_head.0.weight",
            "transformer.encoder.layer.0.ffn.fc1.weight",
            "decoder.conv_more.0.weight",
            ndim=1,
        ),
        "holds no weights",
    ),
    "names of a Mask R-CNN alone": (
        named("roi_heads.box_predictor.cls_score.weight", "roi_heads.mask_predictor.mask_fcn_logits.weight"),
        "is a plain state dict of no known network",
    ),
}
"""What a file holds, and what its refusal says."""


@pytest.mark.parametrize("name", NEAR)
def test_near_miss_is_named_with_the_step_that_gets_it_in(tmp_path: Path, name: str) -> None:
    build, message = NEAR[name]
    path = tmp_path / "file.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(build(), path)
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(path)
    assert message in str(error.value)
    assert_short(error.value, path)


def script(path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(path)


def program(path: Path) -> None:
    exported = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(exported, path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("notes.txt", "no weights")


def content(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def whole_module(path: Path) -> None:
    torch.save({"model": nn.Sequential(nn.Conv2d(1, 1, 1))}, path)


def legacy_module(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=False)


def class_of(module: str, name: str) -> Callable[[Path], None]:
    """A file with an object of a class of a library that is not installed here."""

    def write(path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            torch.save({"model": stand_in(patch, module, name)(), "epoch": 1}, path)

    return write


FILES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "TorchScript": ("model.pt", script, "is a TorchScript module, which holds code: save the state_dict"),
    "torch.export": ("model.pt2", program, "is a program of torch.export (.pt2): save the state_dict"),
    "npz": ("a.npz", lambda path: np.savez(path, a=np.ones(3)), "is a zip archive with NumPy arrays"),
    "zip": ("a.pth", archive, "is a zip archive with no PyTorch tensors"),
    "npy": ("a.npy", lambda path: np.save(path, np.ones(3)), "but a NumPy array"),
    "ONNX": ("model.onnx", content(b"\x08\x08\x12\x07pytorch"), "but an ONNX graph: seg-export onnx FILE"),
    "HDF5": ("model.h5", content(b"\x89HDF\r\n\x1a\n" + b"\0" * 60), "but an HDF5 file, as Keras writes"),
    "LFS": ("a.pth", content(b"version https://git-lfs.github.com/spec/v1\noid"), "but a Git LFS pointer"),
    "web page": ("a.pth", content(b"\n<!DOCTYPE html>"), "but a page of the web: download the file itself"),
    "gzip": ("a.pth.gz", content(b"\x1f\x8b\x08" + b"\0" * 9), "but a compressed archive: unpack it"),
    "engine": ("a.engine", content(b"ftrt" + b"\0" * 9), "but a TensorRT engine"),
    "text": ("a.txt", content(b"weights: none"), "expected a file of torch.save"),
    "pickle": (
        "model.pkl",
        content(pickle.dumps({"model": {"a": [1.0]}}, protocol=2)),
        "is a pickle of another program",
    ),
    "folder": ("weights", lambda path: path.mkdir(), "is a folder: name the file of weights in it"),
    "module": ("a.pth", whole_module, "is a whole pickled module, torch.nn.modules.container.Sequential"),
    "module of before 1.6": (
        "a.pth",
        legacy_module,
        "is a whole pickled module, torch.nn.modules.linear.Linear",
    ),
    "YOLO": (
        "yolo11n-seg.pt",
        class_of("ultralytics.nn.tasks", "SegmentationModel"),
        "is a YOLO of ultralytics: export it to ONNX there, and then  seg-export onnx FILE",
    ),
    "YOLOv5": ("yolov5s.pt", class_of("models.yolo", "Model"), "is a YOLO of ultralytics"),
    "configuration": (
        "a.pth",
        class_of("mmengine.config.config", "ConfigDict"),
        "holds the class mmengine.config.config.ConfigDict, which could run code, and is refused: save its",
    ),
    "arguments of a trainer": (
        "training_args.bin",
        class_of("transformers.training_args", "TrainingArguments"),
        "holds arguments of training",
    ),
    "long class": (
        "a.pth",
        class_of("a" * 50, "b" * 50),
        "could run code, and is refused: save its state_dict",
    ),
}
"""A file's name, what writes it, and what its refusal says."""


@pytest.mark.parametrize("name", FILES)
def test_file_that_torch_save_did_not_write_is_named(tmp_path: Path, name: str) -> None:
    file, write, message = FILES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(tmp_path / file)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / file)
    assert message in str(error.value)
    assert_short(error.value, tmp_path / file)


def test_all_texts_are_short() -> None:
    for text in (*(row.text for row in (*IMPOSTORS, *NEAR_MISSES)), *(text for _, text in _CLASSES)):
        assert len(f"checkpoint  {text}") <= LONGEST


@pytest.mark.parametrize("family", ["unet", "unetpp", "transunet", "sam", "maskrcnn"])
def test_no_row_takes_the_weights_of_a_family(family: str) -> None:
    assert not [row.text for row in IMPOSTORS if row.fits(family_weights(family))]


def test_no_row_takes_a_sam2() -> None:
    weights = random_checkpoint("sam2", SMALL_SAM2).state_dict
    assert not [row.text for row in IMPOSTORS if row.fits(weights)]


@pytest.mark.parametrize("family", ["unet", "unetpp", "transunet", "sam"])
@pytest.mark.parametrize("seed", range(6))
def test_damaged_state_dicts_load_or_are_refused_in_one_line(tmp_path: Path, family: str, seed: int) -> None:
    """Tensors lost, renamed, reshaped or of another type: never anything but an error of ours."""
    generator = torch.Generator().manual_seed(seed)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    weights = dict(family_weights(family))
    names = list(weights)
    for _ in range(1 + below(4)):
        name = names[below(len(names))]
        tensor = weights.pop(name, torch.ones(2, 2))
        change = below(5)
        if change == 1:
            weights[f"{name}.more"] = tensor
        elif change == 2:
            weights[name] = tensor.flatten()
        elif change == 3:
            weights[name] = tensor[None, None]
        elif change == 4:
            weights[name] = tensor.to(torch.int8)
    torch.save({"model": weights}, tmp_path / "damaged.pth")
    try:
        build_model(load_checkpoint(tmp_path / "damaged.pth"))
    except EdgesegError as error:
        assert "\n" not in str(error)
