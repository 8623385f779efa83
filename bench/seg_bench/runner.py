"""Measures accuracy, latency and memory of deployed models, and makes the records of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

from seg_bench.baseline import TUNED_ALLOCATOR
from seg_bench.candidate import ENGINE, OFFICIAL_DECODER, PYTORCH, Candidate
from seg_bench.data.objects import PROMPTS
from seg_bench.energy_rows import DeviceUse, measure_device_use
from seg_bench.latency import Timings, measure_interleaved, noise_note
from seg_bench.machine import describe_machine
from seg_bench.memory import peak_tree_memory_mib
from seg_bench.metrics.summary import summarize
from seg_bench.options import RunOptions
from seg_bench.plan import Plan, make_plan
from seg_bench.power import Meters
from seg_bench.records import SCHEMA, Accuracy, Data, MeasuredModel, ObjectAccuracy, Record, Run, Settings
from seg_bench.worker_process import WorkerProcess
from seg_runtime.server import ServerOptions, TritonServer

__all__ = ["Progress", "measure"]

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


@dataclass(frozen=True)
class _Results:
    timings: Timings
    peaks_mib: Mapping[str, float | None]
    accuracies: Mapping[str, Accuracy]
    complete: bool
    device: Mapping[str, DeviceUse]


def measure(options: RunOptions, command: str = "", on_step: Progress | None = None) -> Run:
    """Measure every model in every place, interleaved; starts a server by itself where one is needed.

    Ctrl-C ends it early and keeps what was measured so far (`Run.complete` is then False).

    Args:
        options: what to measure.
        command: the command line, for the record.
        on_step: told about progress.

    Raises:
        EdgesegError: the data, a model, a checkpoint or the server cannot be used; nothing was measured.
        KeyboardInterrupt: Ctrl-C before anything was measured.
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    step = on_step or (lambda what, done, total: None)
    with ExitStack() as stack:
        plan = make_plan(options, Path(stack.enter_context(TemporaryDirectory(prefix="seg-bench-"))))
        server = _start_server(options, plan, stack, step)
        candidates = plan.candidates(options, server)
        workers = _open_workers(candidates, stack, step)
        results = _measure(options, plan, workers, server, step)
    records = [
        _record(options, plan, candidate, workers[candidate.name].engine, results)
        for candidate in candidates
        if candidate.name in results.timings.latencies
    ]
    if not records:
        raise KeyboardInterrupt
    return Run(
        schema=SCHEMA,
        started_utc=started,
        command=command,
        complete=results.complete,
        machine=describe_machine(),
        calibration_ms=results.timings.calibration_ms,
        note=noise_note(results.timings.calibration_ms),
        records=tuple(records),
    )


def _start_server(options: RunOptions, plan: Plan, stack: ExitStack, step: Progress) -> TritonServer | None:
    """A server of our own with just the models that are measured, on free ports; or None."""
    if not options.server_places or options.url:
        return None
    step("starting the server", 0, 1)
    # Every call is to be computed: the cache would answer an image that comes again.
    server_options = ServerOptions(
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        models=plan.models,
        threads=options.threads or 0,
        response_cache_mb=0,
    )
    return stack.enter_context(TritonServer(options.repo, server_options))


def _open_workers(
    candidates: Sequence[Candidate], stack: ExitStack, step: Progress
) -> dict[str, WorkerProcess]:
    workers = {}
    for number, candidate in enumerate(candidates):
        step("loading models", number, len(candidates))
        environment = TUNED_ALLOCATOR if candidate.runtime == PYTORCH else None
        workers[candidate.name] = stack.enter_context(WorkerProcess(candidate, environment))
    return workers


def _measure(
    options: RunOptions,
    plan: Plan,
    workers: Mapping[str, WorkerProcess],
    server: TritonServer | None,
    step: Progress,
) -> _Results:
    def call(name: str, number: int) -> dict[str, float]:
        first = number * options.batch
        return workers[name].time([(first + i) % len(plan.samples) for i in range(options.batch)])

    timings = measure_interleaved(
        list(workers),
        call,
        repeats=options.repeats,
        warm_up=options.warm_up,
        seed=options.seed,
        on_step=lambda done, total: step("timing", done, total),
    )
    # Scoring needs memory of its own, so peaks are read before it.
    peaks = {name: _peak_mib(worker, server) for name, worker in workers.items()}
    if not timings.complete:
        return _Results(timings, peaks, {}, complete=False, device={})
    try:
        device = _device_use(options, plan, workers, server, step)
    except KeyboardInterrupt:
        return _Results(timings, peaks, {}, complete=False, device={})
    accuracies, complete = _score_all(plan, workers, step)
    return _Results(timings, peaks, accuracies, complete, device)


def _device_use(
    options: RunOptions,
    plan: Plan,
    workers: Mapping[str, WorkerProcess],
    server: TritonServer | None,
    step: Progress,
) -> dict[str, DeviceUse]:
    uses: dict[str, DeviceUse] = {}
    if not options.energy:
        return uses
    with Meters() as meters:
        for done, (name, worker) in enumerate(workers.items() if meters.found() else ()):
            step("measuring energy", done, len(workers))
            uses[name] = measure_device_use(worker, server, meters, len(plan.samples), options.batch)
    return uses


def _peak_mib(worker: WorkerProcess, server: TritonServer | None) -> float | None:
    if worker.candidate.runtime != "Triton":
        return worker.peak_memory_mib()
    pid = server.pid if server else None
    return None if pid is None else peak_tree_memory_mib(pid)


def _score_all(
    plan: Plan, workers: Mapping[str, WorkerProcess], step: Progress
) -> tuple[dict[str, Accuracy], bool]:
    """Accuracy of every trained row on every image; rows that Ctrl-C cut short are left out."""
    trained = [name for name, worker in workers.items() if plan.trained(worker.candidate)]
    total = len(trained) * len(plan.samples)
    accuracies: dict[str, Accuracy] = {}
    try:
        for row, name in enumerate(trained):
            scores = []
            for number in range(len(plan.samples)):
                step("scoring", row * len(plan.samples) + number, total)
                scores.append(workers[name].score(number))
            accuracies[name] = _accuracy(scores, _objects(plan, workers[name], scores))
    except KeyboardInterrupt:
        return accuracies, False
    return accuracies, True


def _accuracy(scores: Sequence[Mapping[str, float]], objects: ObjectAccuracy | None) -> Accuracy:
    dice, iou, hd95 = (tuple(score[key] for score in scores) for key in ("dice", "iou", "hd95"))
    return Accuracy(dice, iou, hd95, summarize(dice), summarize(iou), summarize(hd95), objects)


def _objects(
    plan: Plan, worker: WorkerProcess, scores: Sequence[Mapping[str, float]]
) -> ObjectAccuracy | None:
    subject = plan.subjects[worker.candidate.model]
    if subject.kind != "instances":
        return None
    limit = next(tensor.shape[0] for tensor in subject.spec.outputs if tensor.name == "scores")
    precision = worker.objects(limit)
    return ObjectAccuracy(
        ap=precision["ap"],
        ap50=precision["ap50"],
        limit=limit,
        count_error=tuple(int(score["count_error"]) for score in scores),
        matched_dice=tuple(score["matched_dice"] for score in scores),
    )


def _record(options: RunOptions, plan: Plan, candidate: Candidate, engine: str, results: _Results) -> Record:
    latency = results.timings.latencies[candidate.name]
    peak = results.peaks_mib[candidate.name]
    memory_of = "server" if candidate.runtime == "Triton" else "process"
    device = results.device.get(candidate.name, DeviceUse())
    return Record(
        model=_measured_model(plan, candidate),
        runtime=_engine_name(engine) if candidate.runtime == ENGINE else candidate.runtime,
        where=candidate.where,
        data=Data(options.data.resolve().name, len(plan.samples), plan.split, options.truth),
        settings=_settings(options, candidate),
        accuracy=results.accuracies.get(candidate.name),
        latency=latency,
        images_per_s=1000 * options.batch * len(latency.total) / sum(latency.total),
        peak_memory_mib=peak,
        peak_memory_of=None if peak is None else memory_of,
        engine=engine,
        device_memory_mib=device.device_memory_mib,
        energy=device.energy,
    )


def _engine_name(engine: str) -> str:
    """What stands before the version, "OpenVINO" of "OpenVINO 2026.4.1, CPU"."""
    return re.split(r" \d", engine)[0]


def _settings(options: RunOptions, candidate: Candidate) -> Settings:
    allocator = " ".join(f"{key}={value}" for key, value in TUNED_ALLOCATOR.items())
    return Settings(
        threads=options.threads,
        warm_up=options.warm_up,
        repeats=options.repeats,
        batch=options.batch,
        seed=options.seed,
        allocator=allocator if candidate.runtime == PYTORCH else None,
        channels_last=candidate.channels_last,
        prompts=PROMPTS if candidate.kind == "sam" else None,
        engine=candidate.engine,
    )


def _measured_model(plan: Plan, candidate: Candidate) -> MeasuredModel:
    subject = plan.subjects[candidate.model]
    spec, deployed = subject.spec, candidate.runtime != PYTORCH
    own_decoder = subject.sam and deployed and candidate.runtime != OFFICIAL_DECODER
    return MeasuredModel(
        name=subject.name,
        family=spec.family,
        version=spec.version if deployed else None,
        precision=spec.precision if deployed else "fp32",
        weights=spec.weights,
        parameters=subject.parameter_count or None,
        checkpoint_sha256=spec.checkpoint_sha256 or None,
        graph_sha256=plan.graph_sha256.get(spec.name) if deployed else None,
        decoder_graph_sha256=plan.graph_sha256.get(subject.specs[-1].name) if own_decoder else None,
    )
