"""Exports the models of a row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seg_bench.reproduce.catalogue import TableRow

if TYPE_CHECKING:
    from seg_export.checkpoint import Checkpoint
    from seg_export.export import Precision

__all__ = ["checkpoint_path", "export_row"]


def export_row(row: TableRow, precision: Precision, repo: Path, weights: Path, images: Path | None) -> None:
    """Publish a row's model, verified against PyTorch.

    Args:
        row: of the catalogue.
        precision: as of `seg_export.export.export_models`.
        repo: the repository.
        weights: folder for random weights, which are made again from their seed where they are not there.
        images: a folder of real images to verify with.

    Raises:
        ParityError: a graph strays from PyTorch; nothing was published.
        EdgesegError: as `export_models`.
    """
    from seg_export.export import export_models

    path = checkpoint_path(row, weights)
    if not path.is_file():
        from seg_export.checkpoint import write_checkpoint

        weights.mkdir(parents=True, exist_ok=True)
        write_checkpoint(path, _random(row))
    export_models(path, repo, row.model(precision), precision=precision, images=images)


def checkpoint_path(row: TableRow, weights: Path) -> Path:
    """The checkpoint that a row's models are exported from."""
    from seg_export.pretrained import pretrained_path

    return weights / f"{row.key}.pth" if row.random else pretrained_path(row.weights)


def _random(row: TableRow) -> Checkpoint:
    from seg_export import random_weights

    if row.family == "sam":
        from seg_bench.random_sam import sam_with_trained_decoder

        return sam_with_trained_decoder(str(row.arguments["variant"]))
    if row.family == "sam2":
        from seg_bench.random_sam2 import random_sam2_that_finds
        from seg_export.models.sam2 import VARIANTS

        return random_sam2_that_finds(VARIANTS[str(row.arguments["variant"])])
    if row.family == "maskrcnn":
        checkpoint = random_weights.random_maskrcnn(row.arguments)
        preprocessing = replace(checkpoint.preprocessing, input_size_hw=(800, 800))
        return replace(checkpoint, preprocessing=preprocessing)
    return random_weights.random_semantic(row.family, row.arguments)
