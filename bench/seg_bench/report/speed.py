"""How much faster deployed rows are than the baselines of the same run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from seg_bench.candidate import COMPILED, PYTORCH
from seg_bench.records import Latency, Record, Run
from seg_bench.report.names import baseline_name, engines_differ, is_baseline, row_name
from seg_bench.tracked import split_name

__all__ = ["speed_lines", "times_as_fast"]


_PYTORCH = (PYTORCH, COMPILED)


def speed_lines(records: Iterable[Record]) -> list[str]:
    """One line per deployed row and baseline that was timed in the same run: how much faster it is."""
    records = list(records)
    differ = engines_differ(records)
    lines = []
    for record in records:
        for base in records:
            if record.latency and base.latency and _is_baseline_of(base, record):
                ratio = base.latency.percentile(50) / record.latency.percentile(50)
                line = f"{row_name(record, differ)}: {ratio:.2f} times as fast as {baseline_name(base)}"
                lines.append(line + _sam_ratios(base.latency, record.latency))
    return lines


def times_as_fast(run: Run, record: Record) -> float | None:
    """Of a deployed row: p50 of the fastest PyTorch of its run, divided by its own; None without one."""
    if record.latency is None:
        return None
    p50s_ms = [
        base.latency.percentile(50)
        for base in run.records
        if base.runtime in _PYTORCH and base.latency and _is_baseline_of(base, record)
    ]
    return min(p50s_ms) / record.latency.percentile(50) if p50s_ms else None


def _is_baseline_of(base: Record, record: Record) -> bool:
    same_weights = base.model.checkpoint_sha256 == record.model.checkpoint_sha256
    same_frame = split_name(base.model.name)[1] == split_name(record.model.name)[1]
    same_batch = base.settings.batch == record.settings.batch
    return is_baseline(base) and not is_baseline(record) and same_weights and same_frame and same_batch


def _sam_ratios(base: Latency, latency: Latency) -> str:
    if not (base.encode and base.decode and latency.encode and latency.decode):
        return ""
    encode = base.percentile(50, "encode") / latency.percentile(50, "encode")
    masks = _masks_ms(base) / _masks_ms(latency)
    return f" (encode {encode:.2f}, decode and upscale {masks:.2f})"


def _masks_ms(latency: Latency) -> float:
    """Median of decoding and upscaling together, which some decoders do in one graph."""
    samples = zip(latency.decode or (), latency.postprocess, strict=True)
    return statistics.median(decode + upscale for decode, upscale in samples)
