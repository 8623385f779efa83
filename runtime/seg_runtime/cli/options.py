"""Options that several commands of `seg-run` share, and the session they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seg_runtime.session import Session
    from seg_runtime.triton.access import ServerAccess

__all__ = [
    "ApiKeyFileOption",
    "BitDepthOption",
    "CaOption",
    "ClientCertOption",
    "EngineOption",
    "JsonOption",
    "RepoOption",
    "UrlOption",
    "open_session",
]

RepoOption = Annotated[
    Path | None,
    typer.Option("--repo", help="Model repository to run here.", show_default="triton_repo"),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Triton server instead: grpc://HOST:8001 or http://HOST:8000."),
]
ApiKeyFileOption = Annotated[
    str | None,
    typer.Option(
        "--api-key-file",
        help="File with the server's API key.",
        metavar="FILE",
        show_default="the key in EDGESEG_API_KEY",
    ),
]
CaOption = Annotated[
    str | None,
    typer.Option(
        "--ca",
        help="PEM file of the certificates to trust, for grpcs:// and https://.",
        metavar="FILE",
        show_default="the system's",
    ),
]
ClientCertOption = Annotated[
    str | None,
    typer.Option(
        "--client-cert",
        help="PEM file of this client's certificate and private key, for a server that asks for one.",
        metavar="FILE",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What computes here: auto (the best that is there), onnxruntime, openvino, onnxruntime-cuda, "
        "onnxruntime-tensorrt or tensorrt.",
    ),
]
BitDepthOption = Annotated[
    int | None,
    typer.Option(
        "--bit-depth",
        help="How many bits of 16-bit pixels count: white is 2^N - 1.",
        metavar="N",
        min=8,
        max=16,
        show_default="as the file says, else a guess",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def open_session(repo: Path | None, url: str | None, access: ServerAccess, engine: str = "auto") -> Session:
    """The session of `--repo` with an `--engine`, or of `--url` with what the server wants.

    Raises:
        BadInputError: `--repo` and `--url` are both given, or `--url` with an engine; an unknown engine;
            a key or certificates without `--url`.
        EdgesegError: as `seg_runtime.connect`.
    """
    from seg_runtime.errors import BadInputError

    if repo is not None and url is not None:
        raise BadInputError("--repo runs in process and --url on a server: give one of them")
    if url is not None and "://" not in url:
        raise BadInputError(f"--url wants grpc://HOST:PORT or http://HOST:PORT, not '{url}'")
    access.require_server(url)
    from seg_runtime.connection import connect

    if url is None:
        return connect(repo or Path("triton_repo"), engine=engine)
    return connect(url, engine=engine, api_key=access.api_key(), tls=access.tls())
