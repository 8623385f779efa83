"""What is kept while PyTorch runs is given back afterwards."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from seg_export.verification import allocator

# In a process of its own: pytest's would keep glibc's settings, and its memory says nothing.
_SCRIPT = """
import re, sys, time
from pathlib import Path
import torch
from seg_export.verification.allocator import memory_kept

def resident() -> int:
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

before = resident()
with memory_kept():
    torch.ones(100_000_000)
    inside = resident()
sys.stdout.write(f"{inside - before} {resident() - before}")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_freed_memory_is_kept_inside_the_block_and_given_back_after_it() -> None:
    answer = subprocess.run([sys.executable, "-c", _SCRIPT], check=True, capture_output=True, text=True)
    inside, after = map(int, re.findall(r"-?\d+", answer.stdout))
    assert inside > 350_000, "kB of the 400 MB that were freed"
    assert after < 50_000


def test_without_glibc_the_block_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    with allocator.memory_kept():
        ran = True
    assert ran
