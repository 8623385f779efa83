"""A Mask R-CNN as its users run it without this toolkit: torchvision's model, and as its own export."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_bench.candidate import Candidate
from seg_bench.data.find import ShownSample
from seg_bench.official_maskrcnn import OFFICIAL_FILE, torchvision_model
from seg_bench.pipelines import SURE, Objects, Outcome
from seg_bench.pipelines.instances import objects_outcome
from seg_bench.torch_place import TorchPlace
from seg_runtime.files.images import read_image
from seg_runtime.model_config import from_text

__all__ = ["ExportedInstancesPipeline", "TorchInstancesPipeline"]

_THRESHOLD = 0.5
Image = NDArray[np.uint8]


class TorchInstancesPipeline:
    """torchvision, which scales images and pastes masks by itself; a compiled one has its backbone compiled.

    Args:
        candidate: a PyTorch baseline.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        MissingExtraError: PyTorch is not installed.
    """

    where = "in-process"

    def __init__(self, candidate: Candidate) -> None:
        self._place = TorchPlace(candidate)
        contract = from_text(candidate.contract) if candidate.contract else None
        model = torchvision_model(Path(candidate.checkpoint or ""), contract=contract)
        self._model = self._place.place(model)
        self._place.compile(self._model.backbone)
        self.engine = self._place.engine
        self._sure = contract.score_threshold if contract else SURE

    def load(self, sample: ShownSample) -> Image:
        """(H, W, 3) uint8 RGB."""
        return read_image(sample.image_path, 3, gray=True)

    def run(self, inputs: Sequence[Image]) -> Outcome:
        """Find the objects of these images in one call of the model."""
        import torch

        start = time.perf_counter()
        with self._place.computing():
            pixels = [
                torch.from_numpy(image).to(self._place.device).permute(2, 0, 1) / 255 for image in inputs
            ]
            prepared = time.perf_counter()
            results = self._model(pixels)
            self._place.wait()
            done = time.perf_counter()
            objects = [
                Objects(
                    result["scores"].float().cpu().numpy(),
                    result["labels"].cpu().numpy().astype(np.int32),
                    (result["masks"][:, 0] >= _THRESHOLD).cpu().numpy(),
                )
                for result in results
            ]
        total = 1000 * (time.perf_counter() - start)
        return objects_outcome(
            objects, 1000 * (prepared - start), 1000 * (done - prepared), total, self._sure
        )


class ExportedInstancesPipeline:
    """torchvision's own ONNX export in ONNX Runtime, one image per call.

    Args:
        folder: of `seg_bench.official_maskrcnn.export_official_maskrcnn`.
        threads: intra-op threads, or None for ONNX Runtime's own choice.
        sure: score from which an object counts.
    """

    where = "in-process"

    def __init__(self, folder: Path, threads: int | None = None, sure: float = SURE) -> None:
        import onnxruntime as ort

        self._sure = sure
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        providers = ["CPUExecutionProvider"]
        self._graph: Any = ort.InferenceSession(str(folder / OFFICIAL_FILE), options, providers=providers)
        self.engine = f"ONNX Runtime {ort.__version__}, CPU"

    def load(self, sample: ShownSample) -> Image:
        """(H, W, 3) uint8 RGB."""
        return read_image(sample.image_path, 3, gray=True)

    def run(self, inputs: Sequence[Image]) -> Outcome:
        """Find the objects of one image."""
        (image,) = inputs
        start = time.perf_counter()
        pixels = np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32) / 255
        prepared = time.perf_counter()
        labels, scores, masks = self._graph.run(["labels", "scores", "masks"], {"image": pixels})
        done = time.perf_counter()
        objects = Objects(scores, labels.astype(np.int32), masks[:, 0] >= _THRESHOLD)
        total = 1000 * (time.perf_counter() - start)
        return objects_outcome(
            [objects], 1000 * (prepared - start), 1000 * (done - prepared), total, self._sure
        )
