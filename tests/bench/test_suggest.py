"""`seg-bench suggest` names what an exhaustive reading of the records would, and says why not the others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench_records import make_accuracy, make_latency, make_record, make_run
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.record_files import write_run
from seg_bench.records import Data, Energy, Record
from seg_bench.suggest import Limits, suggest
from seg_runtime.errors import BadInputError


def row(
    name: str, dice: float, median_ms: float, memory: float | None = 300, joules: float | None = None
) -> Record:
    record = replace(
        make_record(name, median_ms=median_ms), accuracy=make_accuracy(dice), peak_memory_mib=memory
    )
    energy = None if joules is None else Energy("RAPL", 15.0, 5.0, joules)
    return replace(record, energy=energy, latency=make_latency(median_ms, 400))


RUN = make_run(
    replace(row("torch", 0.99, 1), runtime="PyTorch eager"),
    row("fast", 0.955, 10, memory=100, joules=0.1),
    row("good", 0.9672, 20, memory=200, joules=0.3),
    row("same", 0.9675, 28, memory=250, joules=0.4),
    row("best", 0.974, 45, memory=900),
    replace(make_record("untrained", weights="random", median_ms=5)),
    replace(make_record("broken"), accuracy=None, latency=None, failure="out of memory"),
)


def chosen(**limits: float) -> str | None:
    suggestion = suggest([RUN], Limits(**limits))
    return suggestion.chosen.name.split(",")[0] if suggestion.chosen else None


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({}, "best"),
        ({"max_ms": 30}, "good"),  # "same" is better by less than counts, and slower
        ({"max_ms": 30, "min_dice": 0.96}, "good"),
        ({"max_ms": 15}, "fast"),
        ({"max_mb": 150}, "fast"),
        ({"max_joules": 0.5}, "good"),  # "best" has no energy, which is not 0
        ({"max_ms": 15, "min_dice": 0.96}, None),
    ],
)
def test_the_highest_dice_within_the_limits_wins_and_equals_go_by_speed(
    limits: dict[str, float], name: str | None
) -> None:
    assert chosen(**limits) == name


def test_every_other_row_says_why_it_falls_out() -> None:
    suggestion = suggest([RUN], Limits(max_ms=30, max_joules=0.35))
    reasons = {it.name.split(",")[0]: "; ".join(it.reasons) for it in suggestion.rejected}
    assert reasons["torch"] == "it is there to be compared with, not to be deployed"
    assert "is above 30 ms; energy was not measured" in reasons["best"]
    assert reasons["same"] == "energy 0.4 J per image is above 0.35"
    assert reasons["untrained"] == "random weights"
    assert reasons["broken"] == "it failed: out of memory"
    assert [it.name.split(",")[0] for it in suggestion.runners_up] == ["fast"]


def test_runners_up_are_in_the_order_they_would_be_chosen() -> None:
    suggestion = suggest([RUN], Limits())
    assert [it.name.split(",")[0] for it in suggestion.runners_up] == ["good", "same", "fast"]
    assert suggestion.reason == "the highest Dice of the 4 rows that keep every limit"


def test_a_tail_that_is_not_known_is_not_kept() -> None:
    few = make_run(make_record("few"))  # 20 calls
    suggestion = suggest([few], Limits(max_ms=1000, percentile=99))
    assert suggestion.chosen is None
    assert suggestion.rejected[0].reasons == ("p99 is not known from 20 calls: it takes 368",)
    assert suggest([RUN], Limits(max_ms=1000, percentile=99)).chosen is not None


def test_nothing_that_fits_names_the_nearest() -> None:
    suggestion = suggest([RUN], Limits(max_ms=15, min_dice=0.96))
    # Dice 0.955 for 0.96 is nearer than 20 ms for 15.
    assert "the nearest, by 0.5%, is fast, in process, fp32: Dice 0.9550 is below 0.96" in suggestion.reason


def test_device_memory_counts_where_it_is_recorded() -> None:
    gpu = replace(row("gpu", 0.97, 5), device_memory_mib=2000.0)
    (rejected,) = suggest([make_run(gpu)], Limits(max_mb=1000)).rejected
    assert rejected.reasons == ("device memory 2000 MiB is above 1000",)


def test_records_without_any_dice_are_refused() -> None:
    bare = make_run(replace(make_record(), accuracy=None), make_record("b", weights="random"))
    with pytest.raises(BadInputError, match="no row that can be deployed has a Dice"):
        suggest([bare], Limits(max_ms=30))


def test_dice_of_several_data_sets_is_not_compared() -> None:
    elsewhere = replace(row("elsewhere", 0.99, 5), data=Data("shenzhen", 3))
    with pytest.raises(BadInputError, match=r"montgomery \(test\); shenzhen"):
        suggest([RUN, make_run(elsewhere)], Limits())


def test_the_command_prints_the_choice_and_exits_with_1_when_nothing_fits(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_run(RUN, path)
    result = CliRunner().invoke(app, ["suggest", str(path), "--max-ms", "30", "--min-dice", "0.96"])
    assert result.exit_code == 0
    assert result.stdout.startswith("deploy: good, in process, fp32: Dice 0.9672, p50 ")
    assert "because: the fastest (p50) of the 2 rows" in result.stdout
    result = CliRunner().invoke(app, ["suggest", str(path), "--max-ms", "1", "--json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["chosen"]) == (1, None)
    assert len(document["rejected"]) == len(RUN.records)
