"""Times a full-size U-Net in ONNX Runtime against tuned eager PyTorch, interleaved on the CPU.

Run with `python -m microbench.unet_speed --out FILE`.

The weights are random, which changes nothing about speed. The graph is seg-export's own, verified
against PyTorch before it is timed; both sides run in processes of their own, as in `seg-bench run`.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from seg_bench.candidate import PYTORCH
from seg_bench.json_fields import write_json
from seg_bench.machine import shown_command
from seg_bench.records import Run
from seg_bench.run.options import RunOptions
from seg_bench.run.runner import Progress, measure
from seg_runtime.console import progress_bar, run_app
from seg_runtime.errors import BadInputError

__all__ = ["UnetSpeed", "measure_unet"]

SCHEMA = "edgeseg-unet-speed/1"
_IMAGES = 4


@dataclass(frozen=True)
class UnetSpeed:
    """The measurement and what follows from it.

    Attributes:
        upsampling: "transposed" convolutions or "bilinear".
        parameters: learned parameters.
        torch_p50_ms, onnx_p50_ms: median of the model alone, without pre- and postprocessing.
        ratio: the first over the second: how many times as fast ONNX Runtime is.
        run: both rows with all raw samples, the machine, the versions and the settings.
    """

    schema: str
    upsampling: str
    parameters: int
    size_hw: tuple[int, ...]
    torch_p50_ms: float
    onnx_p50_ms: float
    ratio: float
    run: Run


def measure_unet(
    *,
    bilinear: bool = False,
    channels_last: bool = False,
    features: tuple[int, ...] = (64, 128, 256, 512, 1024),
    size_hw: tuple[int, int] = (512, 512),
    threads: int = 2,
    repeats: int = 20,
    warm_up: int = 3,
    command: str = "",
    on_step: Progress | None = None,
) -> UnetSpeed:
    """Export a U-Net with random weights and time it in both runtimes, batch 1, gray.

    Args:
        bilinear: upsample bilinearly instead of by transposed convolutions.
        channels_last: run PyTorch in NHWC memory order.
        features: channels per resolution level; the default has 31.0M parameters when transposed.
        size_hw: (height, width) in pixels.
        threads: of each runtime.
        repeats: timed calls of each.
        warm_up: calls of each before those.
        command: the command line, for the record.
        on_step: told about progress.

    Raises:
        BadInputError: a number out of range, or it was interrupted before the end.
        ParityError: the exported graph strays from PyTorch.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        parameters = _export(root, bilinear, features, size_hw, on_step)
        _write_noise(root / "noise", size_hw)
        options = RunOptions(
            repo=root / "repo",
            data=root / "noise",
            engines=("onnxruntime",),
            baseline=True,
            channels_last=channels_last,
            checkpoint=root / "unet.pth",
            repeats=repeats,
            warm_up=warm_up,
            threads=threads,
        )
        run = measure(options, command, on_step)
    medians = {
        record.runtime: record.latency.percentile(50, "infer") for record in run.records if record.latency
    }
    if not run.complete:
        raise BadInputError("interrupted before the end: nothing was recorded")
    for record in run.records:
        if record.failure:
            raise BadInputError(f"{record.runtime} broke off: {record.failure}")
    torch_p50_ms, onnx_p50_ms = medians[PYTORCH], medians["ONNX Runtime"]
    return UnetSpeed(
        schema=SCHEMA,
        upsampling="bilinear" if bilinear else "transposed",
        parameters=parameters,
        size_hw=size_hw,
        torch_p50_ms=torch_p50_ms,
        onnx_p50_ms=onnx_p50_ms,
        ratio=torch_p50_ms / onnx_p50_ms,
        run=run,
    )


def _export(
    root: Path, bilinear: bool, features: tuple[int, ...], size_hw: tuple[int, int], on_step: Progress | None
) -> int:
    """Write `unet.pth` and publish it in `repo`; returns the number of parameters."""
    from seg_export.checkpoints.checkpoint import save_checkpoint
    from seg_export.export import STEPS, export_model
    from seg_export.families.semantic.random import random_unet

    unet = random_unet(bilinear=bilinear, features=features)
    save_checkpoint(
        root / "unet.pth",
        family=unet.family,
        arguments=unet.arguments,
        state_dict=unet.state_dict,
        preprocessing=unet.preprocessing,
        class_names=unet.class_names,
        metadata=unet.metadata,
    )

    def begin(step: str) -> None:
        if on_step:
            on_step(f"export: {step}", STEPS.index(step), len(STEPS))

    exported = export_model(root / "unet.pth", root / "repo", "unet", size_hw=size_hw, on_step=begin)
    return exported.published.spec.parameter_count


def _write_noise(folder: Path, size_hw: tuple[int, int]) -> None:
    """Seeded gray noise with masks of noise; a convolution takes as long on it as on an X-ray."""
    generator = np.random.default_rng(0)
    for part, levels in (("images", np.arange(256)), ("masks", np.array([0, 255]))):
        (folder / part).mkdir(parents=True)
        for number in range(_IMAGES):
            pixels = generator.choice(levels.astype(np.uint8), size_hw)
            cv2.imwrite(str(folder / part / f"noise_{number}.png"), pixels)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def unet_speed(
    *,
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    bilinear: Annotated[
        bool, typer.Option("--bilinear", help="Bilinear upsampling (17.3M parameters).")
    ] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Run PyTorch in NHWC memory order.")
    ] = False,
    size: Annotated[int, typer.Option(help="Height and width in pixels.", min=32)] = 512,
    threads: Annotated[int, typer.Option(help="Threads of each runtime.")] = 2,
    repeats: Annotated[int, typer.Option(help="Timed calls of each runtime.")] = 20,
    warm_up: Annotated[int, typer.Option(help="Calls of each runtime before those.")] = 3,
) -> None:
    """Time a 31M U-Net in ONNX Runtime against tuned eager PyTorch.

    Examples:

        python -m microbench.unet_speed --out bench/results/unet_speed.json
    """
    command = shown_command(["python", "-m", "microbench.unet_speed", *sys.argv[1:]])
    with progress_bar() as bar:
        task = bar.add_task("starting", total=None)
        result = measure_unet(
            bilinear=bilinear,
            channels_last=channels_last,
            size_hw=(size, size),
            threads=threads,
            repeats=repeats,
            warm_up=warm_up,
            command=command,
            on_step=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    write_json(out, result)
    typer.echo(
        f"{result.parameters / 1e6:.1f}M U-Net: PyTorch {result.torch_p50_ms:.0f} ms, ONNX Runtime "
        f"{result.onnx_p50_ms:.0f} ms: {result.ratio:.2f} times as fast ({result.run.note})"
    )


if __name__ == "__main__":
    run_app(app)
