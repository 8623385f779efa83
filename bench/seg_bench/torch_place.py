"""Where and how PyTorch computes a baseline: a device, eager in fp32 or compiled in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from seg_bench.candidate import COMPILED, Candidate
from seg_runtime.errors import InferenceError, MissingExtraError

__all__ = ["TorchPlace"]


class TorchPlace:
    """Prepares modules and runs them, on the GPU where PyTorch has one.

    Compiled modules compute under autocast, as PyTorch's own guides measure them; what autocast keeps in fp32
    stays so.

    Args:
        candidate: a PyTorch baseline.

    Attributes:
        device: "cuda" or "cpu".
        engine: as `Session.engine`: "PyTorch 2.14.1, CPU", "PyTorch 2.14.1 compiled, bf16, NVIDIA L4".

    Raises:
        MissingExtraError: PyTorch is not installed.
    """

    def __init__(self, candidate: Candidate) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError("PyTorch", "export") from error
        if candidate.threads is not None:
            torch.set_num_threads(candidate.threads)
        self._torch = torch
        self._compiled = candidate.runtime == COMPILED
        self._channels_last = candidate.channels_last
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        name = "CPU" if self.device == "cpu" else torch.cuda.get_device_name()
        self.engine = f"PyTorch {torch.__version__}{' compiled, bf16' if self._compiled else ''}, {name}"

    @property
    def memory_format(self) -> Any:
        return self._torch.channels_last if self._channels_last else self._torch.contiguous_format

    def place(self, module: Any) -> Any:
        """The module on the device, in its memory order."""
        return module.to(device=self.device, memory_format=self.memory_format)

    def compile(self, module: Any) -> None:
        """Compile a module in place, which happens at its first call; nothing for an eager baseline."""
        if self._compiled:
            module.compile(mode="max-autotune" if self.device == "cuda" else None)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Without gradients, in the baseline's precision, and done when it ends.

        Raises:
            InferenceError: PyTorch failed, for want of memory perhaps.
        """
        torch = self._torch
        try:
            with (
                torch.inference_mode(),
                torch.autocast(self.device, torch.bfloat16, enabled=self._compiled),
            ):
                yield
        except RuntimeError as error:
            raise InferenceError(
                f"PyTorch failed: {(str(error).strip().splitlines() or ['?'])[0]}"
            ) from error

    def wait(self) -> None:
        """Until the device has computed all that it was given."""
        if self.device == "cuda":
            self._torch.cuda.synchronize()
