"""`seg-bench reproduce` end to end, with a network and a budget that are small."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sam2_small
from typer.testing import CliRunner

from seg_bench.candidate import PYTORCH
from seg_bench.cli import app
from seg_bench.records import read_run
from seg_bench.reproduce import driver
from seg_bench.reproduce.catalogue import ROWS, TableRow
from seg_bench.reproduce.driver import ReproduceOptions, Reproduction
from seg_bench.run import agreements
from seg_runtime.bundle import write_bundle
from seg_runtime.errors import EdgesegError

pytestmark = pytest.mark.slow  # Exports, and processes that load PyTorch.

ARGUMENTS = {"in_channels": 1, "num_classes": 1, "features": [4, 8]}
TINY = TableRow("tiny", "Tiny U-Net", "shipped", "unet", "random", 0.2, 2, ARGUMENTS)


def ignore(what: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of 1,000 weights, timed for a moment."""
    monkeypatch.setitem(ROWS, "tiny", TINY)
    monkeypatch.setattr(driver, "MIN_CALLS", 4)
    monkeypatch.setattr(driver, "MIN_S", 0.1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduced") / "out"


def options(out: Path, **changes: object) -> ReproduceOptions:
    return ReproduceOptions(out, 300.0, ("tiny",), ("onnxruntime",), **changes)  # type: ignore[arg-type]


def test_a_network_is_exported_compared_timed_and_shown(out: Path) -> None:
    work = Reproduction(options(out))
    assert [(each.state, each.missing) for each in work.plan] == [("to do", ("fp32",))]
    (run,) = work.run(ignore)
    assert work.missing == []
    base, ours = run.records
    assert (base.runtime, ours.runtime) == (PYTORCH, "ONNX Runtime")
    for record in run.records:
        assert record.agreement and record.agreement.lowest > 0.995
        assert record.latency and len(record.latency.total) >= 4
        assert record.early is None
        assert record.accuracy is None  # Nobody labelled the drawn images.
        assert record.model.weights == "random"
    assert run == read_run(out / "records" / "tiny.json")
    page = (out / "table.md").read_text()
    assert "| Tiny U-Net (random weights) | ONNX Runtime, fp32 | 1.0000 | - |" in page
    assert "random weights" in (out / "report.html").read_text()
    assert json.loads((out / "environment.json").read_text())["facts"]["machine"]
    assert "Tiny U-Net: measured" in (out / "log.txt").read_text()


def test_what_is_measured_is_not_measured_again(out: Path) -> None:
    written = (out / "records" / "tiny.json").stat().st_mtime_ns
    work = Reproduction(options(out))
    assert [each.state for each in work.plan] == ["measured"]
    assert len(work.run(ignore)) == 1
    assert (out / "records" / "tiny.json").stat().st_mtime_ns == written


def test_a_bundle_is_measured_without_an_export(
    out: Path, tmp_path: Path, xray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "bundle.tar", out / "work" / "triton_repo", ["tiny"], [xray_folder])
    monkeypatch.setattr(driver, "export_row", pytest.fail)
    monkeypatch.setattr("seg_bench.reproduce.device.find_spec", lambda name: None)
    work = Reproduction(options(tmp_path / "there", bundle=tmp_path / "bundle.tar"))
    (run,) = work.run(ignore)
    (record,) = run.records  # There is no PyTorch to compare with.
    assert record.runtime == "ONNX Runtime"
    assert record.data.name == "montgomery"
    assert record.agreement and record.agreement.lowest == 1


def test_an_engine_whose_masks_differ_is_not_timed(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreements, "REQUIRED_IOU", {"fp32": 1.1})
    work = Reproduction(options(tmp_path / "out", repo=out / "work" / "triton_repo"))
    assert work.run(ignore) == []
    weights, failed = work.missing
    assert str(weights) == "Tiny U-Net, PyTorch: its random weights are not here, which only an export makes"
    assert "has an IoU of 1.0000 with that of the fp32 graph, and fp32 must have 1.1" in str(failed)


def test_a_network_that_fails_is_left_out_and_the_next_one_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = TableRow("broken", "Broken", "shipped", "unet", "random", 0.2, 2, {"in_channels": 0})
    monkeypatch.setitem(ROWS, "broken", broken)
    rows = ReproduceOptions(tmp_path / "out", 300.0, ("broken", "tiny"), ("onnxruntime",))
    work = Reproduction(rows)
    assert len(work.run(ignore)) == 1
    assert [missing.title for missing in work.missing] == ["Broken"]
    assert "- not measured: Broken: " in (tmp_path / "out" / "table.md").read_text()


def test_ctrl_c_keeps_what_there_is_and_the_next_call_goes_on(tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if what.endswith("timing"):
            raise KeyboardInterrupt

    work = Reproduction(options(tmp_path / "out"))
    with pytest.raises(KeyboardInterrupt):
        work.run(interrupt)
    assert [str(missing) for missing in work.missing] == ["Tiny U-Net: interrupted"]
    again = Reproduction(options(tmp_path / "out"))
    assert [(each.state, each.missing) for each in again.plan] == [("to do", ())]


def test_a_budget_too_small_for_a_row_says_what_it_needs(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--rows", "tiny", "--budget", "0.01s"]
    result = CliRunner().invoke(app, ["reproduce", *arguments])
    assert result.exit_code == 1
    assert "Tiny U-Net: needs about" in result.stderr
    assert "call again, or give a larger --budget" in result.stderr


def test_a_plan_is_made_at_once_and_nothing_else(tmp_path: Path) -> None:
    start = time.monotonic()
    result = CliRunner().invoke(
        app, ["reproduce", "--out", str(tmp_path / "out"), "--rows", "tiny", "--plan"]
    )
    assert result.exit_code == 0
    assert "Tiny U-Net" in result.stderr
    assert list((tmp_path / "out" / "records").iterdir()) == []
    assert time.monotonic() - start < 60


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgesegError, match=r"cannot write to .*; give another --out"):
        Reproduction(options(tmp_path / "file" / "out"))


@pytest.mark.full
def test_a_sam2_is_one_row_with_lines_for_an_image_and_two_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seg_export.models import sam2

    monkeypatch.setitem(sam2.VARIANTS, "small", sam2_small.ARGUMENTS)
    small = {"arguments": {"variant": "small"}, "gflop": 1, "export_s": 30, "most_images": 1}
    row = replace(ROWS["sam2.1_tiny"], key="sam2_s", title="S", **small)
    monkeypatch.setitem(ROWS, "sam2_s", row)
    work = Reproduction(replace(options(tmp_path / "out"), rows=("sam2_s",)))
    assert [(each.state, each.missing) for each in work.plan] == [("to do", ("fp32",))]
    runs = work.run(ignore)
    assert [str(missing) for missing in work.missing] == []
    (run,) = runs
    assert {(record.model.name, record.runtime) for record in run.records} == {
        (name, runtime)
        for name in ("sam2_s", "sam2_s_track1", "sam2_s_track7")
        for runtime in (PYTORCH, "ONNX Runtime")
    }
    for record in run.records:
        assert record.agreement and record.agreement.lowest > 0.995
        assert record.latency and len(record.latency.total) >= 4
    lines = [line.split(" | ")[:2] for line in (tmp_path / "out" / "table.md").read_text().splitlines()]
    assert ["| S, a frame with 7 memories (random weights)", "ONNX Runtime, fp32"] in lines
    again = Reproduction(replace(options(tmp_path / "out"), rows=("sam2_s",)))
    assert [each.state for each in again.plan] == ["measured"]
