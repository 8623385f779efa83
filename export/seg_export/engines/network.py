"""From an ONNX file to a TensorRT network, and from that to an engine, with every TensorRT alike.

What TensorRT 10.3 to 11 and TensorRT for RTX do differently is in this file and nowhere else:

- Networks are strongly typed: a flag in 10, the only kind in 11, where the flag does nothing
  (docs.nvidia.com/deeplearning/tensorrt/11.0.0/api/migration/tensorrt-10x-to-11x.html). Types stand in the
  graph, so no builder flag for a precision is ever set, and those are gone in 11.
- Only TensorRT for RTX builds for compute capabilities that it is told.
- Only full TensorRT has a timing cache; that of TensorRT for RTX does nothing since 1.2.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_export.engines.reasons import BuildError, build_reason, parse_reason
from seg_runtime.engines.tensorrt_api import TensorRT
from seg_runtime.errors import EdgesegError

__all__ = [
    "OnProgress",
    "ParsedGraph",
    "Profile",
    "Shapes",
    "build_plan",
    "known_capabilities",
    "naming",
    "parse_graph",
]

OnProgress = Callable[[str, int, int], None]
"""Called with what the builder does, the steps of it that are done and how many there are."""

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

Profile = dict[str, Shapes]
"""Smallest, best and largest shape of each input that has axes of any length."""


@dataclass(frozen=True)
class ParsedGraph:
    """A graph as TensorRT's own network, with what must live as long.

    Attributes:
        tensorrt: the binding.
        path: the ONNX file.
        builder: the `IBuilder`.
        network: the `INetworkDefinition`.
        parser: the `OnnxParser`, which owns the weights.
        log: the logger; `log.errors` has the texts of its errors.
    """

    tensorrt: TensorRT
    path: Path
    builder: Any
    network: Any
    parser: Any
    log: Any

    @property
    def layers(self) -> int:
        """Layers of the network, before the builder fuses any."""
        return int(self.network.num_layers)


def parse_graph(tensorrt: TensorRT, path: Path) -> ParsedGraph:
    """Parse an ONNX file; weights in files beside it are found.

    Raises:
        BuildError: TensorRT's parser refuses it; names the node and what to do.
        EdgesegError: TensorRT does not start, as full TensorRT without a GPU.
    """
    module = tensorrt.module
    log = _log(module)
    try:
        builder = module.Builder(log)
    except (RuntimeError, TypeError) as error:
        raise EdgesegError(f"{tensorrt.name} does not start here: it needs a working GPU driver") from error
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = module.OnnxParser(network, log)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise BuildError(parse_reason(errors, _float_shapes(module, network)))
    return ParsedGraph(tensorrt, path, builder, network, parser, log)


def build_plan(
    graph: ParsedGraph,
    profile: Profile,
    *,
    compute_capability: str | None = None,
    timing_cache: bytes | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Any, bytes | None]:
    """Build an engine.

    Args:
        graph: from `parse_graph`; may be built several times.
        profile: shapes of its inputs.
        compute_capability: one of `known_capabilities`; None for the GPU of this machine.
        timing_cache: what an earlier build returned, or b"" to begin one; None for none.
        on_progress: told how far the builder is.

    Returns:
        The serialised engine, a buffer of bytes, and the timing cache as it is now, if one was asked for.

    Raises:
        BuildError: TensorRT cannot build it; says why.
        KeyboardInterrupt: Ctrl-C, when the builder has stopped.
    """
    module = graph.tensorrt.module
    config = graph.builder.create_builder_config()
    if profile:
        config.add_optimization_profile(_profile(graph.builder, profile))
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(module.ComputeCapability.__members__[f"SM{compute_capability}"], 0)
    cache = None if timing_cache is None else _attached_timing_cache(config, timing_cache)
    graph.log.errors.clear()
    with _stoppable() as stop:
        config.progress_monitor = _monitor(module, on_progress, stop)
        plan = graph.builder.build_serialized_network(graph.network, config)
    if stop.is_set():
        raise KeyboardInterrupt
    if plan is None:
        raise BuildError(build_reason(graph.log.errors))
    return plan, None if cache is None else bytes(config.get_timing_cache().serialize())


def naming(on_progress: OnProgress | None, what: str) -> OnProgress | None:
    """The same, told what is being built before each phase of it."""
    if on_progress is None:
        return None
    return lambda phase, done, total: on_progress(f"{what}: {phase}", done, total)


def known_capabilities(tensorrt: TensorRT) -> tuple[str, ...]:
    """Compute capabilities that can be built for without the GPU, for example "75"."""
    names = getattr(tensorrt.module, "ComputeCapability", None)
    return tuple(name[2:] for name in names.__members__ if name.startswith("SM")) if names else ()


def _profile(builder: Any, profile: Profile) -> Any:
    shapes = builder.create_optimization_profile()
    for name, (smallest, best, largest) in profile.items():
        shapes.set_shape(name, smallest, best, largest)
    return shapes


def _attached_timing_cache(config: Any, content: bytes) -> Any:
    """Begin with the cache; an empty one where it is damaged or of another TensorRT or GPU.

    Returns:
        The `ITimingCache`, which must live until the engine is built.
    """
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _float_shapes(module: Any, network: Any) -> list[str]:
    tensors = (network.get_input(index) for index in range(network.num_inputs))
    floats = (module.DataType.FLOAT, module.DataType.HALF)
    return [tensor.name for tensor in tensors if tensor.is_shape_tensor and tensor.dtype in floats]


def _log(module: Any) -> Any:
    """A logger that keeps errors and prints nothing."""

    class Log(module.ILogger):  # type: ignore[misc]  # which of two modules is known at run time only
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, text: str) -> None:
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                self.errors.append(text)

    return Log()


def _monitor(module: Any, on_progress: OnProgress | None, stop: threading.Event) -> Any:
    """Tells how far the outermost phase is, and stops the builder when asked to."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.steps[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            if on_progress and phase in self.steps:
                on_progress(phase, step + 1, self.steps[phase])
            return not stop.is_set()

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

    return Monitor()


@contextlib.contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of raising: no exception may pass through TensorRT."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
