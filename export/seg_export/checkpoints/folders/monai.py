"""MONAI bundles: `configs/metadata.json`, a configuration with the network, and `models/model.pt`.

Configurations can hold code. Only plain values and references to such are read, and networks are those of
`monai.networks.nets`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from seg_export.checkpoints.folders.building import building
from seg_export.checkpoints.folders.folder import FolderModel, library, read_json
from seg_export.checkpoints.folders.monai_config import class_name, expression_in, read_config, resolved
from seg_export.checkpoints.folders.monai_formats import (
    Outputs,
    class_names,
    format_of,
    input_size,
    read_images,
    read_outputs,
)
from seg_export.checkpoints.folders.monai_images import prepare
from seg_export.checkpoints.folders.regions import paint_likeliest
from seg_runtime.errors import CheckpointError

__all__ = ["TITLE", "read", "recognises"]

TITLE = "a MONAI bundle"

_NETS = "monai.networks.nets"


def recognises(folder: Path) -> bool:
    """Whether it has the metadata that every bundle has."""
    return (folder / "configs" / "metadata.json").is_file()


def read(folder: Path) -> FolderModel:
    """The network that a bundle's configuration names.

    Raises:
        CheckpointError: no weights, a network that is described by code or is not MONAI's, a 3-D one, or
            images that are not of 8 bits.
        MissingExtraError: MONAI is not installed, or PyYAML where it is needed.
    """
    weights = _weights(folder)
    config, described = _configuration(folder)
    network, arguments = _build(library(_NETS, "monai"), described, folder, weights)
    path = folder / "configs" / "metadata.json"
    metadata = read_json(path)
    key, image = format_of(metadata, path, "inputs", "image")
    channels = next(
        (each for each in (arguments.get("in_channels"), image.get("num_channels")) if isinstance(each, int)),
        3,
    )
    images = read_images(config, key)
    claims, steps = prepare(network, images, channels, folder)
    size_hw, size_steps = input_size(config, images, image)
    made, prediction = format_of(metadata, path, "outputs", "pred")
    outputs, classes = read_outputs(config, made, folder), arguments.get("out_channels")
    names = class_names(prediction, classes)
    activation, threshold, after = outputs.activation, outputs.threshold, list(_notes(outputs))
    overlapping = isinstance(classes, int) and classes > 1 and "background" not in (names or ())
    if overlapping and activation == "sigmoid" and threshold is not None and 0 < threshold < 1:
        paint_likeliest(network, threshold)
        activation, names = "none", names and ("background", *names)
        after.append("classes may overlap: masks show the likeliest, and background below the threshold")
    if classes != 1 or activation != "sigmoid":
        threshold = None
    return FolderModel(
        kind=f"{type(network).__name__} of a MONAI bundle",
        network=network,
        channels=channels,
        claims=replace(claims, class_names=names, threshold=threshold),
        size_hw=size_hw,
        activation=activation,
        weights=weights,
        steps=(*steps, *size_steps, *after),
        unread=", ".join(images.unknown),
    )


def _notes(outputs: Outputs) -> Iterator[str]:
    if outputs.unknown:
        yield f"left out of what follows the network: {', '.join(outputs.unknown)}"


def _weights(folder: Path) -> Path:
    path = folder / "models" / "model.pt"
    if path.is_file():
        return path
    if path.with_suffix(".ts").is_file():
        raise CheckpointError(
            f"'{folder}' has models/model.ts, TorchScript, which holds code: put models/model.pt, the state "
            "dict, next to it"
        )
    raise CheckpointError(f"'{folder}' has no models/model.pt: download the bundle with its weights")


def _configuration(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first configuration that describes a network, and the description. Raises CheckpointError."""
    for name in ("inference", "train"):
        config = read_config(folder, name)
        for key in ("network_def", "network"):
            described = resolved(config, config.get(key))
            if isinstance(described, Mapping) and class_name(described):
                return config, described
    raise CheckpointError(
        f"'{folder}' has no configs/inference.json or train.json with a network_def of plain values: "
        f"{_otherwise(folder)}"
    )


def _build(
    nets: Any, described: Mapping[str, Any], folder: Path, weights: Path
) -> tuple[nn.Module, Mapping[str, Any]]:
    """The network without weights, and its arguments with those that are not given."""
    if code := expression_in(described):
        raise CheckpointError(
            f"'{folder}' describes its network by code, {code}, which is not run: {_otherwise(folder)}"
        )
    path, name = str(described["_target_"]), class_name(described)
    made: Any = getattr(nets, name, None)
    known = isinstance(made, type) and issubclass(made, nn.Module)
    if not known or not (path == name or path.startswith(f"{_NETS}.")):
        raise CheckpointError(f"'{folder}' is a {path}, expected one of {_NETS}: {_otherwise(folder)}")
    arguments = _unfetched(made, {key: value for key, value in described.items() if key[:1] != "_"})
    with building(folder, name, arguments, [weights]):
        bound = inspect.signature(made).bind(**arguments)
        bound.apply_defaults()
        if bound.arguments.get("spatial_dims", 2) != 2:
            raise CheckpointError(
                f"'{folder}' is a {name} of 3-D images: only networks with spatial_dims of 2 can be exported"
            )
        network: nn.Module = made(**arguments)
    return network, bound.arguments


def _unfetched(made: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments without weights to fetch, whose place the file's take."""
    fetched = [name for name in inspect.signature(made).parameters if name.startswith("pretrained")]
    return {**arguments, **{name: False if name == "pretrained" else None for name in fetched}}


def _otherwise(folder: Path) -> str:
    file = folder / "models" / "model.pt"
    return f"seg-export module PACKAGE.MODULE:FACTORY --checkpoint {file}"
