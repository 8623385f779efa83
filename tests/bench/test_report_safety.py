"""What a report leaves alone: the records that it is made of; and what a spreadsheet must not compute."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from bench_records import make_run
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.records import read_run, write_run
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


def test_a_damaged_record_of_a_folder_is_left_out_and_the_exit_code_is_2(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    write_run(make_run(), folder / "good.json")
    broken = json.loads((folder / "good.json").read_text())
    broken["records"][0]["latency"]["total"] = "soon"
    (folder / "broken.json").write_text(json.dumps(broken))
    (folder / "cut.json").write_text((folder / "good.json").read_text()[:2000])
    out = tmp_path / "report.csv"
    result = CliRunner().invoke(app, ["report", str(folder), "-o", str(out)])
    assert isinstance(result.exception, BadInputError)
    assert "2 of 3 records" in str(result.exception)
    assert out.read_text() == to_csv([make_run()])
