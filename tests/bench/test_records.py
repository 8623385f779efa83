"""Records survive the disk, and wrong files are refused with the field's name."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_records import (
    example_run,
    make_accuracy,
    make_latency,
    make_record,
    make_run,
    make_sam_record,
)

from seg_bench.machine import describe_machine, shown_command
from seg_bench.record_files import read_run, read_runs, write_run
from seg_runtime.errors import BadInputError


def changed(path: Path, change: Any) -> Path:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    write_run(make_run(), path)
    return path


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_run(example_run(), tmp_path / "deep" / "run.json")
    assert read_run(tmp_path / "deep" / "run.json") == example_run()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.json"]


def test_an_infinite_hausdorff_distance_survives_in_strict_json(tmp_path: Path) -> None:
    record = make_record(accuracy=make_accuracy(hd95=(5.0, math.inf, 7.0)))
    write_run(make_run(record), tmp_path / "run.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse)
    assert read_run(tmp_path / "run.json").records[0].accuracy == record.accuracy


def test_the_record_of_a_sam_is_read_back_and_its_lists_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "sam.json"
    write_run(make_run(make_sam_record()), path)
    assert read_run(path) == make_run(make_sam_record())
    with pytest.raises(BadInputError, match="one value per call"):
        read_run(changed(path, lambda d: d["records"][0]["latency"]["encode"].pop()))


def test_records_from_before_there_were_sams_are_still_read() -> None:
    results = Path(__file__).parents[2] / "bench" / "results"
    for record in read_run(results / "table_montgomery.json").records:
        assert record.latency and record.latency.encode is None
        assert record.settings.prompts is None


def test_records_from_before_engines_were_noted_are_still_read(tmp_path: Path) -> None:
    results = Path(__file__).parents[2] / "bench" / "results"
    path = tmp_path / "old.json"
    document = json.loads((results / "table_shenzhen.json").read_text())
    for record in document["records"]:
        record.pop("engine", None)
        record["settings"].pop("engine", None)
    path.write_text(json.dumps(document))
    assert {(record.engine, record.settings.engine) for record in read_run(path).records} == {(None, None)}


def test_every_committed_record_is_read() -> None:
    assert len(read_runs([Path(__file__).parents[2] / "bench" / "results"])) >= 6


def test_percentiles_are_those_of_the_raw_samples() -> None:
    latency = make_latency(40.0)
    assert latency.percentile(50) == np.median(latency.total)
    assert latency.percentile(99, "infer") == np.percentile(latency.infer, 99)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema="other/1"), "'schema' is 'other/1'"),
        (lambda d: d["machine"].pop("cpu"), "'machine.cpu' is missing"),
        (lambda d: d["records"][0].update(colour="red"), r"unknown field 'records\[0\].colour'"),
        (lambda d: d["records"][0]["settings"].update(batch="1"), r"'records\[0\].settings.batch' is '1'"),
        (lambda d: d["records"][0]["settings"].update(batch=True), r"settings.batch' is True"),
        (
            lambda d: d["records"][0]["latency"]["total"].append("x"),
            r"latency.total\[20\]' is 'x'; .* a number",
        ),
        (lambda d: d["records"][0]["latency"]["infer"].pop(), "one value per call"),
        (lambda d: d["records"][0]["accuracy"]["iou"].pop(), "one value per image"),
        (lambda d: d.update(records={}), "'records' is {}; it must be a list"),
        (lambda d: d.update(machine=None), "'machine' is None; it must be an object"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(run_file: Path, change: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read_run(changed(run_file, change))
    assert str(run_file) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(BadInputError, match="give files that seg-bench run wrote"):
        read_run(path)


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot read"):
        read_run(tmp_path / "none.json")
    with pytest.raises(BadInputError, match="no record files found"):
        read_runs([tmp_path])


def test_a_folder_gives_its_record_files_and_leaves_other_json_alone(run_file: Path) -> None:
    (run_file.parent / "history.json").write_text('{"loss": [1, 2]}')
    assert read_runs([run_file.parent]) == [make_run()]


def test_records_that_cannot_be_written_are_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="cannot write the records"):
        write_run(make_run(), tmp_path / "file" / "run.json")


def test_the_machine_is_described_without_host_name_or_paths() -> None:
    import platform

    machine = describe_machine()
    assert machine.cores >= 1
    assert machine.packages["numpy"] == np.__version__
    values = [machine.cpu, machine.system, machine.gpu or "", *machine.packages.values()]
    assert all(platform.node() not in value for value in values if platform.node())
    assert "/work" not in " ".join(values)


def test_a_recorded_command_hides_folders_and_hosts() -> None:
    shown = shown_command(
        [
            ".venv/bin/seg-bench",
            "run",
            "--url",
            "grpc://ward7:8001",
            "--data=/home/me/x",
            "a/b",
            "http://localhost:1",
            "http://me:secret@localhost:1",
            "../me/study",
        ]
    )
    assert shown == (
        "seg-bench run --url grpc://SERVER:8001 --data=x a/b http://localhost:1 http://localhost:1 study"
    )
