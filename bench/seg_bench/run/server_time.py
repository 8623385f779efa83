"""How long a Triton server computed for one call, from its own statistics."""

from __future__ import annotations

import time
from collections.abc import Sequence

from seg_runtime.errors import BadInputError, EdgesegError
from seg_runtime.triton.access import ServerAccess
from seg_runtime.triton.address import ClientOptions, TlsOptions, parse_address
from seg_runtime.triton.client import ModelStatistics, TritonClient

__all__ = ["ServerClock"]

_PATIENCE_S = 1.0


class ServerClock:
    """Reads what a server has computed before and after a call that is alone on it; close it.

    Args:
        target: address of the server.
        models: that the call runs: the first of them once, the others at least once.
        access: what gets into it.

    Raises:
        BadInputError: not an address.
    """

    def __init__(self, target: str, models: Sequence[str], access: ServerAccess | None = None) -> None:
        address = parse_address(target)
        if address is None:
            raise BadInputError(f"'{target}' is not the address of a server")
        access = access or ServerAccess()
        options = ClientOptions(tls=access.tls() or TlsOptions(), api_key=access.api_key())
        self._client = TritonClient(address, options)
        self._models = models
        self._before: list[ModelStatistics] | None = None

    def start(self) -> None:
        """Just before the call, once the server has counted those before it."""
        self._before = self._settled()

    def stop(self) -> float | None:
        """Milliseconds of computing since `start`, input and output included.

        None when the server does not tell, or when others called the same models meanwhile.
        """
        if self._before is None:
            return None
        after = self._settled(self._before)
        if after is None or after[0].requests - self._before[0].requests != 1:
            return None
        return sum(now.compute_ms - then.compute_ms for now, then in zip(after, self._before, strict=True))

    def close(self) -> None:
        self._client.close()

    def _settled(self, before: Sequence[ModelStatistics] = ()) -> list[ModelStatistics] | None:
        """Statistics that no longer change, and count a call since `before`: it answers first."""
        deadline = time.monotonic() + _PATIENCE_S
        last = None
        while time.monotonic() < deadline:
            now = self._read()
            if now is None:
                return None
            counted = all(new.requests > old.requests for new, old in zip(now, before, strict=False))
            if counted and now == last:
                return now
            last = now
        return None

    def _read(self) -> list[ModelStatistics] | None:
        try:
            return [self._client.statistics(model) for model in self._models]
        except EdgesegError:
            return None
