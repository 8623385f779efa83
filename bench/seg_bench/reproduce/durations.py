"""Times as people write them."""

from __future__ import annotations

import math
import re

from seg_runtime.errors import BadInputError

__all__ = ["seconds_of"]

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds_of(option: str, text: str) -> float:
    """Seconds of "90", "90s", "10m" or "1.5h". Raises BadInputError, naming `option`.

    Example:
        >>> seconds_of("--budget", "1.5m")
        90.0
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)\s*", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found else 0.0
    if not 0 < seconds < math.inf:
        raise BadInputError(f"{option} is '{text}'; give a time of more than 0: 90s, 10m or 1.5h")
    return seconds
