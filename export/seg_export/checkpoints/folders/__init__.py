"""Folders of other libraries that hold a network, its weights and, often, how images are prepared."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from seg_export.checkpoints.folders import huggingface, monai, nnunet, smp
from seg_export.checkpoints.folders.folder import FolderModel, in_short
from seg_runtime.errors import CheckpointError, EdgesegError

__all__ = ["READERS", "FolderModel", "read_folder"]

READERS = {each.TITLE: each for each in (smp, huggingface, nnunet, monai)}
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
    for title, reader in READERS.items():
        if reader.recognises(folder):
            return _read(folder, title, reader)
    raise CheckpointError(
        f"folder '{folder}' is none that is known ({', '.join(READERS)}): name a factory, as "
        "PACKAGE.MODULE:FACTORY, with --checkpoint FILE"
    )


def _read(folder: Path, title: str, reader: ModuleType) -> FolderModel:
    try:
        model: FolderModel = reader.read(folder)
    except EdgesegError:
        raise
    except Exception as error:
        # Values of a file that nobody checked can make a library raise anything.
        raise CheckpointError(
            f"folder '{folder}' is {title} that cannot be read: {type(error).__name__}: {in_short(error)}"
        ) from error
    return model
