"""ONNX Runtime on a real GPU: replays of CUDA graphs and kept outputs, against ONNX Runtime on the CPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tiny_graph import images, publish_all, semantic_spec

from seg_runtime.engines.gpu import first_gpu
from seg_runtime.engines.onnx_engine import OnnxEngine, OrtKept

pytestmark = pytest.mark.skipif(
    first_gpu() is None or "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="no NVIDIA GPU, or onnxruntime without CUDA",
)
KEEP = frozenset({"probabilities"})


def test_replays_and_kept_outputs_are_those_of_the_cpu(tmp_path: Path) -> None:
    spec = semantic_spec()
    folder = publish_all(tmp_path) / spec.name / str(spec.version)
    gpu, cpu = (OnnxEngine(spec, folder, 1, device) for device in ("CUDA", "CPU"))

    def work(first: int) -> None:
        for seed in range(first, first + 20):
            batch = {"image": images(1 + seed % 3, seed)}
            wanted = cpu.run(batch)["probabilities"]
            kept = gpu.run(batch, KEEP)["probabilities"]
            np.testing.assert_allclose(gpu.run(batch)["probabilities"], wanted, rtol=0, atol=1e-3)
            gpu.run({"image": images(1 + seed % 3, 1000 + seed)})
            assert isinstance(kept, OrtKept) and kept.value.device_name() != "cpu"
            np.testing.assert_allclose(kept.numpy(), wanted, rtol=0, atol=1e-3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, (0, 100, 200, 300)))
    assert gpu.about == f"ONNX Runtime {onnxruntime.__version__} with CUDA graphs, CUDA"
