"""Checkpoints that other libraries make: what each is, which command gets it, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ROWS", "File", "Row"]

File = Literal[
    "state dict",
    "Lightning checkpoint",
    "LoRA adapter",
    "quantised state dict",
    "whole module",
    "TorchScript",
    "torch.export",
    "save_pretrained",
    "ONNX graph",
    "nothing",
]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One checkpoint.

    Attributes:
        library: as it is imported.
        factory: "PACKAGE.MODULE:NAME" of what makes the network.
        arguments: of the factory.
        saved: arguments of the network that was saved, where they are others.
        note: what is special about it, for people; "" for nothing.
        channels: of its input.
        side: height and width of its input in pixels.
        file: what it was saved as.
        door: the command that gets it.
        options: of that command.
        refusal: of the one line that the command ends with, the parts that count, with " ... " between them;
            "" where it is published.
    """

    library: str
    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    channels: int = 3
    side: int = 64
    file: File = "state dict"
    door: str = "module"
    options: Sequence[str] = ()
    refusal: str = ""

    @property
    def network(self) -> str:
        """Its class or function, for people."""
        named = self.arguments.get("kind") or self.arguments.get("model_name")
        return str(named or self.factory.partition(":")[2])

    def make(self) -> nn.Module:
        """The network that was saved, with seeded random weights."""
        import torch

        torch.manual_seed(0)
        module, _, name = self.factory.partition(":")
        network: nn.Module = getattr(import_module(module), name)(**{**self.arguments, **self.saved})
        return network


def _row(
    library: str, package: str, network: str, arguments: Mapping[str, Any] | None = None, **fields: Any
) -> Row:
    return Row(library=library, factory=f"{package}:{network}", arguments=arguments or {}, **fields)


_FACTORY = "seg-export module PACKAGE.MODULE:FACTORY --checkpoint FILE"
_NO_HEAD = "is a classifier and no segmentation network: name the file of one that has masks"
_NO_MAPS = "is 1x ... as of a classifier: expected (1, classes, height, width), with maps"
_PICKLE = "is a whole pickled module ... save its state_dict() alone"
_SCRIPT = "is a TorchScript module, which holds code: save the state_dict of the original"
_QUANTISED = "is quantised: name the weights in float"
_SURE = "has values from ... which may be probabilities already: pass --activation none if they are"
_VOLUMES = "is a 3-D network ... 2-D"

_smp = partial(_row, "segmentation_models_pytorch", "segmentation_models_pytorch")
_R18 = {"encoder_name": "resnet18", "encoder_weights": None, "classes": 2}
_SMALL = {**_R18, "encoder_depth": 3, "decoder_channels": [32, 16, 8]}
_SIGMOID = {**_SMALL, "classes": 1, "activation": "sigmoid"}
_LABELS = {**_SMALL, "aux_params": {"classes": 4}}
_SMP = "is a network of segmentation_models_pytorch: seg-export module segmentation_models_pytorch:CLASS"
_VIT = {**_R18, "encoder_name": "tu-vit_tiny_patch16_224", "dynamic_img_size": True}

SMP = (
    _smp("Unet", {**_SMALL, "classes": 1}, note="1 class"),
    _smp("Unet", {**_SMALL, "encoder_name": "mobilenet_v2", "in_channels": 1}, channels=1, note="1 channel"),
    _smp(
        "Unet",
        {**_SMALL, "encoder_name": "efficientnet-b0", "in_channels": 4, "classes": 4},
        channels=4,
        note="EfficientNet, 4 channels",
    ),
    _smp("Unet", {**_R18, "encoder_name": "timm-mobilenetv3_small_100"}, note="MobileNetV3 of timm"),
    _smp("Unet", {**_SMALL, "encoder_name": "tu-resnet10t"}, note="ResNet of timm"),
    _smp("Unet", {**_R18, "encoder_name": "mit_b0"}, note="MiT"),
    _smp("Unet", {**_R18, "decoder_attention_type": "scse"}, note="scSE attention"),
    _smp("Unet", _SIGMOID, options=("--activation", "none"), note="sigmoid within"),
    _smp("Unet", _LABELS, options=("--output", "0"), note="head for labels"),
    _smp("UnetPlusPlus", _SMALL),
    _smp("MAnet", _SMALL),
    _smp("Linknet", {**_R18, "encoder_depth": 3}),
    _smp("FPN", _R18),
    _smp("PSPNet", _R18),
    _smp("PAN", _R18, side=128),
    _smp("DeepLabV3", _R18),
    _smp("DeepLabV3Plus", {**_R18, "encoder_name": "mobilenet_v2"}),
    _smp("UPerNet", {**_R18, "decoder_channels": 32}),
    _smp("Segformer", {**_R18, "encoder_name": "mit_b0"}),
    _smp("DPT", _VIT, note="ViT of timm"),
    _smp("Unet", _SMALL, file="Lightning checkpoint"),
    _smp("Unet", _SMALL, file="save_pretrained"),
    _smp("Unet", _SIGMOID, file="save_pretrained", note="sigmoid within"),
    _smp("Unet", _LABELS, file="save_pretrained", note="head for labels"),
    _smp("Unet", _SMALL, file="ONNX graph", door="onnx"),
    _smp("FPN", _R18, file="ONNX graph", door="onnx"),
    _smp(
        "Unet",
        _LABELS,
        note="head for labels",
        refusal="the module has 2 outputs: choose with --output one of 0",
    ),
    _smp("Unet", {**_SIGMOID, "classes": 2}, note="sigmoid within", refusal=_SURE),
    _smp("PAN", _R18, refusal="PAN cannot take ... Output size is too small; choose another --size"),
    _smp(
        "Unet",
        _SMALL,
        saved={"classes": 3},
        note="of 3 classes, made for 2",
        refusal="does not fit a Unet: segmentation_head.0.weight is [3, 8, 3, 3], not [2, 8, 3, 3]",
    ),
    _smp("Unet", _SMALL, file="whole module", refusal=_PICKLE),
    _smp("Unet", _SMALL, file="TorchScript", refusal=_SCRIPT),
    _smp(
        "Unet",
        _SMALL,
        file="torch.export",
        refusal="is a program of torch.export (.pt2): save the state_dict",
    ),
    _smp("Unet", _SMALL, door="unet", refusal=_SMP),
    _smp("Unet", {**_R18, "encoder_name": "mit_b0"}, door="unet", note="MiT", refusal=_SMP),
    _smp("UnetPlusPlus", _SMALL, file="Lightning checkpoint", door="unetpp", refusal=_SMP),
    _smp("DPT", _VIT, door="transunet", refusal=_SMP),
    _smp("FPN", _R18, door="maskrcnn", refusal=_SMP),
    _smp("Segformer", _R18, door="sam", refusal=_SMP),
    _smp("MAnet", _SMALL, door="sam2", refusal=_SMP),
    _smp(
        "Unet",
        _SMALL,
        file="TorchScript",
        door="onnx",
        refusal="is a file of PyTorch and no ONNX graph: export its model with torch.onnx.export",
    ),
)

_monai = partial(_row, "monai", "monai.networks.nets", channels=1)
_FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
_LEVELS = {"channels": [8, 16, 32], "strides": [2, 2]}
_BASIC = {**_FLAT, "features": [8, 8, 16, 16, 16, 8]}
_DYN = {
    **_FLAT,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [8, 16, 32],
}
_UNETR = {**_FLAT, "img_size": 64, "feature_size": 8, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2}
_FLEXIBLE = {**_FLAT, "in_channels": 3, "backbone": "efficientnet-b0"}
_SOFTMAX = ("--activation", "softmax")
_MONAI = "of MONAI: seg-export module monai.networks.nets:CLASS"

MONAI = (
    _monai("UNet", {**_FLAT, **_LEVELS, "num_res_units": 2}),
    _monai("AttentionUnet", {**_FLAT, **_LEVELS}),
    _monai("BasicUNet", _BASIC),
    _monai("BasicUNetPlusPlus", _BASIC),
    _monai("SegResNet", {**_FLAT, "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]}),
    _monai("SegResNetDS", {**_FLAT, "init_filters": 8, "blocks_down": [1, 1, 1]}),
    _monai("DynUNet", _DYN),
    _monai("DynUNet", {**_DYN, "deep_supervision": True, "res_block": True}, note="deep supervision"),
    _monai("UNETR", _UNETR),
    _monai("SwinUNETR", {**_FLAT, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}),
    _monai(
        "FlexibleUNet", {**_FLEXIBLE, "decoder_channels": [32, 16, 8, 8, 8]}, channels=3, options=_SOFTMAX
    ),
    _monai("VNet", {**_FLAT, "dropout_dim": 2}),
    _monai("HighResNet", _FLAT, options=_SOFTMAX),
    _monai("UNet", {**_FLAT, **_LEVELS}, file="ONNX graph", door="onnx"),
    _monai("UNet", {**_FLAT, **_LEVELS, "spatial_dims": 3}, note="3-D", refusal=_VOLUMES),
    _monai("UNet", {**_FLAT, **_LEVELS, "spatial_dims": 3}, door="unet", note="3-D", refusal=_VOLUMES),
    _monai("UNet", {**_FLAT, **_LEVELS}, door="unet", refusal=f"is a network {_MONAI}"),
    _monai("BasicUNet", _BASIC, door="unet", refusal=f"is a BasicUNet {_MONAI}"),
    _monai("BasicUNetPlusPlus", _BASIC, door="unetpp", refusal=f"is a BasicUNetPlusPlus {_MONAI}"),
    _monai("FlexibleUNet", _FLEXIBLE, door="unet", refusal=f"is a network {_MONAI}"),
    _monai("SwinUNETR", {**_FLAT, "feature_size": 12}, door="transunet", refusal=f"is a SwinUNETR {_MONAI}"),
    _monai("DynUNet", _DYN, file="Lightning checkpoint", door="unet", refusal=f"is a DynUNet {_MONAI}"),
    _monai("SegResNetDS", {**_FLAT, "init_filters": 8}, door="sam", refusal=f"is a SegResNetDS {_MONAI}"),
    _monai("UNETR", _UNETR, file="quantised state dict", refusal=_QUANTISED),
    _monai("UNETR", _UNETR, file="whole module", refusal=_PICKLE),
    _monai("BasicUNet", _BASIC, file="TorchScript", door="unet", refusal=_SCRIPT),
)

_torchvision = partial(_row, "torchvision", "torchvision.models.segmentation")
_detector = partial(_row, "torchvision", "torchvision.models.detection")
_BARE = {"weights": None, "weights_backbone": None}
_TWO = {**_BARE, "num_classes": 2}
_OUT = ("--output", "out")
_TV = "of torchvision: seg-export module torchvision.models.segmentation:NAME"

TORCHVISION = (
    _torchvision("fcn_resnet50", {**_TWO, "aux_loss": True}, options=_OUT, note="auxiliary head"),
    _torchvision("deeplabv3_resnet50", _TWO),
    _torchvision(
        "deeplabv3_mobilenet_v3_large", {**_TWO, "aux_loss": True}, options=_OUT, note="auxiliary head"
    ),
    _torchvision("lraspp_mobilenet_v3_large", _TWO),
    _torchvision("lraspp_mobilenet_v3_large", _TWO, file="ONNX graph", door="onnx"),
    _torchvision(
        "deeplabv3_mobilenet_v3_large",
        {**_TWO, "aux_loss": True},
        note="auxiliary head",
        refusal="the module has 2 outputs: choose with --output one of out",
    ),
    _torchvision("fcn_resnet101", _BARE, door="unet", refusal=f"is an FCN {_TV}"),
    _torchvision("deeplabv3_resnet101", _BARE, door="unetpp", refusal=f"is a DeepLabV3 {_TV}"),
    _torchvision("lraspp_mobilenet_v3_large", _BARE, door="maskrcnn", refusal=f"is an LRASPP {_TV}"),
    _detector(
        "maskrcnn_resnet50_fpn",
        _BARE,
        door="unet",
        refusal="is a maskrcnn: export it with  seg-export maskrcnn",
    ),
    _detector(
        "maskrcnn_resnet50_fpn",
        _BARE,
        door="maskrcnn",
        refusal="do not say how their images were prepared. Missing: --mean (3 values), --std",
    ),
    _detector(
        "maskrcnn_resnet50_fpn",
        {**_BARE, "min_size": 64},
        file="nothing",
        refusal="is a detector ... its checkpoint is for  seg-export maskrcnn",
    ),
    _detector(
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        {**_BARE, "min_size": 64},
        file="nothing",
        refusal="is a detector ... a Mask R-CNN is expected",
    ),
    _detector(
        "fasterrcnn_resnet50_fpn",
        _BARE,
        door="maskrcnn",
        refusal="is a detector without masks: a Mask R-CNN is expected",
    ),
    _detector(
        "keypointrcnn_resnet50_fpn",
        _BARE,
        door="maskrcnn",
        refusal="is a detector without masks: a Mask R-CNN is expected",
    ),
    _detector(
        "retinanet_resnet50_fpn",
        _BARE,
        door="unet",
        refusal="is a one-stage detector of torchvision, without masks: a Mask R-CNN is expected",
    ),
    _row("torchvision", "torchvision.models", "resnet18", {"weights": None}, refusal=_NO_MAPS),
    _row("torchvision", "torchvision.models", "resnet50", {"weights": None}, door="unet", refusal=_NO_HEAD),
    _row(
        "torchvision", "torchvision.models", "vit_b_16", {"weights": None}, door="transunet", refusal=_NO_HEAD
    ),
    _row(
        "torchvision",
        "torchvision.models.quantization",
        "mobilenet_v2",
        {"weights": None, "quantize": True},
        door="unet",
        note="quantised",
        refusal=_QUANTISED,
    ),
)

_SEGFORMER = "SegformerForSemanticSegmentation"
_CLASSIFIER = "SegformerForImageClassification"
_UPERNET = "UperNetForSemanticSegmentation"
_BEIT = "BeitForSemanticSegmentation"
_QUERIES = "Mask2FormerForUniversalSegmentation"
_LOGITS = ("--output", "logits")
_HF = "of Hugging Face transformers: name the folder of its save_pretrained,  seg-export module FOLDER"
_LORA = "is a LoRA adapter, or has one in it: merge it into its base model"


def _transformers(kind: str, **fields: Any) -> Row:
    return _row("transformers", "foreign_nets", "transformer", {"kind": kind}, **fields)


TRANSFORMERS = (
    _transformers(_SEGFORMER, options=_LOGITS),
    _transformers(_UPERNET, options=_LOGITS),
    _transformers(_BEIT, options=_LOGITS),
    _transformers("DPTForSemanticSegmentation", options=_LOGITS),
    _transformers(_SEGFORMER, file="ONNX graph", door="onnx"),
    _transformers(_CLASSIFIER, options=_LOGITS, refusal=_NO_MAPS),
    _transformers(_QUERIES, refusal="gives a class and a mask per query: export the folder"),
    _transformers(_SEGFORMER, door="unet", refusal=f"is a SegFormer {_HF}"),
    _transformers(_UPERNET, door="transunet", refusal=f"is a network {_HF}"),
    _transformers(_BEIT, file="Lightning checkpoint", door="unet", refusal=f"is a network {_HF}"),
    _transformers(_QUERIES, door="maskrcnn", refusal=f"is a Mask2Former or MaskFormer {_HF}"),
    _transformers(_CLASSIFIER, door="unet", refusal=_NO_HEAD),
    _transformers(_SEGFORMER, file="LoRA adapter", door="unet", refusal=_LORA),
    _transformers(_SEGFORMER, file="LoRA adapter", refusal=_LORA),
)

_PLAIN = "PlainConvUNet"
_RESIDUAL = "ResidualEncoderUNet"


def _nnunet(kind: str, note: str = "", *, deep: bool = False, dimensions: int = 2, **fields: Any) -> Row:
    arguments = {"kind": kind, "deep_supervision": deep, "dimensions": dimensions}
    library = "dynamic_network_architectures"
    return _row(library, "foreign_nets", "nnunet", arguments, note=note, channels=1, **fields)


NNUNET = (
    _nnunet(_PLAIN),
    _nnunet(_PLAIN, "deep supervision", deep=True, options=("--output", "0")),
    _nnunet(_RESIDUAL),
    _nnunet(_RESIDUAL, file="ONNX graph", door="onnx"),
    _nnunet(
        _PLAIN,
        "deep supervision",
        deep=True,
        refusal="the module has 2 outputs: choose with --output one of 0",
    ),
    _nnunet(_PLAIN, "3-D", dimensions=3, refusal=_VOLUMES),
    _nnunet(_PLAIN, door="unet", refusal=f"is an nnU-Net: {_FACTORY}"),
    _nnunet(_RESIDUAL, door="unet", refusal=f"is an nnU-Net: {_FACTORY}"),
    _nnunet(_PLAIN, "3-D", dimensions=3, door="unet", refusal=_VOLUMES),
)

_timm = partial(_row, "timm", "timm", "create_model")
_FEATURES = {"model_name": "resnet18", "features_only": True}

TIMM = (
    _timm({"model_name": "resnet18"}, refusal=_NO_MAPS),
    _timm(
        _FEATURES,
        note="features",
        refusal="the module has 5 outputs: choose with --output one of 0",
    ),
    _timm({"model_name": "convnext_atto"}, door="unet", refusal=_NO_HEAD),
    _timm({"model_name": "vit_tiny_patch16_224"}, door="transunet", refusal=_NO_HEAD),
    _timm(
        _FEATURES,
        door="unet",
        note="features",
        refusal="is a backbone without its segmentation head: save the state_dict of both",
    ),
)

ROWS = (*SMP, *MONAI, *TORCHVISION, *TRANSFORMERS, *NNUNET, *TIMM)
