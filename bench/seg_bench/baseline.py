"""The original PyTorch model behind the `Session` interface, to be measured like a deployed one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_runtime.errors import BadInputError, InferenceError, MissingExtraError
from seg_runtime.repository import model_not_found
from seg_runtime.session import Handle, Session
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TUNED_ALLOCATOR", "TorchSession"]

TUNED_ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "9999999999",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Makes glibc keep freed memory. Without it PyTorch on a CPU spends most of its time in page faults
(up to three times slower), and a comparison with it would flatter us."""


class TorchSession(Session):
    """Runs one checkpoint with eager PyTorch on the CPU, in inference mode.

    The module is the one that seg-export traces, so the arithmetic, the input and the output are
    those of the deployed graph.

    Args:
        checkpoint: its file.
        name: the deployed model's.
        size_hw: (height, width) in pixels of the deployed model's input.
        max_batch_size: largest batch of the deployed model, at least 1.
        threads: intra-op threads, or None for PyTorch's own choice.
        channels_last: NHWC memory order, which is faster on some networks.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        MissingExtraError: PyTorch is not installed.
    """

    where = "in-process"

    def __init__(
        self,
        checkpoint: Path,
        name: str,
        size_hw: tuple[int, int],
        max_batch_size: int = 1,
        threads: int | None = None,
        channels_last: bool = False,
    ) -> None:
        try:
            import torch

            from seg_export.checkpoint import load_checkpoint
            from seg_export.families import traceable_model
        except ImportError as error:
            raise MissingExtraError("PyTorch", "export") from error
        if threads is not None:
            torch.set_num_threads(threads)
        model = traceable_model(load_checkpoint(checkpoint), name, size_hw, max_batch_size)
        self._torch = torch
        order = torch.channels_last if channels_last else torch.contiguous_format
        self._module = model.module.to(memory_format=order)

        def reorder(network: Any, inputs: tuple[Any, ...]) -> Any:
            # A gray image counts as both orders; its strides decide which one PyTorch computes in.
            return torch.empty_like(inputs[0], memory_format=order).copy_(inputs[0])

        self._module.get_submodule("model").register_forward_pre_hook(reorder)
        self._spec = model.spec

    def models(self) -> tuple[str, ...]:
        return (self._spec.name,)

    def spec(self, model: str) -> ModelSpec:
        if model != self._spec.name:
            raise model_not_found(model, self.models(), "in this checkpoint")
        return self._spec

    def engine(self, model: str) -> str:
        return f"PyTorch {self._torch.__version__}, CPU"

    def close(self) -> None:
        """Nothing to free: the module goes with the session."""

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        if keep or any(isinstance(value, Handle) for value in inputs.values()):
            raise BadInputError("the PyTorch baseline keeps no handles: pass arrays and leave out keep")
        try:
            with self._torch.inference_mode():
                tensors = [self._torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs]
                outputs = self._module(*tensors)
        except RuntimeError as error:
            raise InferenceError(f"PyTorch failed on model '{spec.name}': {error}") from error
        values = outputs if isinstance(outputs, tuple) else (outputs,)
        return {tensor.name: value.numpy() for tensor, value in zip(spec.outputs, values, strict=True)}
