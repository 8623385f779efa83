"""Proves the thin install on aarch64: masks of the lung U-Net as on this machine, under emulation.

Run with `make test-aarch64`, or `python -m microbench.aarch64 --out FILE`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from microbench.arm_root import CPU, ArmPython, make_arm_python, resolve_wheels, run
from seg_bench.doctor.targets import TARGETS
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_runtime.console import run_app
from seg_runtime.errors import BadInputError, ParityError

__all__ = ["LOWEST_IOU", "Aarch64Result", "ComparedMask", "Emulated", "compare_masks"]

SCHEMA = "edgeseg-aarch64/1"
LOWEST_IOU = 0.9999
JETSON_PYTHONS = tuple(target.python for target in TARGETS.values() if target.jetpack)
"""The emulated Debian has its own."""

_SEG_RUN = "from seg_runtime.cli.run import main; main()"
_DESCRIBE = """
import json, platform
from importlib import metadata
print(json.dumps({
    "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
    "packages": {found.metadata["Name"]: found.version for found in metadata.distributions()},
}))
"""


@dataclass(frozen=True)
class ComparedMask:
    """One image, segmented on both.

    Attributes:
        foreground_px: pixels of the mask on this machine.
        differing_px: pixels in which the two masks differ.
        iou: of the two masks.
        infer_ms, infer_ms_aarch64: one pass of the model here and under emulation.
    """

    image: str
    size_hw: tuple[int, int]
    foreground_px: int
    differing_px: int
    iou: float
    infer_ms: float
    infer_ms_aarch64: float


@dataclass(frozen=True)
class Emulated:
    """What ran under emulation: the processor played, the emulator, versions of all packages."""

    system: str
    cpu: str
    qemu: str
    python: str
    packages: dict[str, str]


@dataclass(frozen=True)
class Aarch64Result:
    """The whole run, with what is needed to repeat it.

    Attributes:
        machine: where it was emulated, and what the masks are compared with.
        seconds: of everything, downloads too.
        wheels: for each Python of a Jetson the newest wheels that the thin install resolves to.
    """

    schema: str
    command: str
    machine: Machine
    emulated: Emulated
    model: str
    images: tuple[ComparedMask, ...]
    lowest_iou: float
    seconds: float
    wheels: dict[str, dict[str, str]]


def compare_masks(here: Path, there: Path) -> tuple[ComparedMask, ...]:
    """Compare two folders that `seg-run segment` wrote for the same images.

    Raises:
        BadInputError: a mask is missing, or the sizes differ.
    """
    expected, got = _rows(here), _rows(there)
    if not expected or expected.keys() != got.keys():
        raise BadInputError(f"'{here}' has masks of {sorted(expected)}, '{there}' of {sorted(got)}")
    return tuple(_compare(expected[name], got[name]) for name in expected)


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The lines of `results.jsonl` by the name of the image."""
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return {Path(row["path"]).name: row for row in map(json.loads, lines)}


def _compare(expected: dict[str, Any], got: dict[str, Any]) -> ComparedMask:
    from seg_bench.metrics.overlap import iou_score
    from seg_runtime.files.masks import read_shape

    here, there = (read_shape(row["mask"]).foreground for row in (expected, got))
    return ComparedMask(
        image=Path(expected["path"]).name,
        size_hw=(here.shape[0], here.shape[1]),
        iou=iou_score(there, here),
        foreground_px=int(here.sum()),
        differing_px=int((here != there).sum()),
        infer_ms=expected["timings_ms"]["infer"],
        infer_ms_aarch64=got["timings_ms"]["infer"],
    )


def _describe(python: ArmPython) -> Emulated:
    qemu = run([str(python.qemu), "--version"], "qemu").splitlines()[0]
    return Emulated(cpu=CPU, qemu=qemu, **json.loads(python.run(_DESCRIBE)))


def _segment(python: ArmPython, arguments: list[str], work: Path) -> tuple[ComparedMask, ...]:
    here, there = work / "masks", work / "masks_aarch64"
    code = ["segment", *arguments, "--no-overlay", "-o"]
    run([sys.executable, "-c", _SEG_RUN, *code, str(here)], "seg-run here")
    typer.echo("segmenting under emulation: about half a minute for an image", err=True)
    python.run(_SEG_RUN, [*code, str(there)], "seg-run under emulation")
    return compare_masks(here, there)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def aarch64(
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repo: Annotated[Path, typer.Option(help="Repository with the model.")] = Path("triton_repo"),
    model: Annotated[str, typer.Option(help="A semantic model of one class.")] = "unet_lung",
    images: Annotated[Path, typer.Option(help="Images to segment.")] = Path("tests/data/montgomery/images"),
    project: Annotated[Path, typer.Option(help="A checkout of edgeseg.", file_okay=False)] = Path(),
    work: Annotated[Path, typer.Option(help="Folder for the arm64 root.")] = Path("build/aarch64"),
) -> None:
    """Segment with the thin install on an emulated aarch64 and compare the masks with this machine's.

    Needs Debian, qemu-user-static and the package index that pip is set up with.

    Examples:

        python -m microbench.aarch64 --out bench/results/aarch64.json
    """
    start = time.perf_counter()
    if not any((repo / model).glob("[0-9]*")):
        raise BadInputError(f"'{repo}' has no built '{model}': run  seg-export unet --pretrained lung")
    typer.echo("downloading and unpacking Debian arm64 and wheels for aarch64", err=True)
    python = make_arm_python(project, work)
    wheels = {version: resolve_wheels(project, version) for version in JETSON_PYTHONS}
    compared = _segment(python, [str(images), "--repo", str(repo), "--model", model], work)
    result = Aarch64Result(
        schema=SCHEMA,
        command=shown_command(["python", "-m", "microbench.aarch64", *sys.argv[1:]]),
        machine=describe_machine(),
        emulated=_describe(python),
        model=model,
        images=compared,
        lowest_iou=min(mask.iou for mask in compared),
        seconds=time.perf_counter() - start,
        wheels=wheels,
    )
    write_json(out, result)
    for mask in compared:
        typer.echo(f"{mask.image}: IoU {mask.iou:.6f}, {mask.differing_px} pixels differ")
    if result.lowest_iou < LOWEST_IOU:
        raise ParityError(f"mask IoU {result.lowest_iou:.6f} on aarch64 is below {LOWEST_IOU}; see '{out}'")


if __name__ == "__main__":
    run_app(app)
