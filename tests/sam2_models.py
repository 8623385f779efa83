"""A small SAM2 as sam2 runs it: 256x256 pixels, windows that do not divide its grid, random weights."""

from __future__ import annotations

from typing import Any

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
