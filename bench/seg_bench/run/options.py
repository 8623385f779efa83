"""What to measure, checked before anything starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, get_args

from seg_bench.latency import MOST_WARM_UP, Rule
from seg_bench.metrics import Hd95Definition
from seg_bench.run.suites import Suite
from seg_runtime.engines import AUTO, check_engine
from seg_runtime.errors import BadInputError
from seg_runtime.triton.access import ServerAccess

__all__ = [
    "PLACES_TO_RUN",
    "UNTIL_STABLE",
    "LoadLevel",
    "Place",
    "RunOptions",
    "counts_of",
    "engines_of",
    "places_of",
    "rates_of",
    "split_names",
    "warm_up_of",
]

Number = TypeVar("Number", int, float)
Place = Literal["in-process", "grpc", "http", "shared-memory"]
PLACES_TO_RUN: tuple[Place, ...] = get_args(Place)
_PLACES_OF_SCHEME: dict[str, tuple[Place, ...]] = {"grpc": ("grpc", "shared-memory"), "http": ("http",)}
UNTIL_STABLE = "until-stable"
_DURATION_S = 10.0


@dataclass(frozen=True)
class LoadLevel:
    """One level of load: `concurrency` callers, or arrivals at `rate_per_s`; the other is None."""

    concurrency: int | None
    rate_per_s: float | None
    duration_s: float


@dataclass(frozen=True)
class RunOptions:
    """Options of `seg_bench.run.runner.measure`.

    Attributes:
        repo: the model repository.
        data: folder with `images/` and `masks/`, or Montgomery's official layout; for objects, a layout of
            `seg_bench.data.nuclei`.
        split_file: a split as `seg_bench.data.splits` writes it, None for the shipped one of the data set.
        part: "train", "val" or "test" of the split; None takes every image.
        truth: ground truth of several annotators: "staple", "majority", "union", or one of them; None where
            there is one mask of each image.
        hd95: which definition of HD95, see `seg_bench.metrics.surface`.
        limit: at most this many images, in the order of their names.
        models: names, or patterns such as "unet*"; empty takes all that are built.
        precisions: of the models that are taken; empty takes all.
        suite: takes only models that fit it, and of `part` the images that the folder has.
        where: places to run in.
        engines: what computes in process, each measured on its own: "auto" or keys of
            `seg_runtime.engines.ENGINES`.
        url: a running server for the server places; None starts one from `repo`.
        access: what gets into that server.
        baseline: also measure each model's PyTorch checkpoint.
        channels_last: run that baseline in NHWC memory order instead of PyTorch's usual NCHW.
        compiled: also measure that checkpoint compiled by `torch.compile`, in bfloat16.
        official: also measure each SAM with segment_anything's own exported decoder, and each Mask R-CNN as
            torchvision's own export.
        checkpoint: the baselines' file, when it is not one that ships with the package.
        repeats: timed calls per row; with `rule.min_s` the fewest.
        warm_up: calls per row before those; with `until_stable` at most as many.
        until_stable: end the warm-up of a row when its times change no more.
        threads: intra-op threads per model, everywhere; None leaves it to the runtimes.
        batches: images per call, a row for each.
        concurrency: callers at once, a level of load for each.
        rates: calls that are due per second, a level of load for each.
        duration_s: of each level of load; None for 10 s.
        rule: for how long rows are timed.
        gate: before it is timed, compare each row's masks with those of the fp32 graph, which must lie in
            `repo`; a row that differs too much fails (`seg_bench.run.agreements`).
        left_out: (precision, engine) pairs that are not measured; the engine is None on a server.
        best_batch: also find the batch with most images per second, of models that take several.
        seed: of the order in which rows take turns.
        energy: also measure joules per image, where the machine has a meter.
        robustness: also score the images under `seg_bench.corruptions.CORRUPTIONS` and
            `seg_bench.data.views.VIEWS`.
        ood: also score the images of this folder, another data set; at most `limit`, taken evenly from it.

    Raises:
        BadInputError: a number out of range, an unknown engine, engines with nothing to run in process,
            or places that the URL does not reach.
    """

    repo: Path
    data: Path
    split_file: Path | None = None
    part: str | None = None
    truth: str | None = None
    hd95: Hd95Definition = "directed"
    limit: int | None = None
    models: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    suite: Suite | None = None
    where: tuple[Place, ...] = ("in-process",)
    engines: tuple[str, ...] = (AUTO,)
    url: str | None = None
    access: ServerAccess = field(default_factory=ServerAccess)
    baseline: bool = False
    channels_last: bool = False
    compiled: bool = False
    official: bool = False
    checkpoint: Path | None = None
    repeats: int = 20
    warm_up: int = 3
    until_stable: bool = False
    threads: int | None = None
    batches: tuple[int, ...] = (1,)
    concurrency: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    duration_s: float | None = None
    rule: Rule = field(default_factory=Rule)
    gate: bool = False
    left_out: frozenset[tuple[str, str | None]] = frozenset()
    best_batch: bool = False
    seed: int = 0
    energy: bool = True
    robustness: bool = False
    ood: Path | None = None

    def __post_init__(self) -> None:
        for name, value, lowest in (
            ("--repeats", self.repeats, 1),
            ("--warm-up", self.warm_up, 0),
            *(("--batch", batch, 1) for batch in self.batches),
            *(("--concurrency", callers, 1) for callers in self.concurrency),
            ("--threads", self.threads, 1),
            ("--limit", self.limit, 1),
        ):
            if value is not None and value < lowest:
                raise BadInputError(f"{name} is {value}; it must be {lowest} or more")
        self._check_load()
        if self.split_file and not self.part:
            raise BadInputError("--split-file needs --part train, val or test")
        if self.checkpoint and not (self.baseline or self.compiled or self.official):
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
    def load_levels(self) -> tuple[LoadLevel, ...]:
        """Levels of load that every deployed row is put under; none by default."""
        duration_s = _DURATION_S if self.duration_s is None else self.duration_s
        closed = [LoadLevel(callers, None, duration_s) for callers in self.concurrency]
        return (*closed, *(LoadLevel(None, rate, duration_s) for rate in self.rates))

    @property
    def server_places(self) -> tuple[Place, ...]:
        return tuple(place for place in self.where if place != "in-process")

    def _check_load(self) -> None:
        durations = () if self.duration_s is None else (self.duration_s,)
        for name, values in (("--rate", self.rates), ("--duration", durations)):
            for value in values:
                if not 0 < value < math.inf:
                    raise BadInputError(f"{name} is {value:g}; it must be more than 0")
        if durations and not self.load_levels:
            raise BadInputError("--duration is how long a level of load lasts: add --concurrency or --rate")

    def _check_url(self) -> None:
        self.access.require_server(self.url)
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


def counts_of(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers between commas, each once. Raises BadInputError, naming `option`."""
    return _numbers(option, text, int, "whole numbers")


def rates_of(text: str) -> tuple[float, ...]:
    """Calls per second between commas, each once. Raises BadInputError."""
    return _numbers("--rate", text, float, "numbers")


def warm_up_of(text: str) -> tuple[int, bool]:
    """`warm_up` and `until_stable` of `RunOptions`. Raises BadInputError."""
    if text.strip() == UNTIL_STABLE:
        return MOST_WARM_UP, True
    try:
        return int(text), False
    except ValueError:
        raise BadInputError(f"--warm-up is '{text}'; it must be a number or {UNTIL_STABLE}") from None


def _numbers(option: str, text: str, kind: Callable[[str], Number], wanted: str) -> tuple[Number, ...]:
    try:
        numbers = tuple(map(kind, split_names(text)))
    except ValueError:
        numbers = ()
    if not numbers:
        raise BadInputError(f"{option} is '{text}'; give {wanted} with commas between")
    return tuple(dict.fromkeys(numbers))
