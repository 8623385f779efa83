"""Requests that change a Triton server, as a stranger makes them: without any key.

The one table of them: the tests of a server's access and the faults of `faults_server` use it.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

__all__ = ["GRPC_CHANGES", "HTTP_CHANGES", "REFUSED", "ask_grpc", "ask_http", "evil_model"]

MODEL = "scale"
"""The model that the server has."""

REFUSED = re.compile(r"is restricted, expecting header|is not allowed if polling is enabled")
"""Answers of Triton's to who may not ask. Another error would say only that this request was a bad one."""

_CONFIG = {
    "backend": "python",
    "input": [{"name": "a", "data_type": "TYPE_FP32", "dims": [1]}],
    "output": [{"name": "b", "data_type": "TYPE_FP32", "dims": [1]}],
}


def evil_model(marker: Path) -> tuple[str, bytes]:
    """Configuration and Python file of a model that leaves a file when it is loaded."""
    lines = (f"open({str(marker)!r}, 'w').close()", "class TritonPythonModel:", "    pass")
    return json.dumps(_CONFIG), "\n".join(lines).encode()


def _evil_json(marker: Path) -> dict[str, Any]:
    config, code = evil_model(marker)
    return {"parameters": {"config": config, "file:1/model.py": base64.b64encode(code).decode()}}


def _evil_message(marker: Path) -> Any:
    config, code = evil_model(marker)
    message = pb.RepositoryModelLoadRequest(model_name="evil")
    message.parameters["config"].string_param = config
    message.parameters["file:1/model.py"].bytes_param = code
    return message


_REGION = {"key": "/anything", "offset": 0, "byte_size": 64}
_HANDLE = {"raw_handle": {"b64": base64.b64encode(bytes(64)).decode()}, "device_id": 0, "byte_size": 64}

HTTP_CHANGES: dict[str, tuple[str, Callable[[Path], dict[str, Any]]]] = {
    "load with code": ("/v2/repository/models/evil/load", _evil_json),
    "load": (f"/v2/repository/models/{MODEL}/load", lambda marker: {}),
    "unload": (f"/v2/repository/models/{MODEL}/unload", lambda marker: {}),
    "register memory": ("/v2/systemsharedmemory/region/mine/register", lambda marker: _REGION),
    "unregister memory": ("/v2/systemsharedmemory/region/mine/unregister", lambda marker: {}),
    "unregister all memory": ("/v2/systemsharedmemory/unregister", lambda marker: {}),
    "register GPU memory": ("/v2/cudasharedmemory/region/mine/register", lambda marker: _HANDLE),
    "unregister GPU memory": ("/v2/cudasharedmemory/unregister", lambda marker: {}),
    "log settings": ("/v2/logging", lambda marker: {"log_verbose_level": 9, "log_info": False}),
    "log file": ("/v2/logging", lambda marker: {"log_file": str(marker)}),
    "trace settings": ("/v2/trace/setting", lambda marker: {"trace_rate": "1"}),
    "trace file": ("/v2/trace/setting", lambda marker: {"trace_file": str(marker)}),
    "a model's trace": (f"/v2/models/{MODEL}/trace/setting", lambda marker: {"trace_level": ["TIMESTAMPS"]}),
}
"""Path and body of a POST; `marker` is a file that must not appear."""


def _log(name: str, **value: Any) -> Any:
    message = pb.LogSettingsRequest()
    message.settings[name].CopyFrom(pb.LogSettingsRequest.SettingValue(**value))
    return message


def _trace(name: str, value: str, model: str = "") -> Any:
    message = pb.TraceSettingRequest(model_name=model)
    message.settings[name].value.append(value)
    return message


GRPC_CHANGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "load with code": ("RepositoryModelLoad", _evil_message),
    "load": ("RepositoryModelLoad", lambda marker: pb.RepositoryModelLoadRequest(model_name=MODEL)),
    "unload": ("RepositoryModelUnload", lambda marker: pb.RepositoryModelUnloadRequest(model_name=MODEL)),
    "register memory": (
        "SystemSharedMemoryRegister",
        lambda marker: pb.SystemSharedMemoryRegisterRequest(name="mine", **_REGION),
    ),
    "unregister memory": (
        "SystemSharedMemoryUnregister",
        lambda marker: pb.SystemSharedMemoryUnregisterRequest(name="mine"),
    ),
    "unregister all memory": (
        "SystemSharedMemoryUnregister",
        lambda marker: pb.SystemSharedMemoryUnregisterRequest(),
    ),
    "register GPU memory": (
        "CudaSharedMemoryRegister",
        lambda marker: pb.CudaSharedMemoryRegisterRequest(name="mine", raw_handle=bytes(64), byte_size=64),
    ),
    "unregister GPU memory": (
        "CudaSharedMemoryUnregister",
        lambda marker: pb.CudaSharedMemoryUnregisterRequest(),
    ),
    "log settings": ("LogSettings", lambda marker: _log("log_verbose_level", uint32_param=9)),
    "log file": ("LogSettings", lambda marker: _log("log_file", string_param=str(marker))),
    "trace settings": ("TraceSetting", lambda marker: _trace("trace_rate", "1")),
    "trace file": ("TraceSetting", lambda marker: _trace("trace_file", str(marker))),
    "a model's trace": ("TraceSetting", lambda marker: _trace("trace_level", "TIMESTAMPS", MODEL)),
}
"""Method and message."""


def ask_http(url: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Status and text of a POST of JSON, or of a GET where there is no body."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    try:
        sent = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, body=sent, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def ask_grpc(url: str, method: str, message: Any, headers: dict[str, str] | None = None) -> str:
    """Details of the error that a call ends with; empty when it succeeds."""
    with grpc.insecure_channel(url.removeprefix("grpc://")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            getattr(stub, method)(message, timeout=20, metadata=tuple((headers or {}).items()))
        except grpc.RpcError as error:
            return str(error.details())
        return ""
