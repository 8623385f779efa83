"""A session that needs no model: the probability of a pixel is its brightness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.repository import model_not_found
from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec, TensorSpec


def brightness_spec(
    size_hw: tuple[int, int] = (32, 32), channels: int = 1, classes: int = 1, max_batch_size: int = 4
) -> ModelSpec:
    return ModelSpec(
        name="brightness",
        version=1,
        task="semantic",
        family="test",
        inputs=(TensorSpec("image", "uint8", (*size_hw, channels)),),
        outputs=(TensorSpec("probabilities", "float32", (classes, *size_hw)),),
        max_batch_size=max_batch_size,
        input_size_hw=size_hw,
        channels=channels,
        class_names=tuple(f"class {index}" for index in range(classes)),
    )


class BrightnessSession(Session):
    """One class: brightness. Several: the probability of class c peaks at brightness c / (classes - 1)."""

    where = "in-process"

    def __init__(self, spec: ModelSpec | None = None) -> None:
        self._spec = spec or brightness_spec()
        self.batches: list[NDArray[np.uint8]] = []

    def models(self) -> tuple[str, ...]:
        return (self._spec.name,)

    def spec(self, model: str) -> ModelSpec:
        if model != self._spec.name:
            raise model_not_found(model, self.models(), "in the test")
        return self._spec

    def replace_spec(self, **changes: Any) -> None:
        self._spec = replace(self._spec, **changes)

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        batch = np.asarray(inputs["image"])
        self.batches.append(batch)
        brightness = batch.astype(np.float32).mean(axis=-1) / np.float32(255)
        count = spec.outputs[0].shape[0]
        if count == 1:
            return {"probabilities": np.expand_dims(brightness, -3)}
        peaks = np.linspace(0, 1, count, dtype=np.float32)[:, None, None]
        near = np.maximum(0, 1 - (count - 1) * np.abs(np.expand_dims(brightness, -3) - peaks))
        return {"probabilities": near.astype(np.float32)}

    def engine(self, model: str) -> str:
        return "brightness"

    def close(self) -> None:
        self.batches.clear()
