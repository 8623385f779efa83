"""Options of `seg-bench run`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = [
    "Baseline",
    "BaselineOption",
    "BatchOption",
    "CheckpointOption",
    "ConcurrencyOption",
    "DataOption",
    "DurationOption",
    "EnergyOption",
    "EnginesOption",
    "Hd95Option",
    "JsonOption",
    "LimitOption",
    "ModelsOption",
    "OodOption",
    "OutOption",
    "Part",
    "PartOption",
    "PrecisionsOption",
    "RateOption",
    "RepeatsOption",
    "RepoOption",
    "RobustnessOption",
    "SeedOption",
    "SplitFileOption",
    "SuiteOption",
    "ThreadsOption",
    "TruthOption",
    "UrlOption",
    "WarmUpOption",
    "WhereOption",
]

_CALLS, _LOAD = "Calls", "Load"


class Baseline(str, Enum):
    """What to compare deployed models with."""

    TORCH = "torch"
    TORCH_CHANNELS_LAST = "torch-channels-last"
    TORCH_COMPILE = "torch-compile"
    OFFICIAL = "official"


class Part(str, Enum):
    """Part of a split."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


SuiteOption = Annotated[
    str | None,
    typer.Option(
        help="Every model of the repository that fits this data set, on the part that none was trained on: "
        "montgomery, shenzhen, nuclei."
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with images/ and masks/, or Montgomery as it is distributed; for several classes, with "
        "images/ and classes/ (the class of each pixel); for objects, with images/ and labels/ (maps of "
        "ids), or the Data Science Bowl 2018. A suite has its own: data/NAME."
    ),
]
RepoOption = Annotated[Path, typer.Option(help="Model repository.")]
ModelsOption = Annotated[
    str,
    typer.Option(
        help="Models, separated by commas, or patterns such as unet*, a SAM by its name (sam_tiny); all "
        "that are built by default."
    ),
]
PrecisionsOption = Annotated[
    str, typer.Option(help="Only models of these precisions, separated by commas: fp32, fp16, int8.")
]
WhereOption = Annotated[
    str, typer.Option(help="Places, separated by commas: in-process, grpc, http, shared-memory.")
]
EnginesOption = Annotated[
    str,
    typer.Option(
        help="What computes in process, separated by commas, a row for each: auto, onnxruntime, "
        "openvino, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt."
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(help="Measure this running server (grpc://HOST:PORT, http://HOST:PORT) and start none."),
]
BaselineOption = Annotated[
    list[Baseline] | None,
    typer.Option(
        help="Also measure, in the same rounds: the original model in PyTorch, on the GPU where there is one "
        "(eager in either memory order, compiled in bfloat16), a SAM with segment_anything's own exported "
        "decoder, a Mask R-CNN as torchvision's own export (official). May be repeated."
    ),
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="The baseline's checkpoint, when it does not ship with edgeseg.")
]
PartOption = Annotated[
    Part | None, typer.Option(help="Only this part of a split, of the shipped one without --split-file.")
]
SplitFileOption = Annotated[Path | None, typer.Option(help="JSON split file for --part.")]
LimitOption = Annotated[int | None, typer.Option(help="Use at most this many images.")]
RepeatsOption = Annotated[int, typer.Option(help="Timed calls per row.", rich_help_panel=_CALLS)]
WarmUpOption = Annotated[
    str,
    typer.Option(
        help="Calls per row before the timed ones, or until-stable: until the median of 5 calls is within "
        "5 % of that of the 5 before, at most 50 calls.",
        rich_help_panel=_CALLS,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        help="Threads per model, everywhere; the runtimes choose by default.", rich_help_panel=_CALLS
    ),
]
BatchOption = Annotated[
    str,
    typer.Option(help="Images per call, separated by commas, a row for each.", rich_help_panel=_CALLS),
]
SeedOption = Annotated[
    int, typer.Option(help="Seed of the order in which rows take turns.", rich_help_panel=_CALLS)
]
ConcurrencyOption = Annotated[
    str,
    typer.Option(
        help="Then put each deployed row under load: so many callers that wait for their answers, "
        "separated by commas.",
        rich_help_panel=_LOAD,
    ),
]
RateOption = Annotated[
    str,
    typer.Option(
        help="Or calls that arrive at so many per second, whether or not earlier ones were answered, "
        "separated by commas; latency counts from when a call was due.",
        rich_help_panel=_LOAD,
    ),
]
DurationOption = Annotated[
    float | None,
    typer.Option(help="Seconds of each level of load; 10 by default.", rich_help_panel=_LOAD),
]
TruthOption = Annotated[
    str | None,
    typer.Option(
        help="Ground truth of several annotators (masks/ANNOTATOR/NAME.png): staple, majority, union, or "
        "the name of one."
    ),
]
Hd95Option = Annotated[
    Literal["directed", "pooled"],
    typer.Option(
        help="HD95: the larger of the 95th percentiles of the distances in either direction (MONAI), or one "
        "of all distances of both (medpy)."
    ),
]
RobustnessOption = Annotated[
    bool,
    typer.Option(
        "--robustness",
        help="Also Dice of the images made brighter, darker, noisy, blurred, halved, turned and more.",
    ),
]
OodOption = Annotated[
    Path | None,
    typer.Option(
        help="Also Dice on the images of this folder, another data set (out of distribution), at most "
        "--limit of them."
    ),
]
EnergyOption = Annotated[
    bool,
    typer.Option(help="Also measure joules per image, about 3 s per row, where the machine has a meter."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Write the records to this file (.json).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the table as JSON.")]
