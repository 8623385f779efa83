"""Columns, tables and plots of what records of the second schema hold."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from bench_records import (
    example_run,
    full_run,
    make_accuracy,
    make_latency,
    make_long_accuracy,
    make_record,
    make_run,
)

from seg_bench.records import Data, Energy, Latency, LoadPoint, Run
from seg_bench.report.csv_report import to_csv
from seg_bench.report.frame import WIDE
from seg_bench.report.grouping import device_table
from seg_bench.report.html_page import to_html
from seg_bench.report.json_report import to_json_report
from seg_bench.report.markdown import to_markdown
from seg_bench.report.plots import dice_against_latency, pareto_front
from seg_bench.report.plotted import plotted_rows
from seg_bench.report.row_plots import latency_samples
from seg_bench.report.table import build_table, load_table
from seg_bench.report.terminal import to_plain_text
from seg_bench.report.verdict import verdict


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
    svg = ElementTree.fromstring(dice_against_latency(plotted_rows(example_run().records), WIDE))
    grey = [
        mark for mark in svg.iter() if mark.get("class") == "dominated" and mark.find("title") is not None
    ]
    names = {(mark.findtext("title") or "").split(", fp32")[0] for mark in grey}
    # All have one Dice; in process is the fastest of those that can be deployed.
    assert names == {"unet_lung, PyTorch eager", "unet_lung, gRPC", "unet_lung, shared memory"}


def test_every_data_set_has_a_part_of_the_page_and_a_column_says_which() -> None:
    other = replace(make_record("elsewhere", median_ms=90), data=Data("shenzhen", 3))
    run = make_run(make_record(), other)
    text = to_html([run])
    assert text.count('class="front"') == 2 * 2, "of each data set, in two sizes"
    assert [part.split("<")[0] for part in text.split("<h2>")[1:3]] == ["montgomery (test)", "shenzhen"]
    assert columns_of(run, 1)["data"] == "shenzhen"
    assert "data" not in columns_of(make_run())


def test_many_calls_are_an_outline_and_few_are_dots() -> None:
    many = make_run(replace(make_record(), latency=make_latency(40, calls=1000)))
    svg = ElementTree.fromstring(latency_samples(plotted_rows(many.records), WIDE))
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


NOTE = "; no CUDA graphs: the capture failed"


def two_devices() -> list[Run]:
    """A workstation that has PyTorch, and a board that has two precisions and none."""
    fp16 = make_record("unet_lung_fp16", median_ms=20)
    fp16 = replace(
        fp16, model=replace(fp16.model, precision="fp16"), engine=f"ONNX Runtime 1.32.0, CUDA{NOTE}"
    )
    board = make_run(
        make_record(median_ms=30), fp16, make_record("unet_random", weights="random"), cpu="Orin"
    )
    board = replace(board, machine=replace(board.machine, gpu="Orin, 540.4.0"))
    return [make_run(make_record(runtime="PyTorch eager", median_ms=80), make_record()), board]


def test_devices_get_one_figure_of_each_network_and_the_ratio_to_their_own_pytorch() -> None:
    runs = two_devices()
    table = device_table(runs)
    assert table is not None and device_table(runs[:1]) is None
    assert [column.title for column in table.columns] == [
        *("network", "Example CPU, 2 cores", "Orin, 2 cores")
    ]
    base, ours = (record.latency for record in runs[0].records)
    fastest = runs[1].records[1].latency
    assert base and ours and fastest
    ratio = base.percentile(50) / ours.percentile(50)
    assert [[cell.text for cell in row] for row in table.rows] == [
        [
            "unet_lung",
            f"{ours.percentile(50):.1f} ms, ×{ratio:.2f} (ONNX Runtime)",
            f"{fastest.percentile(50):.1f} ms (ONNX Runtime, CUDA)",
        ],
        ["unet_random (random weights)", "-", "33.1 ms (ONNX Runtime)"],
    ]


def test_every_device_has_its_part_of_each_form() -> None:
    runs = two_devices()
    text = to_plain_text(runs)
    headings = [line for line in text.splitlines() if line in ("Example CPU, 2 cores", "Orin, 2 cores")]
    assert headings == ["Example CPU, 2 cores", "Orin, 2 cores"]
    page = to_html(runs)
    for name in ("Example CPU, 2 cores", "Orin, 2 cores"):
        assert f"<h2>{name}, montgomery (test)</h2>" in page
        assert f"<b>{name}, montgomery (test).</b> Most accurate" in page
    assert [json.loads(to_json_report(runs))["rows"][row]["machine"] for row in (0, 2)] == headings


def test_the_verdict_names_the_most_accurate_and_the_fastest_row() -> None:
    slow = make_record("unetpp_lung", median_ms=90, accuracy=make_accuracy(0.979))
    fast = make_record("transunet_lung", median_ms=9)
    broken = replace(make_record("unet_c", median_ms=1), failure="its lowest mask IoU is 0.31")
    base = make_record("unetpp_lung", runtime="PyTorch eager", median_ms=180, accuracy=make_accuracy(0.979))
    assert slow.latency and fast.latency and base.latency
    accurate = f"unetpp_lung (ONNX Runtime) with {slow.latency.percentile(50):.1f} ms"
    ratio = base.latency.percentile(50) / slow.latency.percentile(50)
    assert verdict([make_run(base, slow, fast, broken)]) == (
        f"Most accurate is {accurate}, {ratio:.2f} times as fast as PyTorch, Dice 0.9790; fastest is "
        f"transunet_lung (ONNX Runtime) with {fast.latency.percentile(50):.1f} ms, Dice 0.9700."
    )
    assert verdict([make_run(fast)]).startswith("Most accurate and fastest is transunet_lung")
    assert verdict([make_run(broken)]) == ""
    random = verdict([make_run(make_record("unet_31m", weights="random"))])
    assert random == "Without Dice, the fastest: unet_31m (random weights, ONNX Runtime) with 33.1 ms."
