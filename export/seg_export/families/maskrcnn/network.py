"""Mask R-CNN of any ResNet with a feature pyramid, built from torchvision's own modules.

Architectures are described by constructor arguments, which can also be read off a torchvision state
dict, so that a checkpoint says by itself what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from seg_runtime.errors import BadInputError

__all__ = [
    "ARCHITECTURES",
    "COCO_V1_SHA256",
    "build_maskrcnn",
    "coco_names",
    "current_names",
    "maskrcnn_arguments",
]

COCO_V1_SHA256 = "bf2d0c1e"
"""How the SHA-256 of torchvision's first COCO weights begins; it builds only those with an epsilon of 0."""

_V2 = "maskrcnn_resnet50_fpn_v2"
_LIGHT = "maskrcnn_light_fpn"

_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Residual blocks per stage; those of the first two are basic blocks, the others' bottlenecks."""

ARCHITECTURES = (*(f"maskrcnn_{body}_fpn" for body in _BLOCKS), _V2, _LIGHT)
"""torchvision's two, the same with its other ResNets, and a light one for small objects."""


def build_maskrcnn(
    *,
    arch: str,
    num_classes: int,
    norm: str = "batch",
    norm_eps: float = 1e-5,
    min_size: int = 800,
    max_size: int = 1333,
    max_detections: int = 100,
    proposals: int = 1000,
    score_threshold: float = 0.05,
    nms_threshold: float = 0.5,
    anchor_sizes: Sequence[int] | None = None,
    body_channels: Sequence[int] = (32, 64, 128),
    fpn_channels: int = 64,
    box_features: int = 128,
    mask_channels: Sequence[int] = (64, 64),
) -> nn.Module:
    """torchvision's `MaskRCNN`, in eval mode on the CPU.

    Args:
        arch: one of `ARCHITECTURES`.
        num_classes: background included, as torchvision counts.
        norm: "batch" for `BatchNorm2d`, "frozen" for `FrozenBatchNorm2d`, as fine-tuned checkpoints have.
        norm_eps: of the backbone's norms; torchvision builds its own COCO weights of the first
            ResNet-50 model with 0.
        min_size: images are resized to this shorter side in pixels,
        max_size: unless the longer side became longer than this.
        max_detections: the most objects that are found in an image.
        proposals: the most boxes per pyramid level, and after it of all levels, that the second stage sees.
        score_threshold: detections at or below it are left out.
        nms_threshold: of two detections of a class that overlap by more, the better stays.
        anchor_sizes: side in pixels of the anchors, one per level; None for torchvision's 32 to 512.
        body_channels: of the light architecture's three stages.
        fpn_channels: of the light architecture, as the following.
        box_features: of the two layers that judge boxes.
        mask_channels: of the layers of the mask head.

    Raises:
        BadInputError: an unknown architecture or norm, or sizes that cannot be built.
    """
    if arch not in ARCHITECTURES:
        raise BadInputError(f"unknown architecture '{arch}': known are {', '.join(ARCHITECTURES)}")
    if num_classes < 2:
        raise BadInputError(f"{num_classes} classes: a Mask R-CNN has the background and at least one more")
    from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn_v2

    common: dict[str, Any] = {
        "min_size": min_size,
        "max_size": max_size,
        "rpn_pre_nms_top_n_test": proposals,
        "rpn_post_nms_top_n_test": proposals,
        "box_score_thresh": score_threshold,
        "box_nms_thresh": nms_threshold,
        "box_detections_per_img": max_detections,
    }
    if anchor_sizes is not None:
        common["rpn_anchor_generator"] = _anchors(anchor_sizes)
    norm_layer = _norm_layer(norm, norm_eps)
    if arch == _V2:
        model = maskrcnn_resnet50_fpn_v2(
            weights=None, weights_backbone=None, num_classes=num_classes, **common
        )
    elif arch == _LIGHT:
        model = _light(
            num_classes,
            norm_layer,
            common,
            anchor_sizes,
            body_channels,
            fpn_channels,
            box_features,
            mask_channels,
        )
    else:
        from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

        body = arch.removeprefix("maskrcnn_").removesuffix("_fpn")
        backbone = resnet_fpn_backbone(
            backbone_name=body, weights=None, norm_layer=norm_layer, trainable_layers=5
        )
        model = MaskRCNN(backbone, num_classes, **common)
    built: nn.Module = model.eval()
    return built


def maskrcnn_arguments(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any] | None:
    """Arguments of `build_maskrcnn` for torchvision's state dict under its current names.

    Returns:
        None for weights of another model.

    Raises:
        BadInputError: a Mask R-CNN of a backbone, or with anchors, that this version does not know.
    """
    classes = state_dict.get("roi_heads.box_predictor.cls_score.weight")
    if classes is None or "roi_heads.mask_predictor.mask_fcn_logits.weight" not in state_dict:
        return None
    per_place = state_dict["rpn.head.cls_logits.weight"].shape[0]
    if per_place != 3:
        raise BadInputError(
            f"this Mask R-CNN has {per_place} anchors per place and torchvision's have 3: save it with "
            "seg_export.checkpoints.checkpoint.save_checkpoint, which keeps how it was built"
        )
    norm = "batch" if any(name.endswith("num_batches_tracked") for name in state_dict) else "frozen"
    arguments: dict[str, Any] = {"num_classes": int(classes.shape[0])}
    if "rpn.head.conv.1.0.weight" in state_dict:
        return {"arch": _V2} | arguments
    return {"arch": f"maskrcnn_{_body(state_dict)}_fpn", "norm": norm} | arguments


def current_names(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with the names of torchvision's present Mask R-CNN.

    Files from before torchvision 0.14, its own COCO weights among them, name some layers otherwise;
    torchvision renames them as it loads.
    """
    return {_renamed(name): tensor for name, tensor in state_dict.items()}


def coco_names() -> tuple[str, ...]:
    """Names of the labels 1 to 90 as torchvision counts them; those that COCO left out are "N/A"."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"][1:]
    return tuple(str(name) for name in names)


def _renamed(name: str) -> str:
    name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
    name = re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name)
    mask_layer = re.match(r"^roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)$", name)
    if mask_layer is None:
        return name
    return f"roi_heads.mask_head.{int(mask_layer[1]) - 1}.0.{mask_layer[2]}"


def _body(state_dict: Mapping[str, torch.Tensor]) -> str:
    found = {re.match(r"backbone\.body\.layer(\d)\.(\d+)\.", name) for name in state_dict}
    places = {(int(match[1]), int(match[2])) for match in found if match}
    blocks = tuple(1 + max((block for stage, block in places if stage == n), default=-1) for n in range(1, 5))
    bottlenecks = "backbone.body.layer1.0.conv3.weight" in state_dict
    for body, known in _BLOCKS.items():
        if known == blocks and bottlenecks == (body not in ("resnet18", "resnet34")):
            return body
    raise BadInputError(
        f"this Mask R-CNN's backbone has {blocks} blocks and is no ResNet that is known here: "
        f"{', '.join(_BLOCKS)}"
    )


def _norm_layer(norm: str, eps: float) -> Callable[..., nn.Module]:
    from torchvision.ops import FrozenBatchNorm2d

    layers: dict[str, Callable[..., nn.Module]] = {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d}
    if norm not in layers:
        raise BadInputError(f"unknown norm '{norm}': it is batch or frozen")
    return partial(layers[norm], eps=eps)


def _anchors(sizes: Sequence[int]) -> Any:
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    return AnchorGenerator(tuple((size,) for size in sizes), ((0.5, 1.0, 2.0),) * len(sizes))


def _light(
    num_classes: int,
    norm_layer: Callable[..., nn.Module],
    common: Mapping[str, Any],
    anchor_sizes: Sequence[int] | None,
    body_channels: Sequence[int],
    fpn_channels: int,
    box_features: int,
    mask_channels: Sequence[int],
) -> nn.Module:
    """A narrow ResNet of three stages and narrow heads: strides 4, 8, 16 and, for anchors only, 32."""
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.ops import MultiScaleRoIAlign

    levels = ["0", "1", "2"]
    returned = {f"layer{stage}": level for stage, level in enumerate(levels, start=1)}
    body = _light_body(body_channels, norm_layer)
    backbone = BackboneWithFPN(body, returned, list(body_channels), fpn_channels)
    options = {"rpn_anchor_generator": _anchors(anchor_sizes or (16, 32, 64, 128)), **common}
    model: nn.Module = MaskRCNN(
        backbone,
        box_roi_pool=MultiScaleRoIAlign(levels, output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(fpn_channels * 49, box_features),
        box_predictor=FastRCNNPredictor(box_features, num_classes),
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=14, sampling_ratio=2),
        mask_head=MaskRCNNHeads(fpn_channels, tuple(mask_channels), 1),
        mask_predictor=MaskRCNNPredictor(mask_channels[-1], mask_channels[-1], num_classes),
        **options,
    )
    return model


def _light_body(channels: Sequence[int], norm_layer: Callable[..., nn.Module]) -> nn.Module:
    """The stem of a ResNet and stages of two of its basic blocks, each but the first at half the size."""
    from torchvision.models.resnet import BasicBlock

    if len(channels) != 3:
        raise BadInputError(f"body_channels {list(channels)}: the light architecture has three stages")
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, channels[0], 7, stride=2, padding=3, bias=False),
        "bn1": norm_layer(channels[0]),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    inside = channels[0]
    for stage, outside in enumerate(channels, start=1):
        stride, shortcut = (1, None) if stage == 1 else (2, _shortcut(inside, outside, norm_layer))
        first = BasicBlock(inside, outside, stride, shortcut, norm_layer=norm_layer)
        layers[f"layer{stage}"] = nn.Sequential(first, BasicBlock(outside, outside, norm_layer=norm_layer))
        inside = outside
    body = nn.Sequential()
    for name, layer in layers.items():
        body.add_module(name, layer)
    for module in body.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return body


def _shortcut(inside: int, outside: int, norm_layer: Callable[..., nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inside, outside, 1, stride=2, bias=False), norm_layer(outside))
