"""Requests without any key to everything that changes a server, in every mode of model control."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from seg_bench.microbench.faults import Outcome, Place
from seg_bench.microbench.strangers import GRPC_CHANGES, HTTP_CHANGES, MODEL, REFUSED, ask_grpc, ask_http
from seg_runtime.server import ServerOptions, TritonServer

__all__ = ["STRANGER_FAULTS"]

_CONTROLS = {
    "all models": ServerOptions(http_port=0, grpc_port=0, metrics_port=0),
    "chosen models": ServerOptions(models=(MODEL,), http_port=0, grpc_port=0, metrics_port=0),
    "poll": ServerOptions(model_control="poll", http_port=0, grpc_port=0, metrics_port=0),
    "explicit": ServerOptions(model_control="explicit", http_port=0, grpc_port=0, metrics_port=0),
}


def _strangers_ask(options: ServerOptions) -> Callable[[Place], list[Outcome]]:
    """Every request is refused, leaves no file, and the model stays ready."""

    def attempt(place: Place) -> list[Outcome]:
        with tempfile.TemporaryDirectory() as folder, TritonServer(place.repo, options) as server:
            marker = Path(folder) / "marker"
            return [
                Outcome(_complaint(server, change, answer, marker))
                for change, answer in _answers(server, marker)
            ]

    return attempt


def _answers(server: TritonServer, marker: Path) -> Iterator[tuple[str, str]]:
    """Each change and what the server says to it."""
    for change, (path, body) in HTTP_CHANGES.items():
        yield f"{change} over HTTP", ask_http(server.http_url, path, body(marker))[1]
    for change, (method, message) in GRPC_CHANGES.items():
        yield f"{change} over gRPC", ask_grpc(server.grpc_url, method, message(marker))


def _complaint(server: TritonServer, change: str, answer: str, marker: Path) -> str:
    if not REFUSED.search(answer):
        return f"{change} was not refused: {answer[:100] or 'done'}"
    if marker.exists():
        return f"{change} wrote a file"
    status, _ = ask_http(server.http_url, f"/v2/models/{MODEL}/ready")
    return "" if status == 200 else f"{change} left the model unready"


STRANGER_FAULTS: dict[str, tuple[int, Callable[[Place], list[Outcome]]]] = {
    f"strangers' requests, {control}": (1, _strangers_ask(options)) for control, options in _CONTROLS.items()
}
