"""Folders and networks of transformers that are not for semantic segmentation, and the next step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["other_folder", "other_network"]

_EXPECTED = (
    "expected one that ends in ForSemanticSegmentation, a Mask2FormerForUniversalSegmentation or a "
    "MaskFormerForInstanceSegmentation"
)

_TASKS = {
    "ForImageClassification": "which names whole images",
    "ForObjectDetection": "which draws boxes",
    "ForInstanceSegmentation": "which finds single objects",
    "ForDepthEstimation": "which estimates depth",
    "ForCausalLM": "which writes text",
    "ForConditionalGeneration": "which writes text",
    "Backbone": "which has no head",
    "Model": "which has no head for segmentation",
}
"""What a network does, by the end of its class's name."""

_COMMANDS = {
    "SamModel": "seg-export sam",
    "Sam2Model": "seg-export sam2",
    "Sam2VideoModel": "seg-export sam2",
}


def other_folder(folder: Path, config: Mapping[str, Any]) -> str:
    """Why a folder is refused whatever its network is; "" for one of a whole network in float.

    Args:
        folder: as it was saved.
        config: what its `config.json` holds; {} without one.
    """
    if (folder / "adapter_config.json").is_file():
        return (
            "is an adapter of PEFT, which needs the network that it changes: merge_and_unload() it and "
            "save_pretrained the result"
        )
    if (folder / "model_index.json").is_file() or "_diffusers_version" in config:
        return f"is of diffusers, which makes images: {_EXPECTED}"
    if "auto_map" in config:
        return (
            "has its network as code (auto_map), which is not run: name a factory, as "
            "PACKAGE.MODULE:FACTORY, with --checkpoint FILE"
        )
    if "quantization_config" in config:
        return "holds quantised weights: save the network as it was before"
    return ""


def other_network(name: str, folder: Path) -> str:
    """What a class of transformers is for that does no semantic segmentation, and the next step.

    Example:
        >>> other_network("SamModel", Path("sam-vit-base"))
        'which takes prompts: seg-export sam --checkpoint sam-vit-base/model.safetensors'
    """
    if command := _COMMANDS.get(name):
        return f"which takes prompts: {command} --checkpoint {folder / 'model.safetensors'}"
    task = next((text for end, text in _TASKS.items() if name.endswith(end)), "which is not read")
    return f"{task}: {_EXPECTED}"
