"""What `maskrcnn_speed` runs in processes of their own: the export of both graphs, and a turn of a form."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.memory import peak_memory_mib
from seg_runtime.errors import BadInputError

__all__ = ["Work", "prepare", "time_form"]

MODEL = "maskrcnn"
_THRESHOLDS = "thresholds.json"

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Work:
    """What a form is to do.

    Attributes:
        folder: of `prepare`.
        count: how many objects it is to find.
        threshold: the score that makes it so many.
        size_hw: (height, width) in pixels of graph and image.
        threads: of the runtime.
    """

    folder: Path
    count: int
    threshold: float
    size_hw: tuple[int, int]
    threads: int


def prepare(folder: Path, arch: str, counts: Sequence[int], size_hw: tuple[int, int]) -> None:
    """Write `weights.pth`, our verified graph in `repo`, and torchvision's own export for each count.

    Args:
        folder: exists.
        arch: as for `build_maskrcnn`; weights are random, and find as many objects as there may be.
        counts: how many objects each form is to find; what makes it so many is the score threshold.
        size_hw: (height, width) in pixels.

    Raises:
        BadInputError: so many objects are not found.
    """
    from seg_bench.official_maskrcnn import export_official_maskrcnn
    from seg_export.checkpoints.checkpoint import write_checkpoint
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.export import export_models

    checkpoint = random_checkpoint("maskrcnn", {"arch": arch, "num_classes": 91})
    write_checkpoint(folder / "weights.pth", checkpoint)
    thresholds = dict(zip(counts, _thresholds(folder, counts, size_hw), strict=True))
    export_models(checkpoint, folder / "repo", MODEL, size_hw=size_hw, max_batch_size=1)
    (folder / _THRESHOLDS).write_text(json.dumps(thresholds), encoding="utf-8")
    for count, threshold in thresholds.items():
        export_official_maskrcnn(
            folder / "weights.pth", folder / str(count), size_hw=size_hw, score_threshold=threshold
        )


def _thresholds(folder: Path, counts: Sequence[int], size_hw: tuple[int, int]) -> list[float]:
    """Scores between the last object that is wanted and the first that is not."""
    import torch

    with torch.inference_mode():
        found = _torchvision(folder, size_hw)([torch.from_numpy(_image(size_hw)).permute(2, 0, 1) / 255])
    scores = [1.0, *found[0]["scores"].tolist(), 0.0]
    if max(counts) > len(scores) - 2:
        raise BadInputError(f"{max(counts)} objects were asked for and {len(scores) - 2} are found")
    return [(scores[count] + scores[count + 1]) / 2 for count in counts]


def time_form(form: str, work: Work, repeats: int) -> dict[str, Any]:
    """Milliseconds of calls after one to warm up, the process's peak memory, and the number of objects."""
    image = _image(work.size_hw)
    opened = {
        "torchvision eager": _eager,
        "torchvision's ONNX export": _torchvision_export,
        "edgeseg": _edgeseg,
    }
    run = opened[form](work)
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
    from seg_bench.official_maskrcnn import torchvision_model

    return torchvision_model(folder / "weights.pth", size_hw)


def _eager(work: Work) -> Callable[[Image], int]:
    import torch

    torch.set_num_threads(work.threads)
    model = _torchvision(work.folder, work.size_hw)
    model.roi_heads.score_thresh = work.threshold

    @torch.inference_mode()
    def run(image: Image) -> int:
        found = model([torch.from_numpy(image).permute(2, 0, 1) / 255])[0]
        return int((found["masks"] >= 0.5).shape[0])

    return run


def _torchvision_export(work: Work) -> Callable[[Image], int]:
    from seg_bench.pipelines.instances_torch import ExportedInstancesPipeline

    pipeline = ExportedInstancesPipeline(work.folder / str(work.count), work.threads)
    return lambda image: len(pipeline.run([image]).objects[0].masks)


def _edgeseg(work: Work) -> Callable[[Image], int]:
    from seg_runtime import InstanceSegmenter, connect

    session = connect(work.folder / "repo", threads=work.threads, engine="onnxruntime")
    segmenter = InstanceSegmenter(session, MODEL, score_threshold=work.threshold)
    return lambda image: len(segmenter.segment(image).masks())


def main(arguments: list[str]) -> None:
    """`prepare FOLDER ARCH COUNT,COUNT HEIGHT WIDTH` or `time FOLDER FORM COUNT REPEATS HEIGHT WIDTH`."""
    what, folder, name, numbers, *rest = arguments
    *repeats, height, width = (int(number) for number in rest)
    if what == "prepare":
        prepare(Path(folder), name, [int(count) for count in numbers.split(",")], (height, width))
        return
    thresholds = json.loads((Path(folder) / _THRESHOLDS).read_text(encoding="utf-8"))
    threads = int(os.environ["OMP_NUM_THREADS"])
    work = Work(Path(folder), int(numbers), thresholds[numbers], (height, width), threads)
    answer = time_form(name, work, repeats[0])
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
