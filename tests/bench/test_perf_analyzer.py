"""Microbenches that check the harness itself: beside perf_analyzer, beside a plain loop, and its metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scaling_model import publish_scaling_model
from typer.testing import CliRunner

from microbench import perf_analyzer
from microbench.harness import time_in_turns
from microbench.metrics import ALL, METRICS, SCORED, measure_metrics
from microbench.perf_analyzer import find_perf_analyzer, parse_report
from seg_runtime.errors import BadInputError

REPORT = Path(__file__).parents[1] / "data" / "perf_analyzer" / "report.txt"


def test_a_captured_report_is_read_in_milliseconds() -> None:
    report = parse_report(REPORT.read_text(encoding="utf-8"))
    assert (report.requests, report.p50_ms, report.p90_ms, report.p99_ms) == (4, 958.307, 1197.911, 1197.911)


def test_a_report_without_percentiles_is_refused_with_its_end() -> None:
    text = REPORT.read_text(encoding="utf-8").partition("p90")[0] + "Failed to obtain stable measurement."
    with pytest.raises(BadInputError, match=r"has no p\d0?9?, p\d+: it ends with .*stable measurement"):
        parse_report(text)


def test_a_program_that_is_not_there_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInputError, match=r"on PATH .*bin/pip install --no-deps tritonclient==2\.51\.0"):
        find_perf_analyzer()
    (tmp_path / "plain.txt").write_text("no program")
    with pytest.raises(BadInputError, match=r"no perf_analyzer at .*plain\.txt that can be run"):
        find_perf_analyzer(tmp_path / "plain.txt")


@pytest.mark.server
def test_both_clients_take_turns_on_one_server(tmp_path: Path) -> None:
    pytest.importorskip("pytriton")
    publish_scaling_model(tmp_path / "repo", "scale")
    calls = tmp_path / "calls.txt"
    program = tmp_path / "perf_analyzer"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncat {REPORT}\n')
    program.chmod(0o755)
    arguments = ["--repo", tmp_path / "repo", "--model", "scale", "--perf-analyzer", program, "--requests", 5]
    out = tmp_path / "check.json"
    result = CliRunner().invoke(
        perf_analyzer.app, [*map(str, arguments), "--rounds", "2", "--out", str(out)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    assert record["perf_analyzer_p50_ms"] == 958.307
    assert [len(played["ours_ms"]) for played in record["rounds"]] == [5, 5]
    assert record["ratio"] == pytest.approx(record["ours_p50_ms"] / 958.307, rel=0.5)
    version, *measured = calls.read_text().splitlines()
    assert version == "--version"
    assert len(measured) == 2
    assert all("-m scale -i grpc -u 127.0.0.1:" in line for line in measured)
    assert all(line.endswith("--concurrency-range 1 --request-count 5") for line in measured)


def test_every_metric_is_timed_on_every_pair(xray_folder: Path) -> None:
    speed = measure_metrics(xray_folder, repeats=1)
    assert (speed.pairs, speed.size_hw) == (8, (512, 512))
    assert {metric.name: len(metric.samples_ms) for metric in speed.metrics} == dict.fromkeys(METRICS, 8)
    counted = [metric.samples_ms for metric in speed.metrics if metric.name in ALL]
    assert speed.all_max_ms == pytest.approx(max(sum(times) for times in zip(*counted, strict=True)))
    assert speed.scored_median_ms < speed.all_median_ms
    assert {*SCORED, *ALL} == set(METRICS)


def test_masks_that_cannot_be_compared_are_refused(nuclei_folder: Path) -> None:
    with pytest.raises(BadInputError, match="has a map of objects"):
        measure_metrics(nuclei_folder, repeats=1)


def test_recorded_calls_and_plain_calls_are_as_many(tmp_path: Path) -> None:
    publish_scaling_model(tmp_path / "repo", "scale")
    plain_ms, recorded_ms, turn_ms = time_in_turns(tmp_path / "repo", "scale", (8, 8), repeats=2)
    assert len(plain_ms) == len(recorded_ms) == len(turn_ms) == 2
    # What a record holds is a part of the turn that the steering process waits for.
    assert all(inside < turn for inside, turn in zip(recorded_ms, turn_ms, strict=True))
