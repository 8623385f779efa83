"""Where the time of an image or a frame goes in a SAM2, whoever computes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["STAGES", "Spent", "StageClock", "stages_ms"]

STAGES = {
    "encode": ("sam2-image-encoder",),
    "attend": ("sam2-memory-attention",),
    "decode": ("sam2-mask-decoder", "sam2-prompt", "sam2-track"),
    "remember": ("sam2-memory-encoder", "sam2-remember"),
}
"""Parts of the work on a frame, and the tasks of the models that do them.

The ensembles that a remote server runs do several parts in one request, which counts as the last of them.
"""

_TRACKING = {
    "encode": "forward_image",
    "attend": "_prepare_memory_conditioned_features",
    "decode": "_forward_sam_heads",
    "remember": "_encode_new_memory",
}
"""The methods of `SAM2VideoPredictor` that do them."""

Spent = Mapping[str, float]
"""Milliseconds by stage, all of `STAGES`."""


def stages_ms(spent_ms: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds by stage of those by task, as `TimedSession` adds them up."""
    return {stage: sum(spent_ms.get(task, 0.0) for task in tasks) for stage, tasks in STAGES.items()}


class StageClock:
    """Adds up how long methods of sam2's modules take.

    Args:
        wait: returns when the device has computed all that it was given.

    Attributes:
        first_s: when the first of them began since it was last cleared, of `time.perf_counter`.
    """

    def __init__(self, wait: Callable[[], None] = lambda: None) -> None:
        self._wait = wait
        self._spent: dict[str, float] = {}
        self.first_s = 0.0

    @property
    def spent_ms(self) -> dict[str, float]:
        """Milliseconds by stage since it was last cleared."""
        return {stage: self._spent.get(stage, 0.0) for stage in STAGES}

    def clear(self) -> None:
        """Begin again to add up."""
        self._spent.clear()

    def watch(self, module: Any, method: str, stage: str) -> None:
        """Count the time of a method, which is replaced, as that of a stage."""
        original = getattr(module, method)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            if not self._spent:
                self.first_s = start
            answer = original(*arguments, **keywords)
            self._wait()
            self._spent[stage] = self._spent.get(stage, 0.0) + 1000 * (time.perf_counter() - start)
            return answer

        setattr(module, method, timed)

    def watch_tracker(self, model: Any) -> None:
        """Count all four stages of a `SAM2VideoPredictor`."""
        for stage, method in _TRACKING.items():
            self.watch(model, method, stage)
