"""Columns, tables and plots of what records of the second schema hold."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from bench_records import example_run, full_run, make_latency, make_long_accuracy, make_record, make_run

from seg_bench.records import Data, Energy, Latency, LoadPoint, Run
from seg_bench.report.csv_report import to_csv
from seg_bench.report.html_page import to_html
from seg_bench.report.json_report import to_json_report
from seg_bench.report.markdown import to_markdown
from seg_bench.report.plots import dice_against_latency, pareto_front
from seg_bench.report.plotted import plotted_rows
from seg_bench.report.row_plots import latency_samples
from seg_bench.report.table import build_table, load_table
from seg_bench.report.terminal import to_plain_text


def columns_of(run: Run, row: int = 0) -> dict[str, str]:
    table = build_table([run])
    return {column.key: cell.text for column, cell in zip(table.columns, table.rows[row], strict=True)}


def test_columns_of_the_second_schema_appear_where_any_row_has_them() -> None:
    shown = columns_of(full_run())
    assert shown["dice_on_shenzhen"] == "0.9200 ± 0.0100"
    assert shown["dice_corrupted"] == f"{(0.94 + 0.89) / 2:.4f}"
    assert shown["dice_worst_decile"] == f"{(0.81 + 0.82) / 2:.4f}"
    assert (shown["transfer_ms"], shown["load_ms"], shown["first_call_ms"]) == ("2.5", "130", "99.0")
    assert (shown["joules_per_image"], shown["device_memory_mib"]) == ("0.61", "410")
    # Other rows have none of it, which is never 0.
    other = columns_of(full_run(), row=1)
    absent = ("transfer_ms", "load_ms", "joules_per_image", "device_memory_mib", "dice_on_shenzhen")
    assert {other[key] for key in absent} == {"-"}
    assert not {"joules_per_image", "load_ms", "note"} & {
        column.key for column in build_table([make_run()]).columns
    }


def test_rows_that_failed_or_are_noisy_say_why_in_every_form() -> None:
    run = full_run()
    assert columns_of(run, 1)["note"] == "noisy: the loop varied by 60 %"
    text = to_plain_text([run])
    assert "failed: unet_c, in process: it ran out of memory" in text
    assert "failed: it ran out of memory" in to_markdown([run])
    assert '<tr class="failed">' in to_html([run])
    rows = json.loads(to_json_report([run]))["rows"]
    assert [row["failure"] for row in rows] == [None, None, "it ran out of memory"]


def test_load_has_a_table_of_its_own_with_p99_by_level() -> None:
    table = load_table([full_run()])
    assert table is not None and load_table([make_run()]) is None
    keys = [column.key for column in table.columns]
    levels = [row[keys.index("load")].text for row in table.rows]
    assert levels == ["1 at once", "50 per s due"]
    expected = np.percentile(make_latency(300, 400).total, 99)
    assert table.rows[1][keys.index("p99_ms")].text == f"{expected:.1f}"
    assert table.rows[1][keys.index("failures")].text == "3"
    assert "50 per s due" in to_plain_text([full_run()])


def test_csv_is_one_line_per_row_and_level_of_load_with_empty_fields_for_what_is_absent() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv([full_run()]))))
    assert len(lines) == 3 + 2
    first, level, _, noisy, _ = lines
    assert float(first["dice"]) == pytest.approx(np.mean(make_long_accuracy().dice))
    assert float(first["p50_low"]) < float(first["p50_ms"]) < float(first["p50_high"])
    assert float(first["dice_under_blur 2"]) == pytest.approx(0.89)
    assert (level["model"], level["concurrency"], level["rate_per_s"]) == ("unet_lung", "1", "")
    assert noisy["joules_per_image"] == ""


def test_the_pareto_front_is_what_no_other_row_beats() -> None:
    figures = [(10.0, 0.95), (20.0, 0.97), (20.0, 0.96), (30.0, 0.97), (5.0, 0.90), (10.0, 0.95)]
    assert pareto_front(figures) == [True, True, False, False, True, True]


def test_dominated_rows_and_baselines_are_grey_in_the_plot() -> None:
    rows = plotted_rows([example_run()])
    svg = ElementTree.fromstring(dice_against_latency(rows))
    grey = [
        mark for mark in svg.iter() if mark.get("class") == "dominated" and mark.find("title") is not None
    ]
    names = {(mark.findtext("title") or "").split(", fp32")[0] for mark in grey}
    # All have one Dice; in process is the fastest of those that can be deployed.
    assert names == {"1: unet_lung, PyTorch eager", "3: unet_lung, gRPC", "4: unet_lung, shared memory"}


def test_every_data_set_has_a_front_of_its_own_and_a_column_says_which() -> None:
    other = replace(make_record("elsewhere", median_ms=90), data=Data("shenzhen", 3))
    run = make_run(make_record(), other)
    svg = ElementTree.fromstring(dice_against_latency(plotted_rows([run])))
    assert len(svg.findall("path[@class='front']")) == 2
    assert not [mark for mark in svg.iter() if mark.get("class") == "dominated"]
    assert columns_of(run, 1)["data"] == "shenzhen"
    assert "data" not in columns_of(make_run())


def test_many_calls_are_an_outline_and_few_are_dots() -> None:
    many = make_run(replace(make_record(), latency=make_latency(40, calls=1000)))
    svg = ElementTree.fromstring(latency_samples(plotted_rows([many])))
    assert [title.text for title in svg.iter("title")] == [
        f"1000 calls, {min(make_latency(40, 1000).total):.1f} to {max(make_latency(40, 1000).total):.1f} ms"
    ]
    assert len(svg.findall(".//line[@class='median']")) == 2  # p50 and p99


def test_a_clock_that_stood_still_and_rows_that_broke_off_do_not_break_a_report() -> None:
    still = replace(
        make_record(), latency=Latency(*((0.0,) * 200,) * 4), energy=Energy("RAPL", 0.0, None, 0.0)
    )
    no_answer = replace(make_record("b"), loads=(LoadPoint(4, None, 10.0, (), 0.0, failures=12),))
    nothing = replace(
        make_record("c"), accuracy=None, latency=None, images_per_s=None, failure="it broke off"
    )
    run = make_run(still, no_answer, nothing)
    for text in (to_html([run]), to_plain_text([run]), to_markdown([run]), to_csv([run])):
        assert "it broke off" in text
    to_html([replace(run, records=())])


def test_the_same_row_of_two_days_gets_a_date() -> None:
    later = replace(make_run(), started_utc="2026-11-25T08:30:00+00:00")
    table = build_table([make_run(), later])
    keys = [column.key for column in table.columns]
    assert [row[keys.index("measured")].text for row in table.rows] == [
        "2026-11-22 10:00",
        "2026-11-25 08:30",
    ]
    assert "measured" not in [column.key for column in build_table([make_run()]).columns]
