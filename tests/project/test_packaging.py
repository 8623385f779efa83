"""The distribution: what imports what, what the commands need, and what is in the wheel."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from thin_lanes import UV, build_wheel

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_runtime_imports_neither_torch_nor_the_other_packages() -> None:
    """Every module of the thin client is imported in a process where those three cannot be."""
    code = """
import importlib, json, pkgutil, sys
for name in ("torch", "seg_export", "seg_bench"):
    sys.modules[name] = None
import seg_runtime
names = [m.name for m in pkgutil.walk_packages(seg_runtime.__path__, "seg_runtime.")]
for name in names:
    if ".backends" not in name:
        importlib.import_module(name)
print(json.dumps(names))
"""
    names = json.loads(run_python(code))
    assert "seg_runtime.semantic" in names and "seg_runtime.triton.session" in names


@pytest.mark.slow
def test_exporter_does_not_import_the_bench() -> None:
    code = """
import importlib, pkgutil, sys
sys.modules["seg_bench"] = None
import seg_export
for module in pkgutil.walk_packages(seg_export.__path__, "seg_export."):
    importlib.import_module(module.name)
"""
    run_python(code)


@pytest.mark.parametrize(
    "command", ["seg_runtime.cli.run", "seg_runtime.cli.serve", "seg_export.cli.main", "seg_bench.cli"]
)
def test_commands_load_without_heavy_libraries(command: str) -> None:
    """`--help` is instant because nothing of this is imported for it."""
    heavy = ["torch", "onnxruntime", "cv2", "tritonclient", "matplotlib", "scipy", "onnx"]
    code = f"import sys, {command}; print([name for name in {heavy} if name in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_public_names_can_be_imported() -> None:
    code = "import seg_runtime; print(all(getattr(seg_runtime, name) for name in seg_runtime.__all__))"
    assert run_python(code).strip() == "True"


@pytest.mark.slow
def test_source_distribution_is_the_checkout(tmp_path: Path) -> None:
    """Tests read docs, records and build files too: all of them pass from an unpacked one."""
    if (ROOT / "PKG-INFO").is_file():
        pytest.skip("this is an unpacked source distribution")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("edgeseg-*.tar.gz"))) as archive:
        packed = {member.name.partition("/")[2] for member in archive}
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    assert packed - {"PKG-INFO"} == {name for name in files if (ROOT / name).is_file()}


def test_no_test_reads_files_outside_the_checkout() -> None:
    """A clean clone has nothing next to it: tests would vanish there."""
    outside = re.compile(r"""\.\./shared|["']shared["'] /|/ ["']shared["']""")
    files = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert files and [path for path in files if outside.search(path.read_text(encoding="utf-8"))] == []


@pytest.fixture(scope="module")
def thin_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel and its `cpu` extra: no torch."""
    folder = tmp_path_factory.mktemp("thin")
    environment = folder / "venv"
    subprocess.run([*UV, "venv", "--python", sys.executable, str(environment)], check=True)
    install = [*UV, "pip", "install", "--python", str(environment / "bin" / "python")]
    pinned = ["-c", str(ROOT / "constraints.txt"), f"{build_wheel(folder)}[cpu]"]
    subprocess.run([*install, *pinned], check=True)
    return environment


@pytest.mark.slow
def test_thin_wheel_segments_and_reports_without_torch(
    thin_environment: Path, tiny_repo: Path, xray_folder: Path, tmp_path: Path
) -> None:
    binaries = thin_environment / "bin"
    image = next((xray_folder / "images").iterdir())
    probe = subprocess.run([str(binaries / "python"), "-c", "import torch"], check=False, capture_output=True)
    assert probe.returncode != 0, "the thin environment must not have torch"

    segment = [
        str(binaries / "seg-run"),
        "segment",
        str(image),
        "--repo",
        str(tiny_repo),
        "--model",
        "unet_tiny",
    ]
    done = subprocess.run(
        [*segment, "-o", str(tmp_path), "--json"], check=True, capture_output=True, text=True
    )
    assert Path(json.loads(done.stdout.splitlines()[0])["mask"]).is_file()

    records = sorted((ROOT / "bench" / "results").glob("table_*.json"))
    assert records, "the committed records are missing"
    report = [str(binaries / "seg-bench"), "report", str(records[0]), "--format", "markdown"]
    table = subprocess.run(report, check=True, capture_output=True, text=True).stdout
    assert "| model" in table.lower() and "unet_lung" in table

    doctor = subprocess.run(
        [str(binaries / "seg-bench"), "doctor", "--json"], check=True, capture_output=True, text=True
    )
    facts = json.loads(doctor.stdout)["facts"]
    assert facts["auto_fp32"] == f"ONNX Runtime {facts['onnxruntime']['version']}, CPU"
    assert "torch" not in facts["machine"]["packages"]
    assert facts["openvino"] is facts["tensorrt_rtx"] is None
