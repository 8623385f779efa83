"""The JSON schema of records says what `read_run` takes; an independent validator reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
from bench_records import example_run, full_run, make_run, make_sam_record
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.json_fields import to_json
from seg_bench.json_schema import records_schema
from seg_bench.record_files import READABLE, read_run
from seg_bench.records import Run
from seg_runtime.errors import BadInputError

ROOT = Path(__file__).parents[2]
COMMITTED = [
    path for path in sorted((ROOT / "bench" / "results").glob("*.json"))
    if json.loads(path.read_text(encoding="utf-8")).get("schema") in READABLE
]  # fmt: skip


@pytest.fixture(scope="module")
def validate() -> Any:
    return fastjsonschema.compile(records_schema())


def test_the_committed_schema_is_what_the_command_prints() -> None:
    printed = CliRunner().invoke(app, ["schema"]).stdout
    assert (ROOT / "docs" / "records.schema.json").read_text(encoding="utf-8") == printed, "run `make tables`"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_committed_records_are_valid_and_readable(path: Path, validate: Any) -> None:
    validate(json.loads(path.read_text(encoding="utf-8")))
    read_run(path)


def test_there_are_committed_records() -> None:
    assert len(COMMITTED) >= 8


@pytest.mark.parametrize("run", [example_run(), full_run(), make_run(make_sam_record())])
def test_what_is_written_today_is_valid(run: Run, validate: Any) -> None:
    validate(to_json(run))


def broken(change: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(to_json(full_run())))
    change(document)
    return document


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.update(schema="edgeseg-bench/3"),
        lambda it: it.pop("machine"),
        lambda it: it.update(extra=1),
        lambda it: it["machine"].update(cores="two"),
        lambda it: it["machine"].update(cores=2.5),
        lambda it: it["records"][0]["model"].pop("name"),
        lambda it: it["records"][0]["latency"].update(total=[1.0, "fast"]),
        lambda it: it["records"][0]["energy"].update(mean_w=None),
        lambda it: it["records"][0].update(loads={}),
        lambda it: it.update(complete="yes"),
    ],
)
def test_schema_and_reader_refuse_the_same_files(change: Any, validate: Any, tmp_path: Path) -> None:
    document = broken(change)
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        validate(document)
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BadInputError, match=r"run\.json"):
        read_run(path)
