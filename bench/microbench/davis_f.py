"""Times J and F of DAVIS on pairs of masks, ours against the published way with the same OpenCV.

Run with `python -m microbench.davis_f --masks FOLDER --out FILE`.

The published evaluation dilates whole boundary maps by one disc; ours by rectangles in the window of the
object. Each object is compared with copies of itself whose boundary was moved by smooth noise.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from microbench.hausdorff import perturbed
from seg_bench.data.davis import read_labels
from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.metrics.davis import BOUNDARY_TOLERANCE, VOID_ID, boundary_measure, region_similarity
from seg_bench.records import Machine
from seg_runtime.console import run_app
from seg_runtime.errors import BadInputError

__all__ = ["DavisBenchmark", "ObjectPair", "measure", "published_f"]

SCHEMA = "edgeseg-davis-f/1"

_NOISE_PX = 3.0


@dataclass(frozen=True)
class ObjectPair:
    """One object against its perturbed copy.

    Attributes:
        mask: file name and object id.
        size_hw: (height, width) of the frame in pixels.
        f: the boundary measure; both ways gave exactly this.
        published_s: seconds of each call of the published way.
        ours_s: seconds of each call of ours.
        j_s: seconds of each call of `region_similarity`.
    """

    mask: str
    size_hw: tuple[int, ...]
    f: float
    published_s: tuple[float, ...]
    ours_s: tuple[float, ...]
    j_s: tuple[float, ...]


@dataclass(frozen=True)
class DavisBenchmark:
    """All pairs; `ratio` is the median over them of the published way's time over ours."""

    schema: str
    command: str
    machine: Machine
    noise_px: float
    seed: int
    ratio: float
    pairs: tuple[ObjectPair, ...]


def published_f(pred: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    """F by whole boundary maps and one disc, for masks that both have a boundary."""
    radius = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*pred.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (y**2 + x**2 <= radius**2).astype(np.uint8)
    first, second = (_boundary(mask) for mask in (pred, target))
    first_wide, second_wide = (cv2.dilate(edge.astype(np.uint8), disc) for edge in (first, second))
    precision = float(np.sum(first * second_wide) / np.sum(first))
    recall = float(np.sum(second * first_wide) / np.sum(second))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def measure(masks_folder: Path, repeats: int = 20, seed: int = 0) -> DavisBenchmark:
    """Measure every object of every indexed mask of a folder, both ways in turn.

    Raises:
        BadInputError: the folder holds no objects, or both ways disagree.
    """
    generator = np.random.default_rng(seed)
    pairs = tuple(_pair(name, mask, generator, repeats) for name, mask in _objects(masks_folder))
    if not pairs:
        raise BadInputError(f"no indexed PNG masks with objects in {masks_folder}")
    ratios = [statistics.median(pair.published_s) / statistics.median(pair.ours_s) for pair in pairs]
    return DavisBenchmark(
        schema=SCHEMA,
        command=shown_command(["python", "-m", "microbench.davis_f", *sys.argv[1:]]),
        machine=describe_machine(),
        noise_px=_NOISE_PX,
        seed=seed,
        ratio=round(statistics.median(ratios), 1),
        pairs=pairs,
    )


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1, :] |= mask[:-1, :] ^ mask[1:, :]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def _objects(folder: Path) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for path in sorted(folder.glob("*.png")):
        labels = read_labels(path)
        for number in np.unique(labels):
            if number not in (0, VOID_ID):
                yield f"{path.name}#{number}", labels == number


def _pair(name: str, mask: NDArray[np.bool_], generator: np.random.Generator, repeats: int) -> ObjectPair:
    other = perturbed(mask, _NOISE_PX, generator)
    f, expected = boundary_measure(other, mask), published_f(other, mask)
    if not math.isclose(f, expected, rel_tol=1e-12):
        raise BadInputError(f"{name}: ours gives {f}, the published way {expected}: please report this mask")
    ways: tuple[Callable[[NDArray[np.bool_], NDArray[np.bool_]], float], ...] = (
        published_f,
        boundary_measure,
        region_similarity,
    )
    rounds = [tuple(_seconds(way, other, mask) for way in ways) for _ in range(repeats)]
    published_s, ours_s, j_s = zip(*rounds, strict=True)
    return ObjectPair(name, mask.shape, f, published_s, ours_s, j_s)


def _seconds(
    way: Callable[[NDArray[np.bool_], NDArray[np.bool_]], float],
    pred: NDArray[np.bool_],
    target: NDArray[np.bool_],
) -> float:
    start = time.perf_counter()
    way(pred, target)
    return time.perf_counter() - start


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def davis_f(
    masks: Annotated[Path, typer.Option(help="Folder of indexed PNG masks.", file_okay=False)],
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repeats: Annotated[int, typer.Option(help="Calls per pair of masks.", min=1)] = 20,
) -> None:
    """Time DAVIS' boundary measure, ours and the published way.

    Examples:

        python -m microbench.davis_f --masks tests/data/judo/masks --out out/davis_f.json
    """
    result = measure(masks, repeats)
    write_json(out, result)
    for pair in result.pairs:
        published, ours, j = (
            1000 * statistics.median(samples) for samples in (pair.published_s, pair.ours_s, pair.j_s)
        )
        typer.echo(f"{pair.mask}: F {ours:.2f} ms, published way {published:.2f} ms; J {j:.2f} ms")
    typer.echo(f"{result.ratio:.1f} times faster (median of objects)")


if __name__ == "__main__":
    run_app(app)
