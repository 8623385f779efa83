"""Power meters: recorded lines of Jetsons, a fake NVML and jtop, a tree of RAPL counters, an own clock."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from fake_nvml import Gpu, fake_pynvml

from seg_bench.power import Meters, measure_energy
from seg_bench.power.jtop_meter import open_jtop, rails_mw
from seg_bench.power.meter import Integrator
from seg_bench.power.nvml import open_nvml
from seg_bench.power.rapl import RaplMeter, open_rapl, package_folders
from seg_bench.power.tegrastats import board_power, open_tegrastats, parse_rails_mw

LOGS = Path(__file__).parents[1] / "data" / "tegrastats"
NO_MODULE = None
"""In `sys.modules`: an import of it raises ImportError."""


class Clock:
    """Seconds that pass only when somebody waits."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class FakeMeter:
    """Draws 10 W, and 40 W from the moment `busy` is set."""

    source, covers = "RAPL", "fake"

    def __init__(self, clock: Clock) -> None:
        self._clock, self._joules, self._then = clock, 0.0, clock()
        self.busy = False

    def energy_j(self) -> float | None:
        self._joules += (40.0 if self.busy else 10.0) * (self._clock() - self._then)
        self._then = self._clock()
        return self._joules

    def close(self) -> None:
        """Nothing to do."""


# Energy of a block of calls


def test_energy_is_of_the_calls_alone_and_the_idle_power_beside_it() -> None:
    clock = Clock()
    meter = FakeMeter(clock)
    asked: list[float] = []

    def run_for(seconds: float) -> int:
        meter.energy_j()
        meter.busy = True
        asked.append(seconds)
        clock.sleep(seconds + 0.5)  # the last call ends late
        return 5

    energy = measure_energy(run_for, 4, meter, 2.0, 1.0, clock=clock, sleep=clock.sleep)
    assert energy is not None and energy.source == "RAPL"
    assert (energy.mean_w, energy.idle_w) == (pytest.approx(40), pytest.approx(10))
    assert energy.joules_per_image == pytest.approx(40 * 2.5 / 20)
    assert asked == [0.3, 2.0], "the first calls are not measured: the clocks have to rise"


@pytest.mark.parametrize("reading", [None, 7.0])
def test_a_meter_that_does_not_tell_gives_no_energy_rather_than_0(reading: float | None) -> None:
    clock = Clock()

    def run_for(seconds: float) -> int:
        clock.sleep(seconds)
        return 1

    meter = SimpleNamespace(source="NVML", covers="", energy_j=lambda: reading, close=lambda: None)
    assert measure_energy(run_for, 1, meter, clock=clock, sleep=clock.sleep) is None


def test_samples_hold_until_the_next_and_a_source_that_falls_silent_tells_nothing() -> None:
    clock = Clock()
    integrator = Integrator(clock)
    assert integrator.energy_j() is None
    for power_w, seconds in ((10.0, 0.5), (30.0, 0.25), (20.0, 0.1)):
        integrator.add(power_w)
        clock.sleep(seconds)
    assert integrator.energy_j() == pytest.approx(10 * 0.5 + 30 * 0.25 + 20 * 0.1)
    clock.sleep(5)
    assert integrator.energy_j() is None


# tegrastats


@pytest.mark.parametrize(
    ("log", "watts", "covers"),
    [
        ("orin-vdd-in", [12.479, 4.824], "VDD_IN"),
        ("agx-orin-jetpack-5", [2.399 + 0.400 + 4.032], "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
        ("agx-orin-l4t-36.4.4", [8.726, 8.626, 8.726], "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
        ("agx-orin-jetpack-7.2", [4.385 + 1.196 + 5.552], "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
        ("thor-idle", [16.802], "VIN"),
        ("thor-jetpack-7.2", [87.426], "VIN"),
    ],
)
def test_the_whole_board_is_read_from_recorded_lines(log: str, watts: list[float], covers: str) -> None:
    lines = (LOGS / f"{log}.log").read_text().splitlines()
    powers = [board_power(parse_rails_mw(line)) for line in lines]
    assert [power and power[0] for power in powers] == pytest.approx(watts)
    assert {power and power[1] for power in powers} == {covers}


def test_rails_of_thor_are_the_present_ones_and_not_means_or_clocks() -> None:
    rails = parse_rails_mw((LOGS / "thor-jetpack-7.2.log").read_text())
    assert rails == {"VDD_GPU": 37528, "VDD_CPU_SOC_MSS": 18961, "VIN_SYS_5V0": 18331, "VIN": 87426}
    assert parse_rails_mw("VDD_GPU -392mW/-392mW VIN 15004mW/15096mW") == {"VDD_GPU": -392, "VIN": 15004}


@pytest.mark.parametrize(
    "line", ["", "tegrastats: no such device", "RAM 1/2MB GR3D_FREQ 45% VDD_GPU_SOC 2171mW"]
)
def test_lines_without_the_power_of_the_whole_are_no_measurement(line: str) -> None:
    assert board_power(parse_rails_mw(line)) is None


def program(folder: Path, text: str) -> None:
    path = folder / "tegrastats"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_stream_is_read_while_it_runs_and_ended_with_the_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LOGS / "orin-vdd-in.log"
    program(tmp_path, f'echo "$$ $@" > {tmp_path}/started\nwhile true; do head -1 {log}; sleep 0.02; done\n')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    meter = open_tegrastats()
    assert meter is not None and (meter.source, meter.covers) == ("tegrastats", "VDD_IN")
    before_j, start = meter.energy_j(), time.monotonic()
    time.sleep(0.3)
    after_j, spent_s = meter.energy_j(), time.monotonic() - start
    assert before_j is not None and after_j is not None
    assert (after_j - before_j) / spent_s == pytest.approx(12.479, rel=0.05)
    meter.close()
    pid, *arguments = (tmp_path / "started").read_text().split()
    assert arguments == ["--interval", "100"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.parametrize("text", ["exit 1\n", "echo RAM 1/2MB\n"])
def test_tegrastats_that_tells_no_power_is_no_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    program(tmp_path, text)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert open_tegrastats() is None


# jtop


def fake_jtop(powers: list[dict[str, object]], fault: type[Exception] | None = None) -> ModuleType:
    """The module `jtop`, whose service answers with these, the last one again and again."""
    module = ModuleType("jtop")

    class JtopException(Exception):  # noqa: N818 - its name there
        pass

    class Jtop:
        def __init__(self, interval: float) -> None:
            self.power: dict[str, object] = {}
            self.closed = False

        def start(self) -> None:
            if fault:
                raise JtopException("the service is not active") if fault is Exception else fault()

        def ok(self) -> bool:
            time.sleep(0.01)
            if "gone" in powers[0]:
                raise JtopException("Lost connection with jtop server")
            self.power = powers.pop(0) if len(powers) > 1 else powers[0]
            return not self.closed

        def close(self) -> None:
            self.closed = True

    module.JtopException, module.jtop = JtopException, Jtop  # type: ignore[attr-defined]
    return module


def rail(milliwatts: int) -> dict[str, int]:
    return {"volt": 5000, "curr": milliwatts // 5, "power": milliwatts, "avg": milliwatts}


def test_jtop_on_thor_is_the_input_and_not_the_sum_of_all_rails(monkeypatch: pytest.MonkeyPatch) -> None:
    rails = {name: rail(mw) for name, mw in (("VDD_GPU", 30000), ("VIN", 87426), ("VIN_SYS_5V0", 18331))}
    old = {"rail": rails, "tot": {"power": 135757, "avg": 135757}}
    new = {"rail": {"VDD_GPU": rail(30000)}, "tot": {"name": "VIN", **rail(87426)}}
    assert board_power(rails_mw(old)) == board_power(rails_mw(new)) == (87.426, "VIN")
    assert rails_mw({}) == rails_mw(({"cur": 1}, {})) == {}
    monkeypatch.setitem(sys.modules, "jtop", fake_jtop([{}, old]))
    meter = open_jtop()
    assert meter is not None and (meter.source, meter.covers) == ("jtop", "VIN")
    assert meter.energy_j() is not None
    meter.close()


@pytest.mark.parametrize("fault", [Exception, PermissionError])
def test_jtop_without_its_service_is_no_meter(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    monkeypatch.setitem(sys.modules, "jtop", fake_jtop([{}], fault))
    assert open_jtop() is None


def test_jtop_whose_service_goes_away_tells_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    powers: list[dict[str, object]] = [{"rail": {"VDD_IN": rail(5000)}, "tot": {}}, {"gone": True}]
    monkeypatch.setitem(sys.modules, "jtop", fake_jtop(powers))
    monkeypatch.setattr("seg_bench.power.meter._STALE_S", 0.05)
    meter = open_jtop()
    assert meter is not None and meter.covers == "VDD_IN"
    time.sleep(0.2)
    assert meter.energy_j() is None
    meter.close()


# RAPL


def domain(powercap: Path, name: str, label: str, energy_uj: int, range_uj: int = 1_000_000) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    return folder


def test_rapl_adds_packages_up_and_no_part_of_a_package(tmp_path: Path) -> None:
    first = domain(tmp_path, "intel-rapl:0", "package-0", 100)
    core = domain(tmp_path, "intel-rapl:0:0", "core", 50)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 200)
    domain(tmp_path, "intel-rapl:2", "psys", 900)
    (tmp_path / "intel-rapl").mkdir()
    assert package_folders(tmp_path) == (first, second)
    meter = open_rapl(tmp_path)
    assert meter is not None and meter.covers == "package-0 + package-1"
    assert meter.energy_j() == 0
    for folder, energy_uj in ((first, 500_100), (core, 400_050), (second, 250_200)):
        (folder / "energy_uj").write_text(f"{energy_uj}\n")
    assert meter.energy_j() == pytest.approx(0.75)


def test_rapl_counter_that_starts_again_goes_on_counting(tmp_path: Path) -> None:
    folder = domain(tmp_path, "intel-rapl:0", "package-0", 900_000)
    meter = RaplMeter((folder,))
    readings = []
    for energy_uj in (950_000, 50_000, 40_000):  # past its range twice
        (folder / "energy_uj").write_text(str(energy_uj))
        readings.append(meter.energy_j())
    assert readings == pytest.approx([0.05, 0.15, 1.14])


def test_rapl_that_may_not_be_read_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = domain(tmp_path, "intel-rapl:0", "package-0", 1)
    read_text = Path.read_text

    def guarded(path: Path, *arguments: str | None, **options: str | None) -> str:
        if path == folder / "energy_uj":  # tests may run as root, whom no file refuses
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **options)

    meter = RaplMeter((folder,))
    monkeypatch.setattr(Path, "read_text", guarded)
    assert open_rapl(tmp_path) is None
    assert meter.energy_j() is None


# NVML


@pytest.fixture
def no_meters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing measures power."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr("seg_bench.power.meters.open_rapl", lambda: None)
    for module in ("jtop", "pynvml"):
        monkeypatch.setitem(sys.modules, module, NO_MODULE)


def test_gpu_memory_is_of_the_rows_processes_on_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu("A", {10: 300 * 2**20, 99: 5 * 2**30}, 0), Gpu("B", {11: 200 * 2**20}, 0)]
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(gpus))
    nvml = open_nvml()
    assert nvml is not None
    assert nvml.memory_mib({10, 11, 12}) == 500
    assert nvml.memory_mib({12}) is None
    gpus[1].processes[11] = None  # what NVML says where it does not know
    assert nvml.memory_mib({10, 11}) is None


def test_nvml_counts_only_the_gpus_that_the_row_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [Gpu("A", {99: 1}, 0), Gpu("B", {10: 1}, 0)]
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml(gpus))
    nvml = open_nvml()
    assert nvml is not None
    meter = nvml.meter({10})
    assert meter is not None and meter.covers == "B"
    before_j, after_j = meter.energy_j(), meter.energy_j()
    assert before_j is not None and after_j == before_j + 5
    assert gpus[0].energy_mj == 0
    assert nvml.meter({12}) is None, "nobody knows which of the two"


def test_gpu_without_a_counter_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml([Gpu("Pascal", {}, None)]))
    nvml = open_nvml()
    meter = nvml.meter({10}) if nvml else None
    assert meter is not None and meter.covers == "Pascal"
    start, before_j = time.monotonic(), meter.energy_j()
    time.sleep(0.2)
    after_j, spent_s = meter.energy_j(), time.monotonic() - start
    assert before_j is not None and after_j is not None
    assert (after_j - before_j) / spent_s == pytest.approx(100, rel=0.05)
    meter.close()


def test_nvml_without_a_driver_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_pynvml([], driver=False))
    assert open_nvml() is None


# Which meter a row gets


@pytest.mark.usefixtures("no_meters")
def test_rows_on_a_gpu_are_measured_there_and_others_at_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    domain(tmp_path / "powercap", "intel-rapl:0", "package-0", 1)
    module = fake_pynvml([Gpu("RTX", {10: 2**20}, 0)])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr("seg_bench.power.meters.open_rapl", lambda: open_rapl(tmp_path / "powercap"))
    with Meters() as meters:
        assert meters.found() == ("NVML (RTX)", "RAPL (package-0)")

        def source(pids: set[int], engine: str) -> str:
            meter = meters.of_row(pids, engine)
            assert meter is not None
            return meter.source

        assert source({10}, "Triton, onnxruntime") == "NVML"
        assert source({12}, "Triton, onnxruntime") == "RAPL"
        assert source({12}, "ONNX Runtime 1.32.0, CUDA") == "NVML"
        assert source({12}, "ONNX Runtime 1.32.0, CPU; version 2 was built by TensorRT 10") == "RAPL"
        assert meters.device_memory_mib({10}) == 1
    assert module.nvml.shut == 1


@pytest.mark.usefixtures("no_meters")
def test_a_machine_without_meters_has_none() -> None:
    with Meters() as meters:
        assert meters.found() == ()
        assert meters.of_row({1}, "ONNX Runtime 1.32.0, CUDA") is None
        assert meters.of_row({1}, "ONNX Runtime 1.32.0, CPU") is None
        assert meters.device_memory_mib({1}) is None
