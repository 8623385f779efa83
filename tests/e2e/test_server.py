"""The real Triton server with our ONNX Runtime backend, asked by tritonclient itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from processes import session_members
from scaling_model import int8_graph, publish_scaling_model, scaling_graph, scaling_spec, some_images

from seg_runtime.connection import connect
from seg_runtime.errors import RepositoryError, ServerError
from seg_runtime.model_config import to_config
from seg_runtime.repository import Repository
from seg_runtime.server import ServerOptions, TritonServer
from seg_runtime.spec import ServingSpec

pytest.importorskip("pytriton")
pytestmark = pytest.mark.server

ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
FAMILIES = ("unetpp_tiny", "unetpp_tiny_d1", "transunet_tiny")
BROKEN = b"this is no graph" * 64


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the servers of a test put their temporary files, theirs alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_families_repo: Path) -> Path:
    repo = tmp_path_factory.mktemp("server") / "repo"
    publish_scaling_model(repo, "scale", factor=0.01, serving=ServingSpec(max_queue_delay_us=20_000))
    publish_scaling_model(repo, "cached", factor=0.02, serving=ServingSpec(response_cache=True))
    publish_scaling_model(repo, "int8", graph=int8_graph())
    publish_scaling_model(repo, "int8_shared", graph=int8_graph(layers=2))
    for model in FAMILIES:
        shutil.copytree(tiny_families_repo / model, repo / model)
    return repo


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[TritonServer]:
    with TritonServer(models, ServerOptions(response_cache_mb=8, **ANY_PORTS)) as running:
        yield running


@contextmanager
def client_of(server: TritonServer):
    from tritonclient import grpc

    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        yield client


def infer(client, model: str, images: np.ndarray) -> np.ndarray:
    from tritonclient import grpc

    tensor = grpc.InferInput("image", images.shape, "UINT8")
    tensor.set_data_from_numpy(images)
    return client.infer(model, [tensor]).as_numpy("probabilities")


def in_process(factor: float, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(scaling_graph(factor), providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": images})[0]


def statistics(client, model: str):
    return client.get_inference_statistics(model).model_stats[0]


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def memory_prefix(pid: int) -> str:
    """What the names of this server's own shared memory begin with, from its command line."""
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return next(text.rpartition("=")[2] for text in arguments if "shm-region-prefix-name" in text)


def shared_memory(prefix: str) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"{prefix}*")]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_answers_are_those_of_onnxruntime_bit_for_bit(server: TritonServer, batch: int) -> None:
    images = some_images(batch, seed=batch)
    with client_of(server) as client:
        np.testing.assert_array_equal(infer(client, "scale", images), in_process(0.01, images))


@pytest.mark.parametrize("model", ["int8", "int8_shared"])
@pytest.mark.parametrize("where", ["in process", "server"])
def test_largest_sums_in_int8_do_not_overflow(
    server: TritonServer, models: Path, where: str, model: str
) -> None:
    """They do in ONNX Runtime's own setting, on x86 processors without VNNI."""
    white = np.full((1, 8, 8, 1), 255, np.uint8)
    if where == "server":
        with client_of(server) as client:
            answer = infer(client, model, white)
    else:
        with connect(str(models), engine="onnxruntime") as session:
            answer = session.infer(model, {"image": white})["probabilities"]
    np.testing.assert_allclose(answer[0, 0, 2:-2, 2:-2], 1.0, atol=1e-6)


@pytest.mark.parametrize("model", FAMILIES)
def test_every_semantic_family_answers_as_in_process(server: TritonServer, models: Path, model: str) -> None:
    session = connect(str(models))
    shape = session.spec(model).inputs[0].shape
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    expected = session.infer(model, {"image": images})["probabilities"]
    with client_of(server) as client:
        np.testing.assert_array_equal(infer(client, model, images), expected)


def test_requests_at_the_same_time_are_batched_and_split_again(server: TritonServer) -> None:
    requests = [some_images(1 + index % 2, seed=index) for index in range(16)]
    answers: list[np.ndarray | None] = [None] * len(requests)

    def ask(index: int) -> None:
        with client_of(server) as client:
            answers[index] = infer(client, "scale", requests[index])

    with client_of(server) as client:
        before = statistics(client, "scale")
        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(requests))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        after = statistics(client, "scale")
    for images, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(answer, in_process(0.01, images))
    assert after.execution_count - before.execution_count < len(requests)


def test_the_response_cache_answers_a_repeated_request(server: TritonServer) -> None:
    images = some_images(2, seed=9)
    with client_of(server) as client:
        first, second = (infer(client, "cached", images) for _ in range(2))
        assert statistics(client, "cached").inference_stats.cache_hit.count == 1
    np.testing.assert_array_equal(first, second)


def test_the_server_reports_the_configuration_that_was_published(server: TritonServer) -> None:
    serving = ServingSpec(max_queue_delay_us=20_000)
    published = to_config(scaling_spec("scale"), serving)
    with client_of(server) as client:
        served = client.get_model_config("scale").config
        assert statistics(client, "scale").inference_count >= 1
    assert served.parameters == published.parameters
    assert served.version_policy == published.version_policy
    assert list(served.dynamic_batching.preferred_batch_size) == [4, 8]
    assert served.dynamic_batching.max_queue_delay_microseconds == 20_000
    assert [sample.name for sample in served.model_warmup] == ["zeros"]


def test_a_second_server_on_the_same_port_is_refused(server: TritonServer, models: Path) -> None:
    port = int(server.http_url.rpartition(":")[2])
    with pytest.raises(ServerError, match=f"port {port} on 127.0.0.1 cannot be used"):
        TritonServer(models, ServerOptions(http_port=port, grpc_port=0, metrics_port=0)).start()


def test_a_graph_that_cannot_be_read_ends_the_start_with_one_line(
    tmp_path: Path, temporary_folder: Path
) -> None:
    publish_scaling_model(tmp_path / "repo", "good")
    publish_scaling_model(tmp_path / "repo", "bad", graph=BROKEN)
    server = TritonServer(tmp_path / "repo", ServerOptions(**ANY_PORTS))
    with pytest.raises(
        ServerError, match=r"model 'bad' version 1 cannot be loaded from model\.onnx"
    ) as error:
        server.start()
    assert "\n" not in str(error.value)
    assert server.pid is None
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.slow
def test_an_ensemble_that_does_not_fit_its_step_ends_the_start_with_the_servers_reason(
    tmp_path: Path, temporary_folder: Path
) -> None:
    publish_scaling_model(tmp_path / "repo", "scale")
    (tmp_path / "repo" / "pair" / "1").mkdir(parents=True)
    (tmp_path / "repo" / "pair" / "config.pbtxt").write_text("""
        name: "pair" platform: "ensemble"
        input { name: "X" data_type: TYPE_UINT8 dims: [4, 4, 1] }
        output { name: "Y" data_type: TYPE_FP32 dims: [1, 4, 4] }
        ensemble_scheduling { step { model_name: "scale" model_version: -1
          input_map { key: "no_such_input" value: "X" } output_map { key: "probabilities" value: "Y" } } }
        """)
    server = TritonServer(tmp_path / "repo", ServerOptions(**ANY_PORTS))
    with pytest.raises(ServerError, match=r"model 'pair' cannot be served: .*no_such_input in model scale"):
        server.start()
    assert server.pid is None
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.slow
def test_polling_swaps_to_a_good_version_and_keeps_the_old_one_for_a_bad_version(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    publish_scaling_model(repo, "scale", factor=0.01)
    images = some_images(1)
    expected = {version: in_process(factor, images) for version, factor in ((1, 0.01), (3, 0.03))}
    answers: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        with client_of(server) as client:
            while not ended.is_set():
                answer = infer(client, "scale", images)
                answers.append(next(v for v, value in expected.items() if np.array_equal(answer, value)))

    with TritonServer(repo, ServerOptions(model_control="poll", poll_interval_s=1, **ANY_PORTS)) as server:
        asking = threading.Thread(target=ask)
        asking.start()
        try:
            publish_scaling_model(repo, "scale", version=2, graph=BROKEN)
            wait_for(lambda: "model 'scale' version 2 cannot be loaded" in server.log_tail(500))
            seen = len(answers)
            wait_for(lambda: len(answers) > seen + 20)
            with client_of(server) as client:
                assert client.is_server_ready()
                assert client.is_model_ready("scale")
            assert set(answers) == {1}
            publish_scaling_model(repo, "scale", version=3, factor=0.03)
            wait_for(lambda: answers[-1] == 3 or not asking.is_alive())
            wait_for(lambda: "successfully unloaded 'scale' version 1" in server.log_tail(500))
        finally:
            ended.set()
            asking.join()
    # A request that failed would have ended the thread before it saw version 3.
    assert answers == sorted(answers)
    assert answers[-1] == 3


@pytest.mark.slow
def test_a_killed_server_can_be_started_again_on_its_ports_and_leaves_nothing(
    models: Path, temporary_folder: Path
) -> None:
    server = TritonServer(models, ServerOptions(models=("scale",), **ANY_PORTS))
    server.start()
    address, killed = server.grpc_url, server.pid
    memory = memory_prefix(killed)
    assert shared_memory(memory)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: server.pid is None)
    server.start()
    try:
        assert server.grpc_url == address
        with client_of(server) as client:
            assert infer(client, "scale", some_images(1)).shape == (1, 1, 8, 8)
            assert not client.is_model_ready("cached")
        assert session_members(killed) == []
        assert shared_memory(memory) == []
        running, memory = server.pid, memory_prefix(server.pid)
    finally:
        server.stop()
    assert session_members(running) == []
    assert shared_memory(memory) == []
    assert list(temporary_folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ending_seg_serve_leaves_no_process_and_no_shared_memory(
    models: Path, temporary_folder: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "seg_runtime.cli.serve", str(models), *FREE_PORTS, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            ready = json.loads(process.stdout.readline())
            memory = memory_prefix(ready["pid"])
            assert shared_memory(memory)
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert {"cached", "scale"} <= set(ready["models"])
    assert output == ""
    if number == signal.SIGKILL:
        wait_for(lambda: session_members(ready["pid"]) == [])
    else:
        assert process.returncode == 0, errors
        assert errors == "stopping\n"
        assert list(temporary_folder.iterdir()) == []
    assert session_members(ready["pid"]) == []
    assert shared_memory(memory) == []


@pytest.mark.slow
def test_a_fresh_checkout_beside_a_built_model_is_no_obstacle(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    publish_scaling_model(repo, "scale")
    publish_scaling_model(repo, "fresh")
    (repo / "fresh" / "1").rename(tmp_path / "taken away")
    assert Repository(repo).models() == ("fresh", "scale")
    with TritonServer(repo, ServerOptions(**ANY_PORTS)) as server, client_of(server) as client:
        assert client.is_model_ready("scale")
        assert not client.is_model_ready("fresh")
    with pytest.raises(RepositoryError, match="model 'fresh' is not built"):
        TritonServer(repo, ServerOptions(models=("fresh",), **ANY_PORTS)).start()
