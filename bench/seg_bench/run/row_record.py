"""Makes the record of a row."""

from __future__ import annotations

import re

from seg_bench.baseline import TUNED_ALLOCATOR
from seg_bench.candidate import COMPILED, ENGINE, OFFICIAL_DECODER, PYTORCH, Candidate
from seg_bench.data.objects import PROMPTS
from seg_bench.records import Data, MeasuredModel, Record, Settings
from seg_bench.run.options import RunOptions
from seg_bench.run.plan import Plan
from seg_bench.run.rows import Row
from seg_bench.tracked import TRACKED_PROMPT

__all__ = ["make_record"]


def make_record(options: RunOptions, plan: Plan, row: Row) -> Record:
    """What is known of a row, with all that tells it from others."""
    candidate, latency = row.candidate, row.latency
    memory_of = "server" if candidate.runtime == "Triton" else "process"
    return Record(
        model=_measured_model(plan, candidate),
        runtime=_runtime(row),
        where=candidate.where,
        data=Data(options.data.resolve().name, len(plan.samples), plan.split, options.truth),
        settings=_settings(options, row),
        accuracy=row.accuracy,
        latency=latency,
        images_per_s=1000 * candidate.batch * len(latency.total) / sum(latency.total) if latency else None,
        peak_memory_mib=row.peak_memory_mib,
        peak_memory_of=None if row.peak_memory_mib is None else memory_of,
        engine=row.engine,
        load_ms=row.load_ms,
        first_call_ms=row.first_call_ms,
        device_memory_mib=row.device_memory_mib,
        energy=row.energy,
        conditions=row.conditions,
        loads=row.loads,
        agreement=row.agreement,
        throughput=row.throughput,
        early=row.early,
        failure=row.failure,
        noise=row.noise,
    )


def _runtime(row: Row) -> str:
    """Of an engine what stands before its version, "OpenVINO" of "OpenVINO 2026.4.1, CPU"."""
    if row.candidate.runtime != ENGINE:
        return row.candidate.runtime
    return re.split(r" \d", row.engine or row.candidate.engine or ENGINE)[0]


def _settings(options: RunOptions, row: Row) -> Settings:
    candidate = row.candidate
    allocator = " ".join(f"{key}={value}" for key, value in TUNED_ALLOCATOR.items())
    return Settings(
        threads=options.threads,
        warm_up=row.warm_up,
        repeats=options.repeats,
        batch=candidate.batch,
        seed=options.seed,
        allocator=allocator if candidate.runtime in (PYTORCH, COMPILED) else None,
        channels_last=candidate.channels_last,
        prompts=_prompts(candidate),
        engine=candidate.engine,
        min_s=options.rule.min_s,
    )


def _prompts(candidate: Candidate) -> str | None:
    if candidate.kind not in ("sam", "sam2"):
        return None
    return TRACKED_PROMPT if candidate.memories else PROMPTS


def _measured_model(plan: Plan, candidate: Candidate) -> MeasuredModel:
    subject = plan.subjects[candidate.model]
    spec, deployed = subject.spec, candidate.runtime not in (PYTORCH, COMPILED)
    own_decoder = subject.prompted and deployed and candidate.runtime != OFFICIAL_DECODER
    return MeasuredModel(
        name=subject.name,
        family=spec.family,
        version=spec.version if deployed else None,
        precision=plan.precision_of(candidate),
        weights=spec.weights,
        parameters=subject.parameter_count or None,
        checkpoint_sha256=spec.checkpoint_sha256 or None,
        graph_sha256=plan.graph_sha256.get(spec.name) if deployed else None,
        decoder_graph_sha256=plan.graph_sha256.get(subject.specs[1].name) if own_decoder else None,
    )
