"""What it costs that graphs take an image's bytes, where sam2 resizes to floating point and does not round.

    python -m microbench.sam2_resize --images FOLDER --out bench/results/sam2_resize.json

sam2's own image predictor gets each image twice, with its own resizing and with ours; all else is the same,
nine points with three masks each and two boxes. Trained weights of a SAM2 are not at hand, so that beside one
with random weights stands the trained `sam_tiny`, in segment_anything's own code, whose image is resized in
floating point and then rounded or not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.records import Machine
from seg_bench.sam2_trackers import as_image_predictor
from seg_runtime.console import run_app
from seg_runtime.files.images import list_images, read_image
from seg_runtime.sam2.masks import resize_image

__all__ = ["Agreement", "agreement", "image_masks"]

SCHEMA = "edgeseg-sam2-resize/1"
SAM_TINY = Path(__file__).parents[2] / "export" / "seg_export" / "weights" / "sam_tiny.pth"

Masks = list[NDArray[np.bool_]]


@dataclass(frozen=True)
class Agreement:
    """IoU of masks with one resizing and the other.

    Attributes:
        model: whose masks.
        weights: "trained" or "random".
        masks: how many, over all images; those that are empty both times are left out.
        mean_iou, median_iou, lowest_iou: over all of them.
        share_above_0999: share of masks with an IoU of 0.999 or more.
    """

    model: str
    weights: str
    masks: int
    mean_iou: float
    median_iou: float
    lowest_iou: float
    share_above_0999: float


@dataclass(frozen=True)
class ResizeRecord:
    """The record; images by name, with their (height, width) in pixels."""

    schema: str
    command: str
    machine: Machine
    images: dict[str, tuple[int, int]]
    rows: list[Agreement]


def agreement(model: str, weights: str, pairs: Iterable[tuple[Masks, Masks]]) -> Agreement:
    """Compare masks of the same prompts, image by image."""
    ious = [
        np.sum(ours & theirs) / union
        for image in pairs
        for ours, theirs in zip(*image, strict=True)
        if (union := np.sum(ours | theirs))
    ]
    mean, median, lowest, share = (
        np.mean(ious),
        np.median(ious),
        np.min(ious),
        np.mean(np.array(ious) >= 0.999),
    )
    return Agreement(model, weights, len(ious), float(mean), float(median), float(lowest), float(share))


def image_masks(predictor: Any, image: NDArray[np.uint8], *, in_bytes: bool) -> Masks:
    """All masks of sam2's predictor on an image (H, W, 3), resized by sam2 or, in bytes, by us."""
    predictor.set_image(resize_image(image, predictor.model.image_size) if in_bytes else image)
    # Prompts and masks are in the frame of the image, however it was resized.
    predictor._orig_hw = [image.shape[:2]]
    return _prompted(predictor, image)


def _prompted(predictor: Any, image: NDArray[np.uint8]) -> Masks:
    """Masks of nine points and two boxes, in the frame of an image."""
    size_xy = np.array(image.shape[1::-1])
    answers = [
        predictor.predict(np.array([[x, y]]) * size_xy, np.array([1]))[0]
        for x in (0.25, 0.5, 0.75)
        for y in (0.25, 0.5, 0.75)
    ]
    for box in ([0.1, 0.1, 0.6, 0.7], [0.4, 0.3, 0.9, 0.9]):
        corners = np.array(box) * np.tile(size_xy, 2)
        answers.append(predictor.predict(box=corners, multimask_output=False)[0])
    return [mask > 0 for answer in answers for mask in answer]


def _sam2_masks(variant: str) -> Callable[[NDArray[np.uint8]], tuple[Masks, Masks]]:
    from seg_export.checkpoints.checkpoint import build_model
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.families.sam2.network import VARIANTS

    predictor = as_image_predictor(build_model(random_checkpoint("sam2", VARIANTS[variant])))
    return lambda image: (
        image_masks(predictor, image, in_bytes=True),
        image_masks(predictor, image, in_bytes=False),
    )


def _sam_masks() -> Callable[[NDArray[np.uint8]], tuple[Masks, Masks]]:
    """Of `sam_tiny`, whose longest side is resized in floating point and rounded, or not."""
    import torch
    from segment_anything import SamPredictor
    from torch.nn import functional as F

    from seg_export.checkpoints.checkpoint import build_model, load_checkpoint

    predictor: Any = SamPredictor(build_model(load_checkpoint(SAM_TINY)))

    def masks(image: NDArray[np.uint8]) -> tuple[Masks, Masks]:
        size_hw = predictor.transform.get_preprocess_shape(*image.shape[:2], 1024)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, size_hw, mode="bilinear", align_corners=False, antialias=True)
        found = []
        for values in (resized.round(), resized):
            predictor.set_torch_image(values, image.shape[:2])
            found.append(_prompted(predictor, image))
        return found[0], found[1]

    return masks


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def sam2_resize(
    *,
    images: Annotated[Path, typer.Option(help="Folder of photographs.")],
    out: Annotated[Path, typer.Option(help="The record.")],
    variant: Annotated[str, typer.Option(help="Size of the SAM2 with random weights.")] = "sam2.1_tiny",
) -> None:
    """Compare masks with both ways of resizing, and write the record.

    Examples:

        python -m microbench.sam2_resize --images photographs --out sam2_resize.json
    """
    pixels = {file.name: read_image(file, 3) for file in list_images([images])}
    rows = [
        agreement(name, weights, map(masks, pixels.values()))
        for name, weights, masks in (
            (variant, "random", _sam2_masks(variant)),
            ("sam_tiny", "trained", _sam_masks()),
        )
    ]
    sizes = {name: (image.shape[0], image.shape[1]) for name, image in pixels.items()}
    command = shown_command(["python", "-m", "microbench.sam2_resize", *sys.argv[1:]])
    write_json(out, ResizeRecord(SCHEMA, command, describe_machine(), sizes, rows))
    for row in rows:
        typer.echo(f"{row.model}, {row.weights}: mean {row.mean_iou:.4f}, lowest {row.lowest_iou:.4f}")


if __name__ == "__main__":
    run_app(app)
