"""`seg_runtime.triton.session`: against a real Triton server, and against one that misbehaves on purpose."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
from fake_triton import FakeTriton, metadata_json, serve_grpc, serve_http
from tiny_graph import SIDE, images, publish, publish_all, semantic_graph, semantic_spec

from seg_runtime.connection import connect
from seg_runtime.errors import (
    BadInputError,
    InferenceError,
    ModelNotFoundError,
    ModelNotReadyError,
    RepositoryError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from seg_runtime.server import ServerOptions, TritonServer
from seg_runtime.session import Session
from seg_runtime.spec import TensorSpec
from seg_runtime.triton.session import TritonSession

TRANSPORTS = ["grpc", "http", "shared-memory", "shared-memory over http"]
ANY_PORTS = ServerOptions(
    http_port=0,
    grpc_port=0,
    metrics_port=0,
    model_control="explicit",
    models=("invert", "tiny", "tiny_dynamic"),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`publish_all`, and `idle`, which the server does not load."""
    repository = publish_all(tmp_path_factory.mktemp("repo"))
    publish(repository, semantic_spec("idle"), semantic_graph())
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository, ANY_PORTS) as server:
        yield server


def open_session(server: TritonServer, transport: str, retry_budget_s: float = 10.0) -> Session:
    url = server.http_url if transport.endswith("http") else server.grpc_url
    shared = transport.startswith("shared")
    return connect(url, shared_memory=shared, timeout_s=60, retry_budget_s=retry_budget_s)


@pytest.mark.server
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_server_gives_exactly_what_the_process_gives(
    server: TritonServer, repository: Path, transport: str
) -> None:
    with open_session(server, transport) as session, connect(repository) as local:
        assert session.where == transport.split(maxsplit=1)[0]
        for model in ("tiny", "tiny_dynamic"):
            for batch in (1, 3, 8):
                answer = session.infer(model, {"image": images(batch)})["probabilities"]
                expected = local.infer(model, {"image": images(batch)})["probabilities"]
                np.testing.assert_array_equal(answer, expected)
                assert answer.flags.writeable


@pytest.mark.server
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_eight_threads_get_the_serial_answers(server: TritonServer, repository: Path, transport: str) -> None:
    inputs = [images(1 + seed % 3, seed) for seed in range(200)]
    with connect(repository) as local:
        expected = [local.infer("tiny", {"image": array})["probabilities"] for array in inputs]
    wrong: list[int] = []

    def client(session: Session) -> None:
        for number, array in enumerate(inputs):
            answer = session.infer("tiny", {"image": array})["probabilities"]
            if not np.array_equal(answer, expected[number]):
                wrong.append(number)

    with open_session(server, transport) as session, ThreadPoolExecutor(8) as pool:
        for thread in [pool.submit(client, session) for _ in range(8)]:
            thread.result()
    assert not wrong


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_killed_and_restarted_server_is_survived(
    server: TritonServer, repository: Path, transport: str
) -> None:
    with connect(repository) as local:
        expected = local.infer("tiny", {"image": images(2)})["probabilities"]
    answers, stop = [], threading.Event()

    def client(session: Session) -> None:
        while not stop.is_set():
            answers.append(session.infer("tiny", {"image": images(2)})["probabilities"])

    with open_session(server, transport, retry_budget_s=60) as session, ThreadPoolExecutor(2) as pool:
        threads = [pool.submit(client, session) for _ in range(2)]
        try:
            while len(answers) < 20:
                time.sleep(0.01)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            while server.pid is not None:
                time.sleep(0.01)
            server.start()
            before = len(answers)
            while len(answers) < before + 20 and not any(thread.done() for thread in threads):
                time.sleep(0.01)
        finally:
            stop.set()
        for thread in threads:
            thread.result()
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.server
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_contract_and_names_come_over_the_wire(server: TritonServer, transport: str) -> None:
    with open_session(server, transport) as session:
        assert session.spec("tiny") == semantic_spec()
        assert session.models() == ("invert", "tiny", "tiny_dynamic")
        with pytest.raises(ModelNotFoundError, match=r"at (grpc|http)://.*did you mean 'tiny'"):
            session.spec("tinny")


@pytest.mark.server
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_model_that_is_not_ready_is_told_from_one_that_does_not_exist(
    server: TritonServer, transport: str
) -> None:
    with (
        open_session(server, transport) as session,
        pytest.raises(ModelNotReadyError, match=r"'idle'.*not ready"),
    ):
        session.infer("idle", {"image": images(1)})


@pytest.mark.server
@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_kept_output_of_a_remote_server_is_an_ordinary_input(server: TritonServer, transport: str) -> None:
    with open_session(server, transport) as session:
        kept = session.infer("tiny", {"image": images(2)}, keep=["probabilities"])["probabilities"]
        inverted = session.infer("invert", {"probabilities": kept})["inverted"]
        np.testing.assert_array_equal(inverted, 1 - kept.numpy())
        with open_session(server, transport) as other, pytest.raises(BadInputError, match="another session"):
            other.infer("invert", {"probabilities": kept})
        kept.release()
        with pytest.raises(InferenceError, match="was released"):
            session.infer("invert", {"probabilities": kept})


@pytest.fixture
def fake() -> FakeTriton:
    return FakeTriton(semantic_spec())


@pytest.fixture
def session(fake: FakeTriton) -> Iterator[TritonSession]:
    with serve_grpc(fake) as location, connect(f"grpc://{location}", retry_budget_s=1) as session:
        assert isinstance(session, TritonSession)
        yield session


def test_server_without_shared_memory_is_used_without_it(session: TritonSession) -> None:
    assert session.where == "grpc"


def test_unavailable_server_is_tried_again(session: TritonSession, fake: FakeTriton) -> None:
    fake.failures = [(grpc.StatusCode.UNAVAILABLE, "draining")] * 2
    assert session.infer("tiny", {"image": images(1)})["probabilities"].max() == 0.25
    assert fake.calls == 3


def test_retries_end_with_the_budget(session: TritonSession, fake: FakeTriton) -> None:
    fake.failures = [(grpc.StatusCode.UNAVAILABLE, "draining")] * 1000
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError, match="draining"):
        session.infer("tiny", {"image": images(1)})
    assert time.monotonic() - start < 3
    assert 2 < fake.calls < 20


def test_refused_request_is_not_tried_again(session: TritonSession, fake: FakeTriton) -> None:
    fake.failures = [(grpc.StatusCode.INTERNAL, "out of\nmemory")]
    with pytest.raises(InferenceError, match="answered: out of memory"):
        session.infer("tiny", {"image": images(1)})
    assert fake.calls == 1


def test_model_that_is_being_loaded_is_waited_for(fake: FakeTriton) -> None:
    fake.states = ["LOADING", "LOADING", "READY"]
    with serve_grpc(fake) as location, connect(f"grpc://{location}") as session:
        assert session.spec("tiny") == fake.spec


def test_slow_server_is_a_timeout_and_not_tried_again(fake: FakeTriton) -> None:
    with serve_grpc(fake) as location, connect(f"grpc://{location}", timeout_s=0.5) as session:
        session.spec("tiny")
        fake.delay_s = 2
        with pytest.raises(ServerTimeoutError, match="did not answer in time"):
            session.infer("tiny", {"image": images(1)})
    assert fake.calls == 1


def test_slow_http_server_is_a_timeout() -> None:
    def answer(path: str, headers: dict[str, str]) -> tuple[int, str]:
        if path != "/v2":
            time.sleep(1)
        return 200, metadata_json()

    with (
        serve_http(answer) as location,
        connect(f"http://{location}", timeout_s=0.3) as session,
        pytest.raises(ServerTimeoutError, match="did not answer in time"),
    ):
        session.models()


def test_newer_version_of_a_model_is_noticed_with_its_first_answer(
    session: TritonSession, fake: FakeTriton
) -> None:
    assert session.spec("tiny").version == 1
    fake.spec = replace(fake.spec, version=2, checkpoint_sha256="cd" * 32)
    kept = session.infer("tiny", {"image": images(1)}, keep=["probabilities"])["probabilities"]
    assert kept.spec == session.spec("tiny") == fake.spec


def test_model_replaced_by_one_of_another_type_is_asked_for_its_contract_again(
    session: TritonSession, fake: FakeTriton
) -> None:
    assert session.spec("tiny").inputs[0].dtype == "uint8"
    fake.spec = replace(fake.spec, version=2, inputs=(TensorSpec("image", "float16", (SIDE, SIDE, 1)),))
    image = np.zeros((1, SIDE, SIDE, 1), np.float16)
    with pytest.raises(BadInputError, match="wants image as uint8, not float16"):
        session.infer("tiny", {"image": image})
    assert session.infer("tiny", {"image": image})["probabilities"].max() == 0.25


def test_model_without_our_contract_says_so(fake: FakeTriton) -> None:
    fake.spec = replace(fake.spec, task="")
    with (
        serve_grpc(fake) as location,
        connect(f"grpc://{location}") as session,
        pytest.raises(RepositoryError, match="no usable edgeseg contract"),
    ):
        session.spec("tiny")


@pytest.mark.slow
def test_closed_session_refuses_work_and_its_handles(session: TritonSession) -> None:
    kept = session.infer("tiny", {"image": images(1)}, keep=["probabilities"])["probabilities"]
    session.close()
    session.close()
    with pytest.raises(InferenceError, match="closed: call connect"):
        session.infer("tiny", {"image": images(1)})
    with pytest.raises(InferenceError, match="was released"):
        kept.numpy()
