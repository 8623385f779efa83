"""A small SAM2 as sam2 runs it: 256x256 pixels, windows that do not divide its grid, random weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch

SMALL: dict[str, Any] = {
    "embed_dim": 32,
    "num_heads": 1,
    "stages": [1, 1, 2, 1],
    "global_att_blocks": [3],
    "window_pos_embed_bkg_spatial_size": [7, 7],
    "image_size": 256,
    "memory_layers": 2,
}
"""Constructor arguments: five graphs in seconds, with every kind of block that the official sizes have."""

SIDE, GRID = 256, 16
"""Of its image and of its embedding."""


@contextmanager
def weightless() -> Iterator[None]:
    """Build models on the device "meta"; sam2 reads the numbers of a `linspace` while it does."""
    with pytest.MonkeyPatch.context() as patched, torch.device("meta"):
        patched.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))
        yield
