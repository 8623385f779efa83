"""`seg_runtime.connection`: which targets are understood and what goes wrong with them."""

from __future__ import annotations

import importlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from fake_triton import FakeTriton, metadata_json, serve_grpc, serve_http
from tiny_graph import images, publish_all, semantic_spec

import seg_runtime
from seg_runtime.connection import TlsOptions, connect
from seg_runtime.errors import (
    BadInputError,
    MissingExtraError,
    RepositoryError,
    ServerError,
    ServerUnavailableError,
)
from seg_runtime.triton.address import parse_address


@pytest.fixture
def closed_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_folder_runs_in_process_as_a_string_or_a_path(tmp_path: Path) -> None:
    repository = publish_all(tmp_path)
    for target in (repository, str(repository)):
        with connect(target, threads=1) as session:
            assert session.where == "in-process"
            assert session.infer("tiny", {"image": images(1)})["probabilities"].shape == (1, 1, 32, 32)


def test_connect_is_a_function_of_the_package_after_its_module_was_imported() -> None:
    importlib.import_module("seg_runtime.connection")
    assert seg_runtime.connect is connect


def test_addresses_get_the_usual_ports() -> None:
    assert str(parse_address("grpc://jetson")) == "grpc://jetson:8001"
    assert str(parse_address("http://jetson")) == "http://jetson:8000"
    assert str(parse_address("grpcs://jetson")) == "grpcs://jetson:443"
    assert str(parse_address("https://jetson/triton/")) == "https://jetson:443/triton"
    assert str(parse_address("grpc://[::1]:9001")) == "grpc://[::1]:9001"
    assert parse_address("models/triton_repo") is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("ftp://host:21", "write grpc://"),
        ("grpc://", "write grpc://"),
        ("grpc://host:99999", "Port out of range"),
        ("grpc://host:port", "not an address"),
        ("grpc://host:8001/path", "more than a host and a port"),
        ("http://user:secret@host", "pass credentials as headers"),
        ("localhost:8001", "write grpc://localhost:8001"),
    ],
)
def test_target_that_is_no_address_is_one_clear_line(target: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        connect(target)
    assert "\n" not in str(caught.value)


def test_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="nowhere"):
        connect(tmp_path / "nowhere")


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"retry_budget_s": -1}, {"threads": 0}])
def test_impossible_options_are_refused(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(BadInputError):
        connect(tmp_path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_nobody_listening_is_said_within_the_retry_budget(scheme: str, closed_port: int) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailableError, match=f"127.0.0.1:{closed_port}.*seg-serve") as caught:
        connect(f"{scheme}://127.0.0.1:{closed_port}", retry_budget_s=0.3)
    assert time.monotonic() - start < 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_host_that_does_not_exist_is_unavailable(scheme: str) -> None:
    with pytest.raises(ServerUnavailableError, match=r"nowhere\.invalid"):
        connect(f"{scheme}://nowhere.invalid", retry_budget_s=0)


def test_missing_http_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.http", None)
    with pytest.raises(MissingExtraError, match=r"edgeseg\[http\]"):
        connect("http://localhost:8000")


@pytest.mark.parametrize("version", ["2.19.0", "1.9.0", "3.0.0"])
def test_server_of_another_version_is_refused(version: str) -> None:
    with (
        serve_grpc(FakeTriton(semantic_spec(), version)) as location,
        pytest.raises(ServerError, match=f"version {version}.*2.20 or a later 2.x: update"),
    ):
        connect(f"grpc://{location}")
    with (
        serve_http(lambda path, headers: (200, metadata_json(version))) as location,
        pytest.raises(ServerError, match=f"version {version}"),
    ):
        connect(f"http://{location}")


def test_server_of_another_kind_is_refused_at_once() -> None:
    with (
        serve_http(lambda path, headers: (200, "<html>hello</html>")) as location,
        pytest.raises(ServerError, match="not a Triton server"),
    ):
        connect(f"http://{location}")
    with (
        serve_grpc(FakeTriton(semantic_spec(), "1.0.0", extensions=[])) as location,
        pytest.raises(ServerError, match="not a Triton server"),
    ):
        connect(f"grpc://{location}")


def test_headers_reach_the_server() -> None:
    fake = FakeTriton(semantic_spec())
    with serve_grpc(fake) as location:
        connect(f"grpc://{location}", headers={"Authorization": "Bearer 1"}).close()
    assert fake.headers["authorization"] == "Bearer 1"

    seen: list[dict[str, str]] = []
    with serve_http(lambda path, headers: seen.append(headers) or (200, metadata_json())) as location:
        connect(f"http://{location}", headers={"authorization": "Bearer 2"}).close()
    assert seen[0]["authorization"] == "Bearer 2"


def test_refused_credentials_are_said_at_once() -> None:
    with (
        serve_http(lambda path, headers: (401, '{"error": "who are you"}')) as location,
        pytest.raises(ServerError, match=r"refused the request.*headers"),
    ):
        connect(f"http://{location}")


def test_tls_options_need_an_encrypted_address_and_existing_files(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="grpcs:// or https://"):
        connect("grpc://localhost", tls=TlsOptions())
    with pytest.raises(BadInputError, match=r"ca\.pem.*does not exist"):
        connect("grpcs://localhost", tls=TlsOptions(ca=tmp_path / "ca.pem"))
    key = tmp_path / "key.pem"
    key.touch()
    with pytest.raises(BadInputError, match="needs its certificate"):
        connect("https://localhost", tls=TlsOptions(private_key=key))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate of localhost and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_grpcs_trusts_the_given_certificate_and_no_other(certificate: tuple[Path, Path]) -> None:
    chain, key = (path.read_bytes() for path in certificate)
    credentials = grpc.ssl_server_credentials([(key, chain)])
    with serve_grpc(FakeTriton(semantic_spec()), credentials) as location:
        with connect(f"grpcs://{location}", tls=TlsOptions(ca=certificate[0])) as session:
            assert session.models() == ("tiny",)
        with pytest.raises(ServerError, match=r"no TLS connection.*certificates"):
            connect(f"grpcs://{location}")


def test_https_trusts_the_given_certificate_and_no_other(certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serve_http(lambda path, headers: (200, metadata_json()), context) as location:
        connect(f"https://{location}", tls=TlsOptions(ca=certificate[0])).close()
        with pytest.raises(ServerError, match=r"no TLS connection.*certificates"):
            connect(f"https://{location}")
