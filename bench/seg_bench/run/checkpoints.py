"""Finds the checkpoint that a published model was made of, to measure it with the original library."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_runtime.errors import CheckpointError, MissingExtraError
from seg_runtime.hashing import file_sha256

if TYPE_CHECKING:
    from seg_bench.run.subjects import Subject

__all__ = ["REMADE", "find_checkpoint", "remake_random_sam", "remake_random_sam2"]

_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")


def find_checkpoint(sha256: str, given: Path | None = None) -> Path | None:
    """The file that a model was exported from: the given one, or one that ships with the package.

    Args:
        sha256: of the checkpoint, as the model's contract states it.
        given: a checkpoint file to look at first.

    Returns:
        A file with exactly this hash, or None.

    Raises:
        CheckpointError: the given file cannot be read.
        MissingExtraError: PyTorch is not installed.
    """
    if find_spec("torch") is None:
        raise MissingExtraError("PyTorch", "export")
    candidates = [] if given is None else [given]
    if given is not None and not given.is_file():
        raise CheckpointError(f"no checkpoint file '{given}': check the path")
    weights = Path(str(files("seg_export") / "weights"))
    if weights.is_dir():
        candidates += [path for path in sorted(weights.iterdir()) if path.suffix in _CHECKPOINT_SUFFIXES]
    return next((path for path in candidates if file_sha256(path) == sha256), None)


def remake_random_sam(subject: Subject, folder: Path) -> Path | None:
    """The weights of `seg-export sam --random`, made again from their seed, as a file.

    Args:
        subject: a SAM with random weights.
        folder: where the file goes.

    Returns:
        A checkpoint whose tensors have the hash that the contract states, or None for another seed
        than the default or another size than the official ones.

    Raises:
        CheckpointError: the disk is full.
        MissingExtraError: PyTorch or segment_anything is not installed.
    """
    try:
        from seg_export.checkpoints.checkpoint import write_checkpoint
        from seg_export.checkpoints.random_weights import random_checkpoint
        from seg_export.families.sam.network import VARIANTS
    except ImportError as error:
        raise MissingExtraError("PyTorch", "export") from error
    for arguments in VARIANTS.values():
        if _parameter_count(arguments) != subject.parameter_count:
            continue
        random = random_checkpoint("sam", arguments)
        if random.sha256 == subject.checkpoint_sha256:
            path = folder / f"{subject.name}.pth"
            write_checkpoint(path, random)
            return path
    return None


def remake_random_sam2(subject: Subject, folder: Path) -> Path | None:
    """The weights of `seg-export sam2 --random`, made again from their seed; as `remake_random_sam`."""
    from seg_bench.sam2_trackers import find_sam2_checkpoint

    try:
        random = find_sam2_checkpoint(subject.checkpoint_sha256, subject.weights, None)
    except CheckpointError:
        return None
    from seg_export.checkpoints.checkpoint import write_checkpoint

    path = folder / f"{subject.name}.pth"
    write_checkpoint(path, random)
    return path


REMADE = {"sam": remake_random_sam, "sam2": remake_random_sam2}
"""Kinds of subjects whose random weights can be made again."""


def _parameter_count(arguments: dict[str, Any]) -> int:
    import torch

    from seg_export.families.sam.network import build_sam

    with torch.device("meta"):  # Shapes without memory.
        return sum(parameter.numel() for parameter in build_sam(**arguments).parameters())
