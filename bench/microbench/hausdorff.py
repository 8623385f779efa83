"""Times our Hausdorff distance against scipy's, which the article uses, on the same masks.

Run with `python -m microbench.hausdorff --masks FOLDER --out FILE`.

Each mask is compared with copies of itself whose boundary was moved by smooth noise, as a model's
prediction differs from a human's contour. scipy's early break makes it slow for close masks and
faster for distant ones, so several sizes of noise are measured and all are recorded.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from seg_bench.json_fields import write_json
from seg_bench.machine import describe_machine, shown_command
from seg_bench.metrics import hausdorff_distance
from seg_bench.records import Machine
from seg_runtime.console import progress_bar, run_app
from seg_runtime.errors import BadInputError
from seg_runtime.files.masks import read_shape

__all__ = ["HausdorffBenchmark", "Pair", "measure", "perturbed", "scipy_hausdorff"]

SCHEMA = "edgeseg-hausdorff/1"
BOUNDARY_NOISE_PX = (1.0, 2.0, 3.0, 6.0)

# Our samples of one pair are taken in groups beside each scipy sample, as one call is too short to time well.
_CALLS_PER_SAMPLE = 20


@dataclass(frozen=True)
class Pair:
    """One mask against its perturbed copy.

    Attributes:
        mask: file name.
        noise_px: standard deviation of the boundary's displacement in pixels.
        distance_px: the Hausdorff distance; both implementations gave exactly this.
        scipy_s: seconds of each scipy call.
        ours_s: seconds per call of ours, one mean of several calls beside each scipy call.
        ratio: median of scipy's over median of ours.
    """

    mask: str
    noise_px: float
    distance_px: float
    scipy_s: tuple[float, ...]
    ours_s: tuple[float, ...]
    ratio: float


@dataclass(frozen=True)
class HausdorffBenchmark:
    """All pairs; `ratios` has the median over the masks for each noise in pixels."""

    schema: str
    command: str
    machine: Machine
    scipy: str
    size_hw: tuple[int, ...]
    seed: int
    ratios: dict[str, float]
    pairs: tuple[Pair, ...]


def scipy_hausdorff(pred: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    """The article's code: `directed_hausdorff` (which shuffles its points) both ways."""
    from scipy.spatial.distance import directed_hausdorff

    pred_points, target_points = np.argwhere(pred), np.argwhere(target)
    forth = directed_hausdorff(pred_points, target_points)[0]
    back = directed_hausdorff(target_points, pred_points)[0]
    return float(max(forth, back))


def perturbed(mask: NDArray[np.bool_], noise_px: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """A mask whose boundary is moved in or out by smooth noise.

    Args:
        mask: (H, W) bool.
        noise_px: standard deviation of the displacement in pixels.
        generator: of the noise.
    """
    inside = mask.astype(np.uint8)
    signed = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    noise = cv2.GaussianBlur(generator.standard_normal(mask.shape), (0, 0), 12)
    return np.asarray(signed + noise_px * noise / noise.std() > 0)


def measure(masks_folder: Path, repeats: int = 3, seed: int = 0) -> HausdorffBenchmark:
    """Measure every mask of a folder, scipy and ours in turn.

    Args:
        masks_folder: folder of PNG masks; brighter than 127 is foreground, resized to 512x512.
        repeats: scipy calls per pair.
        seed: of the boundary noise.

    Raises:
        BadInputError: the folder holds no readable PNG with foreground, or scipy and ours disagree.
    """
    masks = dict(_masks(masks_folder))
    generator = np.random.default_rng(seed)
    cases = [(name, noise_px) for noise_px in BOUNDARY_NOISE_PX for name in masks]
    with progress_bar() as progress:
        pairs = tuple(
            _pair(name, masks[name], noise_px, generator, repeats)
            for name, noise_px in progress.track(cases, description="Hausdorff distances")
        )
    return HausdorffBenchmark(
        schema=SCHEMA,
        command=shown_command(["python", "-m", "microbench.hausdorff", *sys.argv[1:]]),
        machine=describe_machine(),
        scipy=metadata.version("scipy"),
        size_hw=(512, 512),
        seed=seed,
        ratios={str(noise_px): _median_ratio(pairs, noise_px) for noise_px in BOUNDARY_NOISE_PX},
        pairs=pairs,
    )


def _masks(folder: Path) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise BadInputError(f"no PNG masks in {folder}: give --masks a folder of masks")
    for path in paths:
        mask = read_shape(path).foreground
        if not mask.any():
            raise BadInputError(f"{path} is a mask without foreground: remove it from the folder")
        resized = cv2.resize(mask.astype(np.uint8), (512, 512), interpolation=cv2.INTER_NEAREST)
        yield path.name, resized > 0


def _pair(
    name: str, mask: NDArray[np.bool_], noise_px: float, generator: np.random.Generator, repeats: int
) -> Pair:
    other = perturbed(mask, noise_px, generator)
    distance_px, expected = hausdorff_distance(other, mask), scipy_hausdorff(other, mask)
    if distance_px != expected:
        raise BadInputError(f"{name}: ours gives {distance_px}, scipy {expected}: please report this mask")
    samples = [
        (
            _seconds(lambda: scipy_hausdorff(other, mask), 1),
            _seconds(lambda: hausdorff_distance(other, mask), _CALLS_PER_SAMPLE),
        )
        for _ in range(repeats)
    ]
    scipy_s, ours_s = zip(*samples, strict=True)
    ratio = statistics.median(scipy_s) / statistics.median(ours_s)
    return Pair(name, noise_px, distance_px, scipy_s, ours_s, round(ratio, 1))


def _seconds(call: Callable[[], float], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def _median_ratio(pairs: tuple[Pair, ...], noise_px: float) -> float:
    return round(statistics.median(pair.ratio for pair in pairs if pair.noise_px == noise_px), 1)


app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command()
def hausdorff(
    masks: Annotated[Path, typer.Option(help="Folder of PNG masks.", file_okay=False)],
    out: Annotated[Path, typer.Option(help="JSON record to write.", dir_okay=False)],
    repeats: Annotated[int, typer.Option(help="scipy calls per pair of masks.", min=1)] = 3,
) -> None:
    """Time our Hausdorff distance against scipy's at 512x512.

    Examples:

        python -m microbench.hausdorff --masks tests/data/montgomery/masks
        --out bench/results/hausdorff.json
    """
    result = measure(masks, repeats)
    write_json(out, result)
    for noise_px, ratio in result.ratios.items():
        typer.echo(f"boundary noise {noise_px} px: {ratio:.0f} times faster than scipy (median of masks)")


if __name__ == "__main__":
    run_app(app)
