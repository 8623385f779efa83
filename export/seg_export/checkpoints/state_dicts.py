"""Plain state dicts, as the original libraries save them: which model they are, by names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from seg_export.checkpoints.types import Checkpoint
from seg_export.families import FAMILIES
from seg_runtime.errors import CheckpointError

__all__ = ["first_three", "plain_state_dict", "recognise"]


def plain_state_dict(document: Mapping[str, Any]) -> Any:
    """The state dict in a file that is no checkpoint of ours, which may have it under a name."""
    wrapped = (document[name] for name in ("state_dict", "model") if isinstance(document.get(name), Mapping))
    return next(wrapped, document.get("state_dict", document))


def recognise(tensors: dict[str, torch.Tensor], path: Path) -> Checkpoint:
    """What model a state dict belongs to, as its names and shapes show.

    Args:
        tensors: names and float32 values.
        path: the file they are from.

    Raises:
        CheckpointError: none that is known, or one of which the weights alone do not say enough.
    """
    for family in FAMILIES.values():
        if (checkpoint := family.recognise(tensors, path)) is not None:
            return checkpoint
    known = [family for family in FAMILIES.values() if family.tensors]
    titles = [f"{family.title}'s" for family in known]
    raise CheckpointError(
        f"checkpoint {path} is a plain state dict but no {', '.join(titles[:-1])} or {titles[-1]}: "
        f"{first_three(list(tensors))}; expected {' or '.join(family.tensors for family in known)}"
    )


def first_three(items: list[str]) -> str:
    """The first three, and how many more there are."""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(items[:3]) + more
