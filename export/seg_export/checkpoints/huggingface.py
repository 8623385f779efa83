"""Models of Hugging Face transformers: the names of their tensors, and the JSON files next to them.

Weights in these names become those of the original library, which is what is exported. What the network is
besides its weights stands in `config.json`, and how images are prepared in the processor's file: where they
say something else than the exported network, it would compute something else, so it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.folders.folder import read_json
from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD
from seg_runtime.errors import CheckpointError

__all__ = [
    "check_images",
    "check_settings",
    "original_names",
    "other_model",
    "read_config",
    "setting",
    "weights_file",
]

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_LAYER = re.compile(r"(.+)\.(?:(proj_in)|layers\.(\d+)|proj_out)\.(weight|bias)")
"""A layer of a feed-forward network of transformers."""

_CURE = "export it with seg-export module PACKAGE.MODULE:FACTORY --checkpoint FILE"


def weights_file(path: Path) -> Path:
    """The file of weights in a folder that `save_pretrained` wrote; any other path as it is.

    Raises:
        CheckpointError: a folder without one, or with weights in several files.

    Example:
        >>> weights_file(Path("model.pth")).name
        'model.pth'
    """
    if not path.is_dir():
        return path
    for name in _WEIGHTS:
        if (path / name).is_file():
            return path / name
    if any(path.glob("*.index.json")):
        raise CheckpointError(
            f"the weights in {path} are in several files: save them in one with "
            'save_pretrained(FOLDER, max_shard_size="20GB")'
        )
    raise CheckpointError(f"{path} is a folder: name the file of weights in it")


def original_names(
    tensors: Mapping[str, torch.Tensor], names: Iterable[tuple[str, str]], path: Path
) -> dict[str, torch.Tensor]:
    """Tensors by the names of the original library.

    Args:
        tensors: by the names of transformers.
        names: parts of names, of transformers and of the original, which are replaced one after another.
        path: their file, for messages.

    Raises:
        CheckpointError: tensors that are one in the original, and differ.

    Example:
        >>> list(original_names({"layer_norm.bias": torch.ones(1)}, [("layer_norm", "norm")], Path("a.pth")))
        ['norm.bias']
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        original = _numbered(name, tensors)
        for theirs, ours in names:
            original = original.replace(theirs, ours)
        if not _alike(renamed.setdefault(original, tensor), tensor):
            raise CheckpointError(
                f"checkpoint {path} has two different tensors for the one '{original}' of the original "
                f"network, and '{name}' is one of them: {_CURE}"
            )
    return renamed


def read_config(weights: Path, kinds: Iterable[str]) -> Mapping[str, Any]:
    """What `config.json` next to a file of weights says; nothing where transformers wrote none.

    Args:
        weights: the file.
        kinds: what transformers calls models with such weights, for example "sam".

    Raises:
        CheckpointError: it cannot be read, or is of another kind of model.
    """
    config = _read(weights.with_name("config.json"))
    kind = config.get("model_type")
    if kind is None:
        return {}
    if kind not in kinds:
        raise CheckpointError(
            f"checkpoint {weights} has the tensors of a {' or '.join(kinds)}, and its config.json is of the "
            f"model_type '{kind}': {_CURE}"
        )
    return config


def other_model(weights: Path) -> str | None:
    """What a file of weights is by `config.json` next to it, where that has a model_type of transformers."""
    kind = _read(weights.with_name("config.json")).get("model_type")
    return f"is a '{kind}' of Hugging Face transformers: {_CURE}" if kind else None


def setting(config: Mapping[str, Any], name: str, default: Any) -> Any:
    """A value of a configuration, or the default where it has none.

    Example:
        >>> setting({"vision_config": {"image_size": 64}}, "vision_config.image_size", 1024)
        64
    """
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return default if value is None else value


def check_settings(
    config: Mapping[str, Any],
    wanted: Mapping[str, Any],
    weights: Path,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Refuse a configuration that says something else than the exported network has.

    Args:
        config: as `read_config` returns it.
        wanted: values that the exported network has, by their names in the configuration.
        weights: the file next to the configuration, for messages.
        defaults: transformers' values of what the configuration leaves out; those in `wanted` for the rest.

    Raises:
        CheckpointError: the first value that differs.
    """
    for name, value in wanted.items():
        given = setting(config, name, (defaults or {}).get(name, value))
        if given != value:
            raise CheckpointError(
                f"checkpoint {weights}: its configuration says {name} {given}, and what would be exported "
                f"has {value}: name the weights' own folder, or {_CURE}"
            )


def check_images(weights: Path, size: Mapping[str, int]) -> None:
    """Refuse a processor that prepares images in another way than is published.

    Args:
        weights: the file next to it.
        size: to which images are resized, as the processor says it.

    Raises:
        CheckpointError: the first setting that differs.
    """
    processor = _read(weights.with_name("preprocessor_config.json"))
    processor = processor or _read(weights.with_name("processor_config.json")).get("image_processor", {})
    statistics = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    switches = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    check_settings(processor, {**statistics, **switches, "size": dict(size)}, weights)


def _read(path: Path) -> Mapping[str, Any]:
    return read_json(path) if path.is_file() else {}


def _numbered(name: str, names: Mapping[str, Any]) -> str:
    """The name of a layer as one of `layers.0` to `layers.N`, where transformers has names for both ends."""
    match = _LAYER.fullmatch(name)
    if match is None or f"{match[1]}.proj_in.weight" not in names:
        return name
    network, first, middle, kind = match.groups()
    index = 0 if first else int(middle) + 1 if middle else 1
    while not first and not middle and f"{network}.layers.{index - 1}.weight" in names:
        index += 1
    return f"{network}.layers.{index}.{kind}"


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or torch.equal(one, other)
