"""`seg-export verify`: a published graph against a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seg_export.cli.options import (
    CheckpointOption,
    ImagesOption,
    JsonOption,
    PretrainedOption,
    RepoOption,
    load,
)
from seg_export.cli.output import echo_json, report_table
from seg_runtime.console import stdout_console

__all__ = ["verify"]


def verify(
    model: Annotated[str, typer.Argument(help="Name of the published model.")],
    *,
    checkpoint: CheckpointOption = None,
    pretrained: PretrainedOption = None,
    repo: RepoOption = Path("triton_repo"),
    images: ImagesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the served version of a model with a checkpoint; exit code 3 when they differ.

    Examples:

      seg-export verify unet_lung --pretrained lung

      seg-export verify unet --checkpoint best_unet.pth --images xrays/ --json
    """
    weights = load(checkpoint, pretrained)

    from seg_export.export import verify_published
    from seg_export.verify import require_parity

    report = verify_published(repo, model, weights, images=images)
    if as_json:
        echo_json(report.as_dict())
    else:
        stdout_console().print(report_table(report))
    require_parity(report)
