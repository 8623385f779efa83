"""Which meter a row is measured with."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from types import TracebackType

from seg_bench.power.jtop_meter import open_jtop
from seg_bench.power.meter import PowerMeter
from seg_bench.power.nvml import open_nvml
from seg_bench.power.rapl import open_rapl
from seg_bench.power.tegrastats import open_tegrastats

__all__ = ["Meters"]

_GPU_ENGINES = ("CUDA", "TensorRT")


class Meters:
    """The meters of this machine that can be read; close it, or use it in a `with` block.

    A Jetson has one for the whole board. Elsewhere a row that runs on a GPU is measured at the GPU alone,
    and any other row at the processor.
    """

    def __init__(self) -> None:
        with ExitStack() as stack:
            self._board = _closed_by(stack, open_tegrastats() or open_jtop())
            self._nvml = open_nvml()
            if self._nvml is not None:
                stack.callback(self._nvml.close)
            self._processor = _closed_by(stack, open_rapl())
            self._opened = stack.pop_all()

    def found(self) -> tuple[str, ...]:
        """What there is, in words: "tegrastats (VDD_IN)"."""
        meters = [f"{meter.source} ({meter.covers})" for meter in (self._board, self._processor) if meter]
        gpus = self._nvml.names() if self._nvml and not self._board else []
        return (*(f"NVML ({name})" for name in gpus), *meters)

    def of_row(self, pids: Collection[int], engine: str) -> PowerMeter | None:
        """The meter for a row; None where nothing measures what the row runs on.

        Args:
            pids: of the row's processes.
            engine: what computes, as `Session.engine` says it. A server says its backend only: whether it
                runs on a GPU is seen by its processes.
        """
        if self._board is not None:
            return self._board
        names_gpu = any(name in engine.partition(";")[0] for name in _GPU_ENGINES)
        if names_gpu or (self._nvml is not None and self._nvml.uses(pids)):
            return None if self._nvml is None else _closed_by(self._opened, self._nvml.meter(pids))
        return self._processor

    def device_memory_mib(self, pids: Collection[int]) -> float | None:
        """GPU memory that these processes hold now, in MiB; None when they hold none, or nothing tells."""
        return None if self._nvml is None else self._nvml.memory_mib(pids)

    def close(self) -> None:
        """Stop all of them; calling it again does nothing."""
        self._opened.close()

    def __enter__(self) -> Meters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _closed_by(stack: ExitStack, meter: PowerMeter | None) -> PowerMeter | None:
    if meter is not None:
        stack.callback(meter.close)
    return meter
