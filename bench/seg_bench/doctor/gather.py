"""Gathers the facts of this machine; what cannot be learned is a `Failed`, never an exception."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from seg_bench.doctor import host
from seg_bench.doctor.facts import Facts
from seg_bench.doctor.found import Failed
from seg_bench.doctor.probe import ANSWER_START, PROBES
from seg_bench.json_fields import from_json
from seg_runtime.errors import BadInputError

__all__ = ["Answers", "ask", "complete", "gather", "put_together"]

Answers = Mapping[str, Mapping[str, Any]]
"""What `seg_bench.doctor.probe` printed, by the name of the probe."""

Read = TypeVar("Read")
_READERS: dict[str, Callable[[Path], object]] = {
    "instruction_sets": host.read_instruction_sets,
    "memory": host.read_memory,
    "shared_memory": host.read_shared_memory,
    "load": host.read_load,
    "board": host.read_board,
    "driver": host.read_driver,
    "nvidia_card": host.has_nvidia_card,
}


_BEFORE_OTHERS = "gpu_state"
"""A probe that would see the others at work on a GPU."""


def gather(without: Collection[str] = ()) -> Facts:
    """The facts of this machine.

    Args:
        without: keys of `PROBES` that are not asked; what they would answer is None.
    """
    read = _read(Path("/"))
    wanted = [name for name in PROBES if name not in without]
    first = [name for name in wanted if name == _BEFORE_OTHERS and read["nvidia_card"] is True]
    answers = {**ask(first), **ask(name for name in wanted if name not in first)}
    unasked: Answers = {name: {"answer": None} for name in without}
    return _decoded(read, {**unasked, **answers})


def complete(facts: Facts, names: Iterable[str]) -> Facts:
    """The facts with the answers of probes that were left out before."""
    kinds = get_type_hints(Facts)
    answers = {name: _decode(kinds[name], answer) for name, answer in ask(names).items()}
    return replace(facts, **answers)


def put_together(root: Path, answers: Answers) -> Facts:
    """Facts from files and from the answers of probes.

    Args:
        root: "/", or a folder with a machine's files.
        answers: of all `PROBES`.
    """
    return _decoded(_read(root), answers)


def ask(names: Iterable[str], timeout_s: float = 30.0) -> Answers:
    """Run probes, all at the same time, each in a process of its own.

    Args:
        names: keys of `PROBES`.
        timeout_s: how long all of them may take, in seconds.
    """
    # Else a folder that happens to be called openvino would be taken for the package.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", "seg_bench.doctor.probe", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        )
        for name in names
    }
    end = time.monotonic() + timeout_s
    return {name: _answer(process, end - time.monotonic()) for name, process in started.items()}


def _read(root: Path) -> dict[str, object]:
    return {name: _attempt(reader, root) for name, reader in _READERS.items()}


def _decoded(read: Mapping[str, object], answers: Answers) -> Facts:
    kinds = get_type_hints(Facts)
    answered = {name: _decode(kinds[name], answers[name]) for name in PROBES}
    return Facts(**read, **answered)  # type: ignore[arg-type]


def _answer(process: subprocess.Popen[str], timeout_s: float) -> Mapping[str, Any]:
    try:
        out, err = process.communicate(timeout=max(timeout_s, 0))
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"failed": "gave no answer in time"}
    # A library may print lines of its own before and after.
    line = next((line for line in reversed(out.splitlines()) if line.startswith(ANSWER_START)), None)
    if process.returncode == 0 and line:
        answer: Mapping[str, Any] = json.loads(line)
        return answer
    ended = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
    return {"failed": f"asking it ended with {ended}: {(err.strip().splitlines() or ['no message'])[-1]}"}


def _decode(kind: Any, answer: Mapping[str, Any]) -> Any:
    if "failed" in answer:
        return Failed(answer["failed"])
    if answer["answer"] is None:
        return None
    try:
        return from_json(get_args(kind)[0], answer["answer"])
    except BadInputError as error:
        return Failed(str(error))


def _attempt(reader: Callable[[Path], Read], root: Path) -> Read | Failed:
    try:
        return reader(root)
    except (OSError, ValueError) as error:
        return Failed(str(error))
