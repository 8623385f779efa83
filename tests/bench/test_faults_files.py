"""`make faults`: its limits, its counting, its inputs, and two real tries of each kind."""

from __future__ import annotations

import json
import operator
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from microbench import workplace
from microbench.checkpoint_damage import malformed
from microbench.checkpoint_files import SOURCES
from microbench.damage import damaged
from microbench.faults_files import FAULTS, measure_faults
from microbench.forked import Ended, Forked
from microbench.image_files import FORMATS, honest, lies
from seg_bench.json_fields import to_json

pytestmark = pytest.mark.full

TRACEBACK = "Traceback (most recent call last):\n  File x\nKeyError: 'mask'\n"


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Forked:
    return Forked(tmp_path_factory.mktemp("forked"))


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Ended]]:
    """What every command ends with, without any being run."""
    answers: list[Ended] = []

    class Planted:
        def __init__(self, folder: Path) -> None: ...

        def command(self, *arguments: object, limit_s: float = 5.0) -> Ended:
            return answers[0]

    monkeypatch.setattr(workplace, "Forked", Planted)
    yield answers


@pytest.mark.slow
def test_a_process_that_breaks_a_limit_raises_or_dies_is_seen(forked: Forked) -> None:
    assert forked.call(pow, 7, 10**7, limit_s=0.3).complaint == "over 0.3 s"
    assert forked.call(time.sleep, 30.0, limit_s=0.3).complaint == "over 1.2 s, waiting"
    large = forked.call(operator.mul, b"x", 2**31)
    assert large.complaint == "over 1024 MiB" and large.memory_mb > 1024
    assert forked.call(os.abort).complaint == "killed by SIGABRT"
    assert forked.call(json.loads, "{").complaint.startswith("traceback: json.decoder.JSONDecodeError")
    assert forked.call(time.sleep, 30.0, kill_after_s=0.05).code == -9
    assert forked.call(time.sleep, 0.0).complaint == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "tried"),
    [
        ("image, PNG of the tests", 3),
        ("checkpoint, module", 3),
        ("repository, contract fields", 8),
        ("killed while publishing a model's next version", 2),
    ],
)
def test_real_commands_survive_two_inputs_of_a_kind(
    kind: str, tried: int, forked: Forked, tiny_repo: Path
) -> None:
    result = measure_faults((kind,), tries=2, repo=tiny_repo)
    assert (result.tried, result.survived, result.left_open) == (tried, tried, 0), result.kinds[0].failures


@pytest.mark.parametrize(
    ("ended", "tracebacks", "over_limits", "failure"),
    [
        (Ended(1, "", TRACEBACK, 0.2, 3.0), 1, 0, "traceback: KeyError"),
        (Ended(-9, "", "", 5.0, 3.0, "over 5 s"), 0, 1, "over 5 s"),
        (Ended(-11, "", "", 0.2, 3.0), 0, 0, "killed by SIGSEGV"),
        (Ended(2, "", "a\nb\nerror: c\n", 0.2, 3.0), 0, 0, "3 lines: a"),
        (Ended(2, "", "it failed\n", 0.2, 3.0), 0, 0, "without an error"),
        (Ended(0, "", "", 0.2, 3.0), 0, 0, "0 rows of results"),
    ],
)
def test_a_planted_fault_is_counted(
    ended: Ended,
    tracebacks: int,
    over_limits: int,
    failure: str,
    planted: list[Ended],
    tiny_repo: Path,
) -> None:
    planted.append(ended)
    (kind,) = measure_faults(("image, JPEG",), tries=1, repo=tiny_repo).kinds
    assert (kind.tried, kind.survived) == (2, 0)
    # The file alone, and in a folder with two others.
    counted = to_json(kind)
    assert (counted["tracebacks"], counted["over_limits"]) == (2 * tracebacks, 2 * over_limits)
    assert failure in kind.failures[0]


def test_an_orderly_refusal_of_a_file_is_a_failure_only_in_its_folder(
    planted: list[Ended], tiny_repo: Path
) -> None:
    planted.append(Ended(2, "", "error: cannot read image 'x': the file is empty\n", 0.2, 3.0))
    (kind,) = measure_faults(("image, JPEG",), tries=1, repo=tiny_repo).kinds
    assert (kind.tried, kind.survived) == (2, 1)
    assert kind.failures == ("folder: a_first.jpg ended otherwise than alone",)


def test_the_same_seed_is_the_same_input_and_another_one_is_not() -> None:
    for kind in FORMATS:
        files = [damaged(honest(kind), lies(kind), seed, kind) for seed in (1, 1, 2)]
        assert files[0] == files[1] != files[2]
    for source in ("unet", "module", "unet, safetensors"):
        assert malformed(source, 1) == malformed(source, 1) != malformed(source, 2)


def test_as_many_inputs_are_tried_as_the_record_promises() -> None:
    tries = {group: sum(FAULTS[kind][0] for kind in FAULTS if kind.startswith(group)) for group in (
        "image", "checkpoint", "repository", "killed",
    )}  # fmt: skip
    assert tries["image"] >= 300 and tries["checkpoint"] >= 150
    assert tries["repository"] >= 90 and tries["killed"] >= 60
    assert {source.command[0] for source in SOURCES.values()} >= {"unet", "sam", "maskrcnn", "module"}
