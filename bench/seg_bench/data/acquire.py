"""From an address to images on disk: download, unpack, prepare."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_bench.data.archive import unpack_zip
from seg_bench.data.montgomery import load_montgomery, prepare_merged
from seg_bench.data.nuclei import load_nuclei
from seg_bench.data.nuclei_classes import write_nuclei_classes
from seg_export.checkpoints.download import cache_folder, download
from seg_runtime.errors import BadInputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Acquired", "acquire_montgomery", "acquire_nuclei_classes"]

_ARCHIVE = "NLM-MontgomeryCXRSet.zip"
_MIB = 1 << 20


@dataclass(frozen=True)
class Acquired:
    """X-rays that are ready to be loaded.

    Attributes:
        folder: the official layout.
        samples: how many X-rays it holds.
        sha256: hex SHA-256 of the archive.
        changed_from: the archive's hash at the first download, where it was another; else None.
        prepared: folder of the merged layout, or None.
    """

    folder: Path
    samples: int
    sha256: str
    changed_from: str | None = None
    prepared: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        prepared = str(self.prepared) if self.prepared else None
        return {
            "folder": str(self.folder),
            "samples": self.samples,
            "sha256": self.sha256,
            "changed_from": self.changed_from,
            "prepared": prepared,
        }


def acquire_montgomery(
    out: Path,
    url: str,
    *,
    sha256: str | None = None,
    prepare_size_hw: tuple[int, int] | None = None,
    bar: Progress,
) -> Acquired:
    """Download the archive into `out`, unpack it into `out/official`, prepare `out/merged`.

    Steps that are done already are not done again.

    Args:
        prepare_size_hw: size of the merged layout in pixels, or None to leave it out.
        bar: shows the progress of each step.

    Raises:
        EdgesegError: what `download`, `unpack_zip` and `load_montgomery` raise.
    """
    fetched = download(
        url, out / _ARCHIVE, sha256=sha256, on_bytes=partial(_show_bytes, bar, bar.add_task("download, MiB"))
    )
    official, merged = out / "official", out / "merged"
    if not official.is_dir():
        unpack_zip(fetched.path, official, partial(_show, bar, bar.add_task("unpack")))
    samples = load_montgomery(official)
    if prepare_size_hw is not None:
        prepare_merged(samples, merged, prepare_size_hw, partial(_show, bar, bar.add_task("prepare")))
    prepared = merged if prepare_size_hw is not None else None
    return Acquired(official, len(samples), fetched.sha256, fetched.changed_from, prepared)


def acquire_nuclei_classes(out: Path, source: Path | str, *, bar: Progress) -> int:
    """Write nuclei with their classes into `out`, which appears whole or not at all.

    Args:
        out: must not exist yet, or be empty.
        source: folder with images of nuclei, either layout, or the address of an archive of the official
            one, which is kept in edgeseg's cache folder.
        bar: shows the progress of each step.

    Returns:
        How many images there are.

    Raises:
        EdgesegError: `out` is in use or cannot be written; what `download`, `unpack_zip`, `load_nuclei` and
            `write_nuclei_classes` raise.
    """
    target = out.resolve()
    scratch = target.with_name(f".{target.name}.partial")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise BadInputError(f"'{out}' is there already: choose another --out, or remove it")
        shutil.rmtree(scratch, ignore_errors=True)
        folder = source if isinstance(source, Path) else _unpacked_nuclei(source, scratch / "archive", bar)
        samples = load_nuclei(folder)
        write_nuclei_classes(samples, scratch / "made", partial(_show, bar, bar.add_task("classes")))
        (scratch / "made").replace(target)
    except OSError as error:
        raise BadInputError(f"cannot write '{out}': {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return len(samples)


def _unpacked_nuclei(url: str, folder: Path, bar: Progress) -> Path:
    """The folder with a folder for each image."""
    path = cache_folder() / url.rpartition("/")[2]
    fetched = download(url, path, on_bytes=partial(_show_bytes, bar, bar.add_task("download, MiB")))
    unpack_zip(fetched.path, folder, partial(_show, bar, bar.add_task("unpack")))
    found = (masks.parent.parent for masks in sorted(folder.rglob("masks")) if "__MACOSX" not in masks.parts)
    return next(found, folder)


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _show_bytes(bar: Progress, task: TaskID, done: int, total: int | None) -> None:
    bar.update(task, completed=done // _MIB, total=None if total is None else total // _MIB)
