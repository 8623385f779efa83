"""How to run a Triton server: a frozen description and the command line it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seg_runtime.errors import BadInputError

__all__ = ["DEFAULT_CACHE_MB", "ModelControl", "ServerOptions"]

DEFAULT_CACHE_MB = 256
"""The answers of a SAM's encoder for 60 images: 4 MiB each. Memory is taken as it fills."""

ModelControl = Literal["none", "poll", "explicit"]


@dataclass(frozen=True)
class ServerOptions:
    """Options of a Triton server.

    Attributes:
        http_port, grpc_port, metrics_port: 0 takes a free port.
        host: address to listen on; the default is reachable from this machine only.
        model_control: "none" keeps to what is there at the start, "poll" follows changes of the
            repository, "explicit" lets clients load and unload models.
        poll_interval_s: whole seconds between two looks at the repository, for "poll".
        models: names to serve; empty serves all that are built.
        response_cache_mb: size of the cache for models that ask for one, in MiB; 0 is none, None is
            `DEFAULT_CACHE_MB` when one of them is there and the models stay as they are (control "none").
        client_shared_memory: let clients on this machine hand tensors over in shared memory.
        threads: ONNX Runtime threads per model with our own backend; 0 uses all cores.
        ready_timeout_s: how long to wait for all models, in seconds.
        stop_timeout_s: how long running requests may take when the server stops, in seconds.
        hang_timeout_s: how long `TritonServer.wait()` accepts no answer to `/v2/health/live`, in seconds.
        log_file: where the server's log goes as well as into `TritonServer.log_tail()`.
        log_to_stderr: copy the server's log to stderr.
        verbose: Triton's verbose log level.
    """

    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    host: str = "127.0.0.1"
    model_control: ModelControl = "none"
    poll_interval_s: int = 2
    models: tuple[str, ...] = ()
    response_cache_mb: int | None = None
    client_shared_memory: bool = True
    threads: int = 0
    ready_timeout_s: float = 300.0
    stop_timeout_s: float = 10.0
    hang_timeout_s: float = 60.0
    log_file: Path | None = None
    log_to_stderr: bool = False
    verbose: int = 0

    def __post_init__(self) -> None:
        for port in (self.http_port, self.grpc_port, self.metrics_port):
            if not 0 <= port <= 65535:
                raise BadInputError(f"port {port} is not between 0 and 65535")
        if self.model_control == "poll" and self.models:
            raise BadInputError(
                "model control 'poll' serves the whole repository: leave the list of models away"
            )
        if self.poll_interval_s < 1:
            raise BadInputError(f"poll interval is {self.poll_interval_s} s; it must be 1 s or more")
        if (self.response_cache_mb or 0) < 0 or self.threads < 0:
            raise BadInputError("the response cache and the number of threads must be 0 or more")

    def arguments(self, repository: Path, ports: tuple[int, int, int]) -> list[str]:
        """Triton's flags for this repository and these (HTTP, gRPC, metrics) ports."""
        arguments = [f"--model-repository={repository}"]
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
            arguments += [f"--{name}-address={self.host}", f"--{name}-port={port}"]
        # A broken model must not decide on the others: seg_runtime looks at each one itself.
        arguments += ["--exit-on-error=false", "--strict-readiness=false"]
        arguments += [f"--exit-timeout-secs={max(1, round(self.stop_timeout_s) - 2)}"]
        arguments += self._control_arguments()
        if self.response_cache_mb:
            arguments.append(f"--cache-config=local,size={self.response_cache_mb * 2**20}")
        if self.verbose:
            arguments.append(f"--log-verbose={self.verbose}")
        return arguments

    def _control_arguments(self) -> list[str]:
        if self.model_control == "poll":
            return ["--model-control-mode=poll", f"--repository-poll-secs={self.poll_interval_s}"]
        if self.model_control == "explicit" or self.models:
            names = self.models or ("*",)
            return ["--model-control-mode=explicit", *(f"--load-model={name}" for name in names)]
        return ["--model-control-mode=none"]
