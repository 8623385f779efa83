"""Unpack zip archives that come from a network."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from seg_runtime.errors import BadInputError

__all__ = ["unpack_zip"]


def unpack_zip(archive: Path, folder: Path, on_step: Callable[[int, int], object] | None = None) -> None:
    """Unpack a zip archive into `folder`, which appears whole or not at all.

    Args:
        archive: the zip file.
        folder: must not exist yet, or be empty.
        on_step: called with (done, total) after each file.

    Raises:
        BadInputError: not a zip archive, a damaged one, one with files that would land outside
            `folder` or are links, or a folder that cannot be written.
    """
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as bundle:
            _extract(bundle, beside, on_step)
        beside.replace(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadInputError(
            f"{archive} is not a sound zip archive ({error}): delete it and download it again"
        ) from error
    except OSError as error:
        raise BadInputError(f"cannot unpack {archive} into {folder}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _extract(bundle: zipfile.ZipFile, folder: Path, on_step: Callable[[int, int], object] | None) -> None:
    members = bundle.infolist()
    for member in members:
        _refuse_unsafe(member)
    folder.mkdir(parents=True)
    for done, member in enumerate(members, start=1):
        bundle.extract(member, folder)
        if on_step:
            on_step(done, len(members))


def _refuse_unsafe(member: zipfile.ZipInfo) -> None:
    name = member.filename.replace("\\", "/")
    is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
    if name.startswith("/") or ".." in name.split("/") or ":" in name.split("/")[0] or is_link:
        raise BadInputError(
            f"the archive holds '{member.filename}', which would be written outside its folder: do not use it"
        )
