"""What a file is that looks like one of another library, and the step that gets it in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

__all__ = ["IMPOSTORS", "NEAR_MISSES", "NearMiss", "class_near_miss", "impostor", "near_miss", "no_family"]

Tensors = Mapping[str, torch.Tensor]

_MODULE = "seg-export module PACKAGE.MODULE:FACTORY --checkpoint FILE"

_FOLDER = "name the folder of its save_pretrained,  seg-export module FOLDER"

_SMP = "seg-export module segmentation_models_pytorch:CLASS --args JSON --checkpoint FILE"

_MONAI = "seg-export module monai.networks.nets:CLASS --args JSON --checkpoint FILE"

_TORCHVISION = "seg-export module torchvision.models.segmentation:NAME --args JSON --checkpoint FILE"

_YOLO = "is a YOLO of ultralytics: export it to ONNX there, and then  seg-export onnx FILE"

_CODE = "which could run code, and is refused"


@dataclass(frozen=True)
class NearMiss:
    """A network that no family is.

    Attributes:
        text: what follows "checkpoint FILE" in a message: what it is, and the step that gets it in.
        fits: whether tensors are of it, from their names and shapes.
    """

    text: str
    fits: Callable[[Tensors], bool]


def impostor(tensors: Tensors) -> str | None:
    """What tensors are that a family would take for its own.

    Example:
        >>> impostor({"mask_decoder.hf_token.weight": torch.ones(1, 256)})
        'is a SAM-HQ: seg-export module PACKAGE.MODULE:FACTORY --checkpoint FILE'
    """
    return next((each.text for each in IMPOSTORS if each.fits(tensors)), None)


def near_miss(tensors: Tensors) -> str | None:
    """What tensors are that no family knows, where it is known."""
    return impostor(tensors) or next((each.text for each in NEAR_MISSES if each.fits(tensors)), None)


def no_family(tensors: Tensors) -> str:
    """What to say of tensors that nothing is known of."""
    first, count = next(iter(tensors)), len(tensors)
    name = first if len(first) <= 30 else f"{first[:27]}..."
    more = f" and {count - 1} more" if count > 1 else ""
    return f"is a plain state dict of no known network ({name}{more}): {_MODULE}"


def class_near_miss(names: set[str]) -> str | None:
    """What a file with the pickled classes of these names is, where it is known."""
    return next((text for pattern, text in _CLASSES if any(map(pattern.match, names))), None)


def _named(*patterns: str) -> Callable[[Tensors], bool]:
    """Whether each pattern is somewhere in some name."""
    compiled = [re.compile(pattern) for pattern in patterns]
    return lambda tensors: all(any(map(each.search, tensors)) for each in compiled)


def _by_module(what: str, *patterns: str, command: str = _MODULE) -> NearMiss:
    return NearMiss(f"is {what}: {command}", _named(*patterns))


def _is_volumetric(tensors: Tensors) -> bool:
    return any(tensor.ndim == 5 for name, tensor in tensors.items() if name.endswith("weight"))


def _is_classifier(tensors: Tensors) -> bool:
    """Whether its last layer makes one vector of an image, and nothing in it makes maps again."""
    head = re.compile(r"(fc|classifier|heads?|last_linear|class_layers)(\.\w+)*\.weight$")
    maps = re.compile(r"decode|mask|segment|upsample")
    ends = any(tensor.ndim == 2 for name, tensor in tensors.items() if head.match(name))
    return ends and not any(map(maps.search, tensors))


def _is_backbone(tensors: Tensors) -> bool:
    """Whether all of it is a ResNet or another network of stages without a last layer."""
    part = re.compile(r"(conv1|bn1|stem(_\d)?|layer[1-4]|stages([._]\d)?)\.")
    return all(map(part.match, tensors)) and any(re.match("layer4|stages", name) for name in tensors)


IMPOSTORS = (
    NearMiss(
        "is a LoRA adapter, or has one in it: merge it into its base model and save that one's state_dict",
        _named(r"lora_|linear_[ab]_[qv]|^w_[ab]_\d+"),
    ),
    NearMiss(
        "has pruned or parametrised weights: call torch.nn.utils.prune.remove, remove_weight_norm or the "
        "like, and save it again",
        _named(r"\.weight_(orig|mask|g)$|(^|\.)parametrizations\."),
    ),
    NearMiss(
        "is of quantisation-aware training: export the float checkpoint with --precision int8 --calibrate "
        "FOLDER",
        _named(r"fake_quant|activation_post_process"),
    ),
    NearMiss(
        "is quantised: name the weights in float, and export them with --precision int8 --calibrate FOLDER",
        _named(r"(^|\.)zero_point$"),
    ),
    _by_module("a SAM-HQ", r"(^|\.)(sam_)?mask_decoder\.h[fq]_token\."),
    _by_module("a SAM with adapters", r"^image_encoder\..*[Aa]dapter"),
    _by_module("a network of detectron2", r"^(backbone\.bottom_up|proposal_generator|sem_seg_head)\."),
)
"""Looked at first: a family would take them for its own, or say something wrong of them."""

NEAR_MISSES = (
    NearMiss("is a 3-D network, and edgeseg's are of 2-D images: export a 2-D one", _is_volumetric),
    _by_module(
        "a SAM 3",
        r"^(detector\.backbone\.vision_backbone|tracker|vision_backbone"
        r"|(detector_model\.)?vision_encoder\.backbone\.embeddings)\.",
    ),
    _by_module("an EdgeTAM", r"^vision_encoder\.backbone\.timm_model\.|(^|\.)spatial_perceiver\."),
    _by_module("a MobileSAM", r"^image_encoder\.patch_embed\.seq\.0\.c\."),
    _by_module("an EfficientSAM", r"^prompt_encoder\.bbox_top_left_embeddings\."),
    _by_module(
        "a SAM of Hugging Face transformers",
        r"^vision_encoder\.",
        r"^mask_decoder\.iou_token",
        r"^shared_image",
    ),
    _by_module("a SAM with another image encoder", r"^image_encoder\.", r"^mask_decoder\.iou_token"),
    NearMiss(
        "is a part of a SAM and not all of it: put it into the whole model and save that one's state_dict",
        _named(r"^(sam_mask_decoder\.|mask_decoder\.)?iou_token\.weight|^mask_decoder\.transformer\."),
    ),
    NearMiss(
        "is a classifier and no segmentation network: name the file of one that has masks", _is_classifier
    ),
    NearMiss("is a backbone without its segmentation head: save the state_dict of both", _is_backbone),
    _by_module(
        "a SegFormer of Hugging Face transformers", r"^segformer\.(encoder|stages)\.", command=_FOLDER
    ),
    _by_module("a OneFormer of Hugging Face transformers", r"^model\.task_encoder\."),
    _by_module(
        "a Mask2Former or MaskFormer of Hugging Face transformers",
        r"(^|\.)pixel_level_module\.encoder\.",
        command=_FOLDER,
    ),
    _by_module("an EoMT of Hugging Face transformers", r"^class_predictor\.", r"^mask_head\.fc1\."),
    _by_module("a DETR-like network of Hugging Face transformers", r"\.conv_encoder\.model\."),
    _by_module(
        "a network of Hugging Face transformers",
        r"\.layernorm_before\.|(^|\.)hidden_states_norms\.|\.normalization\.|\.attention\.attention\.query\.",
        command=_FOLDER,
    ),
    _by_module("a detector of mmdet", r"^(roi_head|rpn_head|bbox_head|mask_head|panoptic_head)\."),
    _by_module("a network of mmsegmentation", r"^decode_head\.", r"^backbone\."),
    NearMiss(_YOLO, _named(r"^(model\.)?\d+\.conv\.weight", r"^(model\.)?\d+\.(cv[123]|m\.\d|dfl|proto)\.")),
    _by_module("an nnU-Net", r"^encoder\.stages\.\d+\..*conv", r"^decoder\.(seg_layers|transpconvs)\."),
    _by_module("an nnU-Net (version 1)", r"^conv_blocks_context\.", r"^seg_outputs\."),
    _by_module("a network of MONAI", r"^(model\.)?0\.conv\.(unit0\.)?", r"\bsubmodule\.", command=_MONAI),
    _by_module("a BasicUNet of MONAI", r"^(conv_0|upcat_\d)\..*conv", r"^final_conv\.", command=_MONAI),
    _by_module("a BasicUNetPlusPlus of MONAI", r"^upcat_0_1\.", r"^final_conv_0_1\.", command=_MONAI),
    _by_module("a SwinUNETR of MONAI", r"^swinViT\.", command=_MONAI),
    _by_module("a UNETR of MONAI", r"^vit\.patch_embedding\.", r"^encoder1\.", command=_MONAI),
    _by_module("a SegResNet of MONAI", r"^convInit\.conv\.", r"^down_layers\.", command=_MONAI),
    _by_module("a SegResNetDS of MONAI", r"^encoder\.conv_init\.", r"^up_layers\.", command=_MONAI),
    _by_module(
        "a DynUNet of MONAI", r"^input_block\.conv1\.", r"^(output_block|upsamples)\.", command=_MONAI
    ),
    _by_module("a network of MONAI", r"\.adn\.[AN]\.", command=_MONAI),
    _by_module(
        "a network of segmentation_models_pytorch",
        r"^segmentation_head\.(head\.)?0\.",
        r"^encoder\.",
        r"^decoder\.",
        command=_SMP,
    ),
    _by_module(
        "a DeepLabV3 of torchvision", r"^backbone\.", r"^classifier\.0\.convs\.", command=_TORCHVISION
    ),
    _by_module("an LRASPP of torchvision", r"^backbone\.", r"^classifier\.cbr\.", command=_TORCHVISION),
    _by_module(
        "an FCN of torchvision", r"^backbone\.(layer1|conv1)\.", r"^classifier\.4\.", command=_TORCHVISION
    ),
    NearMiss(
        "is a one-stage detector of torchvision, without masks: a Mask R-CNN is expected",
        _named(r"^head\.classification_head\."),
    ),
)
"""From special to general, of tensors that no family knows."""

_CLASSES = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"ultralytics\.|models\.(yolo|common)\.", f"{_YOLO}; its file holds code and is refused"),
        (
            r"torch\.distributed\.",
            f"is sharded over processes, {_CODE}: gather its full state_dict and save that alone",
        ),
        (
            r"torch\.(fx|ao|jit|export)\.",
            f"is a traced or quantised module, {_CODE}: save the original's state_dict() alone",
        ),
        (r".*TrainingArguments", f"holds arguments of training, {_CODE}: name the file of weights"),
    )
)
"""What files hold that pickle these classes."""
