"""`timeout_s` holds for a whole request, whatever lies between client and server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_triton import FakeTriton, serve_grpc, serve_http
from faulty_network import FAULTS, Relay, relay_to
from tiny_graph import semantic_spec

from seg_runtime.connection import connect
from seg_runtime.errors import ServerTimeoutError, ServerUnavailableError
from seg_runtime.session import Session
from seg_runtime.spec import TensorSpec
from seg_runtime.triton import connections as triton_connections

DEADLINE_S = 0.5
PATIENT_S = 30.0
HANGS_S = 5.0
"""A guard: what takes so much longer than the deadline has not noticed it."""

SIDE = 5000
"""Of the images, so that one does not fit into the buffers of the sockets."""
IMAGE = np.zeros((1, SIDE, SIDE, 1), np.uint8)
SPEC = semantic_spec(
    inputs=(TensorSpec("image", "uint8", (SIDE, SIDE, 1)),),
    outputs=(TensorSpec("probabilities", "float32", (4,)),),
)
Call = Callable[[Session], Any]
CALLS: dict[str, Call] = {
    "infer": lambda session: session.infer("tiny", {"image": IMAGE}),
    "spec": lambda session: session.spec("tiny"),
    "models": lambda session: session.models(),
    "close": lambda session: session.close(),
}


@pytest.fixture
def fake() -> FakeTriton:
    return FakeTriton(SPEC)


@contextmanager
def relayed(scheme: str, fake: FakeTriton) -> Iterator[Relay]:
    serving = serve_grpc(fake) if scheme == "grpc" else serve_http(fake.answer_http)
    with serving as location, relay_to(location) as relay:
        yield relay


def in_thread(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start it in a thread that nobody has to wait for; the function returned gives its value or error."""
    ended, outcome = threading.Event(), []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001 - given to the caller
            outcome.append(error)
        ended.set()

    threading.Thread(target=run, daemon=True).start()

    def result() -> Any:
        assert ended.wait(HANGS_S), f"still waiting {HANGS_S} s after a deadline of {DEADLINE_S} s"
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]

    return result


def open_session(scheme: str, relay: Relay) -> Any:
    return connect(f"{scheme}://{relay.location}", timeout_s=PATIENT_S)


@contextmanager
def impatient(session: Any) -> Iterator[None]:
    """As if it had been opened with DEADLINE_S, which a busy machine may need for a healthy call."""
    patient = session._client._options
    session._client._options = replace(patient, timeout_s=DEADLINE_S)
    try:
        yield
    finally:
        session._client._options = patient


def outcomes_of_all_calls(scheme: str, relay: Relay, fail: Callable[[], None]) -> dict[str, Any]:
    """What each call on a session of its own came to, and opening one, after the failure began."""
    barrier = threading.Barrier(len(CALLS) + 1, action=fail)

    def call(name: str) -> Any:
        with open_session(scheme, relay) as session:
            if name == "infer":
                session.spec("tiny")
            barrier.wait()
            with impatient(session):
                return CALLS[name](session)

    def open_one() -> None:
        barrier.wait()
        connect(f"{scheme}://{relay.location}", timeout_s=DEADLINE_S).close()

    waiting = {name: in_thread(lambda name=name: call(name)) for name in CALLS}
    waiting["connect"] = in_thread(open_one)
    outcomes = {}
    for name, result in waiting.items():
        try:
            outcomes[name] = result()
        except (ServerTimeoutError, ServerUnavailableError) as error:
            outcomes[name] = error
    return outcomes


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_ends_with_its_deadline(scheme: str, fault: str, fake: FakeTriton) -> None:
    with relayed(scheme, fake) as relay:
        outcomes = outcomes_of_all_calls(scheme, relay, lambda: relay.fail(fault))
    assert outcomes.pop("close") is None
    if fault == "half-open":
        assert outcomes.pop("connect") is None, "only connections of before are dead"
    if fault != "cut late":  # over gRPC, what was cut off may be of no importance
        assert all(isinstance(outcome, Exception) for outcome in outcomes.values()), outcomes


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_server_that_is_unavailable_for_ever_costs_no_more_than_the_deadline(
    scheme: str, fake: FakeTriton
) -> None:
    with relayed(scheme, fake) as relay:
        outcomes = outcomes_of_all_calls(scheme, relay, lambda: setattr(fake, "away", True))
    assert outcomes.pop("close") is None
    for outcome in outcomes.values():
        # On a busy machine even the first answer may come too late.
        assert isinstance(outcome, (ServerUnavailableError, ServerTimeoutError))
        assert isinstance(outcome, ServerTimeoutError) or "draining" in str(outcome)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_half_open_connection_is_left_after_one_timeout(scheme: str, fake: FakeTriton) -> None:
    with relayed(scheme, fake) as relay, open_session(scheme, relay) as session:
        assert session.models() == ("tiny",)
        relay.fail("half-open")
        with impatient(session), pytest.raises(ServerTimeoutError, match="did not answer in time"):
            session.models()
        for _ in range(3):
            assert session.models() == ("tiny",)
        assert relay.accepted == 2


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_one_timeout_is_enough_for_all_threads(scheme: str, fake: FakeTriton) -> None:
    """Threads with idle connections need not find out one by one that these are dead."""
    known, failed = threading.Barrier(4), threading.Event()

    def use(session: Session) -> tuple[str, ...]:
        session.models()
        known.wait()
        failed.wait()
        return session.models()

    with relayed(scheme, fake) as relay, open_session(scheme, relay) as session:
        waiting = [in_thread(lambda: use(session)) for _ in range(3)]
        session.models()
        known.wait()
        relay.fail("half-open")
        with impatient(session), pytest.raises(ServerTimeoutError):
            session.models()
        failed.set()
        assert [result() for result in waiting] == [("tiny",)] * 3


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_timeout_of_one_thread_does_not_break_the_request_of_another(scheme: str, fake: FakeTriton) -> None:
    image = IMAGE[:, :1, :1]
    fake.spec = semantic_spec(inputs=(TensorSpec("image", "uint8", (1, 1, 1)),), outputs=SPEC.outputs)
    with relayed(scheme, fake) as relay, open_session(scheme, relay) as session:
        session.spec("tiny")
        fake.delay_s = 4 * DEADLINE_S
        first = in_thread(lambda: session.infer("tiny", {"image": image}))
        while not fake.calls:
            time.sleep(0.01)
        # Given up before the first is answered, over gRPC on the same connection.
        with session._client.limit(DEADLINE_S), pytest.raises(ServerTimeoutError):
            session.infer("tiny", {"image": image})
        again = in_thread(session.models)
        assert first()["probabilities"].max() == 0.25
        assert again() == ("tiny",)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_connection_that_was_idle_for_long_is_not_trusted(
    scheme: str, fake: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relayed(scheme, fake) as relay, open_session(scheme, relay) as session:
        session.models()
        session.models()
        assert relay.accepted == 1
        relay.fail("half-open")
        monkeypatch.setattr(triton_connections, "IDLE_S", 0.0)
        assert session.models() == ("tiny",)


def test_time_limit_of_http_counts_from_the_call_and_not_from_the_last_one(fake: FakeTriton) -> None:
    """The clock of an event loop stands still while nobody uses it."""
    with relayed("http", fake) as relay, open_session("http", relay) as session:
        session.models()
        time.sleep(2 * DEADLINE_S)
        with impatient(session):
            assert session.models() == ("tiny",)


def test_server_that_hangs_while_memory_is_offered_is_not_taken_for_one_without_it(fake: FakeTriton) -> None:
    """A session would otherwise send its tensors in messages for as long as it lives."""
    fake.extensions = [*fake.extensions, "system_shared_memory"]
    fake.delay_s = 4 * DEADLINE_S
    with relayed("grpc", fake) as relay, pytest.raises(ServerTimeoutError):
        connect(f"grpc://{relay.location}", timeout_s=DEADLINE_S)
