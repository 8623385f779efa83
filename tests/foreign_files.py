"""Small weights of each family, and what a message about a file must be like."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from sam_models import SMALL_SAM

from seg_export.checkpoints.checkpoint import untrained_model
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.families.semantic.transunet import VARIANTS

FAMILIES = {
    "unet": {"features": [4, 8]},
    "unetpp": {"features": [4, 6]},
    "transunet": {**VARIANTS["small"], "image_size": 32, "layers": 1},
    "sam": SMALL_SAM,
    "maskrcnn": {"arch": "maskrcnn_resnet18_fpn", "num_classes": 2},
}
"""Arguments of the smallest network of each family that is recognised by its tensors."""

LONGEST = 160
"""Characters of a message less the path: two lines of 80 columns."""

LONGEST_OF_FOLDER = 220
"""The same where a library's error, or what is missing, is in it: two lines of 110."""


@cache
def family_weights(family: str) -> dict[str, torch.Tensor]:
    """Seeded weights of a small network; of a Mask R-CNN, which none is, ones that take no memory."""
    if family == "maskrcnn":
        with torch.device("meta"):
            shapes = untrained_model(family, FAMILIES[family]).state_dict()
        return {name: torch.ones((), dtype=each.dtype).expand(each.shape) for name, each in shapes.items()}
    return dict(random_checkpoint(family, FAMILIES[family]).state_dict)


def stand_in(patch: pytest.MonkeyPatch, module: str, name: str) -> type[dict[str, Any]]:
    """A class under the name of one of a library that is not installed here, so that it can be pickled."""
    kind = type(name, (dict,), {"__module__": module, "__qualname__": name})
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        way = ".".join(parts[:depth])
        patch.setitem(sys.modules, way, ModuleType(way))
    setattr(sys.modules[module], name, kind)
    return kind


def assert_short(error: Exception, path: Path, longest: int = LONGEST) -> None:
    """A message is one line that fits two lines of a terminal, less the path."""
    message = str(error)
    assert "\n" not in message
    assert len(message.replace(str(path), "")) <= longest, message
