"""What a report leaves alone: the records that it is made of; and what a spreadsheet must not compute."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench_records import make_run
from click.testing import Result
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.record_files import read_run, write_run
from seg_bench.report.csv_report import to_csv
from seg_runtime.errors import BadInputError


@pytest.mark.parametrize("form", ["json", "csv", "markdown", "html"])
def test_a_report_never_replaces_a_record(tmp_path: Path, form: str) -> None:
    record, other, link = (tmp_path / name for name in ("run.json", "other.json", "link.json"))
    for path in (record, other):
        write_run(make_run(), path)
    link.symlink_to(record)
    for out in (record, other, link):
        result = CliRunner().invoke(app, ["report", str(record), "-o", str(out), "--format", form])
        assert isinstance(result.exception, BadInputError) and "is a record" in str(result.exception)
    assert read_run(record) == read_run(other) == make_run()


def test_text_that_begins_as_a_formula_is_no_formula() -> None:
    run = make_run()
    names = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1")
    records = tuple(replace(run.records[0], model=replace(run.records[0].model, name=name)) for name in names)
    lines = list(csv.DictReader(io.StringIO(to_csv([replace(run, records=records)]))))
    assert {line["model"] for line in lines} == {f"'{name}" for name in names}
    assert all(not value.startswith(("=", "+", "@")) for line in lines for value in line.values() if value)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder of three records, two of them damaged."""
    folder = tmp_path / "records"
    write_run(make_run(), folder / "good.json")
    broken = json.loads((folder / "good.json").read_text())
    broken["records"][0]["latency"]["total"] = "soon"
    (folder / "broken.json").write_text(json.dumps(broken))
    (folder / "cut.json").write_text((folder / "good.json").read_text()[:2000])
    return folder


def test_damaged_records_of_a_folder_are_left_out_of_its_report(damaged: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.csv"
    result = CliRunner().invoke(app, ["report", str(damaged), "-o", str(out)])
    assert result.exit_code == 2
    assert result.stderr.count("left out: ") == 2 and "2 of 3 records were left out" in result.stderr
    assert out.read_text() == to_csv([make_run()])


@pytest.mark.parametrize(
    ("command", "count"),
    [(["suggest", "{damaged}"], "2 of 3"), (["compare", "{damaged}", "{damaged}/good.json"], "2 of 4")],
)
def test_other_commands_go_on_without_damaged_records(damaged: Path, command: list[str], count: str) -> None:
    def call(folder: Path) -> Result:
        return CliRunner().invoke(app, [part.format(damaged=folder) for part in command])

    result = call(damaged)
    assert result.exit_code == 2
    assert result.stderr.count("left out: ") == 2 and f"{count} records were left out" in result.stderr
    for name in ("broken.json", "cut.json"):
        (damaged / name).unlink()
    whole = call(damaged)
    assert (whole.exit_code, whole.stderr, whole.stdout) == (0, "", result.stdout)
