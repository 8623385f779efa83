"""How to run a Triton server: a frozen description and the command line it becomes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seg_runtime.errors import BadInputError
from seg_runtime.triton.access import check_api_key

__all__ = ["DEFAULT_CACHE_MB", "ModelControl", "ServerOptions", "ServerTls"]

LOCALHOST = "127.0.0.1"

DEFAULT_CACHE_MB = 256
"""The answers of a SAM's encoder for 60 images: 4 MiB each. Memory is taken as it fills."""

ModelControl = Literal["none", "poll", "explicit"]


@dataclass(frozen=True)
class ServerTls:
    """PEM files of a server that speaks gRPC with TLS. Triton has no TLS for HTTP.

    Attributes:
        certificate: the server's certificate chain.
        private_key: its key, without a password.
        client_ca: certificates that must have signed a client's own; None takes clients without one.

    Raises:
        BadInputError: a file is missing, or they do not belong together.
    """

    certificate: Path
    private_key: Path
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        # Triton's own message is that the port is in use.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.certificate, self.private_key, password=_no_password)
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
        except (OSError, ValueError) as error:
            files = f"'{self.certificate}' with '{self.private_key}'"
            more = f" and '{self.client_ca}'" if self.client_ca else ""
            raise BadInputError(
                f"no TLS with {files}{more}: {getattr(error, 'strerror', None) or error}"
            ) from error

    def arguments(self) -> list[str]:
        """Triton's flags."""
        kind = "grpc-use-ssl-mutual" if self.client_ca else "grpc-use-ssl"
        arguments = [
            f"--{kind}=true",
            f"--grpc-server-cert={self.certificate.resolve()}",
            f"--grpc-server-key={self.private_key.resolve()}",
        ]
        return [*arguments, f"--grpc-root-cert={self.client_ca.resolve()}"] if self.client_ca else arguments


def _no_password() -> str:
    raise ValueError("the private key has a password: the server needs one without")


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
        client_shared_memory: let this user's clients on this machine hand tensors over in shared memory.
        api_key: clients must send it for everything but the health checks. The metrics, which Triton cannot
            close, are then on localhost only.
        tls: encrypt gRPC. HTTP and metrics, which Triton cannot encrypt, are then on localhost only.
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
    api_key: str | None = field(default=None, repr=False)
    tls: ServerTls | None = None
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
        if self.api_key is not None:
            check_api_key(self.api_key, "the options")

    @property
    def http_host(self) -> str:
        """Address that HTTP listens on."""
        return LOCALHOST if self.tls else self.host

    @property
    def metrics_host(self) -> str:
        """Address that the metrics listen on."""
        return LOCALHOST if self.tls or self.api_key else self.host

    @property
    def hosts(self) -> tuple[str, str, str]:
        """Addresses that (HTTP, gRPC, metrics) listen on."""
        return self.http_host, self.host, self.metrics_host

    def arguments(self, repository: Path, ports: tuple[int, int, int]) -> list[str]:
        """Triton's flags for this repository and these (HTTP, gRPC, metrics) ports."""
        arguments = [f"--model-repository={repository}"]
        for name, host, port in zip(("http", "grpc", "metrics"), self.hosts, ports, strict=True):
            arguments += [f"--{name}-address={host}", f"--{name}-port={port}"]
        # A broken model must not decide on the others: seg_runtime looks at each one itself.
        arguments.append("--exit-on-error=false")
        arguments += self.tls.arguments() if self.tls else []
        arguments += [f"--exit-timeout-secs={max(1, round(self.stop_timeout_s) - 2)}"]
        arguments += self._control_arguments()
        if self.response_cache_mb:
            arguments.append(f"--cache-config=local,size={self.response_cache_mb * 2**20}")
        if self.verbose:
            arguments.append(f"--log-verbose={self.verbose}")
        return arguments

    def _control_arguments(self) -> list[str]:
        # A version that cannot be loaded leaves the old one serving, which is no reason to be unready.
        lenient = "--strict-readiness=false"
        if self.model_control == "poll":
            return ["--model-control-mode=poll", f"--repository-poll-secs={self.poll_interval_s}", lenient]
        if self.model_control == "explicit":
            loaded = [f"--load-model={name}" for name in self.models or ("*",)]
            return ["--model-control-mode=explicit", *loaded, lenient]
        # The repository then holds what is served and nothing else.
        return ["--model-control-mode=none", "--strict-readiness=true"]
