"""The network of another library's folder as a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from seg_export.checkpoints.claims import with_claims
from seg_export.checkpoints.folders import read_folder
from seg_export.checkpoints.types import Checkpoint, WeightsFile, usual_preprocessing
from seg_export.families.module.network import Activation, module_checkpoint

__all__ = ["folder_checkpoint"]


def folder_checkpoint(
    folder: Path,
    size_hw: tuple[int, int] | None = None,
    activation: Activation | None = None,
    output: str | None = None,
) -> Checkpoint:
    """Read a folder, and note what it says of its images.

    Args:
        folder: as `read_folder` takes it.
        size_hw: (height, width) in pixels of the input; None for the folder's, or 512x512.
        activation: what makes its outputs probabilities, where the folder does not say it.
        output: name or index of the output that counts, where there are several and the folder does not say
            it.

    Raises:
        BadInputError: settings that do not fit the network, or that the folder has.
        CheckpointError: a folder that cannot be read.
        MissingExtraError: its library is not installed.
    """
    model = read_folder(folder)
    preprocessing = usual_preprocessing(model.channels)
    size_hw = size_hw or model.size_hw
    if size_hw is not None:
        preprocessing = replace(preprocessing, input_size_hw=size_hw)
    checkpoint = module_checkpoint(
        model.network,
        preprocessing,
        weights=WeightsFile(model.weights) if model.weights else None,
        activation=model.activation_with(activation),
        output=model.output_with(output),
        made=f"of {folder}",
        described=False,
    )
    checkpoint = with_claims(checkpoint, model.claims)
    carried = checkpoint.stated | ({"size_hw"} if model.size_hw else set())
    metadata = checkpoint.metadata | ({"unread": model.unread} if model.unread else {})
    if model.activation:
        metadata |= {"origins": {"--activation": "file"}}
    return replace(
        checkpoint,
        stated=frozenset(),
        carried=frozenset(carried),
        metadata=metadata,
        steps=(f"a {model.kind}", *checkpoint.steps, *model.steps),
    )
