"""Reads an ONNX file that somebody else made, with its weights, and says what is wrong with it."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from seg_export.families.onnx.refusals import refuse_by_names
from seg_export.verification.graph_runner import GraphRunner
from seg_runtime.errors import CheckpointError, MissingExtraError, ParityError
from seg_runtime.plain_files import check_whole, real_path

if TYPE_CHECKING:
    import onnx

__all__ = ["OLDEST_OPSET", "OriginalGraph", "read_original", "tensors_of"]

OLDEST_OPSET = 7
LARGEST_WEIGHTS = 2**31 - 2**27
"""Bytes that protobuf can hold in one piece, less some for the nodes."""

_PYTORCH = (b"PK\x03\x04", b"\x80\x02")
"""How archives and pickles of torch.save begin."""

STANDARD = ("", "ai.onnx")
"""The domain of ONNX's standard operators, by both of its names."""


@dataclass(frozen=True)
class OriginalGraph:
    """A graph as its file has it.

    Attributes:
        path: the file.
        graph: without the weights that lie in other files.
        weight_files: those files.
    """

    path: Path
    graph: onnx.ModelProto
    weight_files: tuple[Path, ...]

    @property
    def inputs(self) -> tuple[onnx.ValueInfoProto, ...]:
        """What a caller has to give: old files list their weights as inputs too."""
        weights = {tensor.name for tensor in self.graph.graph.initializer}
        return tuple(value for value in self.graph.graph.input if value.name not in weights)

    @property
    def operators(self) -> set[str]:
        """Types of its nodes."""
        return {node.op_type for node in self.graph.graph.node}

    @property
    def takes_any_size(self) -> bool:
        """Whether two axes of its first input or more, that of the batch apart, are open."""
        axes = self.inputs[0].type.tensor_type.shape.dim[1:] if self.inputs else ()
        return sum(axis.dim_value <= 0 for axis in axes) >= 2

    @cached_property
    def run(self) -> GraphRunner:
        """The original in ONNX Runtime on the CPU. Raises CheckpointError."""
        try:
            return GraphRunner(self.path, str(self.path))
        except ParityError as error:
            raise CheckpointError(f"{_first_line(error)}{_other_operators(self.graph)}") from error

    def sha256(self) -> str:
        """Of the file, and of those with its weights."""
        digest = hashlib.sha256()
        for path in (self.path, *self.weight_files):
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def with_weights(self) -> onnx.ModelProto:
        """A copy with all weights in it."""
        import onnx

        graph = onnx.ModelProto()
        graph.CopyFrom(self.graph)
        if self.weight_files:
            onnx.external_data_helper.load_external_data_for_model(graph, str(self.path.parent))
        return graph


def read_original(path: Path) -> OriginalGraph:
    """Read a file and refuse what can never be published.

    Raises:
        CheckpointError: it is missing, truncated or no ONNX file, its weights are missing, it is half of a
            SAM, a detector or quantised, or ONNX Runtime cannot load it.
        MissingExtraError: onnx or ONNX Runtime is not installed.
    """
    graph = _parsed(path)
    _check_opset(path, graph)
    original = OriginalGraph(path, graph, _weight_files(path, graph))
    names = [value.name for value in original.inputs], [value.name for value in graph.graph.output]
    refuse_by_names(path, *names, original.operators)
    _ = original.run
    return original


def tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constants of a graph, those of its branches and loops included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors) if attribute.HasField("t") else attribute.tensors
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from tensors_of(inner)


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingExtraError("the package onnx", "export") from error
    graph = onnx.ModelProto()
    try:
        _check_file(path)
        content = path.read_bytes()
        if content.startswith(_PYTORCH):
            raise CheckpointError(
                f"{path} is a file of PyTorch and no ONNX graph: export its model with torch.onnx.export, or "
                "its weights with  seg-export module PACKAGE.MODULE:FACTORY --checkpoint FILE"
            )
        graph.ParseFromString(content)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except DecodeError as error:
        raise CheckpointError(f"{path} is no ONNX file, or a truncated one: export it again") from error
    if not (graph.graph.node and graph.graph.output and graph.opset_import):
        raise CheckpointError(f"{path} is no ONNX file, or a truncated one: there is no graph in it")
    return graph


def _check_file(path: Path) -> None:
    """Raises OSError, or CheckpointError for a file that protobuf cannot hold."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"it is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}")
    if status.st_size > LARGEST_WEIGHTS:
        raise CheckpointError(f"{path} has over 2 GB: keep its weights in a file next to it")
    check_whole(path)


def _check_opset(path: Path, graph: onnx.ModelProto) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    opset = next((item.version for item in graph.opset_import if item.domain in STANDARD), newest)
    if not OLDEST_OPSET <= opset <= newest:
        raise CheckpointError(
            f"{path} has opset {opset}, and this version reads {OLDEST_OPSET} to {newest}: export it with "
            "opset 18"
        )


def _weight_files(path: Path, graph: onnx.ModelProto) -> tuple[Path, ...]:
    """Files next to the graph that hold its weights, each there and long enough."""
    from onnx import external_data_helper

    files: dict[Path, None] = {}
    for tensor in tensors_of(graph.graph):
        if not external_data_helper.uses_external_data(tensor):
            continue
        entry = external_data_helper.ExternalDataInfo(tensor)
        file = path.parent / entry.location
        if not real_path(file).is_relative_to(real_path(path.parent)):
            raise CheckpointError(f"{path} keeps weights outside of its folder, in '{entry.location}'")
        if not file.is_file():
            raise CheckpointError(
                f"{path} keeps its weights in '{entry.location}', which is missing: copy it into the same "
                "folder"
            )
        if file.stat().st_size < (entry.offset or 0) + (entry.length or 0):
            raise CheckpointError(f"{path} keeps its weights in '{entry.location}', which is truncated")
        files[file] = None
    if sum(file.stat().st_size for file in files) > LARGEST_WEIGHTS:
        raise CheckpointError(f"{path} has over 2 GB of weights: this command takes smaller graphs")
    return tuple(files)


def _other_operators(graph: onnx.ModelProto) -> str:
    """Names the operators that may be the reason why a graph does not load."""
    own = {function.domain for function in graph.functions}
    known = {*STANDARD, *own, "com.microsoft", "ai.onnx.ml"}
    other = sorted({f"{node.domain}.{node.op_type}" for node in graph.graph.node if node.domain not in known})
    return f" (custom operators: {', '.join(other)}; export it with ONNX's own)" if other else ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").strip()
