"""The command `seg-serve`: a Triton server for a model repository."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seg_runtime.console import run_app

if TYPE_CHECKING:
    from seg_runtime.server import ServerTls, TritonServer
    from seg_runtime.server.check import RepositoryCheck

__all__ = ["app", "main"]

app = typer.Typer(
    name="seg-serve", add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
)


@app.command()
def serve(
    repo: Annotated[Path, typer.Argument(help="Model repository to serve.")] = Path("triton_repo"),
    http_port: Annotated[int, typer.Option(help="HTTP port; 0 takes a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port; 0 takes a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Prometheus metrics port; 0 takes a free one.")] = 8002,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    models: Annotated[
        str, typer.Option(help="Models to serve, separated by commas; all that are built when left away.")
    ] = "",
    model_control: Annotated[
        Literal["none", "poll", "explicit"],
        typer.Option(help="Changes after the start: none, by polling the repository, or when a client asks."),
    ] = "none",
    poll_interval: Annotated[
        int, typer.Option(min=1, help="Seconds between two looks at the repository, with poll.")
    ] = 2,
    response_cache_mb: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="MiB of cache for the models that ask for one, such as a SAM's encoder: 4 for an image. "
            "0 is none. Default: 256 when there is such a model and --model-control is none.",
        ),
    ] = None,
    shared_memory: Annotated[
        bool,
        typer.Option(help="Let this user's clients on this machine pass tensors in shared memory."),
    ] = True,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with a key that clients must send, for all but the health checks."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="PEM file of the certificate for gRPC with TLS; HTTP then stays on localhost."),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its private key.")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="PEM file: only clients with a certificate that these have signed get in."),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="ONNX Runtime threads per model, on a CPU; 0 uses all cores.")
    ] = 0,
    ready_timeout: Annotated[float, typer.Option(help="Seconds to wait for the models.")] = 300.0,
    log: Annotated[Path | None, typer.Option(help="File that the server's log is added to.")] = None,
    verbose: Annotated[bool, typer.Option(help="Show the server's log on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as one JSON line.")] = False,
) -> None:
    """Serve a model repository with Triton until Ctrl-C.

    Uses `tritonserver` on PATH (NVIDIA's containers, Jetson), else the one of
    nvidia-pytriton.

    [bold]Examples:[/bold]

        seg-serve

        seg-serve --models unet_lung --host 0.0.0.0 --api-key-file key \\
          --tls-cert tls.pem --tls-key tls.key

        seg-serve triton_repo --model-control poll --http-port 0 --grpc-port 0 \\
          --metrics-port 0 --json
    """
    from seg_runtime.server import ServerOptions, TritonServer
    from seg_runtime.triton.access import read_api_key

    options = ServerOptions(
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        host=host,
        model_control=model_control,
        poll_interval_s=poll_interval,
        models=tuple(name.strip() for name in models.split(",") if name.strip()),
        response_cache_mb=response_cache_mb,
        client_shared_memory=shared_memory,
        api_key=read_api_key(api_key_file) if api_key_file else None,
        tls=_tls(tls_cert, tls_key, tls_client_ca),
        threads=threads,
        ready_timeout_s=ready_timeout,
        log_file=log,
        log_to_stderr=verbose,
    )
    server = TritonServer(repo, options)
    _stop_on_signals()
    try:
        _announce(server, server.start(), as_json)
        server.wait()
    except KeyboardInterrupt:
        typer.echo("stopping", err=True)
    finally:
        server.stop()


def _stop_on_signals() -> None:
    """Let SIGTERM and a closed terminal end the server as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupt)


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
    from seg_runtime.errors import BadInputError
    from seg_runtime.server import ServerTls

    if certificate and key:
        return ServerTls(certificate, key, client_ca)
    if certificate or key or client_ca:
        raise BadInputError("TLS needs --tls-cert and --tls-key: give both")
    return None


def _announce(server: TritonServer, found: RepositoryCheck, as_json: bool) -> None:
    from seg_runtime.server.exposure import describe_exposure

    if found.not_built:
        typer.echo(f"not built, so not served: {', '.join(found.not_built)}", err=True)
    if exposure := describe_exposure(server.options):
        typer.echo(exposure, err=True)
    addresses = {"grpc": server.grpc_url, "http": server.http_url, "metrics": server.metrics_url}
    secret = server.secret_file
    if as_json:
        facts = {"pid": server.pid, "models": found.servable, "secret_file": str(secret) if secret else None}
        typer.echo(json.dumps({**addresses, **facts}))
        return
    typer.echo(f"serving {', '.join(found.servable)} from {server.repository}")
    for name, url in addresses.items():
        typer.echo(f"  {name:8}{url}")
    if server.options.model_control == "explicit":
        typer.echo(f"  to load and unload models send the header edgeseg-secret, from {secret}")
    typer.echo("Ctrl-C stops it")


def main() -> None:
    """Entry point of `seg-serve`."""
    run_app(app)


if __name__ == "__main__":
    main()
