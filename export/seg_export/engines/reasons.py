"""Why TensorRT makes no engine of a graph, in one line with the node's name and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from seg_runtime.errors import EdgesegError

__all__ = ["BuildError", "build_reason", "parse_reason"]

_BY_OPERATOR = {
    "DynamicQuantizeLinear": "quantise statically, with scales from calibration images",
    "NonMaxSuppression": "write it on the overlap matrix (keep = 1 - max(overlap * keep), repeated)",
    "NonZero": "its output has no fixed size: use a mask, or TopK with a fixed number",
    "RoiAlign": "write it as GridSample or bilinear gathers",
}
_BY_MESSAGE = {
    "has type UInt8": "cast uint8 inputs before anything else",
    "FP32 GEMM is not supported": "publish the graph in fp16, or build with full TensorRT on that GPU",
    "BF16 is not supported": "publish the graph in fp16",
    "no runners that implement it": "this TensorRT has no kernel for the node: write it with other operators",
    "Plugin not found": "use standard ONNX operators",
}
_NO_GPU = "CUDA driver version is insufficient"
"""What the parser adds to every error on a machine without a GPU; it is never the cause."""


class BuildError(EdgesegError):
    """TensorRT makes no engine of a graph; nothing was published."""

    exit_code = 3


def parse_reason(errors: Iterable[Any], float_shapes: Iterable[str]) -> str:
    """What the ONNX parser says, about the first node that it refuses.

    Args:
        errors: the parser's `ParserError`s.
        float_shapes: names of float inputs whose values decide a shape.
    """
    first = next(iter(errors), None)
    if first is None:
        return "TensorRT's parser gave no reason"
    name, operator = first.node_name(), first.node_operator()
    where = f"node '{name}' ({operator})" if operator else "the file"
    sizes = ", ".join(f"'{size}'" for size in float_shapes)
    if sizes:
        return (
            f"{where}: its size depends on the float input {sizes}, and TensorRT takes only integers for "
            "shapes; output low-resolution logits and resize them in the client"
        )
    text = _tidy(first.desc())
    # Its only word about an operator that it knows and does not take.
    if text == "false":
        text = "this operator is not supported"
    return f"{where}: {text}{_advice(operator, first.desc())}"


def build_reason(errors: Iterable[str]) -> str:
    """What the builder says: its last error that names a cause."""
    causes = [text for text in errors if _NO_GPU not in text]
    if not causes:
        return "TensorRT's builder gave no reason"
    return f"{_tidy(causes[-1])}{_advice('', causes[-1])}"


def _advice(operator: str, text: str) -> str:
    by_message = (advice for part, advice in _BY_MESSAGE.items() if part in text)
    advice = _BY_OPERATOR.get(operator) or next(by_message, "")
    return f"; {advice}" if advice else ""


def _tidy(text: str) -> str:
    """Without the builder's own source files, functions and error classes."""
    lines = [line for line in text.splitlines() if line.strip() and _NO_GPU not in line]
    # The first line of several only repeats the node's name.
    line = lines[1] if len(lines) > 1 and lines[0].startswith("Invalid Node") else (lines or [text])[0]
    line = re.sub(r"\s*In \w+ at /\S+", "", line)
    line = re.sub(r"^.*?Error Code \d+: [\w ]+? \((?=.)", "", line)
    line = re.sub(r"^\[?\w+\.cpp:[^\]]*\]\s*", "", line)
    line = re.sub(r"^Assertion .*?(?:failed\. |(?<!:): )", "", line)
    quoted = re.fullmatch(r'\w+ && "(.*)"', line)
    return (quoted[1] if quoted else line).strip().rstrip(").!? ")
