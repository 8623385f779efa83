"""What the commands share that fetch weights: the licence, then a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from seg_runtime.console import progress_bar

if TYPE_CHECKING:
    from seg_export.checkpoints.licences import Licence

__all__ = ["fetch"]


def fetch(name: str, download_official: Callable[..., Path], licence: Licence) -> Path:
    """The file of official weights, which is fetched where it is not there yet; their licence goes to stderr.

    Args:
        name: of the variant or architecture.
        download_official: of the family, as `seg_export.families.sam.checkpoints.download_official`.
        licence: of its weights.

    Raises:
        EdgesegError: as `download_official`.
    """
    typer.echo(str(licence), err=True)
    with progress_bar() as bar:
        task = bar.add_task(f"download {name} (bytes)", total=None)
        return download_official(
            name, on_bytes=lambda done, total: bar.update(task, completed=done, total=total)
        )
