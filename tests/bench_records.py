"""Made-up runs for the tests of records and reports."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np

from seg_bench.candidate import PYTORCH, Candidate
from seg_bench.metrics.summary import summarize
from seg_bench.records import (
    SCHEMA,
    Accuracy,
    ClassAccuracy,
    Condition,
    Data,
    Energy,
    Latency,
    LoadPoint,
    Machine,
    MeasuredModel,
    Record,
    Run,
    Settings,
)


def torch_candidate(checkpoint: object, runtime: str = PYTORCH, threads: int | None = None) -> Candidate:
    """A baseline for the pipelines that need no more than its checkpoint."""
    return Candidate("any", "in-process", runtime, "", "", (), checkpoint=str(checkpoint), threads=threads)


def make_accuracy(dice: float = 0.97, hd95: tuple[float, ...] = (5.0, 7.0, 9.0)) -> Accuracy:
    values = (dice - 0.01, dice, dice + 0.01)
    iou = tuple(value / (2 - value) for value in values)
    return Accuracy(values, iou, hd95, summarize(values), summarize(iou), summarize(hd95))


def make_class_record(name: str, *dice: float | None, **changes: str) -> Record:
    """A row with a class for each Dice; one that no image has is None."""
    names = ("background", "left lung", "right lung", "heart")
    classes = tuple(
        ClassAccuracy(each, score, score and score / (2 - score), 3 if score else 0, score and 9 - 9 * score)
        for each, score in zip(names, dice, strict=False)
    )
    count = len(classes)
    pixels = tuple(tuple(900 if i == j else 50 for i in range(count)) for j in range(count))
    record = make_record(
        name, accuracy=replace(make_accuracy(), classes=classes, confusion=pixels), **changes
    )
    return replace(record, data=Data("organs", 3, None))


def class_run() -> Run:
    """Two models with four classes, of which no image has the last; one model has two rows that agree."""
    return make_run(
        make_class_record("unet_organs", 0.99, 0.93, 0.94, None, runtime="PyTorch eager"),
        make_class_record("unet_organs", 0.99, 0.93, 0.94, None),
        make_class_record("transunet_organs", 0.995, 0.96, 0.5, None),
    )


def make_latency(median_ms: float, calls: int = 20) -> Latency:
    infer = np.random.default_rng(0).gamma(9, median_ms / 9, calls).round(3)
    total = tuple(float(value) for value in infer + 0.75)
    return Latency((0.5,) * calls, tuple(map(float, infer)), (0.25,) * calls, total)


def make_record(
    name: str = "unet_lung",
    where: str = "in-process",
    runtime: str = "ONNX Runtime",
    weights: str = "trained",
    median_ms: float = 40.0,
    accuracy: Accuracy | None = None,
) -> Record:
    model = MeasuredModel(
        name, "unet", 1, "fp32", weights, 1_941_105, sha256(name.encode()).hexdigest(), "cd" * 32
    )
    return Record(
        model=model,
        runtime=runtime,
        where=where,
        data=Data("montgomery", 3, "montgomery, test"),
        settings=Settings(threads=2, warm_up=3, repeats=20, batch=1, seed=0),
        accuracy=accuracy if accuracy or weights == "random" else make_accuracy(),
        latency=make_latency(median_ms),
        images_per_s=24.5,
        peak_memory_mib=312.4,
        peak_memory_of="server" if runtime == "Triton" else "process",
    )


def make_engine_record(asked: str, engine: str, median_ms: float = 40.0, name: str = "unet_lung") -> Record:
    """A row in process as it is written today: with the engine that was asked for and the one that ran."""
    runtime = "OpenVINO" if engine.startswith("OpenVINO") else "ONNX Runtime"
    record = make_record(name, runtime=runtime, median_ms=median_ms)
    return replace(record, settings=replace(record.settings, engine=asked), engine=engine)


def make_sam_record(runtime: str = "ONNX Runtime", median_ms: float = 800.0, **changes: str) -> Record:
    """One row of a SAM: its decoder takes a tenth of the time of its encoder."""
    record = make_record("sam_tiny", runtime=runtime, median_ms=median_ms, **changes)
    assert record.latency
    infer = np.array(record.latency.infer)
    latency = replace(
        record.latency,
        postprocess=(20.0,) * len(infer),
        total=tuple(map(float, infer + 20.5)),
        encode=tuple(map(float, infer * 10 / 11)),
        decode=tuple(map(float, infer / 11)),
    )
    return replace(
        record,
        model=replace(record.model, family="sam", parameters=4_947_760, decoder_graph_sha256="ef" * 32),
        settings=replace(record.settings, prompts="a box around each lung"),
        latency=latency,
    )


def make_run(*records: Record, cpu: str = "Example CPU", complete: bool = True) -> Run:
    machine = Machine(cpu, 2, 8.0, "Linux 6.1 x86_64", "3.11.2", {"numpy": "1.26.4", "onnxruntime": "1.32.0"})
    return Run(
        schema=SCHEMA,
        started_utc="2026-11-22T10:00:00+00:00",
        command="seg-bench run --data montgomery --out run.json",
        complete=complete,
        machine=machine,
        calibration_ms=(5.0, 5.1, 5.2),
        note="quiet: a fixed loop between the calls varied by 3% (p10 to p90)",
        records=records or (make_record(),),
    )


def example_run() -> Run:
    """A run with all that a report can show."""
    return make_run(
        make_record(runtime="PyTorch eager", median_ms=70),
        make_record(median_ms=40),
        make_record(where="grpc", runtime="Triton", median_ms=55),
        make_record(where="shared-memory", runtime="Triton", median_ms=43),
        make_record("unet_random", weights="random", median_ms=900),
    )


def make_condition(name: str, kind: str, *dice: float) -> Condition:
    return Condition(
        name, kind, tuple(f"image{number}" for number in range(len(dice))), dice, summarize(dice)
    )


def full_run() -> Run:
    """A run of the second schema with all that it may hold, a noisy row and one that failed."""
    full = replace(
        make_record(median_ms=40),
        accuracy=make_long_accuracy(),
        energy=Energy("RAPL", 15.0, 5.0, 0.61),
        conditions=(
            make_condition("noise 0.1", "corruption", 0.95, 0.93),
            make_condition("blur 2", "corruption", 0.90, 0.88),
            make_condition("shenzhen", "data set", 0.91, 0.93),
        ),
        loads=(
            LoadPoint(1, None, 10.0, make_latency(41, 400).total, 24.0),
            LoadPoint(8, 50.0, 10.0, make_latency(300, 400).total, 47.5, failures=3),
        ),
        load_ms=130.0,
        first_call_ms=99.0,
        device_memory_mib=410.0,
    )
    assert full.latency
    full = replace(full, latency=replace(full.latency, transfer=(2.5,) * 20))
    noisy = replace(make_record("unet_b"), noise="the loop varied by 60 %")
    failed = replace(
        make_record("unet_c"), accuracy=None, latency=None, images_per_s=None, failure="it ran out of memory"
    )
    return make_run(full, noisy, failed)


def make_long_accuracy() -> Accuracy:
    dice = tuple(1 - 0.01 * number for number in range(20))
    return replace(make_accuracy(), dice=dice, dice_summary=summarize(dice))
