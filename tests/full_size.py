"""Tests marked `full` run when what they rest on has changed since `make full` last passed.

They take long, half a minute to many minutes of tracing, training or full-size models, and what comes of it
changes only with the sources, weights and versions that it is made of. `full.json`, which `make full` writes,
holds their fingerprint for each test file.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

import pytest
from dependencies import ROOT, fingerprint

STAMPS = ROOT / "tests" / "full.json"
_VERSIONS = ROOT / "constraints.txt", ROOT / "pyproject.toml"
_AT_ONCE = 2
_CHOICES = ("changed", "all", "none", "stamp")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        choices=_CHOICES,
        default="changed",
        help="tests marked `full`: those whose files changed since `make full`, all, none, or those that "
        "changed with a new stamp in tests/full.json for files that pass",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and config.getoption("full") == "stamp":
        config.pluginmanager.register(_Stamps(), "full-size stamps")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _leave_out(config, items)
    # Files that take long come first, so that pytest-xdist's workers end at about the same time.
    costs: defaultdict[Path, int] = defaultdict(int)
    for item in items:
        costs[item.path] = max(costs[item.path], _cost(item))
    items.sort(key=lambda item: -costs[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Of pytest-xdist's workers two at a time run such tests: more large models have no room in memory."""
    if "PYTEST_XDIST_WORKER" not in os.environ or not item.get_closest_marker("full"):
        return (yield)
    with _one_of(_AT_ONCE):
        return (yield)


@contextmanager
def _one_of(count: int) -> Iterator[None]:
    """Hold one of so many locks that all processes of this user share."""
    with ExitStack() as opened:
        folder = Path(tempfile.gettempdir())
        names = [folder / f"edgeseg-full-{os.getuid()}-{number}.lock" for number in range(count)]
        locks = [opened.enter_context(name.open("w")) for name in names]
        while True:
            for lock in locks:
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield
                    return
            time.sleep(0.2)


def _cost(item: pytest.Item) -> int:
    marks = {mark.name for mark in item.iter_markers()}
    return 3 if "full" in marks else 2 if "lanes" in marks else 1 if "slow" in marks else 0


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    full = [item for item in items if item.get_closest_marker("full")]
    choice = config.getoption("full")
    if choice == "all" or not full:
        return
    current = set() if choice == "none" else {path for path in {item.path for item in full} if _changed(path)}
    left_out = {item for item in full if item.path not in current}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def pytest_report_header(config: pytest.Config) -> str:
    return f"full-size models: {config.getoption('full')} (stamps of `make full`: {len(_stamps())} files)"


def _changed(path: Path) -> bool:
    return _stamps().get(_name(path)) != _stamp(path)


@cache
def _stamp(path: Path) -> str:
    """Of a test file: everything that its outcome rests on, which this module, that only chooses, is not."""
    files = fingerprint([path, ROOT / "tests" / "conftest.py"], data=True, without=(Path(__file__),))
    versions = " ".join(path.read_text() for path in _VERSIONS)
    return sha256(f"{files} {versions}".encode()).hexdigest()


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _stamps() -> dict[str, str]:
    stamps: dict[str, str] = json.loads(STAMPS.read_text()) if STAMPS.is_file() else {}
    return stamps


class _Stamps:
    """Watches which files pass, and writes their fingerprints as they were before the tests."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}
        self._outcomes: defaultdict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "full" not in report.keywords:
            return
        name = report.nodeid.partition("::")[0]
        self._before.setdefault(name, _stamp(ROOT / name))
        self._outcomes[name].add(report.outcome)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
            session.exitstatus = pytest.ExitCode.OK  # All of them are stamped.
        if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or session.shouldfail:
            return  # Stopped in the middle of a file, perhaps.
        passed = {name for name, outcomes in self._outcomes.items() if outcomes == {"passed"}}
        stamps = _stamps() | {name: self._before[name] for name in passed}
        kept = {name: stamps[name] for name in sorted(stamps) if (ROOT / name).is_file()}
        STAMPS.write_text(json.dumps(kept, indent=1) + "\n")
