"""What a server leaves when all of its processes' owners are killed at once, and who removes it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seg_runtime.owner import owner_prefix
from seg_runtime.server import leftovers
from seg_runtime.server.leftovers import (
    NAME_VARIABLE,
    memory_prefix,
    new_server_name,
    remove_leftovers,
    remove_server,
)

NEW_NAME = "from seg_runtime.server.leftovers import new_server_name; print(new_server_name())"


class Remains:
    """A process, a file in /dev/shm and a folder that carry the name of a server."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(["sleep", "300"], env={**os.environ, NAME_VARIABLE: name})
        self.memory = Path("/dev/shm") / f"{memory_prefix(name)}0d1f-11"
        self.memory.touch()
        self.folder = Path(tempfile.gettempdir()) / name
        (self.folder / "backends").mkdir(parents=True)

    def left(self) -> list[bool]:
        return [self.process.poll() is None, self.memory.exists(), self.folder.exists()]

    def remove(self) -> None:
        self.process.kill()
        self.process.wait()
        self.memory.unlink(missing_ok=True)


@contextmanager
def remains(name: str) -> Iterator[Remains]:
    made = Remains(name)
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def name_of_an_ended_process() -> str:
    return subprocess.run(
        [sys.executable, "-c", NEW_NAME], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_what_is_left_of_an_ended_owner_is_removed_and_what_a_living_one_has_is_not(
    name_of_an_ended_process: str,
) -> None:
    another_container = f"edgeseg-{owner_prefix().split('-')[1][::-1]}-4194999-1-server-0123456789ab"
    with (
        remains(name_of_an_ended_process) as dead,
        remains(new_server_name()) as own,
        remains(another_container) as foreign,
    ):
        remove_leftovers()
        assert dead.left() == [False] * 3
        assert own.left() == foreign.left() == [True] * 3
        remove_leftovers()


def test_a_server_is_removed_by_its_name_and_the_other_one_of_this_process_is_not() -> None:
    first, second = new_server_name(), new_server_name()
    with remains(first) as ended, remains(second) as running:
        remove_server(first)
        assert ended.left() == [False] * 3
        assert running.left() == [True] * 3


def test_what_belongs_to_another_user_is_not_touched(
    name_of_an_ended_process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with remains(name_of_an_ended_process) as dead:
        monkeypatch.setattr(leftovers.os, "getuid", lambda: os.geteuid() + 1)
        remove_leftovers()
        assert dead.left() == [True] * 3
