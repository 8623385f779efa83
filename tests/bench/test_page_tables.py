"""Tables of a Markdown page follow the records that their markers name."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bench_records import make_accuracy, make_record, make_run
from typer.testing import CliRunner

from seg_bench.cli import app, main
from seg_bench.record_files import write_run
from seg_bench.report.page_tables import update_page, updated_text
from seg_runtime.errors import BadInputError

MARKER = "<!-- table: seg-bench report results/run.json --format markdown -->\n"
END = "<!-- end of table -->\n"


@pytest.fixture
def page(tmp_path: Path) -> Path:
    write_run(make_run(), tmp_path / "results" / "run.json")
    path = tmp_path / "README.md"
    path.write_text(f"before\n\n{MARKER}{END}\nbetween\n\n{MARKER}old\n{END}after\n", encoding="utf-8")
    return path


def test_tables_are_filled_and_the_rest_of_the_page_stays(page: Path) -> None:
    assert update_page(page)
    text = page.read_text(encoding="utf-8")
    assert text.count("| unet_lung | fp32 | in process | 0.9700 ± 0.0082 |") == 2
    assert "old" not in text
    assert text.startswith("before\n\n") and text.endswith("after\n") and "\n\nbetween\n\n" in text
    assert not update_page(page)


def test_another_record_makes_the_page_stale(page: Path) -> None:
    update_page(page)
    record = replace(make_record(), accuracy=make_accuracy(0.98))
    write_run(make_run(record), page.parent / "results" / "run.json")
    assert updated_text(page) != page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no table\n", "has no table to update"),
        (f"{MARKER}| a |\n", "has no  <!-- end of table -->"),
        (f"{MARKER}| a |\n{MARKER}{END}", "has no  <!-- end of table -->"),
        (f"<!-- table: rm -rf / -->\n{END}", "the command of a table must be"),
        (f"<!-- table: seg-bench report --format markdown -->\n{END}", "the command of a table must be"),
        (f"{MARKER.replace('run', 'gone')}{END}", r"cannot read '.*gone.json'"),
    ],
)
def test_pages_that_cannot_be_updated_stay_as_they_are(page: Path, text: str, message: str) -> None:
    page.write_text(text, encoding="utf-8")
    with pytest.raises(BadInputError, match=message):
        update_page(page)
    assert page.read_text(encoding="utf-8") == text


def test_the_command_updates_a_page(page: Path) -> None:
    assert CliRunner().invoke(app, ["report", "--update", str(page)]).exit_code == 0
    assert "| unet_lung |" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "no records given"),
        (["report", "{empty}"], "no record files found"),
        (["report", "{broken}"], "is not JSON"),
        (["report", "{other}"], "the field 'schema' is 'edgeseg-bench/9'"),
        (["report", "{run}", "--update", "{run}"], "leave RECORDS and --out out"),
        (["report", "{run}", "--images", "{empty}"], "add --format html"),
        (["compare", "{run}", "{broken}"], "is not JSON"),
        (["compare", "{run}", "{run}", "--fail-over", "10"], "such as 10% or 0.1"),
        (["suggest", "{empty}", "--max-ms", "30"], "no record files found"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    page: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = page.parent
    (folder / "empty").mkdir()
    (folder / "broken.json").write_text('{"schema": "edgeseg-bench/2", ', encoding="utf-8")
    (folder / "other.json").write_text('{"schema": "edgeseg-bench/9"}', encoding="utf-8")
    places = {"empty": "empty", "broken": "broken.json", "other": "other.json", "run": "results/run.json"}
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["seg-bench", *(argument.format(**places) for argument in arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.count("\n") == 1 and message in err
