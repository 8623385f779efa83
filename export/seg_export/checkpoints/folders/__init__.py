"""Folders of other libraries that hold a network, its weights and, often, how images are prepared."""

from __future__ import annotations

from pathlib import Path

from seg_export.checkpoints.folders import huggingface, smp
from seg_export.checkpoints.folders.folder import FolderModel
from seg_runtime.errors import CheckpointError

__all__ = ["READERS", "FolderModel", "read_folder"]

READERS = {smp.TITLE: smp, huggingface.TITLE: huggingface}
"""By what the folder is, for people: modules with `recognises` and `read`."""


def read_folder(folder: Path) -> FolderModel:
    """The network of a folder, with what the folder says of its images.

    Nothing in it is executed and nothing is fetched.

    Args:
        folder: as its library's own function saves it.

    Raises:
        CheckpointError: a folder of no known kind, or one that cannot be read.
        BadInputError: a network that cannot be published, or settings that it cannot have.
        MissingExtraError: its library is not installed.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder '{folder}': name one, or a factory as PACKAGE.MODULE:FACTORY"
        )
    for reader in READERS.values():
        if reader.recognises(folder):
            model: FolderModel = reader.read(folder)
            return model
    raise CheckpointError(
        f"folder '{folder}' is none that is known ({', '.join(READERS)}): name a factory, as "
        "PACKAGE.MODULE:FACTORY, with --checkpoint FILE"
    )
