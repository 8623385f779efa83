"""What `maskrcnn_speed` runs in processes of their own: the export of both graphs, and a turn of a form."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.memory import peak_memory_mib

__all__ = ["prepare", "time_form"]

MODEL = "maskrcnn"
TORCHVISION_GRAPH = "torchvision.onnx"

Image = NDArray[np.uint8]


def prepare(folder: Path, arch: str, size_hw: tuple[int, int]) -> None:
    """Write `weights.pth`, our verified graph in `repo`, and torchvision's own export.

    Args:
        folder: exists.
        arch: as for `build_maskrcnn`; weights are random, and find as many objects as there may be.
        size_hw: (height, width) in pixels.
    """
    import torch

    from seg_export.checkpoint import save_checkpoint
    from seg_export.export import export_models
    from seg_export.random_weights import random_maskrcnn

    checkpoint = random_maskrcnn({"arch": arch, "num_classes": 91})
    save_checkpoint(
        folder / "weights.pth",
        family=checkpoint.family,
        arguments=checkpoint.arguments,
        state_dict=checkpoint.state_dict,
        preprocessing=checkpoint.preprocessing,
        class_names=checkpoint.class_names,
        metadata=checkpoint.metadata,
    )
    export_models(checkpoint, folder / "repo", MODEL, size_hw=size_hw, max_batch_size=1)
    image = torch.from_numpy(_image(size_hw)).permute(2, 0, 1) / 255
    torch.onnx.export(
        _torchvision(folder, size_hw),
        ([image],),
        folder / TORCHVISION_GRAPH,
        opset_version=17,
        dynamo=False,
        input_names=["image"],
        output_names=["boxes", "labels", "scores", "masks"],
    )


def time_form(
    folder: Path, form: str, repeats: int, size_hw: tuple[int, int], threads: int
) -> dict[str, Any]:
    """Milliseconds of calls after one to warm up, the process's peak memory, and the number of objects."""
    image = _image(size_hw)
    opened = {
        "torchvision eager": _eager,
        "torchvision's ONNX export": _torchvision_export,
        "edgeseg": _edgeseg,
    }
    run = opened[form](folder, size_hw, threads)
    samples_ms, detections = [], run(image)
    for _ in range(repeats):
        start = time.perf_counter()
        detections = run(image)
        samples_ms.append(1000 * (time.perf_counter() - start))
    return {
        "samples_ms": samples_ms,
        "peak_memory_mib": peak_memory_mib(os.getpid()),
        "detections": detections,
    }


def _image(size_hw: tuple[int, int]) -> Image:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def _torchvision(folder: Path, size_hw: tuple[int, int]) -> Any:
    from seg_export.checkpoint import build_model, load_checkpoint

    model: Any = build_model(load_checkpoint(folder / "weights.pth"))
    model.transform.min_size, model.transform.max_size = (min(size_hw),), max(size_hw)
    return model


def _eager(folder: Path, size_hw: tuple[int, int], threads: int) -> Callable[[Image], int]:
    import torch

    torch.set_num_threads(threads)
    model = _torchvision(folder, size_hw)

    @torch.inference_mode()
    def run(image: Image) -> int:
        found = model([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
        return int((found["masks"] >= 0.5).shape[0])

    return run


def _torchvision_export(folder: Path, size_hw: tuple[int, int], threads: int) -> Callable[[Image], int]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    graph = ort.InferenceSession(str(folder / TORCHVISION_GRAPH), options, providers=["CPUExecutionProvider"])

    def run(image: Image) -> int:
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / 255
        masks = graph.run(["masks"], {graph.get_inputs()[0].name: pixels})[0]
        return int((masks >= 0.5).shape[0])

    return run


def _edgeseg(folder: Path, size_hw: tuple[int, int], threads: int) -> Callable[[Image], int]:
    from seg_runtime import InstanceSegmenter, connect

    session = connect(folder / "repo", threads=threads, engine="onnxruntime")
    segmenter = InstanceSegmenter(session, MODEL)
    return lambda image: len(segmenter.segment(image).masks())


def main(arguments: list[str]) -> None:
    """`prepare FOLDER ARCH HEIGHT WIDTH` or `time FOLDER FORM REPEATS HEIGHT WIDTH`."""
    what, folder, name, *rest = arguments
    *repeats, height, width = (int(number) for number in rest)
    if what == "prepare":
        prepare(Path(folder), name, (height, width))
        return
    threads = int(os.environ["OMP_NUM_THREADS"])
    sys.stdout.write(json.dumps(time_form(Path(folder), name, repeats[0], (height, width), threads)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
