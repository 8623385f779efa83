"""`seg-bench compare` calls a regression what is one, and not what is noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_records import make_accuracy, make_latency, make_record, make_run
from scipy.stats import bootstrap
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.cli.compare import share
from seg_bench.compare import BETTER, SAME, UNSURE, WORSE, Comparison, compare_runs, ratio_of_medians
from seg_bench.record_files import write_run
from seg_bench.records import Record, Run
from seg_runtime.errors import BadInputError


def timed(samples: Sequence[float], name: str = "unet_lung") -> Record:
    values = tuple(map(float, samples))
    latency = replace(make_latency(40), preprocess=values, infer=values, postprocess=values, total=values)
    return replace(make_record(name), latency=latency)


def steady(milliseconds: float, calls: int = 60, seed: int = 0) -> Record:
    return timed(np.random.default_rng(seed).normal(milliseconds, milliseconds * 0.03, calls))


def verdict(comparison: Comparison) -> str:
    (row,) = comparison.rows
    return row.verdict


def compared(old: Record, new: Record, **options: float) -> Comparison:
    return compare_runs([make_run(old)], [make_run(new)], **options)


def test_a_ratio_of_medians_has_scipys_bootstrap_interval() -> None:
    generator = np.random.default_rng(3)
    old, new = generator.gamma(9, 5, 80), generator.gamma(9, 6, 60)
    ratio, low, high = ratio_of_medians(old.tolist(), new.tolist())
    reference = bootstrap(
        (new, old), lambda a, b, axis=-1: np.median(a, axis) / np.median(b, axis), method="percentile",
        n_resamples=5000, rng=np.random.default_rng(1), vectorized=True,
    ).confidence_interval  # fmt: skip
    assert ratio == pytest.approx(np.median(new) / np.median(old))
    assert low == pytest.approx(reference.low, abs=0.02)
    assert high == pytest.approx(reference.high, abs=0.03)


@pytest.mark.parametrize(("factor", "wanted"), [(1.2, WORSE), (1.05, SAME), (0.8, BETTER), (1.0, SAME)])
def test_steady_rows_are_judged_by_the_limit(factor: float, wanted: str) -> None:
    assert verdict(compared(steady(40), steady(40 * factor, seed=1))) == wanted


def test_two_noisy_measurements_of_one_model_are_never_worse() -> None:
    generator = np.random.default_rng(0)
    verdicts = [
        verdict(compared(timed(generator.lognormal(3.5, 0.8, 10)), timed(generator.lognormal(3.5, 0.8, 10))))
        for _ in range(100)
    ]
    # An interval of 95 % is above 1 by chance in about 2.5 of 100.
    assert verdicts.count(WORSE) <= 6
    assert verdicts.count(UNSURE) >= 10  # the limit alone would have called all these worse


def test_a_machine_that_was_busier_is_not_a_slower_model() -> None:
    old = make_run(steady(40))
    busy = replace(make_run(steady(60, seed=1)), calibration_ms=(8.0, 8.2, 8.4))  # 5.1 before
    comparison = compare_runs([old], [busy])
    assert verdict(comparison) == UNSURE
    assert "the fixed loop took 1.61 times as long" in comparison.rows[0].reason
    assert any("not equally busy" in warning for warning in comparison.warnings)
    much_slower = replace(busy, records=(steady(90, seed=1),))
    assert verdict(compare_runs([old], [much_slower])) == WORSE


def test_three_calls_tell_too_little() -> None:
    assert verdict(compared(timed([40, 41, 42]), timed([60, 61, 62]))) == UNSURE


def test_dice_is_judged_on_the_same_images_only() -> None:
    old, new = (replace(steady(40), accuracy=make_accuracy(dice)) for dice in (0.97, 0.966))
    assert verdict(compared(old, new)) == WORSE
    assert verdict(compared(old, new, fail_dice=0.005)) == SAME
    assert verdict(compared(new, old)) == BETTER
    old = replace(old, accuracy=replace(make_accuracy(0.97), images=("a", "b", "c")))
    new = replace(new, accuracy=replace(make_accuracy(0.9), images=("a", "b", "d")))
    (row,) = compared(old, new).rows
    assert (row.verdict, row.dice_change) == (SAME, None)
    assert "not the same images" in row.reason


def test_a_row_that_breaks_off_in_new_is_worse() -> None:
    broken = replace(make_record(), latency=None, accuracy=None, failure="the server went away")
    (row,) = compared(steady(40), broken).rows
    assert (row.verdict, row.reason) == (WORSE, "failed: the server went away")
    assert verdict(compared(broken, steady(40))) == BETTER
    assert verdict(compared(broken, broken)) == SAME


def test_rows_of_one_side_and_another_machine_are_said() -> None:
    old = make_run(steady(40), make_record("gone"))
    new = make_run(steady(40), make_record("fresh"), cpu="Other CPU")
    comparison = compare_runs([old], [new])
    assert comparison.only_old == ("gone, in process, fp32",)
    assert comparison.only_new == ("fresh, in process, fp32",)
    assert "Other CPU" in comparison.warnings[0]
    assert not comparison.worse


def test_the_latest_run_of_a_row_counts() -> None:
    later = replace(make_run(steady(60)), started_utc="2026-11-24T10:00:00+00:00")
    assert verdict(compare_runs([make_run(steady(40))], [later, make_run(steady(40))])) == WORSE


def test_records_of_several_machines_on_one_side_are_refused() -> None:
    with pytest.raises(BadInputError, match="several machines on one side"):
        compare_runs([make_run(cpu="A"), make_run(cpu="B")], [make_run()])


def test_nothing_in_common_says_what_either_has() -> None:
    with pytest.raises(BadInputError, match="OLD has a, in process, fp32; NEW has b, in process, fp32"):
        compared(make_record("a"), make_record("b"))


@pytest.mark.parametrize(("text", "value"), [("10%", 0.1), ("0.1", 0.1), ("5 %", 0.05), ("150%", 1.5)])
def test_shares_are_percent_or_fractions(text: str, value: float) -> None:
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["10", "ten", "-5%", "nan", "inf%", ""])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(BadInputError, match=r"such as 10% or 0\.1"):
        share(text)


def files(tmp_path: Path, *runs: Run) -> list[str]:
    paths = [tmp_path / f"{number}.json" for number in range(len(runs))]
    for path, run in zip(paths, runs, strict=True):
        write_run(run, path)
    return [str(path) for path in paths]


def test_the_exit_code_is_1_when_a_row_is_worse_and_0_else(tmp_path: Path) -> None:
    old, new = files(tmp_path, make_run(steady(40)), make_run(steady(60, seed=1)))
    worse = CliRunner().invoke(app, ["compare", old, new, "--fail-over", "10%"])
    assert worse.exit_code == 1
    assert "worse: unet_lung, in process, fp32: slower by 50%" in worse.output
    assert CliRunner().invoke(app, ["compare", old, new, "--fail-over", "80%"]).exit_code == 0
    result = CliRunner().invoke(app, ["compare", old, new, "--json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["worse"], document["rows"][0]["verdict"]) == (1, True, WORSE)


def test_hd95_of_two_definitions_or_units_is_not_compared_in_silence() -> None:
    old = steady(40)
    assert not compared(old, steady(40)).warnings
    pooled = replace(old, accuracy=replace(make_accuracy(), hd95_definition="pooled", hd95_unit="mm"))
    (warning,) = compared(old, pooled).warnings
    assert warning == "HD95 is directed (px) in OLD, pooled (mm) in NEW: it cannot be compared"
    assert not compared(pooled, pooled).warnings
