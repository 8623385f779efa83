"""`seg-bench reproduce` end to end, with a network and a budget that are small."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sam2_small
import torch
from typer.testing import CliRunner

from seg_bench.candidate import PYTORCH
from seg_bench.cli import app
from seg_bench.record_files import read_run
from seg_bench.reproduce import driver, plan
from seg_bench.reproduce.catalogue import ROWS, TableRow
from seg_bench.reproduce.device import examine_device
from seg_bench.reproduce.driver import Reproduction
from seg_bench.reproduce.images import find_images
from seg_bench.reproduce.options import ReproduceOptions
from seg_bench.reproduce.prepare import export_row
from seg_bench.reproduce.table import table_lines
from seg_bench.run import agreements
from seg_export.checkpoints.checkpoint import load_checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.families.sam2.network import VARIANTS
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
    monkeypatch.setattr(plan, "_INT8_FAMILIES", ())
    # Compiled PyTorch is a row where the processor has bfloat16, which not every machine has.
    monkeypatch.setattr(
        driver, "examine_device", lambda facts: replace(examine_device(facts), server=False, compiles=False)
    )


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
    facts = json.loads((out / "environment.json").read_text())["facts"]
    assert facts["machine"] and facts["auto_fp32"], "also what the plan did without"
    assert "Tiny U-Net: measured" in (out / "log.txt").read_text()


@pytest.mark.full
@pytest.mark.server
def test_int8_and_a_local_triton_are_lines_of_the_table(
    tmp_path: Path, xray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_INT8_FAMILIES", ("unet",))
    monkeypatch.setattr(
        driver, "examine_device", lambda facts: replace(examine_device(facts), compiles=False)
    )
    work = Reproduction(options(tmp_path / "out", data=(xray_folder,)))
    assert [each.missing for each in work.plan] == [("fp32", "int8")]
    assert work.cut == ""
    (run,) = work.run(ignore)
    assert work.missing == []
    found = [(it.where, it.runtime, it.model.precision) for it in run.records]
    assert found == [
        ("in-process", PYTORCH, "fp32"),
        ("in-process", "ONNX Runtime", "fp32"),
        ("shared-memory", "Triton", "fp32"),
        ("in-process", "ONNX Runtime", "int8"),
        ("shared-memory", "Triton", "int8"),
    ]
    for record in run.records:
        assert record.agreement and record.agreement.lowest > 0.97
        assert record.throughput and record.throughput.batch in (1, 2, 4, 8)
        assert record.throughput.images_per_s > 0
    assert run.machine.matrix_gflops == work.device.gflops > 0
    lines = table_lines([run])
    assert [line.engine for line in lines][1:3] == ["ONNX Runtime, fp32", "shared memory, fp32"]
    infer = run.records[1].latency
    assert infer
    rate = TINY.gflop / (infer.percentile(50, "infer") / 1000) / work.device.gflops
    assert lines[1].matrix_share == f"{rate:.0%}"
    assert lines[2].matrix_share == "-"


@pytest.mark.full
def test_engines_are_built_where_tensorrt_is_and_one_that_fails_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[tuple[str, str]] = []

    def build(row: TableRow, precision: str, repo: Path) -> None:
        built.append((row.key, precision))
        raise EdgesegError("TensorRT for RTX does not build for compute capability 9.0")

    monkeypatch.setattr(driver, "build_row", build)
    work = Reproduction(replace(options(tmp_path / "out"), engines=("onnxruntime", "tensorrt")))
    (run,) = work.run(ignore)
    assert built == [("tiny", "fp32"), ("tiny", "fp16")]
    fp32, fp16 = map(str, work.missing)
    assert fp32.startswith("Tiny U-Net, fp32, TensorRT: TensorRT for RTX does not build")
    assert fp16.startswith("Tiny U-Net, fp16, TensorRT: ")
    failed = [record for record in run.records if record.failure]
    assert [record.settings.engine for record in failed] == ["tensorrt", "tensorrt"]
    assert [record.runtime for record in run.records if record.latency] == [
        *(PYTORCH, "ONNX Runtime", "ONNX Runtime")
    ]


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


@pytest.mark.full
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


@pytest.mark.full
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
    small_sam2_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (out / "work" / "weights").mkdir(parents=True)
    shutil.copy(small_sam2_folder / "weights.pth", out / "work" / "weights" / "sam2.pth")
    row = replace(ROWS["sam2.1_tiny"], key="sam2", title="S", gflop=1, most_images=1)
    monkeypatch.setitem(ROWS, "sam2", row)
    work = Reproduction(replace(options(out), rows=("sam2",), repo=small_sam2_folder / "repo"))
    assert [(each.state, each.missing) for each in work.plan] == [("to do", ())]
    runs = work.run(ignore)
    assert work.missing == []
    (run,) = runs
    assert {(record.model.name, record.runtime) for record in run.records} == {
        (name, runtime)
        for name in ("sam2", "sam2_track1", "sam2_track7")
        for runtime in (PYTORCH, "ONNX Runtime")
    }
    for record in run.records:
        assert record.agreement and record.agreement.lowest > 0.995
        assert record.latency and len(record.latency.total) >= 4
    lines = [line.split(" | ")[:2] for line in (out / "table.md").read_text().splitlines()]
    assert ["| S, a frame with 7 memories (random weights)", "ONNX Runtime, fp32"] in lines


def test_random_weights_of_a_sam2_are_exported_by_which_objects_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = []
    monkeypatch.setattr("seg_export.export.export_models", lambda *given, **named: exported.append(given))
    monkeypatch.setitem(VARIANTS, "sam2.1_tiny", sam2_small.ARGUMENTS)
    images = find_images((), tmp_path / "drawn")["masks"]
    export_row(ROWS["sam2.1_tiny"], "fp16", tmp_path / "repo", tmp_path, images)
    assert exported == [(tmp_path / "sam2.1_tiny.pth", tmp_path / "repo", "sam2.1_tiny_fp16")]
    checkpoint = load_checkpoint(tmp_path / "sam2.1_tiny.pth")
    assert (checkpoint.family, checkpoint.metadata["weights"]) == ("sam2", "random")
    random, made = random_checkpoint("sam2", sam2_small.ARGUMENTS).state_dict, checkpoint.state_dict
    changed = [name for name, tensor in made.items() if not torch.equal(tensor, random[name])]
    assert changed == ["sam_mask_decoder.pred_obj_score_head.layers.2.bias"]
    assert made[changed[0]].item() == 10
