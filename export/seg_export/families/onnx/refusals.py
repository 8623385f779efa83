"""Graphs that are no semantic segmentation, and what to do with them instead."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from seg_runtime.errors import BadInputError, CheckpointError

if TYPE_CHECKING:
    import onnx

__all__ = [
    "check_precision",
    "maker_of",
    "refuse_by_names",
    "refuse_detector",
    "refuse_embedding",
    "refuse_labels",
]

_SAM_NAMES = {
    "image_embed",
    "image_embeddings",
    "image_positional_embeddings",
    "input_points",
    "mask_input",
    "orig_im_size",
    "point_coords",
    "point_labels",
    "vision_features",
}
"""Tensors of segment_anything's, sam2's and Transformers' exports."""

_DETECTING = {"NonMaxSuppression", "RoiAlign", "EfficientNMS_TRT"}
_QUANTISED = {"DequantizeLinear", "QLinearConv", "ConvInteger"}
_PASSING = {"Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Resize", "Upsample"}
"""Operators that leave labels labels and probabilities probabilities."""


def refuse_by_names(path: Path, inputs: Iterable[str], outputs: Iterable[str], ops: Collection[str]) -> None:
    """Refuse halves of a SAM, detectors and quantised graphs. Raises CheckpointError."""
    inputs, outputs = list(inputs), list(outputs)
    second = any(name.startswith("high_res_feat") for name in (*inputs, *outputs))
    if second or _SAM_NAMES & {*inputs, *outputs}:
        tensors = f"inputs {', '.join(inputs)}; outputs {', '.join(outputs)}"
        raise _half_of_sam(path, tensors, "sam2" if second else "sam")
    if found := _DETECTING & set(ops):
        raise _detector(path, f"it has {' and '.join(sorted(found))}")
    if found := _QUANTISED & set(ops):
        raise CheckpointError(
            f"{path} is quantised ({', '.join(sorted(found))}): export it in fp32, and pass --precision int8 "
            "--calibrate FOLDER"
        )


def refuse_detector(path: Path, outputs: Mapping[str, NDArray[Any]]) -> None:
    """Refuse YOLO and its like: a table of boxes among the outputs. Raises CheckpointError."""
    for name, values in outputs.items():
        if values.ndim == 3 and values.dtype.kind == "f" and _is_table_of_boxes(*values.shape[1:]):
            raise _detector(path, f"output '{name}' is a table of boxes, {'x'.join(map(str, values.shape))}")


def refuse_embedding(path: Path, name: str, values: NDArray[Any], size_hw: tuple[int, int]) -> None:
    """Refuse an encoder of a SAM whose tensors have other names. Raises CheckpointError."""
    height, width = size_hw
    if values.shape[1:] == (256, height // 16, width // 16):
        raise _half_of_sam(path, f"output '{name}' is an image embedding of 256 channels", "sam")


def refuse_labels(path: Path, graph: onnx.GraphProto, output: str, values: NDArray[Any]) -> None:
    """Refuse class ids in the place of probabilities. Raises CheckpointError."""
    if values.dtype.kind in "iub" or maker_of(graph, output) in ("ArgMax", "Greater", "GreaterOrEqual"):
        raise CheckpointError(
            f"output '{output}' of {path} has labels ({values.dtype}), which have no probabilities: export "
            "the graph without its argmax or threshold, up to the logits"
        )


def maker_of(graph: onnx.GraphProto, output: str) -> str:
    """The type of the node that an output comes from, through others that do not change what it means."""
    made_by = {name: node for node in graph.node for name in node.output}
    while (node := made_by.get(output)) is not None and node.op_type in _PASSING:
        output = node.input[0]
    return node.op_type if node is not None else ""


def check_precision(path: Path, graph: onnx.GraphProto, precision: str, in_half: bool) -> None:
    """Refuse what cannot be written into a graph. Raises BadInputError."""
    if in_half and precision == "int8":
        raise BadInputError(
            f"{path} computes in half precision already: --precision int8 takes the graph in fp32"
        )
    if precision == "fp32" or in_half:
        return
    other = [node.op_type for node in graph.node if node.domain not in ("", "ai.onnx")]
    inner = [node.op_type for node in graph.node if any(each.HasField("g") for each in node.attribute)]
    if reasons := sorted({*other, *inner}):
        raise BadInputError(
            f"--precision {precision} takes ONNX's standard operators without branches or loops, and {path} "
            "has "
            f"{', '.join(reasons)}: leave --precision out"
        )


def _is_table_of_boxes(rows: int, columns: int) -> bool:
    return (
        min(rows, columns) >= 5 and max(rows, columns) >= 1000 and max(rows, columns) > 8 * min(rows, columns)
    )


def _half_of_sam(path: Path, why: str, family: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is one half of a SAM that was exported elsewhere ({why}): nothing in it says which half "
        "belongs to it and how images are prepared, and clients expect other tensors; export both from the "
        f"checkpoint:  seg-export {family} --checkpoint FILE"
    )


def _detector(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is a detector ({why}), and this command takes semantic segmentation, with a map per class; "
        "torchvision's Mask R-CNN is exported from its checkpoint:  seg-export maskrcnn --checkpoint FILE"
    )
