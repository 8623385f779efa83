"""The Dockerfiles and docs/jetson.md say what bench/seg_bench/doctor/targets.py says, and are sound."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from seg_bench.doctor.targets import TARGETS, TRITON_IMAGE, Target
from seg_runtime.server.options import ServerOptions

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("Dockerfile", "Dockerfile.jetson")
SPOKEN_FOR = {"Dockerfile": TARGETS["server"], "Dockerfile.jetson": TARGETS["jetpack-6"]}

Instruction = tuple[str, str]


def instructions(text: str) -> list[Instruction]:
    """(NAME, rest) of each instruction, continued lines joined, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name.upper(), rest.strip())
        for name, _, rest in (line.partition(" ") for line in joined.splitlines())
    ]


def last_stage(name: str) -> list[Instruction]:
    found = instructions((ROOT / name).read_text(encoding="utf-8"))
    start = max(number for number, (instruction, _) in enumerate(found) if instruction == "FROM")
    return found[start:]


def only(stage: list[Instruction], instruction: str) -> str:
    (rest,) = (rest for name, rest in stage if name == instruction)
    return rest


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_finds_nothing(name: str) -> None:
    program = str(Path(sys.executable).parent / "hadolint")
    call = [program, "--format", "json", "--failure-threshold", "style", str(ROOT / name)]
    answer = subprocess.run(call, check=False, capture_output=True, text=True)
    assert [(entry["line"], entry["code"]) for entry in json.loads(answer.stdout)] == []


def test_hadolint_would_find_something(tmp_path: Path) -> None:
    """Else the test above would pass with a linter that reads nothing."""
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp && pip install numpy\n", encoding="utf-8")
    program = str(Path(sys.executable).parent / "hadolint")
    call = [program, "--format", "json", str(tmp_path / "Dockerfile")]
    answer = subprocess.run(call, check=False, capture_output=True, text=True)
    assert "DL3006" in {entry["code"] for entry in json.loads(answer.stdout)}


@pytest.mark.parametrize(("name", "target"), SPOKEN_FOR.items())
def test_a_dockerfile_builds_on_the_image_of_its_target(name: str, target: Target) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    defaults = dict(rest.split("=", 1) for instruction, rest in instructions(text) if instruction == "ARG")
    assert defaults == {"TRITON_IMAGE": TRITON_IMAGE, "TRITON_TAG": target.triton_tag}
    bases = [rest.split(" ")[0] for instruction, rest in instructions(text) if instruction == "FROM"]
    assert bases == ["${TRITON_IMAGE}:${TRITON_TAG}"] * 2
    assert target.dockerfile == name


def test_the_dockerfiles_differ_in_nothing_but_the_tag() -> None:
    one, other = (instructions((ROOT / name).read_text(encoding="utf-8")) for name in DOCKERFILES)
    assert [a for a, b in zip(one, other, strict=True) if a != b] == [
        ("ARG", f"TRITON_TAG={TARGETS['server'].triton_tag}")
    ]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_server_runs_as_a_user_and_is_seg_serve_on_all_addresses(name: str) -> None:
    stage = last_stage(name)
    assert only(stage, "USER").split(":")[0] not in ("root", "0")
    program, repository, *options = json.loads(only(stage, "ENTRYPOINT"))
    assert (program, repository) == ("seg-serve", "/models")
    assert options == ["--host", "0.0.0.0"]
    # A RUN after USER could not write the links, and one after ENTRYPOINT would be out of place.
    assert [instruction for instruction, _ in stage].index("USER") > [i for i, _ in stage].index("RUN")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_thin_package_alone_is_installed(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    installed = [rest for instruction, rest in instructions(text) if "pip install" in rest]
    assert len(installed) == 1 and installed[0].endswith("pip install --no-cache-dir .")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_a_dockerfile_copies_is_there_and_reaches_docker(name: str) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert ignored[0] == "*"
    text = (ROOT / name).read_text(encoding="utf-8")
    copies = [
        rest for instruction, rest in instructions(text) if instruction == "COPY" and "--from" not in rest
    ]
    for source in (source for rest in copies for source in rest.split(" ")[:-1]):
        assert (ROOT / source).exists()
        assert any(line.removeprefix("!").split("/")[0] == source for line in ignored if line[0] == "!")


@contextmanager
def answering(status: int) -> Iterator[int]:
    """The port of a server that gives this status for Triton's health address and 404 for others."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/v2/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("name", DOCKERFILES)
@pytest.mark.parametrize(("status", "healthy"), [(200, True), (400, False), (503, False)])
def test_the_health_check_tells_a_ready_server_from_others(name: str, status: int, healthy: bool) -> None:
    command = only(last_stage(name), "HEALTHCHECK").split("CMD ", 1)[1]
    program, flag, code = json.loads(command)
    assert (program, flag) == ("python3", "-c")
    port = f":{ServerOptions().http_port}/"
    assert port in code
    with answering(status) as free:
        call = [sys.executable, flag, code.replace(port, f":{free}/")]
        assert (subprocess.run(call, check=False, capture_output=True).returncode == 0) is healthy


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    table = re.search(r"\n((?:\|.*\n)+)", page[page.index(heading) :])
    assert table, f"no table below '{heading}'"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()[2:]]


def test_the_page_shows_every_target_as_it_is() -> None:
    page = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    expected = [
        [
            target.devices,
            target.python,
            target.cuda,
            target.tensorrt,
            f"`{target.triton_tag}`",
            f"`{target.dockerfile}`",
        ]
        for target in TARGETS.values()
    ]
    assert rows(page, "## Versions") == expected


def test_the_page_names_no_image_or_index_that_is_not_a_targets() -> None:
    page = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    commands = page.split("## Troubles")[0]
    tags = set(re.findall(r"\b\d\d\.\d\d-py3(?:-igpu)?\b", commands))
    assert tags == {target.triton_tag for target in TARGETS.values()}
    indexes = {target.onnxruntime_index for target in TARGETS.values() if target.onnxruntime_index}
    assert set(re.findall(r"--index-url (\S+)", commands)) == indexes
