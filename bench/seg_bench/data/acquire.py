"""From an address to X-rays on disk: download, unpack, prepare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_bench.data.archive import unpack_zip
from seg_bench.data.montgomery import load_montgomery, prepare_merged
from seg_export.checkpoints.download import download

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Acquired", "acquire_montgomery"]

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


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


def _show_bytes(bar: Progress, task: TaskID, done: int, total: int | None) -> None:
    bar.update(task, completed=done // _MIB, total=None if total is None else total // _MIB)
