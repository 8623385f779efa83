"""How long a request may still take, however many steps and attempts it has."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Deadline"]


class Deadline:
    """The end of what each thread is doing, which the steps inside it share.

    >>> deadline = Deadline()
    >>> with deadline.within(5.0):
    ...     with deadline.within(60.0):
    ...         deadline.remaining_s() <= 5.0
    True
    """

    def __init__(self) -> None:
        self._thread = threading.local()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Limit the block to this time; inside another limit, to what that one leaves."""
        outer = self._end()
        self._thread.end = min(outer, time.monotonic() + seconds)
        try:
            yield
        finally:
            self._thread.end = outer

    def remaining_s(self) -> float:
        """Seconds until the end, infinite outside `within`, negative after it."""
        return self._end() - time.monotonic()

    def _end(self) -> float:
        return float(getattr(self._thread, "end", math.inf))
