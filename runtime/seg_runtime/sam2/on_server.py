"""When a remote server keeps an image's features in its cache, so that they need not travel."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import EdgesegError, ServerUnavailableError
from seg_runtime.sam2.models import SERVER_PARTS
from seg_runtime.session import Session
from seg_runtime.spec import ModelSpec

__all__ = ["ServerImage", "server_ensembles"]


@dataclass(frozen=True)
class ServerImage:
    """An image whose features are in the server's cache, in place of handles to them.

    Attributes:
        pixels: (1, S, S, 3) uint8, which goes with every request; the server encodes the first one only.
    """

    pixels: NDArray[np.uint8]

    def release(self) -> None:
        """There is nothing to free: the cache drops what was used longest ago."""


def server_ensembles(
    session: Session, name: str, parts: Collection[str], encoder: ModelSpec
) -> dict[str, ModelSpec]:
    """The ensembles of `SERVER_PARTS` to run in place of single models; none where handles are to be used.

    They are for servers that share no memory, have all the ensembles that replace `parts`, of the encoder's
    checkpoint, and answer the encoder's repeated requests from their cache: without it, every step of a
    frame would encode it again. A server that was not asked yet is asked with a blank image, twice at most.

    Raises:
        ServerUnavailableError: the server is away.
    """
    if session.where not in ("grpc", "http"):
        return {}
    wanted = [part for part, steps in SERVER_PARTS.items() if set(steps) <= set(parts)]
    try:
        specs = {part: session.spec(f"{name}_{part}") for part in wanted}
        same = all(spec.checkpoint_sha256 == encoder.checkpoint_sha256 for spec in specs.values())
        return specs if same and _cache_holds_features(session, encoder, specs["prompt"]) else {}
    except ServerUnavailableError:
        raise
    except EdgesegError:
        # Ensembles that are missing, refused by the server or not by this project; no statistics.
        return {}


def _cache_holds_features(session: Session, encoder: ModelSpec, prompt: ModelSpec) -> bool:
    known = session.answers_from_cache(encoder.name)
    for _ in range(2):
        if known is None:
            session.infer(prompt.name, _zeros(prompt))
            known = session.answers_from_cache(encoder.name)
    return bool(known)


def _zeros(spec: ModelSpec) -> dict[str, NDArray[Any]]:
    return {
        tensor.name: np.zeros([max(axis, 1) for axis in tensor.shape], tensor.numpy_dtype)
        for tensor in spec.inputs
    }
