"""Folders of other libraries that hold a network, its weights and, often, how images are prepared."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from types import ModuleType

from seg_export.checkpoints.folders import huggingface, monai, nnunet, smp
from seg_export.checkpoints.folders.folder import FolderModel, in_short
from seg_runtime.errors import CheckpointError, EdgesegError

__all__ = ["READERS", "FolderModel", "read_folder"]

READERS = {each.TITLE: each for each in (smp, huggingface, nnunet, monai)}
"""By what the folder is, for people: modules with `recognises` and `read`."""

_MOST = 1000
"""Entries of a folder that are looked at for a hint."""


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
    if folder.is_dir() and (title := _title(folder)):
        return _read(folder, title, READERS[title])
    if folder.exists() and (found := _nearby(folder)):
        raise CheckpointError(f"'{folder}' is no folder of a network, found {found}: name that one")
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder '{folder}': name one, or a factory as PACKAGE.MODULE:FACTORY"
        )
    raise CheckpointError(
        f"'{folder}' is none that is known ({', '.join(READERS)}): name a factory, as PACKAGE.MODULE:FACTORY"
    )


def _title(folder: Path) -> str | None:
    return next((title for title, reader in READERS.items() if reader.recognises(folder)), None)


def _nearby(folder: Path) -> str:
    """A folder that was probably meant, at most two levels up or down, with what it is; "" for none."""
    below = sorted(islice(chain(folder.glob("*"), folder.glob("*/*")), _MOST))
    for near in (*folder.resolve().parents[:2], *below):
        with suppress(EdgesegError, OSError):  # one that cannot be read is no hint
            if near.is_dir() and (title := _title(near)):
                return f"{title} in '{near}'"
    return ""


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
