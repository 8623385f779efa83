"""Who may do what with a real server: strangers, clients with its key, and the user who started it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Certificates, make_certificates
from scaling_model import publish_scaling_model, some_images

from microbench.strangers import GRPC_CHANGES, HTTP_CHANGES, ask_grpc, ask_http
from seg_runtime.connection import TlsOptions, connect
from seg_runtime.errors import ModelNotFoundError, ServerError, ServerUnavailableError
from seg_runtime.server import ServerOptions, ServerTls, TritonServer
from seg_runtime.triton.access import SECRET, ServerAccess, find_secret, key_header
from seg_runtime.triton.address import parse_address

pytest.importorskip("pytriton")
pytestmark = pytest.mark.server

ANY_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
CONTROLS = {
    "chosen models": ServerOptions(models=("pair",), **ANY_PORTS),
    "poll": ServerOptions(model_control="poll", **ANY_PORTS),
    "explicit, no shared memory": ServerOptions(
        model_control="explicit", models=("pair",), client_shared_memory=False, **ANY_PORTS
    ),
}
REFUSED = re.compile(r"is restricted, expecting header|is not allowed if polling is enabled")
KEY = "a key for the tests".replace(" ", "-")
ENSEMBLE = """
name: "pair" platform: "ensemble" max_batch_size: 8
input { name: "X" data_type: TYPE_UINT8 dims: [8, 8, 1] }
output { name: "Y" data_type: TYPE_FP32 dims: [1, 8, 8] }
ensemble_scheduling { step { model_name: "scale" model_version: -1
  input_map { key: "image" value: "X" } output_map { key: "probabilities" value: "Y" } } }
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`scale`, `pair`, whose step is `scale`, and `other`."""
    repo = tmp_path_factory.mktemp("access") / "repo"
    publish_scaling_model(repo, "scale")
    publish_scaling_model(repo, "other")
    (repo / "pair" / "1").mkdir(parents=True)
    (repo / "pair" / "config.pbtxt").write_text(ENSEMBLE)
    (repo / ".staging").rmdir()  # of publishing; a server that polls takes it for a model
    return repo


@pytest.fixture(scope="module", params=CONTROLS)
def server(repo: Path, request: pytest.FixtureRequest) -> Iterator[TritonServer]:
    with TritonServer(repo, CONTROLS[request.param]) as running:
        yield running
        secret = running.secret_file
    assert secret is not None
    assert not secret.exists()


def regions_of(server: TritonServer) -> list[Path]:
    """The memory of the server's own python backend."""
    arguments = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    prefix = next(text.rpartition("=")[2] for text in arguments if "shm-region-prefix-name" in text)
    return list(Path("/dev/shm").glob(f"{prefix}*"))


def secret_headers(server: TritonServer, grpc: bool = False) -> dict[str, str]:
    assert server.secret_file is not None
    return key_header(SECRET, server.secret_file.read_text(), grpc)


def assert_unchanged(server: TritonServer, marker: Path) -> None:
    assert not marker.exists()
    assert server.pid is not None
    status, _ = ask_http(server.http_url, "/v2/models/scale/ready")
    assert status == 200


@pytest.mark.parametrize("change", HTTP_CHANGES)
def test_a_stranger_changes_nothing_over_http(server: TritonServer, tmp_path: Path, change: str) -> None:
    path, body = HTTP_CHANGES[change]
    status, text = ask_http(server.http_url, path, body(tmp_path / "marker"))
    assert status in (403, 503)
    assert REFUSED.search(text)
    assert_unchanged(server, tmp_path / "marker")


@pytest.mark.parametrize("change", GRPC_CHANGES)
def test_a_stranger_changes_nothing_over_grpc(server: TritonServer, tmp_path: Path, change: str) -> None:
    method, message = GRPC_CHANGES[change]
    assert REFUSED.search(ask_grpc(server.grpc_url, method, message(tmp_path / "marker")))
    assert_unchanged(server, tmp_path / "marker")


def test_a_wrong_secret_opens_nothing(server: TritonServer) -> None:
    status, _ = ask_http(server.http_url, "/v2/logging", {}, {SECRET: "guessed"})
    assert status == 403


def test_a_stranger_cannot_aim_an_output_at_the_backends_own_memory(server: TritonServer) -> None:
    from tritonclient.grpc import service_pb2 as pb

    region = regions_of(server)[0]
    facts = {"key": f"/{region.name}", "offset": 0, "byte_size": region.stat().st_size}
    status, text = ask_http(server.http_url, "/v2/systemsharedmemory/region/mine/register", facts)
    assert (status, bool(REFUSED.search(text))) == (403, True)
    message = pb.SystemSharedMemoryRegisterRequest(name="mine", **facts)
    assert REFUSED.search(ask_grpc(server.grpc_url, "SystemSharedMemoryRegister", message))


def test_other_users_can_neither_read_the_backends_memory_nor_see_the_secret(server: TritonServer) -> None:
    regions = regions_of(server)
    assert regions
    assert [region.name for region in regions if region.stat().st_mode & 0o077] == []
    restricted = [
        text
        for text in Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
        if text.startswith("--http-restricted-api=")
    ]
    assert restricted
    for argument in restricted:
        status, _ = ask_http(server.http_url, "/v2/logging", {}, {SECRET: argument.rpartition("=")[2]})
        assert status == 403
    assert server.secret_file is not None
    assert server.secret_file.stat().st_mode & 0o077 == 0
    assert server.secret_file.parent.stat().st_mode & 0o077 == 0
    assert server.secret_file.read_text() not in server.log_tail(1000)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_servers_own_user_gets_shared_memory_where_it_is_on(server: TritonServer, protocol: str) -> None:
    allowed = server.options.client_shared_memory
    with connect(server.grpc_url if protocol == "grpc" else server.http_url) as session:
        assert session.where == ("shared-memory" if allowed else protocol)
        # Also where strangers do not get the index.
        assert {"pair", "scale"} <= set(session.models())
        assert session.infer("scale", {"image": some_images(1)})["probabilities"].shape == (1, 1, 8, 8)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_client_without_the_secret_still_lists_models_and_names_unknown_ones(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setattr("seg_runtime.triton.client.find_secret", lambda address: None)
    with connect(server.grpc_url if protocol == "grpc" else server.http_url) as session:
        assert session.where == protocol
        assert {"pair", "scale"} <= set(session.models())
        with pytest.raises(ModelNotFoundError, match="did you mean 'scale'"):
            session.spec("scal")


def test_chosen_models_come_with_their_steps_and_no_others(server: TritonServer) -> None:
    status, text = ask_http(server.http_url, "/v2/models/stats")
    assert status == 200
    served = {entry["name"] for entry in json.loads(text)["model_stats"]}
    assert served == {"pair", "scale"} | ({"other"} if server.options.model_control == "poll" else set())
    assert ask_http(server.http_url, "/v2/health/ready")[0] == 200


def test_the_secret_loads_and_unloads_in_explicit_control_only(server: TritonServer) -> None:
    explicit = server.options.model_control == "explicit"
    status, _ = ask_http(server.http_url, "/v2/repository/models/other/load", {}, secret_headers(server))
    assert status == (200 if explicit else 503)
    from tritonclient.grpc import service_pb2 as pb

    message = pb.RepositoryModelUnloadRequest(model_name="other")
    error = ask_grpc(server.grpc_url, "RepositoryModelUnload", message, secret_headers(server, grpc=True))
    assert (error == "") == explicit


def test_the_secret_opens_shared_memory_only_where_it_is_on(server: TritonServer) -> None:
    path, body = HTTP_CHANGES["register memory"]
    status, text = ask_http(server.http_url, path, body(Path("unused")), secret_headers(server))
    if server.options.client_shared_memory:
        assert "Unable to open shared memory region" in text
        return
    assert status == 403
    with pytest.raises(ServerError, match="no shared memory with"):
        connect(server.grpc_url, shared_memory=True)


def test_a_client_of_another_machine_is_not_sent_the_secret(server: TritonServer) -> None:
    port = server.grpc_url.rpartition(":")[2]
    for host, found in (("localhost", True), ("127.0.0.1", True), ("192.0.2.1", False)):
        address = parse_address(f"grpc://{host}:{port}")
        assert address is not None
        assert (find_secret(address) is not None) == found


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def closed_server(repo: Path, certificates: Certificates) -> Iterator[TritonServer]:
    """With a key, TLS and clients' certificates."""
    tls = ServerTls(certificates.server, certificates.server_key, certificates.ca)
    with TritonServer(repo, ServerOptions(api_key=KEY, tls=tls, **ANY_PORTS)) as running:
        yield running


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2", None),
        ("/v2/models/scale", None),
        ("/v2/models/scale/config", None),
        ("/v2/models/scale/stats", None),
        ("/v2/models/stats", None),
        ("/v2/repository/index", {}),
        ("/v2/models/scale/infer", {"inputs": []}),
        ("/v2/models/scale/generate", {}),
    ],
)
def test_without_the_key_only_health_is_answered(
    closed_server: TritonServer, path: str, body: dict[str, object] | None
) -> None:
    status, text = ask_http(closed_server.http_url, path, body)
    assert status == 403
    assert "edgeseg-api-key" in text
    assert ask_http(closed_server.http_url, path, body, {"edgeseg-api-key": KEY})[0] in (200, 400, 500)
    assert ask_http(closed_server.http_url, "/v2/health/ready")[0] == 200
    assert ask_http(closed_server.http_url, "/v2/models/scale/ready")[0] == 200


@pytest.mark.parametrize("protocol", ["grpcs", "http"])
def test_a_client_with_key_and_certificate_gets_everything_and_others_one_line(
    closed_server: TritonServer, certificates: Certificates, protocol: str
) -> None:
    url = closed_server.grpc_url if protocol == "grpcs" else closed_server.http_url
    tls = (
        TlsOptions(certificates.ca, certificates.client, certificates.client) if protocol == "grpcs" else None
    )
    with connect(url, api_key=KEY, tls=tls) as session:
        assert session.where == "shared-memory"
        assert session.models() == ("other", "pair", "scale")
        assert session.infer("scale", {"image": some_images(2)})["probabilities"].shape == (2, 1, 8, 8)
    for wrong in (None, "x" * 20):
        with pytest.raises(
            ServerError, match=r"refuses this to strangers: give its API key with --api-key-file"
        ):
            connect(url, api_key=wrong, tls=tls)


def test_a_client_without_a_certificate_does_not_get_in(
    closed_server: TritonServer, certificates: Certificates
) -> None:
    with pytest.raises(ServerUnavailableError):
        connect(closed_server.grpc_url, api_key=KEY, tls=TlsOptions(certificates.ca), retry_budget_s=0.5)


def test_the_key_is_in_no_process_list_and_no_log(closed_server: TritonServer) -> None:
    assert KEY not in Path(f"/proc/{closed_server.pid}/cmdline").read_text()
    assert KEY not in closed_server.log_tail(1000)
    assert KEY not in repr(closed_server.options)


@pytest.mark.parametrize("given", ["file", "variable"])
def test_a_command_takes_the_key_from_a_file_or_a_variable(
    closed_server: TritonServer, certificates: Certificates, key_file: Path, given: str
) -> None:
    program = [sys.executable, "-c", "from seg_runtime.cli.run import main; main()"]
    command = [*program, "models", "--url", closed_server.grpc_url, "--json"]
    command += ["--ca", str(certificates.ca), "--client-cert", str(certificates.client)]
    command += ["--api-key-file", str(key_file)] if given == "file" else []
    variables = {"EDGESEG_API_KEY": KEY} if given == "variable" else {}
    environment = {**os.environ, **variables}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert {"other", "scale"} <= {model["model"] for model in json.loads(answer.stdout)}


def test_a_benchmark_reads_the_clock_of_a_server_that_wants_a_key(
    closed_server: TritonServer, certificates: Certificates, key_file: Path
) -> None:
    from seg_bench.run.server_time import ServerClock

    access = ServerAccess(str(key_file), str(certificates.ca), str(certificates.client))
    clock = ServerClock(closed_server.grpc_url, ["scale"], access)
    try:
        clock.start()
        with connect(closed_server.grpc_url, api_key=KEY, tls=access.tls()) as session:
            session.infer("scale", {"image": some_images(1)})
        assert (clock.stop() or 0) > 0
    finally:
        clock.close()
