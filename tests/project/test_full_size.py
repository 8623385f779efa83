"""Full-size tests run again exactly when something that they rest on has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dependencies
import pytest

TESTS = Path(dependencies.__file__).parent

CONFTEST = """
from full_size import (
    pytest_addoption, pytest_collection_modifyitems, pytest_configure, pytest_report_header,
    pytest_runtest_protocol,
)
"""
TEST = """
import pytest

@pytest.mark.full
def test_large_model():
    from package.used import answer
    assert answer() == 42

def test_small_model():
    pass
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one full-size test, stamped, of a module that imports another when it is called."""
    files = {
        "tests/conftest.py": CONFTEST,
        "tests/test_models.py": TEST,
        "constraints.txt": "numpy==1.26.4\n",
        "export/package/__init__.py": "",
        "export/package/used.py": "def answer():\n    from package import inner\n    return inner.VALUE\n",
        "export/package/inner.py": "VALUE = 42\n",
        "export/package/unused.py": "",
        "pyproject.toml": "[tool.pytest.ini_options]\nmarkers = ['full: large']\n"
        "pythonpath = ['tests', 'export']\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("full_size.py", "dependencies.py"):
        shutil.copy(TESTS / name, tmp_path / "tests" / name)
    assert outcome(tmp_path, "--full", "stamp", "-m", "full") == "1 passed, 1 deselected"
    assert list(json.loads((tmp_path / "tests" / "full.json").read_text())) == ["tests/test_models.py"]
    return tmp_path


def outcome(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    answer = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    return answer.stdout.splitlines()[-1].rpartition(" in ")[0]


def test_stamped_test_is_left_out_until_asked_for(project: Path) -> None:
    assert outcome(project) == "1 passed, 1 deselected"
    assert outcome(project, "--full", "none") == "1 passed, 1 deselected"
    assert outcome(project, "--full", "all") == "2 passed"


@pytest.mark.parametrize(
    "path",
    [
        *("export/package/inner.py", "tests/test_models.py", "tests/conftest.py"),
        *("constraints.txt", "pyproject.toml"),
    ],
)
def test_change_of_anything_that_it_rests_on_runs_it_again(project: Path, path: str) -> None:
    with (project / path).open("a") as file:
        file.write("\n# changed\n")
    assert outcome(project) == "2 passed"


def test_new_weights_run_it_again(project: Path) -> None:
    weights = project / "export" / "seg_export" / "weights" / "new.pth"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"new")
    assert outcome(project) == "2 passed"


def test_what_is_stamped_is_not_run_for_a_stamp_again(project: Path) -> None:
    assert outcome(project, "--full", "stamp", "-m", "full") == "2 deselected"
    (project / "export" / "package" / "inner.py").write_text("VALUE = 42  # the same\n")
    assert outcome(project, "--full", "stamp", "-m", "full") == "1 passed, 1 deselected"
    assert outcome(project) == "1 passed, 1 deselected"


def test_change_of_something_else_leaves_it_out(project: Path) -> None:
    (project / "export" / "package" / "unused.py").write_text("VALUE = 1\n")
    assert outcome(project) == "1 passed, 1 deselected"


def test_failed_test_gets_no_stamp_and_runs_again(project: Path) -> None:
    (project / "export" / "package" / "inner.py").write_text("VALUE = 41\n")
    stamps = (project / "tests" / "full.json").read_text()
    assert outcome(project, "--full", "stamp", "-m", "full") == "1 failed, 1 deselected"
    assert (project / "tests" / "full.json").read_text() == stamps
    assert outcome(project) == "1 failed, 1 passed"


def test_run_that_is_stopped_by_its_first_failure_stamps_nothing(project: Path) -> None:
    (project / "tests" / "full.json").unlink()
    (project / "tests" / "test_also.py").write_text(
        "import pytest\n\n\n@pytest.mark.full\ndef test_first():\n    pass\n\n\n"
        "@pytest.mark.full\ndef test_second():\n    raise ValueError\n"
    )
    assert outcome(project, "--full", "stamp", "-x", "-m", "full") == "1 failed, 1 passed, 1 deselected"
    assert not (project / "tests" / "full.json").exists()
    assert outcome(project, "--full", "stamp", "-m", "full") == "1 failed, 2 passed, 1 deselected"
    assert list(json.loads((project / "tests" / "full.json").read_text())) == ["tests/test_models.py"]


def test_modules_run_as_commands_count_and_imports_for_type_checkers_do_not(tmp_path: Path) -> None:
    names = {
        path.relative_to(dependencies.ROOT).as_posix() for path in dependencies.closure([Path(__file__)])
    }
    assert "tests/dependencies.py" in names
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from seg_runtime.video import capture\n"
        "command = [sys.executable, '-m', 'microbench.overhead']\nother = ['seg-serve', 'repo']\n"
    )
    names = {path.name for path in dependencies.closure([script])}
    assert {"overhead.py", "serve.py", "process.py"} <= names
    assert "capture.py" not in names


SLEEPER = """
import time, pytest
from pathlib import Path

@pytest.mark.full
def test_large_model():
    start = time.monotonic()
    time.sleep(0.5)
    Path(__file__).with_suffix(".times").write_text(f"{start} {time.monotonic()}")
"""


def test_of_three_workers_two_at_a_time_hold_a_large_model(project: Path) -> None:
    files = [project / "tests" / f"test_large_{number}.py" for number in range(3)]
    for file in files:
        file.write_text(SLEEPER)
    arguments = [*("-p", "xdist.plugin", "-n", "3", "--dist", "loadfile", "--full", "all"), *map(str, files)]
    assert outcome(project, *arguments) == "3 passed"
    times = [tuple(map(float, file.with_suffix(".times").read_text().split())) for file in files]
    assert max(sum(start <= moment < end for start, end in times) for moment, _ in times) <= 2
