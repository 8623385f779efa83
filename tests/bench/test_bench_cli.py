"""`seg-bench report` and `seg-bench run` as commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench_records import example_run, make_run
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.record_files import read_run, write_run
from seg_runtime.errors import BadInputError, ModelNotFoundError


def invoke(*arguments: object) -> str:
    """Standard output of a command that must succeed; errors come through as they are."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "records" / "run.json"
    write_run(example_run(), path)
    return path


def test_help_needs_only_the_thin_install() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from seg_bench.cli import app\n"
        "for command in ([], ['run'], ['report'], ['compare'], ['suggest'], ['schema'], ['doctor']):\n"
        "    assert CliRunner().invoke(app, [*command, '--help']).exit_code == 0\n"
        "heavy = {'torch', 'onnxruntime', 'cv2', 'tritonclient', 'matplotlib', 'scipy', 'psutil', 'numpy'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_a_report_needs_neither_torch_nor_scipy_nor_matplotlib(run_file: Path) -> None:
    out = run_file.with_name("report.html")
    code = (
        "import sys\n"
        "for name in ('torch', 'scipy', 'matplotlib', 'psutil', 'onnxruntime', 'onnx', 'seg_export'):\n"
        "    sys.modules[name] = None\n"
        "from seg_bench.cli import main\n"
        f"sys.argv = ['seg-bench', 'report', {str(run_file)!r}, '-o', {str(out)!r}]\n"
        "main()"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("suffix", "start"), [(".html", "<!doctype html>"), (".md", "| model |"), (".json", "{"), (".txt", " ")]
)
def test_the_form_follows_the_name_of_the_file(run_file: Path, suffix: str, start: str) -> None:
    out = run_file.parent / "new" / f"report{suffix}"
    assert invoke("report", run_file, "--out", out) == ""
    assert out.read_text(encoding="utf-8").startswith(start)


def test_a_report_goes_to_stdout_in_the_asked_form(run_file: Path) -> None:
    assert "unet_lung" in invoke("report", run_file)
    assert invoke("report", run_file, "--format", "markdown").startswith("| model |")
    assert invoke("report", run_file, "--json") == invoke("report", run_file, "-f", "json")
    assert len(json.loads(invoke("report", run_file, "--json"))["rows"]) == len(example_run().records)


def test_files_and_folders_are_put_together(run_file: Path, tmp_path: Path) -> None:
    write_run(make_run(cpu="Jetson"), tmp_path / "jetson.json")
    rows = json.loads(invoke("report", run_file.parent, tmp_path / "jetson.json", "--json"))["rows"]
    assert {row["machine"] for row in rows} == {"Example CPU, 2 cores", "Jetson, 2 cores"}


def test_a_report_that_cannot_be_made_is_one_line_and_exit_code_2(run_file: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot read"):
        invoke("report", tmp_path / "none.json")
    with pytest.raises(BadInputError, match="cannot write the report"):
        invoke("report", run_file, "-o", run_file / "report.md")
    missing = str(tmp_path / "none.json")
    code = f"import sys; from seg_bench.cli import main; sys.argv = ['', 'report', {missing!r}]; main()"
    result = run_python(code)
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot read")
    assert result.stderr.count("\n") == 1


def test_run_writes_records_and_prints_the_table(tiny_repo: Path, xray_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    common = ("--repo", tiny_repo, "--suite", "montgomery", "--data", xray_folder, "--limit", 2)
    common += ("--repeats", 2, "--warm-up", 1)
    document = json.loads(invoke("run", *common, "--models", "unet_tiny", "--out", out, "--json"))
    run = read_run(out)
    assert len(document["rows"]) == len(run.records) == 1
    assert document["rows"][0]["calls"] == 2
    assert (run.records[0].data.images, run.records[0].data.split) == (2, "montgomery, test (8 of 22)")
    assert invoke("report", out, "--json") == json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def test_run_refuses_what_it_does_not_know(tiny_repo: Path, xray_folder: Path) -> None:
    common = ("run", "--repo", tiny_repo, "--data", xray_folder)
    with pytest.raises(ModelNotFoundError, match="did you mean 'unet_tiny'"):
        invoke(*common, "--models", "unet_tin")
    with pytest.raises(BadInputError, match="choose from in-process, grpc, http, shared-memory"):
        invoke(*common, "--where", "moon")
    with pytest.raises(BadInputError, match="choose one of them"):
        invoke(*common, "--baseline", "torch", "--baseline", "torch-channels-last")
    with pytest.raises(BadInputError, match="is the decoder of a SAM or a Mask R-CNN's export: name one"):
        invoke(*common, "--baseline", "official")
    with pytest.raises(BadInputError, match="no data folder"):
        invoke("run", "--repo", tiny_repo, "--data", "nowhere")
