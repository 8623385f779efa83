"""The thin wheel in fresh virtual environments, with the newest and with the lowest versions it allows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["LANES", "UV", "Environment", "Lane", "build_wheel", "install", "this_environment"]

ROOT = Path(__file__).parents[1]
EXTRAS = ("cpu", "dicom", "http")
UV = [sys.executable, "-m", "uv", "--quiet", "--no-progress"]
_TIMEOUT_S = 300
_GUARD = """
import os, sys

def guard(event, arguments):
    host = arguments[0] if event == "socket.getaddrinfo" else "localhost"
    if str(host) not in ("localhost", "127.0.0.1", "::1", "None"):
        os.write(2, f"network: {host}\\n".encode())

sys.addaudithook(guard)
"""
"""Every Python of an environment reports names that it looks up: nothing here asks for a download."""


@dataclass(frozen=True)
class Lane:
    """A Python release, and whether the newest or the lowest versions are installed: names of uv's."""

    python: str
    resolution: str

    def __str__(self) -> str:
        return f"python{self.python}-{self.resolution}"


LANES = tuple(Lane(python, to) for python in ("3.10", "3.13") for to in ("highest", "lowest-direct"))


@dataclass(frozen=True)
class Environment:
    """Where commands of the package are installed.

    Attributes:
        binaries: the folder of its programs.
        variables: of the processes that it starts.
    """

    binaries: Path
    variables: Mapping[str, str]

    def versions(self) -> dict[str, str]:
        """Installed distributions, by name in lower case."""
        code = (
            "import json; from importlib.metadata import distributions; "
            "print(json.dumps({d.metadata['Name'].lower(): d.version for d in distributions()}))"
        )
        found = subprocess.run(self._call(["python", "-c", code]), check=True, capture_output=True, text=True)
        return dict(json.loads(found.stdout))

    def run(self, command: Sequence[object], exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; anything unexpected fails with all that is known about it.

        Warnings that point at our own lines fail too: they are errors of a release to come.
        """
        words = [str(word) for word in command]
        done = subprocess.run(
            self._call(words),
            check=False,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            env={**self.variables, "PYTHONWARNINGS": "default"},
        )
        ours = [line for line in done.stderr.splitlines() if "Warning: " in line and "/seg_" in line]
        if done.returncode != exit_code or ours or re.search("^(network: |Traceback)", done.stderr, re.M):
            versions = " ".join(f"{name}=={version}" for name, version in sorted(self.versions().items()))
            pytest.fail(
                f"{' '.join(words)}\nexit code {done.returncode}, expected {exit_code}\n"
                f"in {self.binaries.parent} with {versions}\n"
                f"--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}",
                pytrace=False,
            )
        return done

    def _call(self, words: list[str]) -> list[str]:
        return [str(self.binaries / words[0]), *words[1:]]


def this_environment() -> Environment:
    """The one that runs the tests: pinned versions."""
    return Environment(Path(sys.executable).parent, dict(os.environ))


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    build = ["build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(folder)]
    subprocess.run([*UV, *build, str(ROOT)], check=True)
    (wheel,) = folder.glob("edgeseg-*.whl")
    return wheel


def install(lane: Lane, wheel: Path, folder: Path) -> Environment:
    """Install `wheel` with `EXTRAS` into `folder`, which becomes a virtual environment.

    Dependencies come from wheels alone: a release that has none for this Python is not what users get.
    """
    subprocess.run([*UV, "venv", "--python", _interpreter(lane.python), str(folder)], check=True)
    into = ["pip", "install", "--python", str(folder / "bin" / "python")]
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    # Of a wheel the dependencies are indirect; "lowest-direct" wants the requirements themselves.
    wanted = ["--no-build", "--resolution", lane.resolution, "-r", str(ROOT / "pyproject.toml"), *extras]
    done = subprocess.run([*UV, *into, *wanted], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{lane} does not resolve: {done.stderr}"
    subprocess.run([*UV, *into, "--no-deps", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "sitecustomize.py").write_text(_GUARD, encoding="utf-8")
    # The sources of this checkout must not come before the wheel.
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    return Environment(folder / "bin", {**kept, "PATH": f"{folder / 'bin'}{os.pathsep}{kept['PATH']}"})


def _interpreter(version: str) -> str:
    """A Python of this release: on PATH, or pyenv's. Without one the lane fails in CI, else it is skipped."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    programs = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    for program in filter(None, programs):
        # pyenv's own programs are on PATH for releases that are not switched on, and then do nothing.
        say = [str(program), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        said = subprocess.run(say, check=False, capture_output=True, text=True)
        if said.stdout.strip() == version:
            return str(program)
    message = f"no Python {version}: install it, or put python{version} on PATH"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
