"""Exports the models of a row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seg_bench.reproduce.catalogue import TableRow
from seg_bench.reproduce.images import ImageFolder, calibration_images
from seg_bench.run.subjects import named_subject
from seg_runtime.repository import Repository

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint
    from seg_export.export import Precision

__all__ = ["build_row", "checkpoint_path", "export_row", "trained_path"]


def export_row(row: TableRow, precision: Precision, repo: Path, weights: Path, images: ImageFolder) -> None:
    """Publish a row's model, verified against PyTorch.

    Args:
        row: of the catalogue.
        precision: as of `seg_export.export.export_models`.
        repo: the repository.
        weights: folder for random weights, which are made again from their seed where they are not there.
        images: that are measured; real ones are verified with, too.

    Raises:
        ParityError: a graph strays from PyTorch; nothing was published.
        EdgesegError: as `export_models`.
    """
    from seg_export.export import export_models

    path = checkpoint_path(row, weights)
    if not path.is_file():
        from seg_export.checkpoints.checkpoint import write_checkpoint

        weights.mkdir(parents=True, exist_ok=True)
        write_checkpoint(path, _random(row))
    real = images.path / "images"
    export_models(
        path,
        repo,
        row.model(precision),
        precision=precision,
        images=real if real.is_dir() and not images.drawn else None,
        calibrate=calibration_images(images, weights / "calibration") if precision == "int8" else None,
    )


def build_row(row: TableRow, precision: str, repo: Path) -> None:
    """Build the TensorRT engines of a row's models, each verified against its graph, unless they are there.

    Raises:
        EdgesegError: as `seg_export.engines.build.build_engines`.
    """
    from seg_export.engines.build import build_engines

    repository = Repository(repo)
    subjects = [named_subject(repository, name) for name in row.measured(precision)]
    build_engines(repo, list(dict.fromkeys(spec.name for subject in subjects for spec in subject.specs)))


def checkpoint_path(row: TableRow, weights: Path) -> Path:
    """The checkpoint that a row's models are exported from: where there is one, a trained one."""
    from seg_export.checkpoints.pretrained import pretrained_path

    if not row.random:
        return pretrained_path(row.weights)
    trained = trained_path(row, weights)
    return trained if trained.is_file() else weights / f"{row.key}.pth"


def trained_path(row: TableRow, weights: Path) -> Path:
    """Where a checkpoint lies once `seg_bench.reproduce.training` is through with it."""
    return weights / f"{row.key}_trained.pth"


def _random(row: TableRow) -> Checkpoint:
    from seg_export.checkpoints import random_weights

    if row.family == "sam":
        from seg_bench.random_sam import sam_with_trained_decoder

        return sam_with_trained_decoder(str(row.arguments["variant"]))
    if row.family == "sam2":
        from seg_bench.random_sam2 import random_sam2_that_finds
        from seg_export.families.sam2.network import VARIANTS

        return random_sam2_that_finds(VARIANTS[str(row.arguments["variant"])])
    if row.family == "maskrcnn":
        checkpoint = random_weights.random_checkpoint("maskrcnn", row.arguments)
        preprocessing = replace(checkpoint.preprocessing, input_size_hw=(800, 800))
        return replace(checkpoint, preprocessing=preprocessing)
    return random_weights.random_checkpoint(row.family, row.arguments)
