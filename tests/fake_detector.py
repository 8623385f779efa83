"""A session that finds the same objects in every image, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec, TensorSpec

CANVAS_HW = (96, 128)
ROWS = 5


class FakeSession(Session):
    """Answers every request with the same detections and remembers what it was asked."""

    where = "in-process"

    def __init__(self, task: str = "instances", **outputs: Any) -> None:
        self.requests: list[Mapping[str, Any]] = []
        self.outputs = {
            "boxes": np.zeros((ROWS, 4), np.float32),
            "scores": np.zeros(ROWS, np.float32),
            "labels": np.zeros(ROWS, np.int32),
            "mask_logits": np.full((ROWS, 28, 28), -20, np.float32),
            "count": np.zeros(1, np.int32),
        } | outputs
        self.described = ModelSpec(
            name="cells",
            version=1,
            task=task,
            family="maskrcnn",
            inputs=(TensorSpec("image", "uint8", (*CANVAS_HW, 3)), TensorSpec("valid_hw", "int32", (2,))),
            outputs=tuple(
                TensorSpec(name, str(array.dtype), array.shape) for name, array in self.outputs.items()
            ),
            max_batch_size=2,
            input_size_hw=CANVAS_HW,
            resize="longest-side",
            channels=3,
            class_names=("red", "green"),
        )

    def models(self) -> tuple[str, ...]:
        return ("cells",)

    def spec(self, model: str) -> ModelSpec:
        return self.described

    def engine(self, model: str) -> str:
        return "nothing"

    def close(self) -> None: ...

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        self.requests.append(inputs)
        batch = len(np.asarray(inputs["image"]))
        return {name: np.stack([array] * batch) for name, array in self.outputs.items()}


def two_objects() -> FakeSession:
    boxes = np.zeros((ROWS, 4), np.float32)
    boxes[:2] = [[10, 20, 50, 60], [0, 0, 128, 64]]
    logits = np.full((ROWS, 28, 28), 5, np.float32)
    scores, labels = np.zeros(ROWS, np.float32), np.zeros(ROWS, np.int32)
    scores[:2], labels[:2] = [0.9, 0.4], [2, 1]
    count = np.array([2], np.int32)
    return FakeSession(boxes=boxes, scores=scores, labels=labels, mask_logits=logits, count=count)
