"""Segments images as PNG, TIFF, JPEG and DICOM of several depths, and compares the masks with each other.

Run with `python -m microbench.formats --data FOLDER --model NAME --out FILE`.

Every file is made from the same 8-bit pixels, so that a difference between two masks comes from how a format
is read alone (of JPEG: from what it loses).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from microbench.deep_files import deep, dicom, png, tiff
from seg_bench.data.find import find_samples
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.metrics import iou_score
from seg_bench.records import Machine
from seg_runtime import connect
from seg_runtime.console import progress_bar, run_app
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.semantic import SemanticSegmenter

__all__ = ["FORMATS", "Agreements", "ImageAgreement", "measure_formats"]

SCHEMA = "edgeseg-formats/1"
Pixels = NDArray[np.uint8]


def _jpeg(pixels: Pixels) -> bytes:
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


def _dicom(bits: int) -> Callable[[Pixels], bytes]:
    def written(pixels: Pixels) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            values = pixels if bits == 8 else deep(pixels, bits)
            return dicom(Path(folder, "image.dcm"), values, bits).read_bytes()

    return written


def _tiff(bits: int) -> Callable[[Pixels], bytes]:
    return lambda pixels: tiff(pixels if bits == 8 else deep(pixels, bits), bits)


def _png(bits: int, stated: bool) -> Callable[[Pixels], bytes]:
    return lambda pixels: png(deep(pixels, bits), bits if stated else None)


FORMATS: dict[str, Callable[[Pixels], bytes]] = {
    "png, 8 bit": png,
    "png, 10 bit": _png(10, stated=True),
    "png, 12 bit": _png(12, stated=True),
    "png, 12 bit, not stated": _png(12, stated=False),
    "png, 16 bit": _png(16, stated=False),
    "tiff, 8 bit": _tiff(8),
    "tiff, 10 bit": _tiff(10),
    "tiff, 12 bit": _tiff(12),
    "tiff, 16 bit": _tiff(16),
    "jpeg, quality 95": _jpeg,
    "dicom, 8 bit": _dicom(8),
    "dicom, 10 bit": _dicom(10),
    "dicom, 12 bit": _dicom(12),
    "dicom, 16 bit": _dicom(16),
}
"""How a file is made of (H, W) uint8 pixels, by name."""


@dataclass(frozen=True)
class ImageAgreement:
    """One image: the lowest mask IoU of two of its files, which two, and the share of foreground."""

    image: str
    lowest_iou: float
    formats: tuple[str, ...]
    foreground: float


@dataclass(frozen=True)
class Agreements:
    """All images, and the lowest mask IoU among them."""

    schema: str
    command: str
    machine: Machine
    model: str
    formats: tuple[str, ...]
    lowest_iou: float
    median_iou: float
    images: tuple[ImageAgreement, ...]


def measure_formats(data: Path, repo: Path, model: str, limit: int = 20, command: str = "") -> Agreements:
    """Segment every image in every format.

    Args:
        data: images with masks in any layout, of which the images are taken.
        repo, model: a published network for gray images.
        limit: the most images, taken evenly.
        command: the command line, for the record.

    Raises:
        BadInputError: there is no image, or a file has a mask without foreground, which shows nothing.
    """
    paths = [sample.image_path for sample in find_samples(data)]
    chosen = [
        paths[index] for index in np.linspace(0, len(paths) - 1, min(limit, len(paths))).round().astype(int)
    ]
    with connect(repo) as session, progress_bar() as progress:
        segmenter = SemanticSegmenter(session, model)
        images = tuple(_agreement(segmenter, path) for path in progress.track(chosen, description="Formats"))
    lowest = [each.lowest_iou for each in images]
    return Agreements(
        schema=SCHEMA,
        command=command,
        machine=describe_machine(),
        model=model,
        formats=tuple(FORMATS),
        lowest_iou=min(lowest),
        median_iou=statistics.median(lowest),
        images=images,
    )


def _agreement(segmenter: SemanticSegmenter, path: Path) -> ImageAgreement:
    pixels = read_image(path, 1)
    masks = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, written in FORMATS.items():
            file = Path(folder, "image")
            file.write_bytes(written(pixels))
            masks[name] = segmenter.segment(read_image(file, 1)).mask > 0
            if not masks[name].any():
                raise BadInputError(f"{path.name} as {name} has an empty mask: give images of the model")
    ious = {pair: iou_score(masks[pair[0]], masks[pair[1]]) for pair in combinations(FORMATS, 2)}
    worst = min(ious, key=lambda pair: ious[pair])
    return ImageAgreement(path.name, ious[worst], worst, float(masks["png, 8 bit"].mean()))


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def formats(
    data: Annotated[Path, typer.Option(help="Images with masks.", file_okay=False)],
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repo: Annotated[Path, typer.Option(help="Model repository.", file_okay=False)] = Path("triton_repo"),
    model: Annotated[str, typer.Option(help="A published network for gray images.")] = "unet_lung",
    limit: Annotated[int, typer.Option(help="The most images, taken evenly.", min=1)] = 20,
) -> None:
    """Compare the masks of images as PNG, TIFF, JPEG and DICOM.

    Examples:

        python -m microbench.formats --data data/montgomery
        --out bench/results/formats.json
    """
    command = shown_command(["python", "-m", "microbench.formats", *sys.argv[1:]])
    result = measure_formats(data, repo, model, limit, command)
    write_json(out, result)
    typer.echo(
        f"{len(result.images)} images in {len(FORMATS)} formats: lowest mask IoU of two files "
        f"{result.lowest_iou:.4f}"
    )


if __name__ == "__main__":
    run_app(app)
