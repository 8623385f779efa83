"""Reports show what the records hold, in every form."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from bench_records import (
    example_run,
    full_run,
    make_accuracy,
    make_engine_record,
    make_latency,
    make_record,
    make_run,
    make_sam_record,
)
from rich.console import Console

from seg_bench.article import ARTICLE_TABLE
from seg_bench.candidate import OFFICIAL_DECODER
from seg_bench.records import Energy, Record, Run
from seg_bench.report.frame import NARROW, WIDE, LegendEntry, Size, legend
from seg_bench.report.html_page import to_html
from seg_bench.report.json_report import to_json_report
from seg_bench.report.markdown import to_markdown
from seg_bench.report.plots import dice_against_latency
from seg_bench.report.plotted import plotted_rows
from seg_bench.report.row_plots import energy_bars, latency_samples
from seg_bench.report.speed import speed_lines
from seg_bench.report.svg import log_axis, score_axis, text_width
from seg_bench.report.table import build_table
from seg_bench.report.terminal import print_report, rich_tables, to_plain_text

COLUMNS = [
    *("model", "precision", "where", "dice", "iou", "hd95_px", "parameters"),
    *("preprocess_ms", "infer_ms", "postprocess_ms"),
    *("p50_ms", "times_as_fast", "p90_ms", "p99_ms", "p99_9_ms", "images_per_s", "peak_memory_mib"),
    *("article_dice", "article_iou", "article_parameters", "article_ms"),
]


def cells(run_number: int = 0, **record: object) -> dict[str, str]:
    table = build_table([make_run(make_record(**record))])
    return {column.key: cell.text for column, cell in zip(table.columns, table.rows[run_number], strict=True)}


def test_the_table_has_every_column_of_the_issue() -> None:
    assert [column.key for column in build_table([example_run()]).columns] == COLUMNS


def test_cells_show_the_records_figures() -> None:
    shown = cells()
    assert shown["dice"] == "0.9700 ± 0.0082"
    assert shown["parameters"] == "1.94M"
    assert shown["peak_memory_mib"] == "312"
    latency = make_record().latency
    assert latency is not None
    assert shown["p50_ms"] == f"{latency.percentile(50):.1f}"


def test_percentiles_that_the_calls_are_too_few_for_are_bounds_in_the_table_and_null_in_json() -> None:
    shown = cells()  # 20 calls
    totals = sorted(make_latency(40).total)
    assert shown["p90_ms"] == f"≥ {totals[14]:.1f}"
    (row,) = json.loads(to_json_report([make_run()]))["rows"]
    assert (row["p90_ms"], row["p90_interval"]) == (None, [totals[14], None])
    assert row["p50_interval"] == [totals[5], totals[14]]
    many = replace(make_record(), latency=make_latency(40, calls=400))
    (row,) = json.loads(to_json_report([make_run(many)]))["rows"]
    assert row["p99_interval"][0] < row["p99_ms"] < row["p99_interval"][1]
    assert row["p99_9_ms"] is None


def test_the_article_stands_beside_and_is_quoted_right() -> None:
    shown = cells()
    wanted = ("0.967", "0.936", "31M", "12")
    assert (
        shown["article_dice"],
        shown["article_iou"],
        shown["article_parameters"],
        shown["article_ms"],
    ) == wanted
    printed = [(f.dice, f.iou, f.parameters_m, f.inference_ms) for f in ARTICLE_TABLE.values()]
    assert printed == [
        (0.967, 0.936, 31, 12),
        (0.971, 0.943, 47, 18),
        (0.974, 0.950, 105, 45),
        (0.958, 0.920, 632, 120),
    ]


def test_random_weights_are_named_in_place_of_dice() -> None:
    shown = cells(weights="random", accuracy=make_accuracy())
    assert (shown["dice"], shown["iou"], shown["hd95_px"]) == ("random weights", "-", "-")


def test_what_was_not_measured_is_a_dash_and_never_zero() -> None:
    bare = replace(make_record(), accuracy=None, latency=None, images_per_s=None, peak_memory_mib=None)
    table = build_table([make_run(bare)])
    shown = {column.key: cell for column, cell in zip(table.columns, table.rows[0], strict=True)}
    for key in ("dice", "iou", "hd95_px", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "peak_memory_mib"):
        assert (shown[key].text, shown[key].value) == ("-", None)


def test_infinite_distances_are_counted_beside_the_mean() -> None:
    assert (
        cells(accuracy=make_accuracy(hd95=(5.0, math.inf, 7.0)))["hd95_px"] == "6.00 ± 1.00 (1 of 3 infinite)"
    )
    assert cells(accuracy=make_accuracy(hd95=(math.inf,) * 3))["hd95_px"] == "infinite for all 3"


def test_two_machines_are_told_apart_and_one_is_not_repeated() -> None:
    table = build_table([make_run(cpu="Workstation"), make_run(cpu="Jetson")])
    assert table.columns[0].key == "machine"
    assert [row[0].text for row in table.rows] == ["Workstation, 2 cores", "Jetson, 2 cores"]


def test_speed_is_compared_with_the_baseline_of_the_same_checkpoint_only() -> None:
    lines = speed_lines(example_run().records)
    assert [line.partition(":")[0] for line in lines] == [
        "unet_lung, in process",
        "unet_lung, gRPC",
        "unet_lung, shared memory",
    ]
    baseline, deployed = example_run().records[:2]
    assert baseline.latency and deployed.latency
    ratio = baseline.latency.percentile(50) / deployed.latency.percentile(50)
    assert f"{ratio:.2f} times as fast as PyTorch eager" in lines[0]


ORT, OPENVINO = "ONNX Runtime 1.32.0, CPU", "OpenVINO 2026.4.1, CPU"


def engines_run() -> Run:
    return make_run(
        make_record(runtime="PyTorch eager", median_ms=80),
        make_engine_record("auto", ORT),
        make_engine_record("onnxruntime", ORT),
        make_engine_record("openvino", OPENVINO, median_ms=20),
        make_record(where="grpc", runtime="Triton", median_ms=55),
    )


def test_engines_have_a_column_where_they_differ() -> None:
    table = build_table([engines_run()])
    keys = [column.key for column in table.columns]
    assert keys == [*COLUMNS[:3], "engine", *COLUMNS[3:]]
    shown = [row[3].text for row in table.rows]
    assert shown == ["PyTorch eager", f"{ORT} (auto)", ORT, OPENVINO, "Triton"]
    rows = json.loads(to_json_report([engines_run()]))["rows"]
    assert [row["engine"] for row in rows] == [None, ORT, ORT, OPENVINO, None]


def test_one_engine_for_all_is_said_below_the_table() -> None:
    run = make_run(make_record(runtime="PyTorch eager"), make_engine_record("auto", ORT))
    assert [column.key for column in build_table([run]).columns] == COLUMNS
    assert f"- engines: {ORT} (auto)" in to_markdown([run]).splitlines()
    assert "engines:" not in to_markdown([make_run()])
    assert "engines:" not in to_markdown([engines_run()])


def test_lines_and_plots_name_the_engine_that_was_asked_for() -> None:
    names = [line.partition(":")[0] for line in speed_lines(engines_run().records)]
    assert names == [f"unet_lung, in process, {it}" for it in ("auto", "onnxruntime", "openvino")] + [
        "unet_lung, gRPC"
    ]
    svg = ElementTree.fromstring(latency_samples(plotted_rows(engines_run().records), WIDE))
    assert {*names} <= {element.text for element in svg.iter("text")}


def test_six_models_have_a_colour_each_whatever_computes_them() -> None:
    records = [
        make_engine_record(engine, engine, name=f"unet_{number}")
        for number in range(6)
        for engine in (ORT, OPENVINO)
    ]
    rows = plotted_rows(records)
    assert len({(row.record.model.name, row.css) for row in rows}) == len({row.css for row in rows}) == 6


def test_a_narrow_terminal_repeats_the_engine_that_names_a_row() -> None:
    tables = rich_tables([engines_run()], 120)
    assert len(tables) > 1
    assert all("engine" in [column.header for column in table.columns] for table in tables)


def sam_run() -> Run:
    return make_run(
        make_sam_record("PyTorch eager", median_ms=1600),
        make_sam_record(OFFICIAL_DECODER, median_ms=900),
        make_sam_record(),
    )


def test_encode_and_decode_have_columns_where_there_is_a_sam_and_nowhere_else() -> None:
    both = build_table([sam_run(), example_run()])
    keys = [column.key for column in both.columns]
    assert keys == [*COLUMNS[:7], "encode_ms", "decode_ms", *COLUMNS[7:]]
    encode, decode, whole = (keys.index(key) for key in ("encode_ms", "decode_ms", "p50_ms"))
    sam, unet = both.rows[2], both.rows[4]
    latency = both.records[2].latency
    assert latency and sam[encode].value == latency.percentile(50, "encode")
    assert sam[encode].text == f"{latency.percentile(50, 'encode'):.1f}"
    assert sam[decode].value and sam[whole].value and sam[decode].value < sam[whole].value
    assert (unet[encode].text, unet[decode].text) == ("-", "-")
    assert "prompts: a box around each lung" in to_markdown([sam_run()])
    assert "prompts" not in to_markdown([example_run()])


def test_a_sam_is_compared_with_both_its_baselines_by_stage() -> None:
    run = sam_run()
    torch, official = speed_lines(run.records)
    assert torch.startswith("sam_tiny, in process: 1.97 times as fast as PyTorch eager (encode 2.00,")
    assert official.startswith("sam_tiny, in process: 1.12 times as fast as official decoder (encode 1.12,")
    # Upscaling, which takes 20 ms in all three, counts with decoding.
    base, _, ours = (record.latency for record in run.records)
    assert base and ours
    masks = (base.percentile(50, "decode") + 20) / (ours.percentile(50, "decode") + 20)
    assert torch.endswith(f"decode and upscale {masks:.2f})")
    assert masks < 1.9


def test_a_sam_with_random_weights_says_so_and_has_its_times() -> None:
    table = build_table([make_run(make_sam_record(weights="random"))])
    shown = {column.key: cell.text for column, cell in zip(table.columns, table.rows[0], strict=True)}
    assert shown["dice"] == "random weights"
    assert float(shown["encode_ms"]) > float(shown["decode_ms"]) > 0
    assert (shown["article_dice"], shown["article_parameters"]) == ("0.958", "632M")


def test_the_page_shows_the_official_decoder_as_a_row_of_its_own() -> None:
    text = to_html([sam_run()])
    assert "<td>official decoder</td>" in text
    assert "encode p50" in text


def test_markdown_is_a_table_of_equal_rows() -> None:
    lines = to_markdown([example_run()]).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(example_run().records)
    only_in_data = {"preprocess_ms", "infer_ms", "postprocess_ms", "p99_9_ms"}
    assert {line.count("|") for line in rows} == {len(COLUMNS) - len(only_in_data) + 1}
    assert "- command: `seg-bench run --data montgomery --out run.json`" in lines


def test_json_gives_numbers_and_nulls_and_no_invalid_constants() -> None:
    infinite = make_record("far", accuracy=make_accuracy(hd95=(math.inf,) * 3))
    document = json.loads(to_json_report([make_run(make_record(), infinite)]), parse_constant=pytest.fail)
    row, far = document["rows"]
    assert row["dice"] == pytest.approx(0.97)
    assert row["dice_interval"][0] < 0.97 < row["dice_interval"][1]
    assert row["calls"] == 20
    assert far["hd95_px"] == "inf"
    assert document["runs"][0]["machine"].startswith("Example CPU, 2 cores")


def test_plain_text_names_machine_versions_noise_and_source() -> None:
    text = to_plain_text([example_run()])
    for words in (
        "Example CPU",
        "onnxruntime 1.32.0",
        "quiet: a fixed loop",
        "Montgomery CXR Dataset",
        "PyTorch eager",
    ):
        assert words in text


def printed(width: int) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    for table in rich_tables([example_run()], width):
        console.print(table)
    return out.getvalue()


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (110, 2)])
def test_a_narrow_terminal_gets_several_tables_with_nothing_cut(width: int, tables: int) -> None:
    text = printed(width)
    assert len(re.findall(r"^ model ", text, re.MULTILINE)) == tables
    assert max(map(len, text.splitlines())) <= width
    assert text.count("0.9700 ± 0.0082") == 4
    for cell in ("PyTorch eager", "random weights", "shared memory"):
        assert cell in text


def screen(width: int, *, wide: bool = False) -> str:
    """All that a terminal of this width shows, without the blanks at the ends of lines."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    print_report([full_run()], console, wide)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_shows_the_columns_that_decide(width: int) -> None:
    text = screen(width)
    snapshot = Path(__file__).parents[1] / "snapshots" / f"report_{width}.txt"
    assert text == snapshot.read_text(encoding="utf-8").rstrip("\n")
    assert max(map(len, text.splitlines())) <= width


def test_a_wide_terminal_report_has_every_column_and_fact() -> None:
    text = " ".join(screen(80, wide=True).split())
    for words in ("0.9700 ± 0.0082", "HD95", "versions:", "command:"):
        assert words in text
        assert words not in " ".join(screen(80).split())


class Page(HTMLParser):
    """Collects what the tests look at, and checks that tags close in order."""

    VOID = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.rows += tag == "tr"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_no_network() -> None:
    text = to_html([example_run()])
    page = Page(text)
    assert page.open == []
    assert all(link.startswith("data:") for link in page.links)
    assert "http" not in text
    assert "$" not in text
    assert page.rows == 1 + len(example_run().records)
    assert text.count("<svg") == 2 * 2, "each plot in two sizes"


def test_the_page_escapes_what_records_say() -> None:
    text = to_html([make_run(make_record("<script>alert(1)</script>"), cpu="R&D <b>")])
    assert "<script>alert" not in text
    assert "R&amp;D &lt;b&gt;" in text


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_plots_are_xml_with_one_mark_per_figure(size: Size) -> None:
    rows = plotted_rows(example_run().records)
    scatter = ElementTree.fromstring(dice_against_latency(rows, size))
    tips = [title.text or "" for title in scatter.iter("title")]
    assert sum("Dice 0.9700" in tip for tip in tips) == 4
    strips = ElementTree.fromstring(latency_samples(rows, size))
    calls = [len(record.latency.total) for record in example_run().records if record.latency]
    assert len(list(strips.iter("title"))) == sum(calls)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_no_words_of_a_plot_are_cut_or_leave_it(size: Size) -> None:
    """A name of 99 characters, and energy as a bar that is as long as there is room for."""
    long = make_record(" ".join(["segmenter"] * 10))
    record = replace(long, energy=Energy("tegrastats", 10.0, None, 123.4))
    rows = plotted_rows([record])
    for plot in (latency_samples(rows, size), energy_bars(rows, size)):
        texts = list(ElementTree.fromstring(plot).iter("text"))
        assert record.model.name in " ".join(it.text or "" for it in texts)
        for it in texts:
            at, width = float(it.get("x", "")), text_width(it.text or "")
            left = {"start": at, "middle": at - width / 2, "end": at - width}[it.get("text-anchor", "")]
            assert left >= -5 and left + width <= size.width + 5, it.text


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("seed", range(5))
def test_names_of_models_hide_neither_each_other_nor_marks(seed: int, size: Size) -> None:
    generator = np.random.default_rng(seed)
    records = [
        make_record(
            f"unet_{number}",
            median_ms=float(generator.uniform(5, 500)),
            accuracy=make_accuracy(float(generator.uniform(0.9, 0.985))),
        )
        for number in range(8)
    ]
    svg = ElementTree.fromstring(dice_against_latency(plotted_rows(records), size))
    names = [it for it in svg.iter("text") if (it.text or "").startswith("unet_")]
    assert len(names) >= 5, "where points are dense some grey ones have a tooltip alone"
    boxes = []
    for it in names:
        x, y = float(it.get("x", "")), float(it.get("y", ""))
        boxes.append((x, y - 10, x + text_width(it.text or ""), y + 3))
    marks = [(float(it.get("cx", "")), float(it.get("cy", ""))) for it in svg.iter("circle")]
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0 and right <= size.width
        assert not any(left < x < right and top < y < bottom for x, y in marks)
        for other in boxes[:number]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_a_plot_shows_good_models_apart_though_a_bad_one_is_there() -> None:
    """A Dice of 0.5 leaves lungs at 0.96 and 0.98 an eighth of the height between them."""
    records = [
        make_record(f"unet_{dice}", median_ms=40 * (number + 1), accuracy=make_accuracy(dice))
        for number, dice in enumerate((0.98, 0.96, 0.5))
    ]
    svg = ElementTree.fromstring(dice_against_latency(plotted_rows(records), WIDE))
    best, good, bad = (float(mark.get("cy", "")) for mark in svg.iter("circle"))
    best, good, bad = sorted((best, good, bad))
    assert (good - best) > 0.12 * (bad - best)


def test_a_legend_takes_as_many_lines_as_it_needs() -> None:
    entries = [LegendEntry("shared memory", "colour0", 0)] * 4
    for size, lines in ((WIDE, 1), (NARROW, 2)):
        drawn = ElementTree.fromstring(f"<svg>{''.join(legend(entries, size, 0.0)[0])}</svg>")
        assert len({mark.get("cy") for mark in drawn.iter("circle")}) == lines
        assert all(float(mark.get("cx", "")) < size.width for mark in drawn.iter("circle"))


def test_nothing_to_plot_gives_no_plot() -> None:
    assert dice_against_latency(plotted_rows([make_record(weights="random")]), WIDE) == ""
    assert latency_samples([], WIDE) == ""


def test_axes_map_their_ends_and_keep_ticks_inside() -> None:
    for axis in (
        score_axis([0.91, 0.97], 400, 20),
        log_axis([3.0, 900.0], 70, 700),
        log_axis([150, 180], 70, 700),
    ):
        assert axis.pixel(axis.low) == pytest.approx(axis.start)
        assert axis.pixel(axis.high) == pytest.approx(axis.end)
        assert len(axis.ticks) >= 3
        assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    perfect = score_axis([1.0, 1.0], 400, 20)
    assert perfect.low < perfect.high < 1.0
    assert perfect.pixel(1.0) == pytest.approx(perfect.end)


def hd95_record(definition: str, unit: str) -> Record:
    return make_record(
        f"{definition}_{unit}",
        accuracy=replace(make_accuracy(), hd95_definition=definition, hd95_unit=unit),
    )


def test_hd95_of_every_definition_and_unit_has_a_column_of_it_alone() -> None:
    kinds = [("directed", "px"), ("directed", "mm"), ("pooled", "px"), ("pooled", "mm")]
    run = make_run(*(hd95_record(*kind) for kind in kinds))
    table = build_table([run])
    headings = [column.heading for column in table.columns if column.key.startswith("hd95")]
    assert headings == ["HD95 (px)", "HD95 (mm)", "HD95 pooled (px)", "HD95 pooled (mm)"]
    first = [column.key for column in table.columns].index("hd95_px")
    for number, row in enumerate(table.rows):
        shown = [cell.text for cell in row[first : first + 4]]
        assert [text != "-" for text in shown] == [place == number for place in range(4)]
    rows = json.loads(to_json_report([run]))["rows"]
    assert [(row["hd95_definition"], row["hd95_unit"]) for row in rows] == kinds
    assert rows[1]["hd95_mm"] == 7.0 and len(rows[1]["hd95_mm_interval"]) == 2 and rows[1]["hd95_px"] is None
    assert "HD95 (mm) by the pixel spacing" in to_markdown([run]) and "not to be compared" in to_html([run])


def test_a_run_in_mm_has_no_column_of_pixels() -> None:
    run = make_run(hd95_record("directed", "mm"))
    assert [column.key for column in build_table([run]).columns if "hd95" in column.key] == ["hd95_mm"]
    text = to_markdown([run])
    assert "HD95 (mm)" in text and "pixels of the original" not in text and "pooled" not in text
