"""The nginx of docs/serving.md, run before a real server."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from certificates import Certificates, make_certificates
from scaling_model import publish_scaling_model, some_images

from microbench.strangers import HTTP_CHANGES
from seg_runtime.connection import TlsOptions, connect
from seg_runtime.errors import ServerError
from seg_runtime.server import ServerOptions, TritonServer
from seg_runtime.triton.access import SECRET

pytest.importorskip("pytriton")
pytestmark = pytest.mark.server

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
KEY = "a-key-for-the-proxy"
MAIN = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
access_log off;
client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{server}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """nginx in front of a server."""

    port: int
    certificates: Certificates
    server: TritonServer

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def ask(self, path: str, body: bytes | None, headers: dict[str, str]) -> int:
        """Status of a GET, or of a POST where there is a body."""
        context = ssl.create_default_context(cafile=str(self.certificates.ca))
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=20, context=context)
        try:
            connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


def require_nginx() -> str:
    """The program. In CI a missing one is a failure, elsewhere the test is skipped."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        message = "no nginx: apt-get install nginx-light"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return program


def documented(port: int, certificates: Certificates, server: TritonServer) -> str:
    """The block of the documentation, with this test's port, files and server."""
    found = re.search(r"```nginx\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    text = found[1]
    for there, here in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("triton.example.org", "localhost"),
        ("/etc/nginx/tls/server.pem", str(certificates.server)),
        ("/etc/nginx/tls/server.key", str(certificates.server_key)),
        ("http://127.0.0.1:8000", server.http_url),
    ):
        assert there in text
        text = text.replace(there, here)
    return text


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    nginx, folder = require_nginx(), tmp_path_factory.mktemp("nginx")
    repo = tmp_path_factory.mktemp("proxied") / "repo"
    publish_scaling_model(repo, "scale")
    certificates = make_certificates(tmp_path_factory.mktemp("tls"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ServerOptions(api_key=KEY, http_port=0, grpc_port=0, metrics_port=0)
    with TritonServer(repo, options) as server:
        config = folder / "nginx.conf"
        config.write_text(MAIN.format(folder=folder, server=documented(port, certificates, server)))
        process = subprocess.Popen([nginx, "-p", str(folder), "-c", str(config)], stderr=subprocess.PIPE)
        try:
            wait_until_it_listens(port, process)
            yield Proxy(port, certificates, server)
        finally:
            process.terminate()
            process.communicate(timeout=20)


def wait_until_it_listens(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"nginx does not run: {process.communicate()[1].decode()}")
            time.sleep(0.05)


def test_models_run_through_the_documented_proxy(proxy: Proxy) -> None:
    images = some_images(3)
    with connect(proxy.server.grpc_url, api_key=KEY) as session:
        expected = session.infer("scale", {"image": images})["probabilities"]
    with connect(proxy.url, api_key=KEY, tls=TlsOptions(ca=proxy.certificates.ca)) as session:
        assert session.where == "http"
        assert session.models() == ("scale",)
        np.testing.assert_array_equal(session.infer("scale", {"image": images})["probabilities"], expected)


def test_the_proxy_lets_nobody_in_without_the_key(proxy: Proxy) -> None:
    with pytest.raises(ServerError, match="give its API key"):
        connect(proxy.url, tls=TlsOptions(ca=proxy.certificates.ca))
    assert proxy.ask("/v2/health/ready", None, {}) == 200


def test_the_proxy_takes_large_requests(proxy: Proxy) -> None:
    body = b'{"inputs": []}' + b" " * 8 * 2**20
    assert proxy.ask("/v2/models/scale/infer", body, {"edgeseg-api-key": KEY}) == 400  # of Triton's, not 413


@pytest.mark.parametrize("change", HTTP_CHANGES)
def test_the_proxy_lets_nothing_through_that_changes_the_server(
    proxy: Proxy, tmp_path: Path, change: str
) -> None:
    secret = proxy.server.secret_file
    assert secret is not None
    path, _ = HTTP_CHANGES[change]
    assert proxy.ask(path, b"{}", {"edgeseg-api-key": KEY, SECRET: secret.read_text()}) == 404
