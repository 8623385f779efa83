"""What `save_pretrained` of segmentation_models_pytorch writes: `config.json` and
`model.safetensors`.

The configuration names the network and its arguments, and says nothing of how images are prepared.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg_export.checkpoints.claims import Claims
from seg_export.checkpoints.folders.building import building
from seg_export.checkpoints.folders.folder import FolderModel, library, read_json
from seg_runtime.errors import CheckpointError

__all__ = ["TITLE", "read", "recognises"]

TITLE = "save_pretrained of segmentation_models_pytorch"

_CLASS = "_model_class"


def recognises(folder: Path) -> bool:
    """Whether its configuration names a class of that library."""
    path = folder / "config.json"
    return path.is_file() and _CLASS in read_json(path)


def read(folder: Path) -> FolderModel:
    """The network that the configuration names.

    Raises:
        CheckpointError: a network that the installed library does not have, or arguments that it refuses.
        MissingExtraError: segmentation_models_pytorch is not installed.
    """
    smp = library("segmentation_models_pytorch", "segmentation-models-pytorch")
    path = folder / "config.json"
    config = dict(read_json(path))
    name, activation = str(config.pop(_CLASS)), config.get("activation")
    made = getattr(smp, name, None)
    if not isinstance(made, type) or not issubclass(made, smp.base.SegmentationModel):
        raise CheckpointError(
            f"'{folder}' is a {name}, which segmentation_models_pytorch {smp.__version__} does not have"
        )
    _check_arguments(made, config, path)
    weights = folder / "model.safetensors"
    with building(folder, name, config, [weights]):
        # The weights of its encoder would be fetched, and the file's take their place.
        network = made(**(config | {"encoder_weights": None}))
    return FolderModel(
        kind=f"{name} of segmentation_models_pytorch",
        network=network,
        channels=int(config.get("in_channels", 3)),
        claims=Claims(),
        activation="none" if activation in {"sigmoid", "softmax", "softmax2d"} else None,
        output=0 if network.classification_head is not None else None,
        weights=weights,
    )


def _check_arguments(made: type, config: Mapping[str, Any], path: Path) -> None:
    """Refuse what would have the library read other files than those of the folder. Raises CheckpointError.

    All that a network does not name goes to timm, whose `checkpoint_path` unpickles any file, and timm
    fetches an encoder whose name is an address.
    """
    parameters = inspect.signature(made).parameters.values()
    known = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    if others := sorted(config.keys() - known):
        raise CheckpointError(
            f"'{path}' has {others[0]!r:.40} for timm, which is not passed on: name a factory, as "
            "PACKAGE.MODULE:FACTORY, with --checkpoint FILE"
        )
    encoder = config.get("encoder_name", "")
    if not isinstance(encoder, str) or ":" in encoder:
        raise CheckpointError(
            f"'{path}' has the encoder_name {encoder!r:.40}, expected the name of an encoder and no address"
        )
