"""Requests without any key to everything that changes a server, in every mode of model control."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from microbench.faults import Outcome, Place
from microbench.strangers import GRPC_CHANGES, HTTP_CHANGES, MODEL, REFUSED, ask_grpc, ask_http

__all__ = ["STRANGER_FAULTS"]

_CONTROLS = {
    "all models": (),
    "chosen models": ("--models", MODEL),
    "poll": ("--model-control", "poll"),
    "explicit": ("--model-control", "explicit"),
}


def _strangers_ask(options: tuple[str, ...]) -> Callable[[Place], list[Outcome]]:
    """Every request is refused, leaves no file, and the model stays ready."""

    def attempt(place: Place) -> list[Outcome]:
        with tempfile.TemporaryDirectory() as folder, place.serving(*options) as served:
            addresses, marker = served.wait_ready(), Path(folder) / "marker"
            outcomes = [
                Outcome(_complaint(addresses["http"], change, answer, marker))
                for change, answer in _answers(addresses, marker)
            ]
            served.close()
            return [*outcomes[:-1], replace(outcomes[-1], left=tuple(served.left()))]

    return attempt


def _answers(addresses: dict[str, Any], marker: Path) -> Iterator[tuple[str, str]]:
    """Each change and what the server says to it."""
    for change, (path, body) in HTTP_CHANGES.items():
        yield f"{change} over HTTP", ask_http(addresses["http"], path, body(marker))[1]
    for change, (method, message) in GRPC_CHANGES.items():
        yield f"{change} over gRPC", ask_grpc(addresses["grpc"], method, message(marker))


def _complaint(http_url: str, change: str, answer: str, marker: Path) -> str:
    if not REFUSED.search(answer):
        return f"{change} was not refused: {answer[:100] or 'done'}"
    if marker.exists():
        return f"{change} wrote a file"
    status, _ = ask_http(http_url, f"/v2/models/{MODEL}/ready")
    return "" if status == 200 else f"{change} left the model unready"


STRANGER_FAULTS: dict[str, tuple[int, Callable[[Place], list[Outcome]]]] = {
    f"strangers' requests, {control}": (1, _strangers_ask(options)) for control, options in _CONTROLS.items()
}
