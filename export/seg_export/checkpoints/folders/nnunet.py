"""What nnU-Net v2 leaves of a training: `plans.json`, `dataset.json` and a folder per fold with checkpoints.

The plans name the network, its arguments and how images are normalised; nnU-Net itself is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seg_export.checkpoints.claims import Claims
from seg_export.checkpoints.files import read_plain
from seg_export.checkpoints.folders.folder import FolderModel, part, read_json
from seg_export.checkpoints.folders.intensity import applied_first
from seg_export.checkpoints.folders.nnunet_images import Normalisation, normalisation
from seg_export.checkpoints.folders.nnunet_plans import build, configuration
from seg_runtime.errors import CheckpointError

__all__ = ["TITLE", "read", "recognises"]

TITLE = "a result of nnU-Net v2"

_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")


def recognises(folder: Path) -> bool:
    """Whether it is the folder of a result, or of one of its folds."""
    return _result(folder) is not None


def read(folder: Path) -> FolderModel:
    """The network of one fold.

    Raises:
        CheckpointError: no fold or several, a 3-D network, one that is not known, or images that cannot be
            normalised as nnU-Net does.
        MissingExtraError: dynamic-network-architectures is not installed.
    """
    result = _result(folder) or folder
    path, steps = _checkpoint(_fold(folder, result))
    trained = _trained(path)
    dataset = read_json(result / "dataset.json")
    settings = configuration(read_json(result / "plans.json"), trained["configuration"], result)
    names, regions = _outputs(dataset, result / "dataset.json")
    channels = len(dataset.get("channel_names") or dataset.get("modality") or ())
    images = normalisation(settings, channels, folder)
    kind, network = build(settings, channels, len(names), folder)
    if images.step is not None:
        applied_first(network, images.step)
    height, width = settings["patch_size"]
    return FolderModel(
        kind=f"{kind} of nnU-Net v2",
        network=network,
        channels=channels,
        claims=_claims(images, names),
        size_hw=(int(height), int(width)),
        activation="sigmoid" if regions else "softmax",
        weights=path,
        steps=(*steps, *_differences(trained, images, regions and len(names) > 1, f"{height}x{width}")),
    )


def _result(folder: Path) -> Path | None:
    """The folder of the whole result, given it or a fold's."""
    for each in (folder, folder.resolve().parent):
        if (each / "plans.json").is_file() and (each / "dataset.json").is_file():
            return each
    return None


def _fold(folder: Path, result: Path) -> Path:
    """The folder of the one fold. Raises CheckpointError."""
    if folder != result:
        return folder
    folds = sorted({path.parent for name in _CHECKPOINTS for path in folder.glob(f"fold_*/{name}")})
    if not folds:
        raise CheckpointError(
            f"'{folder}' has no fold_*/{_CHECKPOINTS[0]}: copy the folder of a fold into it"
        )
    if len(folds) > 1:
        raise CheckpointError(
            f"'{folder}' has {len(folds)} networks, {', '.join(fold.name for fold in folds)}, which nnU-Net "
            f"averages: name the folder of one, such as {folds[0]}"
        )
    return folds[0]


def _checkpoint(fold: Path) -> tuple[Path, tuple[str, ...]]:
    """The file of a fold's weights, and which were left. Raises CheckpointError."""
    there = [fold / name for name in _CHECKPOINTS if (fold / name).is_file()]
    if not there:
        raise CheckpointError(f"'{fold}' has no {' or '.join(_CHECKPOINTS)}: name the folder of a fold")
    left = tuple(f"took {there[0].name} and left {path.name}" for path in there[1:])
    return there[0], left


def _trained(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its training: configuration, trainer, mirrored. Raises CheckpointError."""
    document = read_plain(path)
    arguments = document.get("init_args") if isinstance(document, Mapping) else None
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("configuration"), str):
        raise CheckpointError(f"checkpoint {path} does not say its configuration, as those of nnU-Net v2 do")
    return {
        "configuration": arguments["configuration"],
        "trainer": document.get("trainer_name"),
        "mirrored": bool(document.get("inference_allowed_mirroring_axes")),
    }


def _outputs(dataset: Mapping[str, Any], path: Path) -> tuple[tuple[str, ...], bool]:
    """Names of the outputs in their order, and whether they are regions, which may overlap.

    Raises:
        CheckpointError: no labels.
    """
    labels = {name: value for name, value in part(dataset, "labels", path).items() if name != "ignore"}
    regions = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
    if not labels or not all(
        value and all(type(each) is int for each in value) for value in regions.values()
    ):
        raise CheckpointError(f"'{path}' has no labels, or others than numbers and lists of them")
    if any(len(value) > 1 for value in regions.values()):
        # The background is no region.
        return tuple(name for name, value in regions.items() if set(value) != {0}), True
    return tuple(sorted(regions, key=lambda name: regions[name])), False


def _claims(images: Normalisation, names: tuple[str, ...]) -> Claims:
    channels = len(images.std)
    return Claims(
        mean=(0.0,) * channels,
        std=images.std,
        scale=1.0,
        channel_order="rgb" if channels == 3 else None,
        clahe=False if channels in (1, 3) else None,
        class_names=names,
        threshold=0.5 if len(names) == 1 else None,
    )


def _differences(
    trained: Mapping[str, Any], images: Normalisation, overlapping: bool, size: str
) -> tuple[str, ...]:
    """What nnU-Net would do and the published model does not."""
    differences = [
        f"images are resized to {size}, where nnU-Net slides windows of that size over them: "
        "seg-run segment --tile does so too"
    ]
    if images.step is not None:
        differences.append(
            "each image or tile is normalised by statistics of itself in the graph, without its black border"
        )
    if trained["mirrored"]:
        differences.append("nnU-Net averages over mirrored images; the graph computes one")
    if overlapping:
        differences.append(
            "regions may overlap: masks show the likeliest, where nnU-Net paints one over the other"
        )
    if trained["trainer"] not in (None, "nnUNetTrainer"):
        differences.append(f"trained by {trained['trainer']}: its network is taken to be that of plans.json")
    return tuple(differences)
