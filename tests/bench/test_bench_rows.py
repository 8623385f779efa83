"""Rows of a run: cold start, batches, load, what a server did not compute, and rows that break off."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import psutil
import pytest
from scaling_model import publish_scaling_model
from typer.testing import CliRunner

from seg_bench.candidate import ENGINE, Candidate
from seg_bench.machine import shown_text
from seg_bench.record_files import read_run, write_run
from seg_bench.records import Record
from seg_bench.run import server_time
from seg_bench.run.options import LoadLevel, RunOptions
from seg_bench.run.rounds import time_rows
from seg_bench.run.rows import Row
from seg_bench.run.runner import measure
from seg_bench.run.worker_process import WorkerProcess
from seg_runtime.errors import EdgesegError
from seg_runtime.triton.client import ModelStatistics


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """Two models that find what is brighter than half, and three images with a bright square each."""
    root = tmp_path_factory.mktemp("rows")
    (root / "repo").mkdir()
    for name in ("first", "second"):
        publish_scaling_model(root / "repo", name, factor=0.004)
    for number in range(3):
        image = np.full((16, 16), 40, np.uint8)
        image[4:12, 4 + number : 12 + number] = 220
        for part, pixels in (("images", image), ("masks", np.where(image > 128, 255, 0).astype(np.uint8))):
            (root / "data" / part).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / "data" / part / f"square_{number}.png"), pixels)
    return RunOptions(repo=root / "repo", data=root / "data", repeats=3, warm_up=1, threads=1)


def name_of(process: psutil.Process) -> str:
    """Empty for one that has ended by now."""
    with suppress(psutil.NoSuchProcess):
        return str(process.name())
    return ""


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def rows_by_model(records: tuple[Record, ...]) -> dict[str, Record]:
    return {record.model.name: record for record in records}


def test_batches_cold_start_load_and_names_of_images_are_in_the_record(
    options: RunOptions, tmp_path: Path
) -> None:
    steps: set[str] = set()
    wanted = replace(
        options, models=("first",), batches=(1, 4), concurrency=(2,), rates=(100.0,), duration_s=0.2
    )
    run = measure(wanted, on_step=lambda what, done, total: steps.add(what))
    assert steps == {"loading models", "timing", "scoring", "under load"}
    assert [record.settings.batch for record in run.records] == [1, 4]
    for record in run.records:
        batch = record.settings.batch
        assert record.latency and record.accuracy and record.load_ms and record.first_call_ms
        assert record.images_per_s == pytest.approx(1000 * batch * 3 / sum(record.latency.total))
        assert record.accuracy.images == ("square_0", "square_1", "square_2")
        # Loading takes a session and a graph; a call on 8x8 pixels is far quicker.
        assert record.load_ms > record.latency.percentile(50)
        assert record.latency.transfer is None
        assert record.failure is None
        closed, open_ = record.loads or ()
        assert (closed.concurrency, closed.rate_per_s, open_.rate_per_s) == (2, None, 100)
        assert len(open_.latency_ms) + open_.failures == 20
        assert closed.images_per_s == pytest.approx(batch * len(closed.latency_ms) / closed.duration_s)
    write_run(run, tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == run


def test_a_killed_worker_is_a_row_that_says_so_and_the_others_go_on(options: RunOptions) -> None:
    before = {child.pid for child in children()}

    def kill_one(what: str, done: int, total: int) -> None:
        # After the warm-up and one round of both: the worker that came first is the first model's.
        if (what, done) == ("timing", 4):
            own = sorted((p for p in children() if p.pid not in before), key=lambda p: p.create_time())
            own[0].kill()

    rows = rows_by_model(measure(options, on_step=kill_one).records)
    failed, whole = rows["first"], rows["second"]
    assert failed.failure and "'first, in-process, auto' ended early: SIGKILL" in failed.failure
    assert failed.latency and len(failed.latency.total) == 1
    assert failed.accuracy is None
    assert whole.failure is None and whole.latency and len(whole.latency.total) == 3
    assert whole.accuracy and len(whole.accuracy.dice) == 3


def test_ctrl_c_under_load_keeps_accuracy_and_the_levels_so_far(options: RunOptions) -> None:
    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("under load", 1):
            raise KeyboardInterrupt

    wanted = replace(options, models=("first",), concurrency=(1, 2), duration_s=0.1)
    run = measure(wanted, on_step=interrupt)
    assert not run.complete
    (record,) = run.records
    assert record.accuracy and record.latency
    assert [point.concurrency for point in record.loads or ()] == [1]


def test_record_names_what_computed_at_the_end_of_the_timed_calls(options: RunOptions) -> None:
    class Worker:
        calls = 0

        def time(self, samples: list[int]) -> dict[str, float]:
            self.calls += 1
            return dict.fromkeys(("preprocess", "infer", "postprocess", "total"), 1.0)

        def peak_memory_mib(self) -> float | None:
            return None

        def engine_now(self) -> str:
            return f"engine after {self.calls} calls"

    candidate = Candidate(
        "first", "in-process", ENGINE, str(options.repo), str(options.data), ("square_0",), "auto"
    )
    row = Row(candidate, engine="engine", _worker=cast("WorkerProcess", Worker()))
    time_rows(replace(options, repeats=2, warm_up=1), [row], None, lambda *_: None)
    assert row.failure is None and row.engine == f"engine after {row.warm_up + 2} calls"


def test_a_load_that_ctrl_c_breaks_off_gives_what_was_answered(options: RunOptions) -> None:
    candidate = Candidate(
        "first", "in-process", ENGINE, str(options.repo), str(options.data), ("square_0",), "auto"
    )
    with WorkerProcess(candidate) as worker:
        assert worker.end_load() is None
        assert worker.time([0])["total"] > 0
        timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            worker.load(LoadLevel(2, None, 3600))
        answer = worker.end_load()
        assert answer and answer["latency_ms"] and answer["most_in_flight"] <= 2
        assert worker.score(0)["dice"] > 0  # it still takes requests


def test_a_command_with_a_failed_row_writes_the_others_and_exits_with_1(
    options: RunOptions, tmp_path: Path
) -> None:
    from seg_bench.cli import app

    arguments = ["run", "--repo", options.repo, "--data", options.data, "--models", "fir*", "--repeats", "1"]
    arguments += ["--engines", "onnxruntime,tensorrt", "--out", tmp_path / "run.json", "--json"]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 1, result.output
    assert "failed: first, in-process: version 1 of model 'first' has no model.plan" in result.output
    good, failed = read_run(tmp_path / "run.json").records
    assert good.latency and failed.failure and not failed.latency
    assert str(options.repo.parent) not in failed.failure


def test_a_command_without_images_names_the_suites(options: RunOptions) -> None:
    from seg_bench.cli import app

    result = CliRunner().invoke(app, ["run", "--repo", str(options.repo)])
    assert isinstance(result.exception, EdgesegError)
    assert "give a folder with --data, or --suite montgomery|shenzhen|nuclei" in str(result.exception)


class Counters:
    """A server's statistics, read by read: (requests, milliseconds) per model."""

    def __init__(self, reads: dict[str, list[tuple[int, float]]]) -> None:
        self.reads = {model: iter(states) for model, states in reads.items()}

    def __call__(self, address: object, options: object) -> Counters:
        return self

    def statistics(self, model: str) -> ModelStatistics:
        return ModelStatistics(*next(self.reads[model]), 0, 0)


@pytest.mark.parametrize(
    ("encoder", "decoder", "computed_ms"),
    [
        # The decoder's request is counted one read late, and a read later nothing has changed.
        (
            [(7, 70), (7, 70), (8, 80), (8, 80), (8, 80)],
            [(9, 9.0), (9, 9.0), (9, 9.0), (10, 11.5), (10, 11.5)],
            12.5,
        ),
        # So is one of the call before, which is no part of this one.
        (
            [(7, 70), (7, 70), (7, 70), (8, 80), (8, 80)],
            [(8, 7.0), (9, 9.0), (9, 9.0), (10, 11.5), (10, 11.5)],
            12.5,
        ),
        # Somebody else encoded an image meanwhile.
        ([(7, 70), (7, 70), (9, 90), (9, 90)], [(9, 9.0), (9, 9.0), (10, 10.0), (10, 10.0)], None),
    ],
)
def test_a_server_is_asked_until_it_has_counted_a_call_that_was_alone(
    encoder: list[tuple[int, float]],
    decoder: list[tuple[int, float]],
    computed_ms: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_time, "TritonClient", Counters({"encoder": encoder, "decoder": decoder}))
    clock = server_time.ServerClock("grpc://localhost:8001", ("encoder", "decoder"))
    assert clock.stop() is None
    clock.start()
    assert clock.stop() == computed_ms


def test_paths_and_hosts_do_not_get_into_records() -> None:
    told = "nobody answers at grpc://jetson.lab:8001: '/srv/models/unet/1/model.onnx' is\n missing, see http://localhost:8000"
    assert shown_text(told) == (
        "nobody answers at grpc://SERVER:8001: 'model.onnx' is missing, see http://localhost:8000"
    )
    assert shown_text("images/s and 3/4 stay, data/montgomery too") == (
        "images/s and 3/4 stay, data/montgomery too"
    )


@pytest.mark.server
def test_transfer_is_what_a_server_did_not_compute_of_a_call(options: RunOptions) -> None:
    pytest.importorskip("pytriton")
    wanted = replace(options, models=("first",), where=("grpc", "http"), concurrency=(2,), duration_s=0.2)
    for record in measure(wanted).records:
        assert record.latency and record.latency.transfer and len(record.latency.transfer) == 3
        for transfer, infer in zip(record.latency.transfer, record.latency.infer, strict=True):
            assert 0 < transfer < infer
        assert record.loads and record.loads[0].failures == 0


@pytest.mark.server
@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_fails_its_rows_and_no_others(options: RunOptions) -> None:
    pytest.importorskip("pytriton")

    def kill_server(what: str, done: int, total: int) -> None:
        if (what, done) == ("timing", 4):
            for process in children():
                if "tritonserver" in name_of(process):
                    process.kill()

    wanted = replace(options, models=("first",), where=("in-process", "grpc"))
    inside, served = measure(wanted, on_step=kill_server).records
    assert inside.failure is None and inside.accuracy
    assert served.failure and served.accuracy is None
