"""`seg_runtime.triton.shared_memory`, `region_pool`: tensors stay off the socket, nothing is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from server_regions import mapped_regions
from tiny_graph import SIDE, images, publish, publish_all, rows_graph, rows_spec, semantic_spec

from seg_runtime.connection import connect
from seg_runtime.errors import (
    BadInputError,
    InferenceError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from seg_runtime.handles import ArrayHandle
from seg_runtime.server import ServerOptions, TritonServer
from seg_runtime.session import Session
from seg_runtime.spec import TensorSpec
from seg_runtime.triton import session as triton_session
from seg_runtime.triton import shared_memory
from seg_runtime.triton.client import TritonClient
from seg_runtime.triton.errors import RegionInUseError
from seg_runtime.triton.region_pool import RegionHandle, RegionPool
from seg_runtime.triton.transfer import SharedTransfer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = publish_all(tmp_path_factory.mktemp("repo"))
    publish(repository, rows_spec("rows"), rows_graph())
    publish(repository, rows_spec("rows_without_names", axes=()), rows_graph())
    stacked = replace(
        rows_spec("rows_stacked"), outputs=(TensorSpec("joined", "float32", (-1, SIDE), ("rows",)),)
    )
    publish(repository, stacked, rows_graph(axis=0))
    with TritonServer(repository, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
        yield server


@pytest.fixture
def session(server: TritonServer) -> Iterator[Session]:
    with connect(server.grpc_url, timeout_s=60, retry_budget_s=60) as session:
        yield session


def keep_one(session: Session, seed: int = 0) -> RegionHandle:
    kept = session.infer("tiny", {"image": images(2, seed)}, keep=["probabilities"])["probabilities"]
    assert isinstance(kept, RegionHandle)
    return kept


def files_left() -> list[str]:
    return sorted(path.name for path in shared_memory.FOLDER.glob("edgeseg-*"))


@pytest.mark.server
def test_local_server_is_found_out_without_being_told(session: Session) -> None:
    assert session.where == "shared-memory"


@pytest.mark.server
def test_kept_output_is_read_by_the_next_model_where_it_lies(session: Session) -> None:
    kept = keep_one(session)
    assert (kept.shape, kept.dtype, kept.spec) == ((2, 1, 32, 32), "float32", semantic_spec())
    inverted = session.infer("invert", {"probabilities": kept})["inverted"]
    np.testing.assert_array_equal(inverted, 1 - kept.numpy())
    twice = session.infer("invert", {"probabilities": kept}, keep=["inverted"])["inverted"]
    np.testing.assert_array_equal(session.infer("invert", {"probabilities": twice})["inverted"], 1 - inverted)


@pytest.mark.server
def test_results_are_not_overwritten_by_later_calls(session: Session) -> None:
    first = session.infer("tiny", {"image": images(2, 0)})["probabilities"]
    kept = keep_one(session, 0)
    before = first.copy()
    for seed in range(1, 6):
        session.infer("tiny", {"image": images(2, seed)})
    np.testing.assert_array_equal(first, before)
    np.testing.assert_array_equal(kept.numpy(), before)


@pytest.mark.server
def test_kept_output_of_unknown_size_comes_as_an_array(session: Session) -> None:
    kept = session.infer("tiny_dynamic", {"image": images(2)}, keep=["probabilities"])["probabilities"]
    assert isinstance(kept, ArrayHandle)
    inverted = session.infer("invert", {"probabilities": kept})["inverted"]
    np.testing.assert_array_equal(inverted, 1 - kept.numpy())


@pytest.fixture
def in_messages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of tensors inside each answer of `ModelInfer`."""
    sizes: list[int] = []
    infer = TritonClient.infer

    def noted(self: TritonClient, *arguments: Any) -> Any:
        answer = infer(self, *arguments)
        sizes.append(sum(map(len, answer.get_response().raw_output_contents)))
        return answer

    monkeypatch.setattr(TritonClient, "infer", noted)
    return sizes


def two_rows(count: int) -> dict[str, np.ndarray]:
    values = np.random.default_rng(count).standard_normal((2, count, SIDE), np.float32)
    return {"left": values[0], "right": values[1]}


@pytest.mark.server
@pytest.mark.parametrize(("model", "shared"), [("rows", True), ("rows_without_names", False)])
def test_output_as_long_as_an_input_stays_in_shared_memory_where_the_contract_says_so(
    session: Session, in_messages: list[int], model: str, shared: bool
) -> None:
    for count in (1, 500, 3):
        rows = two_rows(count)
        expected = np.concatenate([rows["left"], rows["right"]], axis=1)
        np.testing.assert_array_equal(session.infer(model, rows)["joined"], expected)
        assert in_messages.pop() == (0 if shared else expected.nbytes)
    kept = session.infer(model, rows, keep=["joined"])["joined"]
    assert isinstance(kept, RegionHandle if shared else ArrayHandle)
    np.testing.assert_array_equal(kept.numpy(), expected)


@pytest.mark.server
def test_output_larger_than_its_contract_is_refused_and_its_memory_given_back(
    session: Session, server: TritonServer
) -> None:
    session.infer("rows", two_rows(40))
    before = mapped_regions(server)
    for keep in ((), ("joined",)) * 5:
        with pytest.raises(InferenceError, match=r"shared memory size specified .* 'joined'"):
            session.infer("rows_stacked", two_rows(40), keep)
    assert len(mapped_regions(server)) <= len(before) + 2


@pytest.mark.server
def test_released_forgotten_and_failed_calls_give_their_regions_back(
    session: Session, server: TritonServer
) -> None:
    keep_one(session).release()
    before = len(mapped_regions(server))
    for seed in range(10):
        keep_one(session, seed).release()
        keep_one(session, seed)  # forgotten at once
        with keep_one(session, seed):
            pass
        with pytest.raises(BadInputError):
            session.infer("tiny", {"image": images(9)}, keep=["probabilities"])
    assert len(mapped_regions(server)) <= before + 1


@pytest.mark.server
def test_closing_frees_every_region_and_refuses_its_handles(server: TritonServer) -> None:
    before = mapped_regions(server)
    session = connect(server.grpc_url)
    kept = keep_one(session)
    assert len(mapped_regions(server)) == len(before) + 2
    assert files_left() == []
    session.close()
    assert mapped_regions(server) == before
    with pytest.raises(InferenceError, match="was released or its session closed"):
        kept.numpy()


@pytest.mark.server
def test_forgotten_session_frees_its_regions(server: TritonServer) -> None:
    before = mapped_regions(server)
    session = connect(server.grpc_url)
    keep_one(session)
    del session
    assert mapped_regions(server) == before


@pytest.mark.server
def test_released_and_foreign_handles_are_refused_in_one_line(session: Session, server: TritonServer) -> None:
    kept = keep_one(session)
    with connect(server.grpc_url) as other, pytest.raises(BadInputError, match="made by another session"):
        other.infer("invert", {"probabilities": kept})
    kept.release()
    kept.release()
    with pytest.raises(InferenceError, match="was released"):
        session.infer("invert", {"probabilities": kept})
    with pytest.raises(InferenceError, match="was released"):
        kept.numpy()


@pytest.mark.slow
@pytest.mark.server
def test_kept_output_survives_a_restart_of_the_server(session: Session, server: TritonServer) -> None:
    kept = keep_one(session)
    before = kept.numpy()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    while server.pid is not None:
        time.sleep(0.01)
    server.start()
    inverted = session.infer("invert", {"probabilities": kept})["inverted"]
    np.testing.assert_array_equal(inverted, 1 - before)
    np.testing.assert_array_equal(kept.numpy(), before)
    assert files_left() == []


CLIENT = """
import sys, time, numpy as np
from seg_runtime import connect
session = connect(sys.argv[1], shared_memory=True)
image = np.zeros((1, 32, 32, 1), np.uint8)
kept = session.infer("tiny", {"image": image}, keep=["probabilities"])["probabilities"]
print("ready", flush=True)
if sys.argv[2] == "wait":
    time.sleep(60)
"""


def start_client(server: TritonServer, then: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, server.grpc_url, then],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.server
def test_killed_client_leaves_no_file_no_process_and_no_output(server: TritonServer) -> None:
    with start_client(server, "wait") as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "ready\n"
        client.kill()
        output, error = client.communicate(timeout=10)
    assert (output, error) == ("", "")
    assert files_left() == []
    left = mapped_regions(server)
    assert left
    with connect(server.grpc_url, shared_memory=True):
        assert not set(mapped_regions(server)) & set(left), (
            "the next client has the server unmap what is left"
        )


@pytest.mark.server
def test_client_that_ends_without_closing_frees_its_regions_quietly(server: TritonServer) -> None:
    before = mapped_regions(server)
    with start_client(server, "end") as client:
        output, error = client.communicate(timeout=60)
    assert (client.returncode, output, error) == (0, "ready\n", "")
    assert mapped_regions(server) == before


@contextmanager
def stopped(server: TritonServer) -> Iterator[None]:
    """The server neither answers nor closes its connections."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.server
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_server_that_hangs_holds_neither_a_request_with_new_regions_nor_the_end_of_a_session(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(triton_session, "_CLOSING_S", 0.3)
    url = server.grpc_url if scheme == "grpc" else server.http_url
    session = connect(url, shared_memory=True, timeout_s=0.5)
    kept = [keep_one(session, seed) for seed in range(8)]

    def use_and_close() -> None:
        with pytest.raises(ServerTimeoutError, match="did not answer in time"):
            keep_one(session)
        session.close()

    with stopped(server):
        ending = threading.Thread(target=use_and_close, daemon=True)
        ending.start()
        ending.join(10)  # a guard; a deadline for each of the regions would be no better than none
        assert not ending.is_alive()
    assert all(handle.released for handle in kept)
    with connect(url, shared_memory=True) as other:
        assert keep_one(other).shape == (2, 1, SIDE, SIDE)


@pytest.mark.server
def test_server_that_cannot_open_our_memory_is_used_without_it(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on another machine: the server looks for the name where we did not put it.
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    with connect(server.grpc_url) as session:
        assert session.where == "grpc"
        kept = session.infer("tiny", {"image": images(1)}, keep=["probabilities"])["probabilities"]
        assert isinstance(kept, ArrayHandle)
    with pytest.raises(ServerError, match="no shared memory with grpc://") as caught:
        connect(server.grpc_url, shared_memory=True)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.server
def test_full_shared_memory_falls_back_to_the_message(
    server: TritonServer, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keep_one(session)
    expected = kept.numpy()

    def no_space(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with connect(server.grpc_url) as other:
        assert other.where == "grpc"
    many = session.infer("tiny", {"image": np.repeat(images(2), 4, axis=0)}, keep=["probabilities"])
    assert isinstance(many["probabilities"], ArrayHandle)
    np.testing.assert_array_equal(many["probabilities"].numpy()[::4], expected)
    assert files_left() == []


class Answer:
    """A server's answer whose only output was written into shared memory."""

    def __init__(self, datatype: str, shape: tuple[int, ...]) -> None:
        self._output = {"name": "probabilities", "datatype": datatype, "shape": list(shape)}

    def get_output(self, name: str) -> dict[str, Any]:
        assert name == self._output["name"]
        return self._output


class Registry:
    """A connection that notes which regions are registered, and can claim that they are in use."""

    address = "grpc://localhost:8001"

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.busy = False
        self.refusals = 0

    def patiently(self, attempt: Callable[[], Any]) -> Any:
        return attempt()

    def register(self, name: str, byte_size: int) -> None:
        assert (shared_memory.FOLDER / name).stat().st_size == byte_size
        self.names.add(name)

    def unregister(self, name: str) -> None:
        if self.busy or self.refusals:
            self.refusals = max(0, self.refusals - 1)
            raise RegionInUseError(name)
        self.names.discard(name)

    def regions(self) -> list[str]:
        return sorted(self.names)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def pool(registry: Registry) -> RegionPool:
    return RegionPool(registry, object())  # type: ignore[arg-type]


def test_pool_reuses_a_region_that_fits(pool: RegionPool) -> None:
    region = pool.borrow(10_000)
    pool.give_back(region)
    assert pool.borrow(9_000) is region
    assert pool.borrow(9_000) is not region


def test_pool_does_not_spend_a_large_region_on_a_small_tensor(pool: RegionPool) -> None:
    region = pool.borrow(1_000_000)
    pool.give_back(region)
    assert pool.borrow(100) is not region


def test_pool_keeps_a_limited_number_of_free_regions(pool: RegionPool, registry: Registry) -> None:
    for region in [pool.borrow(100) for _ in range(40)]:
        pool.give_back(region)
    pool.borrow(100)
    assert len(registry.names) <= 17


def test_region_of_a_request_given_up_waits_until_the_server_is_done_with_it(
    pool: RegionPool, registry: Registry
) -> None:
    region = pool.borrow(100)
    region.doubtful = True
    registry.busy = True
    pool.give_back(region)
    assert pool.borrow(100) is not region
    assert region.name in registry.names
    registry.busy = False
    assert pool.borrow(100) is not region
    assert region.name not in registry.names


def test_region_in_use_is_not_reused_although_its_handle_was_released(pool: RegionPool) -> None:
    region = pool.borrow(100)
    pool.hold([region])
    pool.give_back(region)
    assert pool.borrow(100) is not region
    pool.let_go([region])
    assert pool.borrow(100) is region


def test_renewed_region_keeps_its_contents_under_a_new_name(pool: RegionPool) -> None:
    region = pool.borrow(4096)
    region.write(np.arange(10, dtype=np.float32), 64)
    name = region.name
    pool.renew(region, "another")
    assert region.name == name
    pool.renew(region, name)
    assert region.name != name
    np.testing.assert_array_equal(region.read((10,), "float32", 64), np.arange(10))


def test_file_left_by_a_killed_client_is_removed_and_one_in_use_is_not(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    abandoned, in_use, foreign = (tmp_path / name for name in ("edgeseg-1", "edgeseg-2", "other"))
    for path in (abandoned, in_use, foreign):
        path.touch()
    with in_use.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        shared_memory.check_memory_is_shared(registry)  # type: ignore[arg-type]
    assert sorted(tmp_path.iterdir()) == [in_use, foreign]


@pytest.mark.parametrize("keep", [(), ("probabilities",)], ids=["read back", "kept"])
def test_newer_version_that_writes_another_type_is_read_as_that_type(
    pool: RegionPool, keep: tuple[str, ...]
) -> None:
    spec = semantic_spec()
    transfer = SharedTransfer(tritonclient.grpc, spec, {"image": images(1)}, frozenset(keep), pool)
    with closing(transfer):
        transfer.open()
        wanted = transfer.outputs()[0]._get_tensor().parameters
        region = next(r for r in pool._all if r.name == wanted["shared_memory_region"].string_param)
        offset = wanted["shared_memory_offset"].int64_param
        values = np.random.default_rng(0).random((1, 1, SIDE, SIDE)).astype(np.float16)
        region.write(values, offset)
        got = transfer.results(Answer("FP16", values.shape), spec)["probabilities"]
        np.testing.assert_array_equal(got.numpy() if keep else got, values)
        assert np.dtype(got.dtype) == np.float16


@pytest.mark.parametrize(("datatype", "shape"), [("FP32", (2, 1, SIDE, SIDE)), ("BF16", (1, 1, SIDE, SIDE))])
def test_answer_that_does_not_fit_its_place_is_refused(
    pool: RegionPool, datatype: str, shape: tuple[int, ...]
) -> None:
    spec = semantic_spec()
    with closing(
        SharedTransfer(tritonclient.grpc, spec, {"image": images(1)}, frozenset(), pool)
    ) as transfer:
        transfer.open()
        with pytest.raises(InferenceError, match=rf"probabilities as {datatype} .* publish it again"):
            transfer.results(Answer(datatype, shape), spec)


def test_closing_waits_until_the_server_lets_go_of_an_answered_request(
    pool: RegionPool, registry: Registry
) -> None:
    """Triton answers a moment before it lets go of the regions of a request."""
    pool.give_back(pool.borrow(64))
    registry.refusals = 3
    pool.close()
    assert registry.names == set()


@pytest.mark.parametrize("error", [ServerTimeoutError, ServerUnavailableError])
def test_closing_asks_a_server_that_is_away_only_once(
    pool: RegionPool, registry: Registry, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    asked: list[str] = []

    def away(name: str) -> None:
        asked.append(name)
        raise error("no answer")

    for size in (64, 10_000_000, 20_000_000):
        pool.borrow(size)
    monkeypatch.setattr(registry, "unregister", away)
    pool.close()
    assert len(asked) == 1


def test_closing_does_not_wait_for_a_request_that_was_given_up(pool: RegionPool, registry: Registry) -> None:
    region = pool.borrow(64)
    region.doubtful = True
    registry.refusals = 3
    pool.close()
    assert registry.names == {region.name} and registry.refusals == 2, "it was tried once"
