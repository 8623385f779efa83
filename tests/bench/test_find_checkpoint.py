"""The checkpoint behind a published model is found by its hash; a missing PyTorch is asked for."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from sam_models import WEIGHTS

from seg_bench.run.checkpoints import find_checkpoint
from seg_runtime.errors import CheckpointError, MissingExtraError

SHIPPED_SHA256 = hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


def test_a_shipped_checkpoint_is_found_by_its_hash_and_the_given_file_comes_first(tmp_path: Path) -> None:
    copy = tmp_path / "copy.pth"
    copy.write_bytes(WEIGHTS.read_bytes())
    assert find_checkpoint(SHIPPED_SHA256, copy) == copy
    found = find_checkpoint(SHIPPED_SHA256)
    assert found and found.name == WEIGHTS.name
    assert find_checkpoint("ab" * 32, copy) is None


def test_a_missing_file_or_a_missing_pytorch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        find_checkpoint(SHIPPED_SHA256, tmp_path / "none.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"edgeseg\[export\]"):
        find_checkpoint(SHIPPED_SHA256)
