"""Models with weights that were never trained: for timing and tests, and marked as such for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from seg_export.checkpoints.checkpoint import Checkpoint, Preprocessing, untrained_model
from seg_export.families.maskrcnn.network import build_maskrcnn
from seg_export.families.sam.network import build_sam
from seg_export.families.sam2.network import build_sam2

__all__ = ["random_maskrcnn", "random_sam", "random_sam2", "random_semantic", "random_unet", "tensors_sha256"]


_SAM2_FAINT = (
    "gamma",
    "maskmem_tpos_enc",
    "no_mem_embed",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "pos_embed",
    "pos_embed_window",
)
"""Parameters that sam2 begins with zeros or nearly so; a graph that forgot them would look right."""


def random_unet(
    *,
    in_channels: int = 1,
    num_classes: int = 1,
    bilinear: bool = True,
    features: Sequence[int] = (64, 128, 256, 512, 1024),
    seed: int = 0,
) -> Checkpoint:
    """`random_semantic` of a U-Net; the arguments are `UNet`'s."""
    arguments = {
        "in_channels": in_channels,
        "num_classes": num_classes,
        "bilinear": bilinear,
        "features": list(features),
    }
    return random_semantic("unet", arguments, seed)


def random_semantic(family: str, arguments: Mapping[str, Any], seed: int = 0) -> Checkpoint:
    """A network with seeded random weights; the global random state is left alone.

    Args:
        family: "unet", "unetpp" or "transunet".
        arguments: keyword arguments of its constructor.
        seed: of PyTorch's generator.

    Returns:
        A checkpoint whose `sha256` is that of its tensors, since there is no file.

    Raises:
        BadInputError: sizes that cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = untrained_model(family, arguments)
        network.apply(_spread)
        if family == "transunet":
            # It begins with zeros here, and a graph that forgot the positions would look right.
            nn.init.normal_(network.transformer.embeddings.position_embeddings, std=0.3)
    state_dict = network.state_dict()
    default, channels = Preprocessing(), int(arguments.get("in_channels", 1))
    side = getattr(network, "image_size", default.input_size_hw[0])
    return Checkpoint(
        family=family,
        arguments=dict(arguments),
        state_dict=state_dict,
        preprocessing=Preprocessing(default.mean * channels, default.std * channels, None, (side, side)),
        metadata={"weights": "random", "seed": seed},
        sha256=tensors_sha256(state_dict),
    )


def random_sam(arguments: Mapping[str, Any], seed: int = 0) -> Checkpoint:
    """A SAM with seeded random weights; the global random state is left alone.

    Args:
        arguments: keyword arguments of `seg_export.families.sam.network.build_sam`.
        seed: of PyTorch's generator.

    Returns:
        A checkpoint whose `sha256` is that of its tensors, since there is no file.

    Raises:
        BadInputError: sizes that cannot be built.
        MissingExtraError: segment_anything is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam: Any = build_sam(**arguments)
        # segment_anything begins with zeros here, and a graph that forgot the positions would look right.
        for name, parameter in sam.image_encoder.named_parameters():
            if name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w")):
                nn.init.normal_(parameter, std=0.1)
    state_dict = sam.state_dict()
    side = sam.image_encoder.img_size
    return Checkpoint(
        family="sam",
        arguments=dict(arguments),
        state_dict=state_dict,
        preprocessing=Preprocessing(input_size_hw=(side, side)),
        metadata={"weights": "random", "seed": seed},
        sha256=tensors_sha256(state_dict),
    )


def random_sam2(arguments: Mapping[str, Any], seed: int = 0) -> Checkpoint:
    """A SAM2 with seeded random weights; the global random state is left alone.

    Args:
        arguments: keyword arguments of `seg_export.families.sam2.network.build_sam2`.
        seed: of PyTorch's generator.

    Returns:
        A checkpoint whose `sha256` is that of its tensors, since there is no file.

    Raises:
        BadInputError: sizes that cannot be built.
        MissingExtraError: sam2 is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam2: Any = build_sam2(**arguments)
        for name, parameter in sam2.named_parameters():
            if name.endswith(_SAM2_FAINT):
                nn.init.normal_(parameter, std=0.3)
    state_dict = sam2.state_dict()
    return Checkpoint(
        family="sam2",
        arguments=dict(arguments),
        state_dict=state_dict,
        preprocessing=Preprocessing(input_size_hw=(sam2.image_size, sam2.image_size)),
        metadata={"weights": "random", "seed": seed},
        sha256=tensors_sha256(state_dict),
    )


def random_maskrcnn(arguments: Mapping[str, Any], seed: int = 0) -> Checkpoint:
    """A Mask R-CNN with seeded random weights that finds many objects; the global random state is left alone.

    Args:
        arguments: keyword arguments of `seg_export.families.maskrcnn.network.build_maskrcnn`.
        seed: of PyTorch's generator.

    Returns:
        A checkpoint whose `sha256` is that of its tensors, since there is no file.

    Raises:
        BadInputError: an architecture that cannot be built.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = build_maskrcnn(**arguments)
        # torchvision begins with scores that are all alike and below its threshold.
        head, predictor = model.rpn.head, model.roi_heads.box_predictor
        _scale_outputs(model, {head.cls_logits: 3.0, head.bbox_pred: 0.3})
        _scale_outputs(model, {predictor.cls_score: 3.0, predictor.bbox_pred: 1.0})
        _scale_outputs(model, {model.roi_heads.mask_predictor.mask_fcn_logits: 3.0})
    state_dict = model.state_dict()
    return Checkpoint(
        family="maskrcnn",
        arguments=dict(arguments),
        state_dict=state_dict,
        preprocessing=Preprocessing(
            tuple(model.transform.image_mean), tuple(model.transform.image_std), None, (800, 1333)
        ),
        metadata={"weights": "random", "seed": seed},
        sha256=tensors_sha256(state_dict),
    )


@torch.no_grad()
def _scale_outputs(model: nn.Module, deviations: Mapping[Any, float]) -> None:
    """Scale the weights of layers until their outputs for an image of noise have standard deviations."""
    outputs: dict[nn.Module, torch.Tensor] = {}

    def note(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        outputs.setdefault(layer, output)

    handles = [layer.register_forward_hook(note) for layer in deviations]
    model([torch.rand(3, 256, 256)])
    for handle in handles:
        handle.remove()
    for layer, deviation in deviations.items():
        layer.weight.mul_(deviation / outputs[layer].std().clamp(min=1e-6))


def _spread(module: nn.Module) -> None:
    """Keep activations at one scale through all layers.

    PyTorch's own initialisation lets them fade, so that every probability is 0.5 and a wrong graph
    looks right.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def tensors_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of weights that are no file, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
