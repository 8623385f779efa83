"""Options that several commands of `seg-run` share, and the session they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seg_runtime.session import Session

__all__ = ["EngineOption", "JsonOption", "RepoOption", "UrlOption", "open_session"]

RepoOption = Annotated[
    Path | None,
    typer.Option("--repo", help="Model repository to run here.", show_default="triton_repo"),
]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", help="Triton server instead: grpc://HOST:8001 or http://HOST:8000."),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What computes here: auto (the best that is there), onnxruntime, openvino, onnxruntime-cuda, "
        "onnxruntime-tensorrt or tensorrt.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def open_session(repo: Path | None, url: str | None, engine: str = "auto") -> Session:
    """The session of `--repo` with an `--engine`, or of `--url`.

    Raises:
        BadInputError: `--repo` and `--url` are both given, or `--url` with an engine; an unknown engine.
        EdgesegError: as `seg_runtime.connect`.
    """
    from seg_runtime.errors import BadInputError

    if repo is not None and url is not None:
        raise BadInputError("--repo runs in process and --url on a server: give one of them")
    if url is not None and "://" not in url:
        raise BadInputError(f"--url wants grpc://HOST:PORT or http://HOST:PORT, not '{url}'")
    from seg_runtime.connection import connect

    return connect(url or repo or Path("triton_repo"), engine=engine)
