"""Times `seg-export module FOLDER` of a U-Net of segmentation_models_pytorch, each in a fresh process.

Run with `python -m microbench.smp_export --out FILE`. The weights are random, which changes nothing about the
time; loading, tracing, verifying and publishing are all in it.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_runtime.console import run_app
from seg_runtime.errors import BadInputError, MissingExtraError

__all__ = ["SmpExport", "measure_smp_export"]

SCHEMA = "edgeseg-smp-export/1"
_LIBRARY = "segmentation_models_pytorch"
_PROGRAM = "from seg_export.cli.main import main; main()"
RESNET34: Mapping[str, Any] = {"encoder_name": "resnet34"}


@dataclass(frozen=True)
class SmpExport:
    """The measurement.

    Attributes:
        network: what was exported.
        library: that made it, with its version.
        parameters: learned ones.
        seconds: raw samples, each of a fresh process from its start to its end.
        median_s: their median.
        tolerance_needed: of the worst output of the verification, in probabilities.
    """

    schema: str
    command: str
    machine: Machine
    network: str
    library: str
    parameters: int
    size_hw: tuple[int, ...]
    seconds: tuple[float, ...]
    median_s: float
    tolerance_needed: float


def measure_smp_export(
    arguments: Mapping[str, Any] = RESNET34, side: int = 512, repeats: int = 3, command: str = ""
) -> SmpExport:
    """Save a U-Net with random weights and export it, after one export that fills the disk cache.

    Args:
        arguments: of segmentation_models_pytorch's Unet.
        side: height and width of the input in pixels.
        repeats: timed exports.
        command: the command line, for the record.

    Raises:
        BadInputError: the export fails.
        MissingExtraError: segmentation_models_pytorch is not installed.
    """
    with tempfile.TemporaryDirectory() as root:
        folder, repo = Path(root) / "unet", Path(root) / "repo"
        parameters = _save(arguments, folder)
        call = [sys.executable, "-c", _PROGRAM, "module", str(folder), "--assume-defaults", "--json"]
        call += ["--size", str(side), "--repo", str(repo)]
        samples = [_timed(call) for _ in range(repeats + 1)][1:]
    seconds = tuple(spent for spent, _ in samples)
    return SmpExport(
        schema=SCHEMA,
        command=command,
        machine=describe_machine(),
        network=f"Unet, {arguments['encoder_name']}",
        library=f"{_LIBRARY} {version(_LIBRARY)}",
        parameters=parameters,
        size_hw=(side, side),
        seconds=seconds,
        median_s=statistics.median(seconds),
        tolerance_needed=max(needed for _, needed in samples),
    )


def _save(arguments: Mapping[str, Any], folder: Path) -> int:
    """Write the folder, and count the network's parameters."""
    try:
        library = importlib.import_module(_LIBRARY)
    except ImportError as error:
        raise MissingExtraError(_LIBRARY, "", "pip install segmentation-models-pytorch") from error
    network = library.Unet(**arguments, encoder_weights=None)
    network.save_pretrained(folder)
    return sum(tensor.numel() for tensor in network.parameters())


def _timed(call: list[str]) -> tuple[float, float]:
    """Seconds of a process, and the tolerance that its verification needed."""
    start = time.perf_counter()
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - start
    if done.returncode != 0:
        raise BadInputError(f"seg-export module failed: {done.stderr.strip().splitlines()[-1:]}")
    verification = json.loads(done.stdout)["verification"]
    return spent, max(each["tolerance_needed"] for each in verification["comparisons"])


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def smp_export(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repeats: Annotated[int, typer.Option(help="Timed exports.", min=1)] = 3,
) -> None:
    """Time the export of a U-Net with a ResNet-34 at 512x512.

    Examples:

        python -m microbench.smp_export --out bench/results/smp_export.json
    """
    command = shown_command(["python", "-m", "microbench.smp_export", *sys.argv[1:]])
    result = measure_smp_export(repeats=repeats, command=command)
    write_json(out, result)
    typer.echo(f"{result.network}, {result.library}: {result.median_s:.1f} s")


if __name__ == "__main__":
    run_app(app)
