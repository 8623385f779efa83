"""What a measurement run leaves behind: one JSON file that every report is a view of.

Absent values are None in Python and null in the file; nothing that was not measured is ever 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seg_bench.metrics.summary import MetricSummary
from seg_bench.metrics.surface import HD95_DEFINITIONS
from seg_runtime.errors import BadInputError

__all__ = [
    "HD95_UNITS",
    "SAM_STAGES",
    "SCHEMA",
    "STAGES",
    "Accuracy",
    "Agreement",
    "ClassAccuracy",
    "Condition",
    "Data",
    "Energy",
    "Latency",
    "LoadPoint",
    "Machine",
    "MeasuredModel",
    "ObjectAccuracy",
    "Record",
    "Run",
    "Settings",
    "Throughput",
]

SCHEMA = "edgeseg-bench/2"
STAGES = ("preprocess", "infer", "postprocess", "total")
SAM_STAGES = ("encode", "decode")
"""The parts of "infer" of a SAM."""
HD95_UNITS = ("px", "mm")


@dataclass(frozen=True)
class Machine:
    """Where a run was measured; no host names and no paths.

    Attributes:
        cpu: model name of the processor (or of the board, on a Jetson).
        cores: logical cores this process may use.
        memory_gb: main memory in GiB, or None when unknown.
        system: operating system and machine type.
        python: version of Python.
        packages: versions of the packages that matter, by name.
        gpu: name and driver of each GPU, or None when there is none.
        matrix_gflops: fp32 products and sums per second that its processor reaches in a matrix product of
            NumPy, in units of 10^9; None where that was not measured.
    """

    cpu: str
    cores: int
    memory_gb: float | None
    system: str
    python: str
    packages: dict[str, str]
    gpu: str | None = None
    matrix_gflops: float | None = None


@dataclass(frozen=True)
class MeasuredModel:
    """Which model a record is about; fields as in `seg_runtime.spec.ModelSpec`.

    `version` and the hashes of graphs are None for the PyTorch baseline, the hashes also for a model
    on a server whose repository is not at hand. A SAM is one model here: `name` is what the names of
    its encoder and decoder begin with, `version` and `graph_sha256` are the encoder's, `parameters`
    those of both.
    """

    name: str
    family: str
    version: int | None
    precision: str
    weights: str
    parameters: int | None
    checkpoint_sha256: str | None
    graph_sha256: str | None
    decoder_graph_sha256: str | None = None


@dataclass(frozen=True)
class Data:
    """The images a record was measured on: name of the data set, of its split, number of images.

    `truth` is how several annotators' masks became one ("staple", "majority", "union"), or whose they are;
    None where there is one mask of each image.
    """

    name: str
    images: int
    split: str | None = None
    truth: str | None = None


@dataclass(frozen=True)
class Settings:
    """How a record was measured.

    Attributes:
        threads: intra-op threads, or None for the runtime's own choice.
        warm_up: calls before the first timed one.
        repeats: timed calls that were asked for.
        batch: images per call.
        seed: of the order in which candidates take turns.
        allocator: environment variables that tuned the allocator of this candidate, or None.
        channels_last: whether this PyTorch candidate ran in NHWC memory order.
        prompts: what a SAM was prompted with, or None for models that take none.
        engine: which engine was asked for in process, "auto" or a key of `seg_runtime.engines.ENGINES`;
            None for servers and baselines.
        min_s: seconds of timed calls that were asked for, besides `repeats`.
    """

    threads: int | None
    warm_up: int
    repeats: int
    batch: int
    seed: int
    allocator: str | None = None
    channels_last: bool = False
    prompts: str | None = None
    engine: str | None = None
    min_s: float = 0.0


@dataclass(frozen=True)
class ObjectAccuracy:
    """How well objects were found; `Accuracy` scores the union of those that count.

    One counts from the score on that its contract has, 0.5 where nobody chose another.

    Attributes:
        ap, ap50: COCO's mask average precision in 0..1, None without any object.
        limit: how many objects of an image count in it.
        count_error: per image, objects found that count, minus true ones.
        matched_dice: per image, mean Dice of the objects that were found (mask IoU of 0.5 and above); NaN
            where there is none.
    """

    ap: float | None
    ap50: float | None
    limit: int
    count_error: tuple[int, ...]
    matched_dice: tuple[float, ...]


@dataclass(frozen=True)
class ClassAccuracy:
    """How well a semantic model finds one of its classes.

    Attributes:
        name: of the class, as the model calls it.
        dice, iou: 2 |P and T| / (|P| + |T|) and |P and T| / |P or T| of an image's pixels P that the model
            gives the class and T that the ground truth does, as means over the images where either has
            any; None where none has. Not smoothed, and not of the pixels of all images together.
        images: how many images have the class in their ground truth.
        hd95: mean HD95 as that of `Accuracy`, over the images that have the class in both masks; None where
            none has, and in records of earlier releases.
        hd95_infinite: images that have it in one of the two only.
    """

    name: str
    dice: float | None
    iou: float | None
    images: int
    hd95: float | None = None
    hd95_infinite: int = 0


@dataclass(frozen=True)
class Accuracy:
    """Dice, IoU and HD95 (in the frame of the original image): one value per image, and their summaries.

    HD95 is infinite when exactly one of the two masks is empty. Summaries leave infinite values
    out of the mean and count them. `hd95_definition` is "directed" or "pooled", see
    `seg_bench.metrics.surface`, and `hd95_unit` "px" or "mm"; records of earlier releases are directed, px.
    `images` are the names of the images, None in the first schema.
    Of a model with several classes all but the first are the foreground here; `classes` has each of
    them, where the ground truth names classes, else None. `confusion` counts pixels of all images by their
    true class (rows) and the model's (columns), in the order of `classes`; pixels that the ground truth
    leaves out are not in it.
    """

    dice: tuple[float, ...]
    iou: tuple[float, ...]
    hd95: tuple[float, ...]
    dice_summary: MetricSummary
    iou_summary: MetricSummary
    hd95_summary: MetricSummary
    objects: ObjectAccuracy | None = None
    images: tuple[str, ...] | None = None
    classes: tuple[ClassAccuracy, ...] | None = None
    confusion: tuple[tuple[int, ...], ...] | None = None
    hd95_definition: str = "directed"
    hd95_unit: str = "px"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("hd95_definition", self.hd95_definition, HD95_DEFINITIONS),
            ("hd95_unit", self.hd95_unit, HD95_UNITS),
        ):
            if value not in known:
                raise BadInputError(f"the field '{name}' is {value!r}; it must be {' or '.join(known)}")
        counts = len(self.classes or ())
        sizes = [len(row) for row in self.confusion or ()]
        if self.confusion is not None and (
            sizes != [counts] * counts or any(pixels < 0 for row in self.confusion for pixels in row)
        ):
            raise BadInputError(
                f"the field 'confusion' must have a row and a column of pixels for each of {counts} classes"
            )


@dataclass(frozen=True)
class Agreement:
    """How far a row's masks are those of the fp32 graph, asked before anything is timed.

    Attributes:
        reference: what computed the fp32 graph, as `Record.engine`.
        required: the lowest mask IoU that passes.
        images: their names.
        mask_iou: one value per image.
    """

    reference: str
    required: float
    images: tuple[str, ...]
    mask_iou: tuple[float, ...]

    @property
    def lowest(self) -> float:
        return min(self.mask_iou)


@dataclass(frozen=True)
class Condition:
    """Dice under a condition that the model was not trained for.

    Attributes:
        name: a key of `seg_bench.corruptions.CORRUPTIONS` or `seg_bench.data.views.VIEWS`, or the name of
            another data set.
        kind: "corruption" or "view" (of the record's own images), or "data set".
        images: their names.
        dice: one value per image, in that order.
        summary: of those.
    """

    name: str
    kind: str
    images: tuple[str, ...]
    dice: tuple[float, ...]
    summary: MetricSummary


@dataclass(frozen=True)
class Energy:
    """What the device drew while the row was timed.

    Attributes:
        source: "NVML", "tegrastats", "jtop" or "RAPL".
        mean_w: mean power during the calls in watts, of the whole device.
        idle_w: mean power just before, without any call, or None when it was not measured.
        joules_per_image: of the whole device: mean power times the time an image took.
    """

    source: str
    mean_w: float
    idle_w: float | None
    joules_per_image: float


@dataclass(frozen=True)
class LoadPoint:
    """One level of load: many calls at once, or calls that arrive at a fixed rate.

    Attributes:
        concurrency: callers that each wait for their answer before they call again (closed loop), or the
            most calls that were in flight (open loop).
        rate_per_s: calls that were due per second (open loop); None for a closed loop.
        duration_s: from the first call to the last answer.
        latency_ms: of every call, in the order they ended. In an open loop from the moment a call was due,
            so that a server that stalls is not excused (coordinated omission).
        images_per_s: images that were answered per second.
        failures: calls that got no answer.
    """

    concurrency: int
    rate_per_s: float | None
    duration_s: float
    latency_ms: tuple[float, ...]
    images_per_s: float
    failures: int = 0


@dataclass(frozen=True)
class Throughput:
    """Images per second with calls back to back, at the batch that gives most."""

    batch: int
    images_per_s: float


@dataclass(frozen=True)
class Latency:
    """Raw samples in milliseconds per call, in the order they were taken, one list per stage.

    `total` is the whole call a user makes; `infer` is the model alone, travel included. For a SAM
    `total` is one image with all its prompts, and `encode` and `decode` are the two models that make
    up `infer`; of a tracked frame `decode` is all that follows the encoder, memories included. Else they are
    None. `transfer` is the part of `infer` that a server did not compute (travel,
    queue), None in process.
    """

    preprocess: tuple[float, ...]
    infer: tuple[float, ...]
    postprocess: tuple[float, ...]
    total: tuple[float, ...]
    encode: tuple[float, ...] | None = None
    decode: tuple[float, ...] | None = None
    transfer: tuple[float, ...] | None = None

    def percentile(self, percent: float, stage: str = "total") -> float:
        """Percentile of the raw samples in milliseconds, interpolated linearly."""
        return float(np.percentile(getattr(self, stage), percent))


@dataclass(frozen=True)
class Record:
    """One row: one model measured in one place.

    Attributes:
        runtime: what computed: the name of an engine as "ONNX Runtime" (of a SAM, its encoder's),
            "Triton", or one of `seg_bench.candidate.BASELINES`.
        where: "in-process", "grpc", "http" or "shared-memory".
        accuracy: None for random weights.
        latency: None when nothing was timed.
        images_per_s: images over the summed time of the timed calls, one call after another.
        peak_memory_mib: highest resident memory in MiB.
        peak_memory_of: "process" (this candidate's own) or "server" (all processes of the server).
        engine: what computed, with version and device, as `Session.engine` says it (on a
            server, its backend); None in records from before it was noted.
        load_ms: from nothing to a model that is ready (in process: session and graph; on a server: until it
            is connected), or None.
        first_call_ms: the very first call, before any warm-up, or None.
        device_memory_mib: memory of the accelerator that the row took at most, or None.
        energy: None where nothing tells it.
        conditions: Dice under corruptions and on other data sets; None when not asked for.
        loads: latency and throughput under load; None when not asked for.
        agreement: with the masks of the fp32 graph; None when it was not asked for.
        throughput: at the best batch; None when it was not asked for, or of a model that takes one image.
        early: what was timed of what was asked for ("12 of 64 calls"), where time was up before; else None.
        failure: one line, of a row that broke off; it may have no figures at all.
        noise: one line when the machine was too busy for this row's figures to be trusted, else None.
    """

    model: MeasuredModel
    runtime: str
    where: str
    data: Data
    settings: Settings
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    images_per_s: float | None = None
    peak_memory_mib: float | None = None
    peak_memory_of: str | None = None
    engine: str | None = None
    load_ms: float | None = None
    first_call_ms: float | None = None
    device_memory_mib: float | None = None
    energy: Energy | None = None
    conditions: tuple[Condition, ...] | None = None
    loads: tuple[LoadPoint, ...] | None = None
    agreement: Agreement | None = None
    throughput: Throughput | None = None
    early: str | None = None
    failure: str | None = None
    noise: str | None = None


@dataclass(frozen=True)
class Run:
    """One call of `seg-bench run`: what all its records share, and the records.

    Attributes:
        started_utc: ISO 8601 time.
        command: the command line, absolute paths shortened to their last part.
        complete: False when the run was interrupted.
        calibration_ms: times of a fixed loop that ran between the calls; their spread tells how
            busy the machine was with other things.
        note: one line about the noise.
    """

    schema: str
    started_utc: str
    command: str
    complete: bool
    machine: Machine
    calibration_ms: tuple[float, ...]
    note: str
    records: tuple[Record, ...]
