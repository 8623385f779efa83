"""What `save_pretrained` of segmentation_models_pytorch writes: `config.json` and
`model.safetensors`.

The configuration names the network and its arguments, and says nothing of how images are prepared.
"""

from __future__ import annotations

from pathlib import Path

from seg_export.checkpoints.claims import Claims
from seg_export.checkpoints.folders.folder import FolderModel, built, library, read_json
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
    weights = folder / "model.safetensors"
    smp = library("segmentation_models_pytorch", "segmentation-models-pytorch")
    config = dict(read_json(folder / "config.json"))
    name, activation = str(config.pop(_CLASS)), config.get("activation")
    made = getattr(smp, name, None)
    if not isinstance(made, type) or not issubclass(made, smp.base.SegmentationModel):
        raise CheckpointError(
            f"'{folder}' is a {name}, which segmentation_models_pytorch {smp.__version__} does not have"
        )
    try:
        # The weights of its encoder would be fetched, and the file's take their place.
        network = built(lambda: made(**(config | {"encoder_weights": None})), weights)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{folder}' is a {name} that cannot be built: {error}") from error
    return FolderModel(
        kind=f"{name} of segmentation_models_pytorch",
        network=network,
        channels=int(config.get("in_channels", 3)),
        claims=Claims(),
        activation="none" if activation in {"sigmoid", "softmax", "softmax2d"} else None,
        output=0 if network.classification_head is not None else None,
        weights=weights,
    )
