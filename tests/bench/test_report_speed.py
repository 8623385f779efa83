"""The benchmark of the HTML report runs, and the documentation quotes its committed record."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from microbench.report_speed import ReportSpeed, made_up_run, measure_report
from seg_bench.json_fields import from_json
from seg_bench.report.html_page import to_html

ROOT = Path(__file__).parents[2]


def test_everything_that_a_report_can_show_is_in_the_page_that_is_timed() -> None:
    page = to_html([made_up_run(2, 120)])
    for words in ("Dice against latency", "Every timed call", "Energy per image", "Under load", "noise 0.1"):
        assert words in page


def test_every_part_is_timed_as_often_as_asked_for() -> None:
    result = measure_report(models=2, calls=30, repeats=2)
    assert [len(times) for times in (result.command_s, result.read_s, result.page_s)] == [2, 2, 2]
    assert result.page_bytes > 10_000


def test_the_documentation_quotes_the_record() -> None:
    document = json.loads((ROOT / "bench" / "results" / "report.json").read_text(encoding="utf-8"))
    record = from_json(ReportSpeed, document)
    assert (record.models, record.calls) == (20, 1000)
    seconds = statistics.median(record.command_s)
    assert f"| {seconds:.2f} s | [report.json]" in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
