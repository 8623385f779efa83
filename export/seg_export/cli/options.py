"""Options that several subcommands share, and how their values are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seg_runtime.errors import BadInputError, MissingExtraError

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint

__all__ = [
    "CalibrateOption",
    "CheckpointOption",
    "ImagesOption",
    "JsonOption",
    "OpsetOption",
    "PrecisionOption",
    "PretrainedOption",
    "RandomOption",
    "RepoOption",
    "SeedOption",
    "WeightsNameOption",
    "load",
    "parse_features",
    "parse_size_hw",
    "require_torch",
]

RepoOption = Annotated[Path, typer.Option("--repo", help="The Triton model repository.")]
CheckpointOption = Annotated[
    Path | None, typer.Option("--checkpoint", help="Checkpoint file with the weights.")
]
WeightsNameOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="Which weights of a --checkpoint that holds several: ema, raw, or their name in the file.",
    ),
]
PretrainedOption = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        help="Weights that come with edgeseg: 'lung', 'unetpp_lung', 'transunet_lung', 'nuclei', 'sam_tiny'.",
    ),
]
RandomOption = Annotated[
    bool, typer.Option("--random", help="Untrained weights, marked as such; for timing and tests.")
]
SeedOption = Annotated[int, typer.Option(help="Seed of --random.")]
OpsetOption = Annotated[int, typer.Option(help="ONNX opset, 18 to 20.")]
ImagesOption = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of real images to verify with, in addition to synthetic ones."),
]
PrecisionOption = Annotated[
    Literal["fp32", "fp16", "int8"],
    typer.Option(help="What the graph computes in; what would lose too much stays in fp32."),
]
CalibrateOption = Annotated[
    Path | None,
    typer.Option("--calibrate", help="Folder of images like those of use, 24 or more; for --precision int8."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def parse_size_hw(text: str) -> tuple[int, int]:
    """(height, width) from "512" or "384x512". Raises BadInputError."""
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip().lower())
    if not match:
        raise BadInputError(
            f"--size '{text}': expected pixels as 512 or as HEIGHTxWIDTH, for example 384x512"
        )
    height = int(match[1])
    return height, int(match[2] or height)


def parse_features(text: str) -> tuple[int, ...]:
    """Channel counts from "64,128,256". Raises BadInputError."""
    if not re.fullmatch(r"\d{1,5}(,\d{1,5})*", text.replace(" ", "")):
        raise BadInputError(f"--features '{text}': expected channel counts as 64,128,256,512,1024")
    return tuple(int(count) for count in text.split(","))


def load(checkpoint: Path | None, pretrained: str | None, weights_name: str | None = None) -> Checkpoint:
    """Load the one checkpoint that was named. Raises BadInputError unless it is exactly one."""
    if (checkpoint is None) == (pretrained is None):
        raise BadInputError("name the weights with exactly one of --checkpoint FILE and --pretrained lung")
    require_torch()
    from seg_export.checkpoints.checkpoint import load_checkpoint
    from seg_export.checkpoints.pretrained import pretrained_path

    if pretrained:
        return load_checkpoint(pretrained_path(pretrained))
    return load_checkpoint(checkpoint or Path(), weights_name)


def require_torch() -> None:
    """Raise MissingExtraError where the thin install has no torch."""
    import importlib.util

    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch", "export")
