"""What `pip install edgeseg[cpu]` brings: the commands with the newest and lowest versions, on two Pythons.

Each command writes the same files as with the pinned versions; see `lane_outputs` for what may differ.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import pytest
from lane_inputs import COMMANDS, filled_in, make_inputs
from lane_outputs import assert_same_outputs
from packaging.requirements import Requirement
from packaging.version import Version
from thin_lanes import EXTRAS, LANES, Environment, Lane, build_wheel, install, this_environment

from seg_runtime.server import ServerOptions, TritonServer

pytestmark = pytest.mark.lanes

ALL_HELP = """
import json, typer
from typer.testing import CliRunner
from seg_bench.cli import app as bench
from seg_runtime.cli.run import app as run
from seg_runtime.cli.serve import app as serve
pages = {}
for name, app in {"seg-bench": bench, "seg-run": run, "seg-serve": serve}.items():
    commands = getattr(typer.main.get_command(app), "commands", {})
    for words in [[], *([command] for command in commands)]:
        shown = CliRunner().invoke(app, [*words, "--help"], terminal_width=200)
        pages[" ".join([name, *words])] = shown.exit_code, shown.output
print(json.dumps(pages))
"""


@contextmanager
def once(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that all processes of a run of tests share, and whether it is to be filled."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    complete = folder.with_suffix(".complete")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder, not complete.exists()
        complete.touch()


@pytest.fixture(scope="session")
def repo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small published model of each task."""
    with once(tmp_path_factory, "lanes_repo") as (folder, empty):
        if empty:
            fixtures = "lung_repo", "tiny_sam_repo", "nuclei_repo"
            repos = [request.getfixturevalue(fixture) for fixture in fixtures]
            for source in (*repos, request.getfixturevalue("small_sam2_folder") / "repo"):
                shutil.copytree(source, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with once(tmp_path_factory, "lanes_inputs") as (folder, empty):
        if empty:
            make_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with once(tmp_path_factory, "lanes_wheel") as (folder, empty):
        return build_wheel(folder) if empty else next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def expected(inputs: Path, repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each command writes with the pinned versions."""
    with once(tmp_path_factory, "lanes_expected") as (folder, empty):
        for name in COMMANDS if empty else ():
            write(this_environment(), name, inputs, repo, folder)
    return folder


def write(environment: Environment, name: str, inputs: Path, repo: Path, folder: Path) -> Path:
    out = folder / name.replace(" ", "_")
    out.mkdir()
    environment.run(filled_in(COMMANDS[name], inputs, repo, out))
    return out


def marks(lane: Lane) -> list[pytest.MarkDecorator]:
    """The newest versions change from day to day, the lowest ones with the sources alone."""
    group = pytest.mark.xdist_group(lane.python)
    return [group, pytest.mark.full] if lane.resolution == "lowest-direct" else [group]


@pytest.fixture(
    scope="module",
    params=[pytest.param(lane, marks=marks(lane)) for lane in LANES],
    ids=str,
)
def lane(request: pytest.FixtureRequest) -> Lane:
    assert isinstance(request.param, Lane)
    return request.param


@pytest.fixture(scope="module")
def environment(lane: Lane, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return install(lane, wheel, tmp_path_factory.mktemp(str(lane)) / "venv")


@pytest.fixture(scope="module")
def server(repo: Path) -> Iterator[TritonServer]:
    with TritonServer(repo, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
        yield server


def test_bounds_are_what_is_installed(lane: Lane, environment: Environment) -> None:
    """A lower bound that does not resolve, or has no wheel for this Python, promises what was never tried."""
    versions = environment.versions()
    assert "torch" not in versions
    for name, lowest in lower_bounds(environment, lane.python).items():
        if lane.resolution == "lowest-direct":
            assert Version(versions[name]) == lowest, f"{name}>={lowest} installs {versions[name]}"
        else:
            assert Version(versions[name]) > lowest, f"{name} is not newer than its lower bound"


def lower_bounds(environment: Environment, python: str) -> dict[str, Version]:
    """The lowest version of each direct dependency that the wheel allows with `EXTRAS`."""
    code = "import json; from importlib.metadata import requires; print(json.dumps(requires('edgeseg')))"
    bounds: dict[str, Version] = {}
    for text in json.loads(environment.run(["python", "-c", code]).stdout):
        wanted = Requirement(text)
        places = [{"python_version": python, "extra": extra} for extra in ("", *EXTRAS)]
        if wanted.marker is None or any(map(wanted.marker.evaluate, places)):
            (lowest,) = (Version(part.version) for part in wanted.specifier if part.operator == ">=")
            bounds[wanted.name] = max(lowest, bounds.get(wanted.name, lowest))
    return bounds


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_writes_what_it_writes_with_the_pinned_versions(
    environment: Environment, name: str, inputs: Path, repo: Path, expected: Path, tmp_path: Path
) -> None:
    written = write(environment, name, inputs, repo, tmp_path)
    assert_same_outputs(written, expected / written.name)


def test_objects_are_drawn_with_their_names(
    environment: Environment, inputs: Path, repo: Path, tmp_path: Path
) -> None:
    instances = ["seg-run", "instances", inputs / "nuclei", "--repo", repo, "--model", "maskrcnn_nuclei"]
    environment.run([*instances, "--out", tmp_path])
    overlays = sorted(tmp_path.glob("*_overlay.png"))
    assert len(overlays) == 2
    for overlay, image in zip(overlays, sorted((inputs / "nuclei").iterdir()), strict=True):
        drawn = cv2.imread(str(overlay)) != cv2.imread(str(image))
        assert 0.02 < drawn.any(axis=2).mean() < 0.9


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_a_client_gets_from_a_server_what_is_computed_in_process(
    environment: Environment, scheme: str, server: TritonServer, inputs: Path, expected: Path, tmp_path: Path
) -> None:
    url = server.grpc_url if scheme == "grpc" else server.http_url
    segment = ["seg-run", "segment", inputs / "xrays", "--model", "unet_lung", "--url", url, "--batch", 2]
    environment.run([*segment, "--out", tmp_path / "segment"])
    assert_same_outputs(tmp_path / "segment", expected / "segment")


def test_doctor_reports_the_installed_versions(environment: Environment) -> None:
    facts = json.loads(environment.run(["seg-bench", "doctor", "--json"]).stdout)["facts"]
    versions = environment.versions()
    assert facts["onnxruntime"]["version"] == versions["onnxruntime"]
    packages = facts["machine"]["packages"]
    assert packages["numpy"] == versions["numpy"]
    assert packages == {name: versions[name] for name in packages}


def test_every_command_has_its_help(environment: Environment) -> None:
    """In one process: releases of typer and click disagree about each other."""
    shown = environment.run(["python", "-c", ALL_HELP]).stdout
    pages = json.loads(shown)
    assert {"seg-run track", "seg-serve", "seg-bench report", "seg-bench run"} <= pages.keys()
    for name, (exit_code, text) in pages.items():
        assert exit_code == 0, f"{name} --help: {text}"
        assert "Usage:" in text and "--help" in text
    assert all(option in pages["seg-run track"][1] for option in ("--point", "--allow-truncated", "--masks"))


def test_wrong_options_and_missing_files_are_refused(
    environment: Environment, inputs: Path, repo: Path, tmp_path: Path
) -> None:
    segment = ["seg-run", "segment", inputs / "none.png", "--repo", repo, "--model", "unet_lung"]
    out = ["--out", tmp_path / "out"]
    # Typer's own imports may warn first.
    *_, missing = environment.run([*segment, *out], exit_code=2).stderr.strip().splitlines()
    assert missing.startswith("error: ") and "none.png" in missing
    assert "No such option" in environment.run([*segment, *out, "--nonsense"], exit_code=2).stderr
    assert "closing" in environment.run([*segment, *out, "--closing", "-1"], exit_code=2).stderr
    assert "--out" in environment.run(segment, exit_code=2).stderr
    assert not (tmp_path / "out").exists()
    track = ["seg-run", "track", inputs / "shapes.mp4", "--out", tmp_path / "a.mp4", "--masks", "gif"]
    assert "'png'" in environment.run([*track, "--repo", repo, "--point", "1,1"], exit_code=2).stderr
