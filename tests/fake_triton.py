"""Servers that speak just enough of Triton's protocols to misbehave on purpose."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from seg_runtime.model_config import to_config
from seg_runtime.spec import ModelSpec

EXTENSIONS = ["model_configuration", "model_repository"]


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves one model whose output is `value` everywhere.

    Attributes:
        version: of the server.
        spec: the model's contract; change it to publish another version.
        value: what every output element is.
        failures: gRPC errors to answer `ModelInfer` with first: (code, message).
        delay_s: how long `ModelInfer` and registering shared memory take.
        away: whether every request is refused as unavailable.
        states: state of the model in the repository index, last one for ever.
        calls: number of `ModelInfer` calls.
        headers: metadata of the last call.
    """

    def __init__(self, spec: ModelSpec, version: str = "2.51.0", extensions: list[str] | None = None) -> None:
        self.version = version
        self.extensions = EXTENSIONS if extensions is None else extensions
        self.spec = spec
        self.value = 0.25
        self.failures: list[tuple[grpc.StatusCode, str]] = []
        self.delay_s = 0.0
        self.away = False
        self.states = ["READY"]
        self.calls = 0
        self.headers: dict[str, Any] = {}

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self._check_here(context)
        self.headers = dict(context.invocation_metadata())
        return pb.ServerMetadataResponse(name="triton", version=self.version, extensions=self.extensions)

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check_here(context)
        if request.name != self.spec.name or self.states[0] != "READY":
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{request.name}' is not found"
            )
        return pb.ModelConfigResponse(config=to_config(self.spec))

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check_here(context)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        index = pb.RepositoryIndexResponse()
        index.models.add(name=self.spec.name, version=str(self.spec.version), state=state, reason="")
        return index

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._check_here(context)
        self.calls += 1
        time.sleep(self.delay_s)
        if self.failures:
            context.abort(*self.failures.pop(0))
        answer = pb.ModelInferResponse(model_name=self.spec.name, model_version=str(self.spec.version))
        for tensor in self.spec.outputs:
            shape = (request.inputs[0].shape[0], *tensor.shape)
            answer.outputs.add(name=tensor.name, datatype="FP32", shape=shape)
            answer.raw_output_contents.append(np.full(shape, self.value, np.float32).tobytes())
        return answer

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:  # noqa: N802
        time.sleep(self.delay_s)
        return pb.SystemSharedMemoryRegisterResponse()

    def _check_here(self, context: Any) -> None:
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    def answer_http(self, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """The same over HTTP, for `serve_http`; one image per request."""
        if self.away:
            return 503, json.dumps({"error": "draining"})
        if path == "/v2":
            return 200, metadata_json(self.version)
        if path == "/v2/repository/index":
            return 200, json.dumps([{"name": self.spec.name, "version": "1", "state": self.states[0]}])
        if path.endswith("/config"):
            return 200, json_format.MessageToJson(to_config(self.spec), preserving_proto_field_name=True)
        self.calls += 1
        time.sleep(self.delay_s)
        outputs = [
            {
                "name": tensor.name,
                "datatype": "FP32",
                "shape": [1, *tensor.shape],
                "data": np.full(tensor.shape, self.value).ravel().tolist(),
            }
            for tensor in self.spec.outputs
        ]
        answer = {"model_name": self.spec.name, "model_version": str(self.spec.version), "outputs": outputs}
        return 200, json.dumps(answer)


@contextmanager
def serve_grpc(fake: FakeTriton, credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    """host:port of a gRPC server that answers with `fake`."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    add = server.add_insecure_port if credentials is None else server.add_secure_port
    port = add("localhost:0", *([credentials] if credentials else []))
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(0).wait()


@contextmanager
def serve_http(
    answer: Callable[[str, dict[str, str]], tuple[int, str]], context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """host:port of an HTTP server; `answer` maps path and headers to status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self.respond()

        def respond(self) -> None:
            status, body = answer(self.path, dict(self.headers.items()))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments: object) -> None:
            pass

        protocol_version = "HTTP/1.1"

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def metadata_json(version: str = "2.51.0", name: str = "triton") -> str:
    """What a server says of itself over HTTP."""
    return json.dumps({"name": name, "version": version, "extensions": EXTENSIONS})
