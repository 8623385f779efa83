"""What `save_pretrained` of transformers writes: `config.json`, weights, `preprocessor_config.json`.

The configuration names the network and its classes, and the other file says how images are prepared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seg_export.checkpoints.folders.folder import FolderModel, library, read_json
from seg_export.checkpoints.folders.huggingface_images import read_images
from seg_export.checkpoints.folders.huggingface_loading import load_network, offline_and_quiet
from seg_export.checkpoints.folders.huggingface_network import QUERIES
from seg_export.checkpoints.folders.huggingface_others import other_folder, other_network
from seg_export.checkpoints.types import Preprocessing
from seg_runtime.contract import MOST_CHANNELS
from seg_runtime.errors import CheckpointError

__all__ = ["TITLE", "read", "recognises"]

TITLE = "save_pretrained of transformers"

_MARKS = {"architectures", "model_type", "auto_map", "_diffusers_version"}
_OTHERS = ("adapter_config.json", "model_index.json")
"""Of an adapter and of a pipeline, which have no `config.json`."""


def recognises(folder: Path) -> bool:
    """Whether its configuration is of transformers, or of a library around it, which `read` refuses."""
    if any((folder / name).is_file() for name in _OTHERS):
        return True
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    return bool(_MARKS & config.keys()) and "_model_class" not in config


def read(folder: Path) -> FolderModel:
    """The network that the configuration names, with what the folder says of its images.

    Raises:
        CheckpointError: a network for another task, or one that is code in the folder; weights that are
            missing or do not fit; classes or statistics that cannot be.
        MissingExtraError: transformers is not installed.
    """
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    architecture = _architecture(folder, config)
    transformers = library("transformers", "transformers")
    channels, names = _channels(path, config), _class_names(path, config.get("id2label"))
    with offline_and_quiet(transformers):
        images = read_images(transformers, folder, channels)
        image_chw = (channels, *(images.size_hw or Preprocessing.input_size_hw))
        network = load_network(transformers, folder, config, image_chw)
    return FolderModel(
        kind=f"{architecture} of transformers",
        network=network,
        channels=channels,
        claims=replace(images.claims, class_names=names),
        size_hw=images.size_hw,
        activation=network.activation,
        steps=(*network.steps, *images.steps),
    )


def _architecture(folder: Path, config: Mapping[str, Any]) -> str:
    """The class that the configuration names. Raises CheckpointError for any that is not read."""
    if text := other_folder(folder, config):
        raise CheckpointError(f"'{folder}' {text}")
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and len(named) == 1 else None
    if not isinstance(name, str):
        raise CheckpointError(
            f"'{folder / 'config.json'}' has the architectures {named}, expected the one class that the "
            'weights were saved from, as ["SegformerForSemanticSegmentation"]'
        )
    if not name.endswith("ForSemanticSegmentation") and name not in QUERIES:
        raise CheckpointError(f"'{folder}' is a {name} of transformers, {other_network(name, folder)}")
    return name


def _channels(path: Path, config: Mapping[str, Any]) -> int:
    """Of the input; transformers leaves the usual 3 out of the file. Raises CheckpointError."""
    backbone = config.get("backbone_config")
    parts = [config, backbone] if isinstance(backbone, dict) else [config]
    channels = next((part["num_channels"] for part in parts if "num_channels" in part), 3)
    if type(channels) is int and 1 <= channels <= MOST_CHANNELS:
        return channels
    raise CheckpointError(
        f"'{path}' has the num_channels {channels!r:.40}: 1 to {MOST_CHANNELS} can be served"
    )


def _class_names(path: Path, id2label: Any) -> tuple[str, ...] | None:
    """The names of the classes in the order of the outputs; None where they are LABEL_0 and so on.

    Raises:
        CheckpointError: no names of text for 0, 1, 2 and so on, or two classes of one name.
    """
    if id2label is None:
        return None
    if not isinstance(id2label, dict) or set(id2label) != {str(index) for index in range(len(id2label))}:
        raise CheckpointError(
            f'the id2label of \'{path}\' does not name the classes "0", "1", "2" and so on: correct it'
        )
    names = tuple(id2label[str(index)] for index in range(len(id2label)))
    odd = [name for name in names if not isinstance(name, str) or not name.strip() or names.count(name) > 1]
    if odd:
        raise CheckpointError(
            f"the id2label of '{path}' has the name {odd[0]!r}, expected different names: correct it"
        )
    return None if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names
