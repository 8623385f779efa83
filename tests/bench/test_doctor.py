"""What `seg-bench doctor` finds: on this machine for real, on others from their files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from io import StringIO
from pathlib import Path

import onnx
import onnxruntime
import openvino
import psutil
import pytest
from rich.console import Console
from tiny_graph import publish, semantic_graph, semantic_spec
from typer.testing import CliRunner

from seg_bench.cli import app
from seg_bench.doctor import host
from seg_bench.doctor.facts import Facts
from seg_bench.doctor.findings import Finding, examine
from seg_bench.doctor.found import (
    Board,
    Failed,
    Memory,
    OnnxRuntime,
    PowerFound,
    ServerFound,
    TensorRTFound,
)
from seg_bench.doctor.gather import ask, gather, put_together
from seg_bench.doctor.probe import GRAPH
from seg_bench.doctor.screen import print_findings
from seg_bench.power.rapl import open_rapl
from seg_runtime.connection import connect
from seg_runtime.engines.gpu import Gpu

ROOT = Path(__file__).parents[2]
MACHINES = ROOT / "tests" / "data" / "doctor"
ORIN, THOR, SERVER, BARE = "orin-jetpack-6.2", "thor-jetpack-7.2", "server-gpu", "bare-cpu"
ALL = (ORIN, THOR, SERVER, BARE)
CONTAINER = "see docs/jetson.md, 3. The server"
ORIN_WHEEL = "pip install onnxruntime-gpu --index-url https://pypi.jetson-ai-lab.io/jp6/cu126"


def answers_of(machine: str) -> dict[str, dict[str, object]]:
    """What probes answer on a machine of `tests/data/doctor`."""
    answers: dict[str, dict[str, object]] = json.loads((MACHINES / machine / "answers.json").read_text())
    return answers


def recorded(machine: str, **changes: object) -> Facts:
    """A machine of `tests/data/doctor`; its /dev/shm is no file that could be recorded."""
    facts = put_together(MACHINES / machine, answers_of(machine))
    return replace(facts, **{"shared_memory": Memory(4 * 2**30, 2**30), **changes})  # type: ignore[arg-type]


def steps(facts: Facts) -> list[str]:
    return [step for each in examine(facts).advice for step in each.steps]


def row(facts: Facts, name: str) -> Finding:
    (found,) = (each for each in examine(facts).rows if each.name == name)
    return found


def screen(facts: Facts) -> str:
    text = StringIO()
    print_findings(examine(facts), Console(file=text, width=300))
    return text.getvalue()


@pytest.fixture(scope="module")
def here() -> Facts:
    return gather()


@pytest.fixture
def fake_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules probes import before those that are installed."""
    folder = tmp_path / "modules"
    folder.mkdir()
    path = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    return folder


# This machine


@pytest.mark.slow
def test_this_machine_is_what_other_programs_say_it_is(here: Facts) -> None:
    assert not isinstance(here.machine, Failed)
    own = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    assert here.machine.cores == int(subprocess.check_output(["nproc"], env=own))
    assert here.machine.cores <= (os.cpu_count() or 1)
    assert here.machine.packages["torch"] == metadata.version("torch")
    assert isinstance(here.memory, Memory) and here.memory.total == psutil.virtual_memory().total
    assert 0 < here.memory.free <= here.memory.total
    volume = os.statvfs("/dev/shm")
    assert isinstance(here.shared_memory, Memory)
    assert here.shared_memory.total == volume.f_blocks * volume.f_frsize


@pytest.mark.slow
def test_libraries_of_this_machine_are_those_that_python_imports(here: Facts) -> None:
    assert isinstance(here.onnxruntime, OnnxRuntime)
    assert here.onnxruntime.version == onnxruntime.__version__
    assert list(here.onnxruntime.providers) == onnxruntime.get_available_providers()
    assert here.openvino == openvino.__version__.partition("-")[0]
    assert here.tensorrt_rtx == TensorRTFound(metadata.version("tensorrt-rtx-cu13-bindings"), True, True)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_auto_is_what_a_session_takes_for_a_published_model(
    here: Facts, tmp_path: Path, precision: str
) -> None:
    publish(tmp_path, semantic_spec(precision=precision), semantic_graph())
    with connect(tmp_path) as session:
        assert getattr(here, f"auto_{precision}") == session.engine("tiny")


def test_server_is_the_one_that_seg_serve_starts(here: Facts) -> None:
    assert isinstance(here.server, ServerFound)
    if here.server.version is None:
        assert here.server.executable == shutil.which("tritonserver")
    else:
        assert here.server.version == metadata.version("nvidia-pytriton")
        assert Path(here.server.executable).is_file()


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs nvidia-smi, that is an NVIDIA GPU")
def test_gpu_is_the_one_that_nvidia_smi_names(here: Facts) -> None:
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    name, capability, driver = subprocess.check_output(query, text=True).splitlines()[0].split(", ")
    assert isinstance(here.gpu, Gpu)
    assert (here.gpu.name, here.gpu.compute_capability, here.driver) == (name, capability, driver)
    assert here.gpu.memory > 2**30


def test_graph_that_engines_are_tried_with_is_x_plus_x() -> None:
    tensors = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    node = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    graph = onnx.helper.make_graph([node], "doctor", tensors[:1], tensors[1:])
    opset = [onnx.helper.make_opsetid("", 17)]
    assert onnx.load_from_string(GRAPH) == onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)


# The command


@pytest.mark.slow
def test_command_prints_a_screen_and_ends_with_0() -> None:
    result = CliRunner().invoke(app, ["doctor"], catch_exceptions=False)
    assert result.exit_code == 0
    assert f"ONNX Runtime {onnxruntime.__version__}, CPU" in result.stdout


@pytest.mark.slow
def test_json_has_the_facts_and_the_findings() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"], catch_exceptions=False)
    document = json.loads(result.stdout)
    assert document["facts"]["memory"]["total"] == psutil.virtual_memory().total
    assert set(document["facts"]) == set(Facts.__dataclass_fields__)
    names = [each["name"] for each in document["findings"]["rows"]]
    assert {"processor", "ONNX Runtime", "seg-serve"} <= set(names)


@pytest.mark.slow
def test_command_never_imports_torch(fake_modules: Path) -> None:
    (fake_modules / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    code = "import sys; from seg_bench.cli import main; sys.argv = ['seg-bench', 'doctor', '--json']; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch was imported" not in result.stdout + result.stderr
    assert json.loads(result.stdout)["facts"]["machine"]["packages"]["torch"] == metadata.version("torch")


# What fails


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.abort()", "asking it ended with signal 6"),
        ("raise ImportError('libtbb.so.12: cannot open')", "ImportError: libtbb.so.12: cannot open"),
        ("import nowhere", "No module named 'nowhere'"),
        ("raise SystemExit(0)", "asking it ended with exit code 0"),
    ],
)
def test_library_that_ends_the_process_is_a_row_that_says_so(
    fake_modules: Path, code: str, reason: str
) -> None:
    (fake_modules / "openvino.py").write_text(code + "\n")
    facts = put_together(MACHINES / BARE, {**answers_of(BARE), **ask(["openvino"])})
    assert isinstance(facts.openvino, Failed) and reason in facts.openvino.reason
    assert row(facts, "OpenVINO") == Finding("OpenVINO", "fault", facts.openvino.reason)
    assert re.search(r"^! +OpenVINO ", screen(facts), re.MULTILINE)


def test_library_that_hangs_is_given_up(fake_modules: Path) -> None:
    (fake_modules / "openvino.py").write_text("import time\ntime.sleep(600)\n")
    assert ask(["openvino"], timeout_s=1) == {"openvino": {"failed": "gave no answer in time"}}


def test_what_a_library_prints_is_not_taken_for_its_answer(fake_modules: Path) -> None:
    (fake_modules / "openvino.py").write_text(
        "import atexit\n__version__ = '1.2-x'\nprint('hello', end='')\natexit.register(print, 'bye')\n"
    )
    assert ask(["openvino"]) == {"openvino": {"answer": "1.2"}}


def test_file_that_cannot_be_read_is_a_row_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\n")
    facts = put_together(tmp_path, answers_of(BARE))
    assert row(facts, "instructions").text == "/proc/cpuinfo lists no instruction sets"
    assert row(facts, "memory").state == row(facts, "/dev/shm").state == "fault"
    assert "meminfo" in row(facts, "memory").text


def test_nothing_at_all_can_be_learned_and_a_screen_is_shown_all_the_same() -> None:
    failed = {name: Failed(f"no {name}") for name in Facts.__dataclass_fields__}
    rows = examine(Facts(**failed)).rows  # type: ignore[arg-type]
    assert {each.state for each in rows} == {"fault"}
    assert examine(Facts(**failed)).advice == ()  # type: ignore[arg-type]


def test_answer_of_another_form_is_a_failure_of_that_fact_only() -> None:
    facts = put_together(MACHINES / BARE, {**answers_of(BARE), "onnxruntime": {"answer": {"version": 1}}})
    assert isinstance(facts.onnxruntime, Failed) and "'version' is 1" in facts.onnxruntime.reason
    assert facts.openvino is None


# Other machines


@pytest.mark.parametrize(
    ("machine", "has", "lacks"),
    [
        (ORIN, ("neon", "dotprod"), ("i8mm", "bf16")),
        (THOR, ("neon", "dotprod", "i8mm", "bf16"), ()),
        (SERVER, ("avx2", "avx512f", "avx512_vnni"), ("avx512_bf16", "amx")),
        (BARE, ("avx2",), ("avx512f", "avx512_vnni", "avx512_bf16", "amx")),
    ],
)
def test_instruction_sets_are_read_from_the_flags(
    machine: str, has: tuple[str, ...], lacks: tuple[str, ...]
) -> None:
    sets = host.read_instruction_sets(MACHINES / machine)
    assert (sets.has, sets.lacks) == (has, lacks)


@pytest.mark.parametrize(
    ("machine", "board", "driver", "card"),
    [
        (ORIN, Board("36.4.3", "6.2"), "540.4.0", False),
        (THOR, Board("39.2.0", "7.2"), "595.78", False),
        (SERVER, None, "580.95.05", True),
        (BARE, None, None, False),
    ],
)
def test_board_and_driver_are_read_from_their_files(
    machine: str, board: Board | None, driver: str | None, card: bool
) -> None:
    folder = MACHINES / machine
    assert host.read_board(folder) == board
    assert host.read_driver(folder) == driver
    assert host.has_nvidia_card(folder) == card


def test_memory_is_read_in_bytes() -> None:
    assert host.read_memory(MACHINES / BARE) == Memory(7941236 * 1024, 5767168 * 1024)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (ORIN, ["pip uninstall -y onnxruntime", ORIN_WHEEL, "pip install 'cuda-bindings<13'", CONTAINER]),
        (THOR, ["pip install 'edgeseg[cpu]'", "see docs/jetson.md, 4. Engines", CONTAINER]),
        (
            SERVER,
            [
                "pip uninstall -y onnxruntime",
                "pip install 'edgeseg[gpu]'",
                "pip install 'edgeseg[tensorrt]'",
                CONTAINER,
            ],
        ),
        (BARE, [f"pip install 'edgeseg[{extra}]'" for extra in ("cpu", "openvino", "export", "server")]),
    ],
)
def test_each_machine_is_told_what_to_install(machine: str, expected: list[str]) -> None:
    assert steps(recorded(machine)) == expected


@pytest.mark.parametrize("machine", [ORIN, THOR])
@pytest.mark.parametrize("jetpack", ["5.1.2", "6.2", "7.2", None])
@pytest.mark.parametrize("found", [None, OnnxRuntime("1.23.2", ("CPUExecutionProvider",))])
def test_a_jetson_is_not_told_to_install_wheels_that_are_not_for_it(
    machine: str, jetpack: str | None, found: OnnxRuntime | None
) -> None:
    board = Board("36.4.3" if jetpack else None, jetpack)
    facts = recorded(machine, board=board, onnxruntime=found, tensorrt=None)
    extras = re.findall(r"edgeseg\[(.+?)\]", " ".join(steps(facts)))
    assert set(extras) <= {"cpu"}
    assert (ORIN_WHEEL in steps(facts)) == (machine == ORIN and jetpack == "6.2")
    assert (CONTAINER in steps(facts)) == (jetpack != "5.1.2")


def test_jetsons_wheel_is_only_for_the_python_of_its_system() -> None:
    facts = recorded(ORIN)
    assert not isinstance(facts.machine, Failed)
    other = replace(facts, machine=replace(facts.machine, python="3.12.3"), onnxruntime=None)
    assert ORIN_WHEEL not in steps(other)
    assert "pip install 'edgeseg[cpu]'" in steps(other)


def test_jetson_says_which_release_edgeseg_follows() -> None:
    assert row(recorded(ORIN), "Jetson").text == "JetPack 6.2 (L4T 36.4.3)"
    early = recorded(THOR, board=Board("38.2.0", "7.0"))
    assert row(early, "Jetson").text == "JetPack 7.0 (L4T 38.2.0); versions here follow JetPack 7.2"
    assert row(recorded(ORIN, board=Board("35.4.1", "5.x")), "Jetson").state == "fault"
    assert "as in a container" in row(recorded(ORIN, board=Board(None, None)), "Jetson").text


def test_memory_of_a_gpu_is_shown_unless_it_is_the_boards() -> None:
    expected = "NVIDIA GeForce RTX 3090, compute capability 8.6, 23.6 GiB, driver 580.95.05"
    assert row(recorded(SERVER), "GPU").text == expected
    assert row(recorded(ORIN), "GPU").text == "Orin, compute capability 8.7, driver 540.4.0"


def test_card_without_a_driver_and_driver_without_a_device() -> None:
    no_driver = recorded(SERVER, gpu=None, driver=None)
    assert row(no_driver, "GPU").text == "one is there, and no driver for it is loaded"
    assert steps(no_driver)[0] == "sudo ubuntu-drivers install"
    assert "docker run --gpus all ..." in steps(recorded(SERVER, gpu=None))
    assert "docker run --runtime nvidia --gpus all ..." in steps(recorded(ORIN, gpu=None))
    assert not any("docker" in step or "driver" in step for step in steps(recorded(BARE)))


CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")


def test_cuda_that_is_listed_and_does_not_run_is_a_fault_with_its_reason() -> None:
    missing = OnnxRuntime("1.31.1", CUDA, "libcublasLt.so.13: cannot open shared object file")
    facts = recorded(SERVER, onnxruntime=missing)
    assert row(facts, "ONNX Runtime").state == "fault"
    assert "CUDA does not load: libcublasLt.so.13" in row(facts, "ONNX Runtime").text
    assert any("CUDA-ExecutionProvider" in step for step in steps(facts))
    assert "pip install 'edgeseg[gpu]'" in steps(facts), "the extra brings what is missing"

    silent = recorded(SERVER, onnxruntime=OnnxRuntime("1.31.1", CUDA))
    assert "CUDA is listed and does not start" in row(silent, "ONNX Runtime").text
    running = replace(
        silent, auto_fp32="ONNX Runtime 1.31.1, CUDA; no CUDA graphs: ONNX Runtime refused them"
    )
    assert row(running, "ONNX Runtime").state == "ok"
    assert not any("onnxruntime" in step or "CUDA" in step for step in steps(running))
    assert row(recorded(BARE, onnxruntime=missing), "ONNX Runtime").state == "ok"


def test_two_onnx_runtimes_hide_each_other() -> None:
    facts = recorded(SERVER)
    assert not isinstance(facts.machine, Failed)
    packages = {**facts.machine.packages, "onnxruntime-gpu": "1.31.1"}
    both = replace(facts, machine=replace(facts.machine, packages=packages))
    assert row(both, "ONNX Runtime").state == "fault"
    assert steps(both)[:2] == [
        "pip uninstall -y onnxruntime onnxruntime-gpu",
        "pip install 'edgeseg[gpu]'",
    ]


def test_tensorrt_needs_its_binding_and_cuda_bindings() -> None:
    complete = recorded(SERVER, tensorrt=TensorRTFound("10.16.1", True, True))
    assert row(complete, "TensorRT").state == "ok"
    assert "pip install 'edgeseg[tensorrt]'" not in steps(complete)
    library = recorded(SERVER, tensorrt=TensorRTFound("10.16.1", False, True))
    assert row(library, "TensorRT").text == "10.16.1, without its Python binding"
    assert "pip install 'edgeseg[tensorrt]'" in steps(library)
    rtx = recorded(SERVER, tensorrt_rtx=TensorRTFound("1.7.1", True, False))
    assert "pip install 'edgeseg[tensorrt-rtx]'" in steps(rtx)


def test_exporter_without_a_gpu_is_told_of_the_check_ahead_of_time() -> None:
    facts = recorded(BARE)
    assert not isinstance(facts.machine, Failed)
    exporter = replace(facts, machine=replace(facts.machine, packages={"torch": "2.14.1"}))
    assert "pip install 'edgeseg[tensorrt-rtx]'" in steps(exporter)


def test_small_dev_shm_of_a_container_is_noticed() -> None:
    assert "docker run --ipc=host ..." in steps(recorded(BARE, shared_memory=Memory(64 * 2**20, 2**20)))
    assert row(recorded(BARE, shared_memory=Memory(64 * 2**20, 2**20)), "/dev/shm").text == (
        "64 MiB, free: 1 MiB"
    )


def test_gpu_machine_on_arm_is_not_told_of_x86_wheels() -> None:
    facts = recorded(SERVER, onnxruntime=None)
    assert not isinstance(facts.machine, Failed)
    arm = replace(facts, machine=replace(facts.machine, system="Linux 6.8.0 aarch64"))
    assert "pip install 'edgeseg[gpu]'" not in steps(arm)
    assert {"pip install 'edgeseg[cpu]'", CONTAINER} <= set(steps(arm))


# The screen


@pytest.mark.parametrize("machine", ALL)
def test_a_screen_has_at_most_100_columns_and_40_lines(machine: str) -> None:
    lines = screen(recorded(machine)).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 40
    assert any(line.strip() == step for step in steps(recorded(machine)) for line in lines)


def test_long_text_is_folded_and_markup_in_it_is_shown_as_it_is() -> None:
    text = screen(recorded(BARE, openvino=Failed("[red]libopenvino.so[/red] " + "x" * 200)))
    assert max(map(len, text.splitlines())) <= 100
    assert "[red]libopenvino.so[/red]" in text
    assert text.count("x") >= 200


# What is told exists


def all_steps() -> str:
    facts = [recorded(machine) for machine in ALL]
    return "\n".join(step for each in facts for step in steps(each))


def test_extras_that_are_told_exist() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.split("[project.optional-dependencies]")[1].split("[project.scripts]")[0]
    for extra in re.findall(r"edgeseg\[(.+?)\]", all_steps()):
        assert re.search(rf"^{extra} = ", extras, re.MULTILINE), extra


def test_pages_that_are_told_exist_with_their_sections() -> None:
    told = set(re.findall(r"see (docs/\S+\.md), (.+)", all_steps()))
    assert told
    for page, section in told:
        assert f"\n## {section}\n" in (ROOT / page).read_text(encoding="utf-8")


# Power meters


def test_meters_are_shown_and_a_machine_without_one_says_so() -> None:
    assert row(recorded(THOR), "power meter") == Finding("power meter", "ok", "tegrastats (VIN)")
    assert row(recorded(BARE), "power meter").state == "absent"
    both = PowerFound(("NVML (RTX)", "RAPL (package-0)"), False)
    assert row(recorded(SERVER, power=both), "power meter").text == "NVML (RTX), RAPL (package-0)"


def test_what_keeps_a_meter_from_being_read_is_told_with_its_cure() -> None:
    denied = recorded(BARE, power=PowerFound((), True))
    assert row(denied, "power meter").state == "fault"
    assert steps(denied)[-1] == "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj"
    assert "pip install 'edgeseg[power]'" in steps(recorded(SERVER, power=PowerFound((), False)))
    assert "pip install 'edgeseg[power]'" not in steps(recorded(ORIN, power=PowerFound((), False)))


def test_probe_tells_this_machines_meters(here: Facts) -> None:
    assert isinstance(here.power, PowerFound)
    assert any(meter.startswith("RAPL") for meter in here.power.meters) == (open_rapl() is not None)
