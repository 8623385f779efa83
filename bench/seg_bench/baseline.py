"""The original PyTorch model behind the `Session` interface, to be measured like a deployed one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seg_bench.candidate import Candidate
from seg_bench.torch_place import TorchPlace
from seg_runtime.errors import BadInputError, MissingExtraError
from seg_runtime.model_config import from_text
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
    """Runs the checkpoint of a semantic model with PyTorch, in inference mode.

    The module is the one that seg-export traces, so the arithmetic, the input and the output are
    those of the deployed graph.

    Args:
        candidate: a PyTorch baseline, with the name, size and largest batch of the deployed model.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        MissingExtraError: PyTorch is not installed.
    """

    where = "in-process"

    def __init__(self, candidate: Candidate) -> None:
        self._place = TorchPlace(candidate)
        try:
            import torch

            from seg_export.checkpoints.checkpoint import load_checkpoint
            from seg_export.checkpoints.claims import as_published
            from seg_export.families import traceable_model
        except ImportError as error:
            raise MissingExtraError("PyTorch", "export") from error
        height, width = candidate.input_size_hw
        checkpoint = load_checkpoint(Path(candidate.checkpoint or ""))
        if candidate.contract:
            checkpoint = as_published(checkpoint, from_text(candidate.contract))
        model = traceable_model(checkpoint, candidate.model, (height, width), candidate.max_batch_size)
        self._torch, order = torch, self._place.memory_format
        self._module = self._place.place(model.module)

        def reorder(network: Any, inputs: tuple[Any, ...]) -> Any:
            # A gray image counts as both orders; its strides decide which one PyTorch computes in.
            return torch.empty_like(inputs[0], memory_format=order).copy_(inputs[0])

        self._module.get_submodule("model").register_forward_pre_hook(reorder)
        self._place.compile(self._module)
        self._spec = model.spec

    def models(self) -> tuple[str, ...]:
        return (self._spec.name,)

    def spec(self, model: str) -> ModelSpec:
        if model != self._spec.name:
            raise model_not_found(model, self.models(), "in this checkpoint")
        return self._spec

    def engine(self, model: str) -> str:
        return self._place.engine

    def close(self) -> None:
        """Nothing to free: the module goes with the session."""

    def _infer(
        self, spec: ModelSpec, inputs: Mapping[str, NDArray[Any] | Handle], keep: frozenset[str]
    ) -> dict[str, Any]:
        if keep or any(isinstance(value, Handle) for value in inputs.values()):
            raise BadInputError("the PyTorch baseline keeps no handles: pass arrays and leave out keep")
        with self._place.computing():
            tensors = [
                self._torch.from_numpy(inputs[tensor.name]).to(self._place.device) for tensor in spec.inputs
            ]
            outputs = self._module(*tensors)
            values = outputs if isinstance(outputs, tuple) else (outputs,)
            return {
                tensor.name: _numpy(value).astype(tensor.dtype, copy=False)
                for tensor, value in zip(spec.outputs, values, strict=True)
            }


def _numpy(value: Any) -> NDArray[Any]:
    """A tensor of any device; NumPy has no bfloat16."""
    plain = value.float() if value.is_floating_point() else value
    return np.asarray(plain.cpu().numpy())
