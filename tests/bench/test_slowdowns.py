"""A GPU, board or processor that is throttled, busy or full is named before anything is measured."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from fake_cuda import FakeDriver, FakeEngine, FakeRuntime
from fake_nvml import Gpu, fake_pynvml

from seg_bench.candidate import ENGINE, Candidate
from seg_bench.doctor import host
from seg_bench.doctor.facts import Facts
from seg_bench.doctor.found import Board, Failed, GpuState, Memory
from seg_bench.doctor.gather import put_together
from seg_bench.doctor.gpu_state import read_gpu_state
from seg_bench.doctor.probe import PROBES
from seg_bench.doctor.slowdowns import slowdowns
from seg_bench.reproduce.device import examine_device
from seg_bench.reproduce.screen import plan_text
from seg_bench.run.options import RunOptions
from seg_bench.run.rounds import time_rows
from seg_bench.run.rows import Row
from seg_runtime.engines import gpu
from seg_runtime.engines.cuda import Cuda
from seg_runtime.engines.tensorrt_api import load_tensorrt
from seg_runtime.engines.tensorrt_engine import TensorRtEngine, _log
from seg_runtime.errors import MissingExtraError
from seg_runtime.spec import ModelSpec, TensorSpec

MACHINES = Path(__file__).parents[1] / "data" / "doctor"
GIB = 2**30
LINE = ModelSpec(
    "line",
    1,
    "semantic",
    "unet",
    (TensorSpec("x", "float32", (3,)),),
    (TensorSpec("y", "float32", (3,)),),
    backend="tensorrt",
    max_batch_size=4,
)
FREE = GpuState(Memory(24 * GIB, 23 * GIB), 0, ())


def recorded(machine: str, **changes: Any) -> Facts:
    answers = json.loads((MACHINES / machine / "answers.json").read_text())
    return replace(put_together(MACHINES / machine, answers), **changes)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (FREE, []),
        (replace(FREE, busy_percent=None, memory=None), []),
        (
            replace(FREE, limits=("power cap", "temperature")),
            ["GPU's clock is throttled: power cap, temperature"],
        ),
        (replace(FREE, busy_percent=93), ["the GPU is busy: 93 % used by other processes"]),
        (
            replace(FREE, memory=Memory(8 * GIB, int(2.1 * GIB))),
            ["2.1 of 8.0 GiB of the GPU's memory are free"],
        ),
        (Failed("gave no answer in time"), []),
        (None, []),
    ],
)
def test_a_gpu_that_is_throttled_busy_or_full_is_named(state: Any, expected: list[str]) -> None:
    found = slowdowns(recorded("server-gpu", gpu_state=state))
    assert len(found) == len(expected)
    assert all(text in line for text, line in zip(expected, found, strict=True))


def test_the_plan_of_reproduce_shows_it_before_the_networks() -> None:
    facts = recorded("server-gpu", gpu_state=replace(FREE, limits=("power cap",)), load=40.0)
    text = plan_text((), examine_device(facts), 600)
    assert "the GPU's clock is throttled: power cap\n" in text
    assert "the processor is busy: load average 40.0 on cores: 64\n" in text


@pytest.mark.parametrize(("load", "lines"), [(32.0, 0), (32.1, 1), (Failed("no /proc/loadavg"), 0)])
def test_a_load_above_half_of_the_cores_is_named(load: Any, lines: int) -> None:
    assert len(slowdowns(recorded("server-gpu", load=load))) == lines


@pytest.mark.parametrize(("mode", "lines"), [("15W", 1), ("MAXN_SUPER", 0), (None, 0)])
def test_a_jetson_says_what_nvpmodel_limits_it_to(mode: str | None, lines: int) -> None:
    found = slowdowns(recorded("orin-jetpack-6.2", board=Board("36.4.3", "6.2", mode)))
    assert found == ["the board is limited to 15W by nvpmodel"] * lines


def test_memory_of_a_jetson_is_that_of_its_board() -> None:
    state = replace(FREE, memory=Memory(8 * GIB, GIB))
    facts = recorded("orin-jetpack-6.2", gpu_state=state, memory=Memory(8 * GIB, 3 * GIB))
    assert slowdowns(facts) == ["3.0 of 8.0 GiB of the board's memory are free"]


def test_the_power_mode_is_read_from_the_files_of_nvpmodel(tmp_path: Path) -> None:
    for path, text in (
        ("etc/nv_tegra_release", (MACHINES / "orin-jetpack-6.2/etc/nv_tegra_release").read_text()),
        ("etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"),
        ("var/lib/nvpmodel/status", "pmode:0002\n"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    board = host.read_board(tmp_path)
    assert board is not None and board.power_mode == "MAXN_SUPER"
    (tmp_path / "var/lib/nvpmodel/status").write_text("pmode:0007\n")
    board = host.read_board(tmp_path)
    assert board is not None and board.power_mode is None


def test_nvml_is_asked_about_the_device_that_cuda_takes() -> None:
    idle = Gpu("A")
    used = Gpu("B", memory=(8 * GIB, 2 * GIB), busy=93, reasons=0x4 | 0x20 | 0x40 | 0x1)
    state = read_gpu_state(fake_pynvml([idle, used]), "0000:66:00.0")
    assert state == GpuState(Memory(8 * GIB, 2 * GIB), 93, ("power cap", "temperature"))
    assert read_gpu_state(fake_pynvml([idle]), "0000:65:00.0") == GpuState(Memory(8 * GIB, 8 * GIB), 0, ())
    assert read_gpu_state(fake_pynvml([idle]), "0000:99:00.0") is None
    assert read_gpu_state(fake_pynvml([idle], driver=False), "0000:65:00.0") is None


def test_what_an_older_driver_or_a_part_of_a_gpu_does_not_know_is_none() -> None:
    old = Gpu("A", busy=None, reasons=0x80, event_reasons=False)
    state = read_gpu_state(fake_pynvml([old]), "0000:65:00.0")
    assert state is not None
    assert (state.busy_percent, state.limits) == (None, ("power brake",))


def test_probe_asks_only_where_cuda_finds_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml([Gpu("A", busy=7)]))
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: FakeDriver())
    assert PROBES["gpu_state"]().busy_percent == 7
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingExtraError):
        PROBES["gpu_state"]()
    monkeypatch.setattr(gpu.ctypes, "CDLL", lambda name: FakeDriver(devices=0))
    assert PROBES["gpu_state"]() is None


class EngineWorker:
    """A process of a row that calls an engine on a GPU with room for so many allocations."""

    def __init__(self, allocations: int | None) -> None:
        runtime = FakeRuntime()
        tensorrt = load_tensorrt("tensorrt-rtx")
        log = _log(tensorrt.module)
        self.engine = TensorRtEngine(
            Path("model.plan"), LINE, tensorrt, FakeEngine(runtime), Cuda(runtime), log
        )
        runtime.allocations_left = allocations

    def time(self, samples: list[int]) -> dict[str, float]:
        self.engine.run({"x": np.zeros((1, 3), np.float32)})
        return dict.fromkeys(("preprocess", "infer", "postprocess", "total"), 1.0)

    def peak_memory_mib(self) -> float:
        return 100.0

    def engine_now(self) -> str:
        return self.engine.about


def test_a_row_that_finds_no_room_on_the_gpu_fails_alone_with_its_error() -> None:
    full, roomy = (
        Row(
            Candidate(name, "in-process", ENGINE, "", "", ("a",)),
            _worker=cast("Any", EngineWorker(allocations)),
        )
        for name, allocations in (("large", 1), ("small", None))
    )
    time_rows(
        RunOptions(Path(), Path(), repeats=2, warm_up=1), [full, roomy], None, lambda what, done, total: None
    )
    assert full.failure == "model 'line' failed: CUDA: out of memory (cudaMalloc)"
    assert roomy.failure is None
    assert roomy.latency is not None and len(roomy.latency.total) == 2
