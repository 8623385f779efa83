"""Energy and GPU memory of the rows of a run, with a tegrastats and an NVML that are made up."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from seg_bench.candidate import ENGINE, Candidate
from seg_bench.cli import app
from seg_bench.power import PowerMeter, measure_energy
from seg_bench.record_files import read_run
from seg_bench.records import Energy
from seg_bench.run.energy_rows import device_rows
from seg_bench.run.options import RunOptions
from seg_bench.run.rows import Row
from seg_bench.run.runner import measure
from seg_bench.run.worker_process import WorkerProcess
from seg_runtime.errors import BadInputError

LINE = (Path(__file__).parents[1] / "data" / "tegrastats" / "thor-jetpack-7.2.log").read_text()
WATTS = 87.426


@dataclass(frozen=True)
class Block:
    """Calls back to back: how many, how long all of them took, and images in each."""

    calls: int
    seconds: float
    images_per_call: int


@pytest.fixture
def thor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Block]:
    """This machine, with Thor's tegrastats on PATH and blocks of tenths of seconds; those that were run."""
    program = tmp_path / "bin" / "tegrastats"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nwhile true; do echo '{LINE.strip()}'; sleep 0.05; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    blocks: list[Block] = []

    def quick(run_for: Callable[[float], int], images_per_call: int, meter: PowerMeter) -> Energy | None:
        def timed(seconds: float) -> int:
            start = time.monotonic()
            calls = run_for(seconds)
            blocks.append(Block(calls, time.monotonic() - start, images_per_call))
            return calls

        return measure_energy(timed, images_per_call, meter, seconds=0.3, idle_seconds=0.2)

    monkeypatch.setattr("seg_bench.run.energy_rows.measure_energy", quick)
    return blocks


def test_run_records_the_energy_of_a_row_where_there_is_a_meter(
    thor: list[Block], tiny_repo: Path, xray_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.json"
    options = ["--repeats", "2", "--warm-up", "1", "--batch", "2", "--limit", "3", "--threads", "1"]
    command = ["run", "--repo", str(tiny_repo), "--data", str(xray_folder), *options, "--out", str(out)]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    (record,) = read_run(out).records
    assert record.energy is not None and record.latency is not None
    assert record.energy.source == "tegrastats"
    assert record.energy.mean_w == pytest.approx(WATTS, rel=0.1)
    assert record.energy.idle_w == pytest.approx(WATTS, rel=0.1)
    # Power times the time of an image, in the block itself: the meter reads just before and after it.
    block = thor[-1]
    assert block.images_per_call == 2 and block.calls > 0
    per_image_s = block.seconds / (block.calls * 2)
    assert record.energy.joules_per_image >= record.energy.mean_w * per_image_s
    assert record.device_memory_mib is None, "a Jetson's GPU has no memory of its own"


@pytest.mark.usefixtures("thor")
def test_ctrl_c_while_energy_is_measured_keeps_the_latencies(
    monkeypatch: pytest.MonkeyPatch, tiny_repo: Path, xray_folder: Path
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seg_bench.run.energy_rows.measure_energy", interrupted)
    options = RunOptions(repo=tiny_repo, data=xray_folder, limit=1, repeats=2, warm_up=0, threads=1)
    run = measure(options)
    (record,) = run.records
    assert not run.complete and record.latency is not None and len(record.latency.total) == 2
    assert record.energy is None


@pytest.mark.parametrize(("option", "wanted"), [([], True), (["--no-energy"], False)])
def test_energy_is_measured_unless_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, option: list[str], wanted: bool
) -> None:
    asked: list[RunOptions] = []

    def stop(options: RunOptions, *_: object) -> None:
        asked.append(options)
        raise BadInputError("seen")

    monkeypatch.setattr("seg_bench.run.runner.measure", stop)
    CliRunner().invoke(app, ["run", "--data", "xrays", *option])
    assert [options.energy for options in asked] == [wanted]


class FakeWorker:
    """A process of a row that is this one."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.asked: list[Any] = []

    def hold(self, calls: list[list[int]]) -> None:
        self.asked.append(calls)

    def repeat(self, seconds: float) -> int:
        self.asked.append(seconds)
        return 1


def row_of(runtime: str, engine: str, worker: FakeWorker, images: int, batch: int) -> Row:
    samples = tuple(f"image{index}" for index in range(images))
    candidate = Candidate("unet", "in-process", runtime, "", "", samples, batch=batch)
    return Row(candidate, engine=engine, _worker=cast("WorkerProcess", worker))


def no_step(what: str, done: int, total: int) -> None:
    pass


@pytest.mark.usefixtures("thor")
def test_a_row_on_a_server_elsewhere_has_no_energy() -> None:
    ours, theirs = FakeWorker(), FakeWorker()
    here = row_of(ENGINE, "ONNX Runtime 1.32.0, CPU", ours, images=3, batch=2)
    there = row_of("Triton", "Triton, onnxruntime", theirs, images=3, batch=2)
    device_rows([here, there], None, no_step)
    assert here.energy is not None and here.failure is None
    assert (there.energy, there.device_memory_mib, there.failure) == (None, None, None)
    assert ours.asked[0] == [[0, 1], [2, 0], [1, 2], [0, 1]], "calls go round the images"
    assert theirs.asked == []


def test_gpu_memory_of_a_server_is_recorded_though_nothing_measures_its_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: Any = SimpleNamespace(pid=os.getpid())
    meters = SimpleNamespace(
        found=lambda: ("NVML (H200)",),
        device_memory_mib=lambda pids: 300.0 if os.getpid() in pids else None,
        of_row=lambda pids, engine: None,
    )
    monkeypatch.setattr("seg_bench.run.energy_rows.Meters", lambda: nullcontext(meters))
    worker = FakeWorker()
    row = row_of("Triton", "Triton, onnxruntime", worker, images=1, batch=1)
    device_rows([row], server, no_step)
    assert (row.energy, row.device_memory_mib, worker.asked) == (None, 300.0, [])
