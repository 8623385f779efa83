"""A name says whether the process that chose it still runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from seg_runtime import owner
from seg_runtime.owner import owner_exited, owner_prefix

NAME_PREFIX = "from seg_runtime.owner import owner_prefix; print(owner_prefix(), flush=True)"


def changed(field: int, change: Callable[[str], str]) -> str:
    """The name of a region of this process, but for one of its fields."""
    fields = f"{owner_prefix()}random".split("-")
    fields[field] = change(fields[field])
    return "-".join(fields)


def test_a_process_that_lives_keeps_its_regions_and_one_that_was_killed_does_not() -> None:
    assert not owner_exited(f"{owner_prefix()}random")
    command = [sys.executable, "-c", f"{NAME_PREFIX}; input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        region = f"{client.stdout.readline().strip()}random"
        assert not owner_exited(region)
        client.kill()
        # Until its parent asks how it ended, a process still has its number.
        assert client.stdout.read() == ""
        client.wait(10)
        assert owner_exited(region)


def test_a_process_whose_parent_does_not_ask_how_it_ended_is_dead() -> None:
    command = [sys.executable, "-c", NAME_PREFIX]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        region = f"{client.stdout.read().strip()}random"
        while owner._state_and_start(client.pid)[0] != "Z":
            pass
        assert owner_exited(region)


def test_a_number_that_was_given_to_another_process_does_not_keep_a_region() -> None:
    assert owner_exited(changed(3, lambda started: str(int(started) - 1)))


@pytest.mark.parametrize(
    "region",
    [
        "someone_elses_region",
        "edgeseg-0123456789abcdef",
        f"edgeseg-{owner_prefix().split('-')[1][::-1]}-4194999-1-of another container",
        f"edgeseg-{16 * '0'}-4194999-1-without /proc",
    ],
)
def test_what_cannot_be_known_is_left_alone(region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # No process has that number here.
    assert owner_exited(f"edgeseg-{owner_prefix().split('-')[1]}-4194999-1-random")
    assert not owner_exited(region)
    monkeypatch.setattr(owner, "_numbering", lambda: owner._UNKNOWN)
    assert not owner_exited(region)
