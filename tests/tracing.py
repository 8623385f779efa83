"""What a program does with files and the network, seen by the system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Traced", "trace_python"]

_NETWORK = re.compile(r".*\bsa_family=AF_INET.*")
_IN_CI = ("CI", "TF_BUILD", "JENKINS_URL")
"""Variables that keep a library's telemetry quiet by themselves."""


@dataclass(frozen=True)
class Traced:
    """What a program left in its home folder, and its calls that reach for a network or a name server."""

    files: list[str]
    network: list[str]


def trace_python(code: str, home: Path, environment: Mapping[str, str], *arguments: object) -> Traced:
    """Run code in a Python of its own, with `home` (made here) as the user's folder, until it ends.

    In CI a missing strace is a failure, elsewhere the test is skipped.
    """
    if shutil.which("strace") is None:
        message = "no strace: apt-get install strace"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    home.mkdir()
    log = home.with_suffix(".strace")
    kept = {name: value for name, value in os.environ.items() if name not in _IN_CI}
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    strace = ["strace", "-f", "--seccomp-bpf", "-e", calls, "-o", str(log)]
    subprocess.run(
        [*strace, sys.executable, "-c", code, *map(str, arguments)],
        env={**kept, "HOME": str(home), **environment},
        check=True,
    )
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return Traced(sorted(files), _NETWORK.findall(log.read_text()))
