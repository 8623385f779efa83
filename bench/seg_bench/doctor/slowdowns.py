"""What would make a measurement slower that starts now."""

from __future__ import annotations

from collections.abc import Iterator

from seg_bench.doctor.facts import Facts
from seg_bench.doctor.found import Board, Failed, GpuState, Memory

__all__ = ["slowdowns"]

_BUSY_PERCENT = 10
"""What a desktop's own windows take of a GPU stays below it."""

_FREE_SHARE = 0.75
_LOAD_SHARE = 0.5


def slowdowns(facts: Facts) -> list[str]:
    """A line for each; empty on a machine that is free.

    Args:
        facts: from `seg_bench.doctor.gather`, before the measurement.
    """
    return [*_gpu(facts), *_board(facts), *_processor(facts)]


def _gpu(facts: Facts) -> Iterator[str]:
    state = facts.gpu_state
    if not isinstance(state, GpuState):
        return
    if state.limits:
        yield f"the GPU's clock is throttled: {', '.join(state.limits)}"
    if (state.busy_percent or 0) > _BUSY_PERCENT:
        yield f"the GPU is busy: {state.busy_percent} % used by other processes"
    # The GPU of a Jetson has the board's memory.
    if state.memory is not None and not isinstance(facts.board, Board):
        yield from _memory("the GPU's memory", state.memory)


def _board(facts: Facts) -> Iterator[str]:
    board = facts.board
    if not isinstance(board, Board):
        return
    if board.power_mode is not None and not board.power_mode.startswith("MAXN"):
        yield f"the board is limited to {board.power_mode} by nvpmodel"
    if isinstance(facts.memory, Memory):
        yield from _memory("the board's memory", facts.memory)


def _processor(facts: Facts) -> Iterator[str]:
    if isinstance(facts.load, Failed) or isinstance(facts.machine, Failed):
        return
    if facts.load > _LOAD_SHARE * facts.machine.cores:
        yield f"the processor is busy: load average {facts.load:.1f} on cores: {facts.machine.cores}"


def _memory(name: str, memory: Memory) -> Iterator[str]:
    if memory.free < _FREE_SHARE * memory.total:
        yield f"{memory.free / 2**30:.1f} of {memory.total / 2**30:.1f} GiB of {name} are free"
