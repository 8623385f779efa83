"""What to measure, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from seg_runtime.engines import AUTO, check_engine
from seg_runtime.errors import BadInputError

__all__ = ["PLACES_TO_RUN", "Place", "RunOptions", "engines_of", "places_of", "split_names"]

Place = Literal["in-process", "grpc", "http", "shared-memory"]
PLACES_TO_RUN: tuple[Place, ...] = get_args(Place)
_PLACES_OF_SCHEME: dict[str, tuple[Place, ...]] = {"grpc": ("grpc", "shared-memory"), "http": ("http",)}


@dataclass(frozen=True)
class RunOptions:
    """Options of `seg_bench.runner.measure`.

    Attributes:
        repo: the model repository.
        data: folder with `images/` and `masks/`, or Montgomery's official layout; for objects, a layout of
            `seg_bench.data.nuclei`.
        split_file: a split as `seg_bench.data.splits` writes it, None for the shipped one of the data set.
        part: "train", "val" or "test" of the split; None takes every image.
        truth: ground truth of several annotators: "staple", "majority", "union", or one of them; None where
            there is one mask of each image.
        limit: at most this many images, in the order of their names.
        models: names; empty takes all that are built.
        where: places to run in.
        engines: what computes in process, each measured on its own: "auto" or keys of
            `seg_runtime.engines.ENGINES`.
        url: a running server for the server places; None starts one from `repo`.
        baseline: also measure each model's PyTorch checkpoint.
        channels_last: run that baseline in NHWC memory order instead of PyTorch's usual NCHW.
        official: also measure each SAM with segment_anything's own exported decoder, and each Mask R-CNN as
            torchvision's own export.
        checkpoint: the baselines' file, when it is not one that ships with the package.
        repeats: timed calls per row.
        warm_up: calls per row before those.
        threads: intra-op threads per model, everywhere; None leaves it to the runtimes.
        batch: images per call.
        seed: of the order in which rows take turns.
        energy: also measure joules per image, where the machine has a meter.

    Raises:
        BadInputError: a number out of range, an unknown engine, engines with nothing to run in process,
            or places that the URL does not reach.
    """

    repo: Path
    data: Path
    split_file: Path | None = None
    part: str | None = None
    truth: str | None = None
    limit: int | None = None
    models: tuple[str, ...] = ()
    where: tuple[Place, ...] = ("in-process",)
    engines: tuple[str, ...] = (AUTO,)
    url: str | None = None
    baseline: bool = False
    channels_last: bool = False
    official: bool = False
    checkpoint: Path | None = None
    repeats: int = 20
    warm_up: int = 3
    threads: int | None = None
    batch: int = 1
    seed: int = 0
    energy: bool = True

    def __post_init__(self) -> None:
        for name, value, lowest in (
            ("--repeats", self.repeats, 1),
            ("--warm-up", self.warm_up, 0),
            ("--batch", self.batch, 1),
            ("--threads", self.threads, 1),
            ("--limit", self.limit, 1),
        ):
            if value is not None and value < lowest:
                raise BadInputError(f"{name} is {value}; it must be {lowest} or more")
        if self.split_file and not self.part:
            raise BadInputError("--split-file needs --part train, val or test")
        if self.checkpoint and not (self.baseline or self.official):
            raise BadInputError("--checkpoint is for a baseline: add --baseline torch")
        for engine in self.engines:
            check_engine(engine)
        if self.engines != (AUTO,) and "in-process" not in self.where:
            raise BadInputError("--engines compute in process: add in-process to --where, or leave them out")
        self._check_url()

    @property
    def ways(self) -> tuple[tuple[Place, str | None], ...]:
        """Every place with every engine that runs there; a server has its own, None."""
        return tuple(
            (place, engine)
            for place in self.where
            for engine in (self.engines if place == "in-process" else (None,))
        )

    @property
    def server_places(self) -> tuple[Place, ...]:
        return tuple(place for place in self.where if place != "in-process")

    def _check_url(self) -> None:
        if self.url is None:
            return
        scheme = self.url.partition("://")[0].rstrip("s")
        reached = _PLACES_OF_SCHEME.get(scheme)
        if reached is None:
            raise BadInputError(f"--url is '{self.url}'; it must begin with grpc:// or http://")
        for place in self.server_places:
            if place not in reached:
                raise BadInputError(
                    f"--where {place} cannot be measured over '{self.url}': that reaches {', '.join(reached)}"
                )


def split_names(text: str) -> tuple[str, ...]:
    """Names between commas, without blanks and repetitions."""
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def engines_of(text: str) -> tuple[str, ...]:
    """Engines between commas; `RunOptions` knows their names. Raises BadInputError when there is none."""
    names = split_names(text)
    if not names:
        raise BadInputError("--engines is empty; leave it out, or name engines with commas between")
    return names


def places_of(text: str) -> tuple[Place, ...]:
    """Places between commas. Raises BadInputError for an unknown one, or none at all."""
    names = split_names(text)
    unknown = [name for name in names if name not in PLACES_TO_RUN]
    if unknown or not names:
        raise BadInputError(f"--where is '{text}'; choose from {', '.join(PLACES_TO_RUN)} (commas between)")
    return tuple(place for place in PLACES_TO_RUN if place in names)
