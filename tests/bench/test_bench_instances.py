"""`seg_bench.run.runner.measure` on models that find objects, and what reports show of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_records import make_accuracy, make_record, make_run

from seg_bench import official_maskrcnn
from seg_bench.candidate import OFFICIAL_EXPORT, PYTORCH, Candidate
from seg_bench.data.nuclei import load_nuclei
from seg_bench.official_maskrcnn import torchvision_model
from seg_bench.pipelines import Objects
from seg_bench.pipelines.instances import objects_outcome
from seg_bench.pipelines.instances_torch import TorchInstancesPipeline
from seg_bench.record_files import read_run, write_run
from seg_bench.records import ObjectAccuracy, Record
from seg_bench.report.notes import legend_lines
from seg_bench.report.speed import speed_lines
from seg_bench.report.table import build_table
from seg_bench.run.options import RunOptions
from seg_bench.run.originals import official_exports
from seg_bench.run.runner import measure
from seg_bench.run.scoring import Scorer, foreground_dice
from seg_bench.run.subjects import Subject
from seg_export.checkpoints import checkpoint as checkpoint_module
from seg_export.checkpoints.checkpoint import untrained_model
from seg_export.checkpoints.types import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, Preprocessing
from seg_runtime.errors import BadInputError
from seg_runtime.model_config import to_text
from seg_runtime.spec import ModelSpec

pytestmark = pytest.mark.full


def perfect(folder: Path, number: int) -> Objects:
    labels = load_nuclei(folder)[number].load_labels()
    ids = np.unique(labels)[1:]
    masks = labels[None] == ids[:, None, None]
    return Objects(np.full(len(ids), 0.9, np.float32), np.ones(len(ids), np.int32), masks)


def test_objects_found_as_they_are_score_one_and_missing_ones_count(nuclei_folder: Path) -> None:
    scorer, samples = Scorer(), load_nuclei(nuclei_folder)[:2]
    whole = perfect(nuclei_folder, 0)
    scores = scorer.score(samples[0], objects_outcome([whole], 0, 0, 0))
    assert (scores["dice"], scores["count_error"], scores["matched_dice"]) == (1, 0, 1)
    assert scorer.objects(300) == {"ap": 1, "ap50": 1}
    half = perfect(nuclei_folder, 1)
    missing = len(half.scores) // 2
    unsure = replace(
        half, scores=np.where(np.arange(len(half.scores)) < missing, 0.4, 0.9).astype(np.float32)
    )
    scores = scorer.score(samples[1], objects_outcome([unsure], 0, 0, 0))
    # Unsure objects count for average precision, but neither in the number of objects nor in the union.
    assert scores["count_error"] == -missing and scores["matched_dice"] == 1 and scores["dice"] < 1
    assert scorer.objects(300) == {"ap": 1, "ap50": 1}


def test_dice_under_a_condition_is_of_the_union_of_objects_and_counts_for_no_precision(
    nuclei_folder: Path,
) -> None:
    scorer, (first, second) = Scorer(), load_nuclei(nuclei_folder)[:2]
    found = perfect(nuclei_folder, 1)
    sure = np.arange(len(found.scores)) % 2 == 0
    some = replace(found, scores=np.where(sure, 0.9, 0.4).astype(np.float32))
    union, truth = found.masks[sure].any(axis=0), second.load_labels() > 0
    scorer.score(first, objects_outcome([perfect(nuclei_folder, 0)], 0, 0, 0))
    dice = foreground_dice(second, objects_outcome([some], 0, 0, 0))
    assert dice == pytest.approx(2 * (union & truth).sum() / (union.sum() + truth.sum()), abs=1e-4)
    assert 0.2 < dice < 0.9 and scorer.objects(300)["ap"] == 1


def test_an_image_in_which_nothing_was_found_has_no_dice_of_objects(nuclei_folder: Path) -> None:
    sample = load_nuclei(nuclei_folder)[0]
    nothing = Objects(np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros((0, *sample.size_hw()), bool))
    scores = Scorer().score(sample, objects_outcome([nothing], 0, 0, 0))
    assert scores["dice"] < 0.01 and scores["count_error"] < 0 and math.isnan(scores["matched_dice"])


@pytest.mark.full
def test_a_model_that_finds_objects_is_a_row_of_a_run(tiny_maskrcnn_repo: Path, nuclei_folder: Path) -> None:
    options = RunOptions(
        repo=tiny_maskrcnn_repo, data=nuclei_folder, limit=2, repeats=2, warm_up=0, threads=1, batches=(2,)
    )
    (record,) = measure(options).records
    assert (record.model.name, record.model.weights, record.accuracy) == ("cells", "random", None)
    assert record.latency and len(record.latency.total) == 2 and record.latency.encode is None
    parts = zip(record.latency.preprocess, record.latency.infer, record.latency.postprocess, strict=True)
    assert [sum(part) for part in parts] == pytest.approx(record.latency.total)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"official": True, "batches": (2,)},
            "has torchvision's export, which takes one image per call",
        ),
        ({"data": "xrays"}, "'cells' finds objects and .* has one mask per image"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tiny_maskrcnn_repo: Path, nuclei_folder: Path, xray_folder: Path, changes: dict[str, Any], message: str
) -> None:
    if changes.get("data") == "xrays":
        changes = {"data": xray_folder}
    options = RunOptions(repo=tiny_maskrcnn_repo, data=nuclei_folder)
    with pytest.raises(BadInputError, match=message):
        measure(replace(options, **changes))


def test_baselines_of_weights_alone_normalise_as_the_contract_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"arch": "maskrcnn_light_fpn", "num_classes": 2}
    alone = Checkpoint(
        family="maskrcnn",
        arguments=arguments,
        state_dict=untrained_model("maskrcnn", arguments).state_dict(),
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD),
        class_names=("cell",),
        described=False,
    )
    monkeypatch.setattr(checkpoint_module, "load_checkpoint", lambda path: alone)
    statistics = {"mean": (0.7, 0.6, 0.5), "std": (0.1, 0.2, 0.3)}
    spec = ModelSpec(
        "cells", 1, "instances", "maskrcnn", (), (), channels=3, class_names=("cell",), **statistics
    )
    candidate = Candidate(
        model="cells",
        where="in-process",
        runtime=PYTORCH,
        target="",
        data="",
        samples=(),
        kind="instances",
        checkpoint="cells.pth",
        contract=to_text(spec),
    )
    transform = TorchInstancesPipeline(candidate)._model.transform
    assert (tuple(transform.image_mean), tuple(transform.image_std)) == (spec.mean, spec.std)
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        official_maskrcnn, "export_official_maskrcnn", lambda *args, **options: given.update(options)
    )
    options = RunOptions(repo=tmp_path, data=tmp_path, official=True)
    official_exports(options, (), [Subject("cells", (spec,))], {"cells": Path("cells.pth")}, tmp_path)
    assert given["contract"] == spec
    model = torchvision_model(Path("cells.pth"), contract=spec)
    assert tuple(model.transform.image_mean) == spec.mean


def object_record(runtime: str = "ONNX Runtime", median_ms: float = 40.0) -> Record:
    objects = ObjectAccuracy(0.5, 0.8, 300, (-3, 1, 0), (0.9, float("nan"), 0.8))
    accuracy = replace(make_accuracy(), objects=objects)
    return make_record("maskrcnn_nuclei", runtime=runtime, median_ms=median_ms, accuracy=accuracy)


def test_the_table_has_columns_for_objects_where_there_are_some_and_nowhere_else() -> None:
    keys = {"ap", "ap50", "count_error", "matched_dice"}
    assert not keys & {column.key for column in build_table([make_run(make_record())]).columns}
    table = build_table([make_run(object_record(), make_record())])
    rows = [
        {column.key: cell.text for column, cell in zip(table.columns, row, strict=True)} for row in table.rows
    ]
    assert {key: rows[0][key] for key in sorted(keys)} == {
        "ap": "0.5000",
        "ap50": "0.8000",
        "count_error": "1.3",
        "matched_dice": "0.8500",
    }
    assert {rows[1][key] for key in keys} == {"-"}
    assert any("Mask AP" in line for line in legend_lines([make_run(object_record())]))


def test_a_detector_is_compared_with_both_its_baselines() -> None:
    records = [object_record(PYTORCH, 80), object_record(OFFICIAL_EXPORT, 120), object_record()]
    lines = speed_lines(records)
    assert [line.rpartition(" as fast as ")[2] for line in lines] == ["PyTorch eager", "torchvision's export"]


def test_records_of_objects_are_read_as_they_were_written(tmp_path: Path) -> None:
    run = make_run(object_record())
    write_run(run, tmp_path / "run.json")
    read = read_run(tmp_path / "run.json").records[0].accuracy
    assert read and read.objects and run.records[0].accuracy and run.records[0].accuracy.objects
    assert read.objects.count_error == run.records[0].accuracy.objects.count_error
    assert math.isnan(read.objects.matched_dice[1])
