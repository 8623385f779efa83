"""A model that was made of an ONNX file has no PyTorch module to be measured against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_graph import semantic_spec

from seg_bench.run.originals import find_checkpoints
from seg_bench.run.subjects import Subject
from seg_runtime.errors import BadInputError


def test_baseline_torch_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"graph")
    options: Any = SimpleNamespace(
        baseline=True, compiled=False, official=False, checkpoint=tmp_path / "net.onnx"
    )
    subject = Subject("net", (replace(semantic_spec("net"), family="onnx"),))
    with pytest.raises(BadInputError, match="no PyTorch baseline of net: no checkpoint holds"):
        find_checkpoints(options, [subject], tmp_path)
