"""What reports show of records that hold the accuracy of each class."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bench_records import class_run, example_run, full_run, make_class_record, make_run
from rich.console import Console

from seg_bench.record_files import read_run, write_run
from seg_bench.records import ClassAccuracy, Run
from seg_bench.report.class_plot import class_dots
from seg_bench.report.class_table import class_rows, class_table
from seg_bench.report.csv_report import to_csv
from seg_bench.report.frame import NARROW, WIDE, Size
from seg_bench.report.html_page import to_html
from seg_bench.report.json_report import to_json_report
from seg_bench.report.markdown import to_markdown
from seg_bench.report.svg import text_width
from seg_bench.report.terminal import print_report
from seg_runtime.errors import BadInputError


def screen(run: Run, width: int = 80, wide: bool = True) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    print_report([run], console, wide)
    return out.getvalue()


def texts(svg: str) -> list[str]:
    return [it.text or "" for it in ElementTree.fromstring(svg).iter("text")]


def test_classes_are_rows_and_a_model_whose_rows_agree_is_one_column() -> None:
    table = class_table([class_run()])
    assert table is not None
    assert [column.title for column in table.columns] == [
        *("class", "images", "unet_organs Dice", "transunet_organs Dice"),
        *("unet_organs IoU", "transunet_organs IoU", "unet_organs HD95", "transunet_organs HD95"),
    ]
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["background", "3", "0.9900", "0.9950", "0.9802", "0.9900", "0.09", "0.04"],
        ["left lung", "3", "0.9300", "0.9600", "0.8692", "0.9231", "0.63", "0.36"],
        ["right lung", "3", "0.9400", "0.5000", "0.8868", "0.3333", "0.54", "4.50"],
        ["heart", "0", "-", "-", "-", "-", "-", "-"],
        ["mean, background left out", "-", "0.9350", "0.7300", "0.8780", "0.6282", "0.58", "2.43"],
    ]


def test_columns_of_the_table_of_classes_are_chosen_where_class_is_the_first() -> None:
    lines = to_markdown([class_run()], ["class", "dice_1"]).splitlines()
    assert lines[0] == "| class | transunet_organs Dice |"
    assert lines[3] == "| left lung | 0.9600 |" and len(lines) == 2 + 5
    with pytest.raises(BadInputError, match="no column 'dice_2': choose from class, images, dice_0"):
        to_markdown([class_run()], ["class", "dice_2"])
    with pytest.raises(BadInputError, match="no column 'class': choose from"):
        to_markdown([make_run()], ["class"])


def test_rows_of_a_model_that_differ_are_named_by_place_then_by_date() -> None:
    half = make_class_record("unet", 0.99, 0.9, runtime="Triton", where="grpc")
    run = make_run(make_class_record("unet", 0.99, 0.93), half)
    assert [row.name for row in class_rows([run])] == ["unet, in process", "unet, gRPC"]
    later = replace(run, started_utc="2026-11-23T09:30:00+00:00", records=(make_class_record("unet", 0.5),))
    assert [row.name for row in class_rows([run, later])] == [
        *("unet, in process, 2026-11-22 10:00", "unet, gRPC, 2026-11-22 10:00"),
        "unet, in process, 2026-11-23 09:30",
    ]


def test_a_deployed_row_stands_for_its_model_before_the_baseline() -> None:
    unet, _ = class_rows([class_run()])
    assert unet.record.runtime == "ONNX Runtime"


def test_models_with_other_classes_or_images_leave_cells_empty_or_say_the_range() -> None:
    first, second = make_class_record("a", 0.9, 0.8, 0.7), make_class_record("b", 0.9)
    assert second.accuracy
    fewer = replace(second.accuracy, classes=(ClassAccuracy("background", 0.95, 0.9, 2),))
    table = class_table([make_run(first, replace(second, accuracy=fewer))])
    assert table is not None
    rows = {row[0].text: [cell.text for cell in row[1:4]] for row in table.rows}
    assert rows["background"] == ["2 to 3", "0.9000", "0.9500"] and rows["left lung"] == ["3", "0.8000", "-"]


@pytest.mark.parametrize("run", [example_run(), full_run()])
def test_reports_of_records_without_classes_do_not_mention_them(run: Run) -> None:
    assert class_table([run]) is None
    assert "Dice of each class" not in to_html([run]) and "classes-1" not in to_html([run])
    assert "lass" not in to_markdown([run]) + to_csv([run])
    assert "lasses" not in to_json_report([run]) + screen(run) + screen(run, wide=False)


def test_a_terminal_of_80_columns_shows_classes_when_it_is_asked_for_all() -> None:
    lines = screen(class_run()).splitlines()
    (heart,) = (line.split() for line in lines if line.startswith(" heart"))
    assert heart == ["heart", "0", "-", "-"]
    at = next(
        number for number, line in enumerate(lines) if line.split() == ["class", "images", "Dice", "Dice"]
    )
    assert lines[at - 1].split() == ["unet_organs", "transunet_organs"]
    many = make_run(*(make_class_record(f"unet_organs_{number}", 0.9 - number / 100) for number in range(9)))
    blocks = [line for line in screen(many).splitlines() if line.startswith(" background")]
    assert len(blocks) > 1 and max(map(len, blocks)) <= 80
    assert "Dice of each class: --wide." in screen(class_run(), wide=False)
    assert "heart" not in screen(class_run(), wide=False)


def test_markdown_has_a_table_for_each_data_set_with_classes() -> None:
    run = class_run()
    other = replace(run.records[0], data=replace(run.records[0].data, name="elsewhere"))
    text = to_markdown([make_run(*run.records, other)])
    assert text.count("| class | images |") == 2
    assert "\n\nClasses of organs:\n\n| class | images | unet_organs Dice | transunet_organs Dice |" in text
    assert "\n\nClasses of elsewhere:\n\n| class | images | unet_organs Dice | unet_organs IoU |" in text
    assert "whose ground truth has it" in text
    two = to_markdown([run, replace(run, machine=replace(run.machine, cpu="Jetson"))])
    assert "Classes of organs, Jetson, 2 cores:" in two


def test_json_and_csv_hold_every_class_and_nothing_for_what_no_image_has() -> None:
    rows = json.loads(to_json_report([class_run()]))["rows"]
    assert [each["name"] for each in rows[0]["classes"]] == ["background", "left lung", "right lung", "heart"]
    nothing = {"dice": None, "iou": None, "images": 0, "hd95": None, "hd95_infinite": 0}
    assert rows[0]["classes"][3] == {"name": "heart", **nothing}
    assert rows[0]["confusion"][0] == [900, 50, 50, 50]
    assert (rows[0]["mean_dice"], rows[0]["mean_iou"]) == (pytest.approx(0.935), pytest.approx(900 / 1200))
    line = next(csv.DictReader(io.StringIO(to_csv([class_run()]))))
    assert (line["dice_of_left lung"], line["dice_of_heart"], line["iou_of_heart"]) == ("0.93", "", "")
    assert float(line["hd95_of_left lung"]) == pytest.approx(0.63) and "confusion" not in line
    assert float(line["iou_of_left lung"]) == pytest.approx(0.93 / 1.07)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_plot_has_a_mark_for_each_model_and_class_that_an_image_has(size: Size) -> None:
    svg = ElementTree.fromstring(class_dots(class_rows([class_run()]), size))
    tips = [it.text or "" for it in svg.iter("title")]
    assert sum("Dice 0." in tip for tip in tips) == 6
    assert "transunet_organs, right lung: Dice 0.5000" in tips
    marks = {
        (it.findtext("title") or "").removesuffix("00"): (float(it.get("cx", "")), it.get("class"))
        for it in svg.iter("circle")
        if it.findtext("title")
    }
    right, left = (
        marks["unet_organs, right lung: Dice 0.94"],
        marks["transunet_organs, right lung: Dice 0.50"],
    )
    assert 0 < left[0] < right[0] < size.width and left[1] != right[1]


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_long_names_of_classes_take_several_lines_and_none_is_cut(size: Size) -> None:
    record = make_class_record("unet", 0.9)
    assert record.accuracy
    long = ClassAccuracy(" ".join(["vertebra"] * 12), 0.0, 0.0, 1)
    run = make_run(replace(record, accuracy=replace(record.accuracy, classes=(long,))))
    svg = class_dots(class_rows([run]), size)
    assert f"{long.name}: 1 image" in " ".join(texts(svg))
    assert max(map(text_width, texts(svg))) <= size.width


def test_the_page_has_a_plot_and_a_table_of_classes_for_each_data_set() -> None:
    run = class_run()
    other = replace(run.records[2], data=replace(run.records[2].data, name="elsewhere"))
    text = to_html([make_run(*run.records, other, *example_run().records)])
    assert text.count("<h3>Dice of each class</h3>") == 2
    assert 'id="classes-1"' in text and 'id="classes-2"' in text and 'id="classes-3"' not in text
    assert '<td class="numeric" data-value="0.5">0.5000</td>' in text


def test_what_is_wrong_with_a_row_is_not_repeated_in_the_table_of_classes() -> None:
    noisy = replace(make_class_record("unet", 0.9), noise="the loop varied by 60 %")
    text = to_html([make_run(noisy)])
    assert text.count('<tr class="noisy">') == 1


def test_the_page_shows_which_class_is_taken_for_which() -> None:
    text = to_html([class_run()])
    assert text.count('<table class="confusion">') == 2
    assert "<caption>unet_organs</caption>" in text and '<th scope="row">right lung</th>' in text
    assert 'title="900 pixels">85.7 %</td>' in text and 'title="50 pixels">4.8 %</td>' in text
    older = [
        replace(it, accuracy=it.accuracy and replace(it.accuracy, confusion=None))
        for it in class_run().records
    ]
    assert "confusion" not in to_html([make_run(*older)]).split("</style>")[1].split("<script>")[0]


@pytest.mark.parametrize(
    ("counts", "wanted"),
    [((99_999, 1), ("&gt; 99.9 %", "&lt; 0.1 %")), ((5, 0), ("100.0 %", "0.0 %")), ((0, 0), ("-", "-"))],
)
def test_shares_look_like_all_or_nothing_only_where_they_are(
    counts: tuple[int, int], wanted: tuple[str, str]
) -> None:
    record = make_class_record("unet", 0.9, 0.8)
    assert record.accuracy
    shown = replace(record, accuracy=replace(record.accuracy, confusion=(counts, (0, 7))))
    text = to_html([make_run(shown)])
    first = text.split('<th scope="row">background</th>')[1].split("</tr>")[0]
    assert [f">{each}</td>" in first for each in wanted] == [True, True]


def test_of_equal_rows_the_one_with_a_confusion_matrix_is_shown() -> None:
    record = make_class_record("unet", 0.9, 0.8)
    older = replace(record, accuracy=record.accuracy and replace(record.accuracy, confusion=None))
    for rows in ((older, record), (record, older)):
        assert to_html([make_run(*rows)]).count('<table class="confusion">') == 1


@pytest.mark.parametrize("confusion", [((1, 2),), ((1, 2), (3,)), ((1, 2), (3, -4)), ()])
def test_a_confusion_matrix_that_does_not_fit_its_classes_is_refused(
    tmp_path: Path, confusion: tuple[tuple[int, ...], ...]
) -> None:
    write_run(make_run(make_class_record("unet", 0.9, 0.8)), tmp_path / "run.json")
    document = json.loads((tmp_path / "run.json").read_text())
    document["records"][0]["accuracy"]["confusion"] = confusion
    (tmp_path / "run.json").write_text(json.dumps(document))
    with pytest.raises(BadInputError, match="a row and a column of pixels for each of 2 classes"):
        read_run(tmp_path / "run.json")


def test_the_mean_says_what_it_leaves_out() -> None:
    record = make_class_record("unet", 0.9, 0.8)
    assert record.accuracy and record.accuracy.classes
    named = tuple(replace(each, name=f"part {each.name}") for each in record.accuracy.classes)
    table = class_table([make_run(replace(record, accuracy=replace(record.accuracy, classes=named)))])
    assert table and [cell.text for cell in table.rows[-1]][:3] == ["mean", "-", "0.8500"]
