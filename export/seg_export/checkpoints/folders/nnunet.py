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
from seg_export.checkpoints.folders.regions import paint_over
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
    plans = read_json(result / "plans.json")
    settings = configuration(plans, trained["configuration"], result)
    _check_axes(plans.get("transpose_forward"), result / "plans.json")
    names, painted = _outputs(dataset, result / "dataset.json")
    channels = len(
        part(dataset, "channel_names", result / "dataset.json")
        or part(dataset, "modality", result / "dataset.json")
    )
    images = normalisation(settings, channels, folder)
    kind, network = build(settings, channels, len(names), folder, path)
    if images.step is not None:
        applied_first(network, images.step)
    if len(painted) > 1:
        paint_over(network, painted)
        names = ("background", *(names[painted.index(label + 1)] for label in range(len(names))))
    height, width = settings["patch_size"]
    return FolderModel(
        kind=f"{kind} of nnU-Net v2",
        network=network,
        channels=channels,
        claims=_claims(images, names),
        size_hw=(height, width),
        activation="none" if len(painted) > 1 else "sigmoid" if painted else "softmax",
        weights=path,
        steps=(*steps, *_differences(trained, images, f"{height}x{width}")),
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


def _outputs(dataset: Mapping[str, Any], path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names of the outputs in their order, and the labels that regions are painted with; none for classes.

    Raises:
        CheckpointError: no labels, or not those of a network: 0, 1, 2 and so on.
    """
    labels = {name: value for name, value in part(dataset, "labels", path).items() if name != "ignore"}
    regions = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
    if not labels or not all(
        value and all(type(each) is int for each in value) for value in regions.values()
    ):
        raise CheckpointError(f"'{path}' has no labels, or others than numbers and lists of them")
    if any(len(value) > 1 for value in regions.values()):
        # The background is no region.
        names = tuple(name for name, value in regions.items() if set(value) != {0})
        return names, _painted(dataset.get("regions_class_order"), len(names), path)
    names = tuple(sorted(regions, key=lambda name: regions[name]))
    if [regions[name][0] for name in names] != list(range(len(names))):
        raise CheckpointError(
            f"'{path}' has the labels {labels!s:.60}, expected 0, 1, 2 and so on: correct it"
        )
    return names, ()


def _painted(order: Any, regions: int, path: Path) -> tuple[int, ...]:
    """The labels of regions, in their order. Raises CheckpointError."""
    if regions == 1:
        return (1,)
    wanted = {str(1 + each) for each in range(regions)}
    if not isinstance(order, list) or len(order) != regions or {*map(str, order)} != wanted:
        raise CheckpointError(
            f"'{path}' has the regions_class_order {order!s:.40}, expected each of 1 to {regions} once"
        )
    return tuple(map(int, order))


def _check_axes(forward: Any, path: Path) -> None:
    """Refuse a network that sees rows as columns. Raises CheckpointError."""
    inside = [axis for axis in forward if axis != forward[0]] if isinstance(forward, list) and forward else []
    if inside != sorted(inside):
        raise CheckpointError(
            f"'{path}' has the transpose_forward {forward}, which makes columns of rows: name a factory that "
            "transposes its input and output, as PACKAGE.MODULE:FACTORY"
        )


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


def _differences(trained: Mapping[str, Any], images: Normalisation, size: str) -> tuple[str, ...]:
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
    if trained["trainer"] not in (None, "nnUNetTrainer"):
        differences.append(f"trained by {trained['trainer']}: its network is taken to be that of plans.json")
    return tuple(differences)
