"""Plain state dicts, as the original libraries save them: which model they are, by names and shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from seg_export.checkpoints.containers import read_weights
from seg_export.checkpoints.huggingface import other_model
from seg_export.checkpoints.near_misses import impostor, near_miss, no_family
from seg_export.checkpoints.nested import Weights
from seg_export.checkpoints.tensors import float32
from seg_export.checkpoints.types import Checkpoint
from seg_export.families import FAMILIES
from seg_runtime.errors import BadInputError, CheckpointError

__all__ = ["Recogniser", "recognise"]

Recogniser: TypeAlias = Callable[[dict[str, torch.Tensor], Path], Checkpoint | None]
"""Makes a checkpoint of the tensors that it knows, as `Family.recognise` does."""


def recognise(
    document: Any, path: Path, wanted: str | None = None, first: Recogniser | None = None
) -> Checkpoint:
    """What model the weights in a file belong to, as their names and shapes show.

    Args:
        document: what the file holds: a state dict, or one somewhere in it.
        path: the file.
        wanted: which weights, of several: "ema", "raw" or a name in the file.
        first: asked before the families.

    Raises:
        CheckpointError: none that is known, several and no choice, or weights that do not say enough.
    """
    recognisers = [*([first] if first else []), *(family.recognise for family in FAMILIES.values())]
    readings: list[Weights] = []
    misses: list[str] = []

    def read(weights: Weights) -> Checkpoint | None:
        readings.append(weights)
        text = impostor(weights.tensors)
        if text is None and (checkpoint := _recognised(recognisers, weights.tensors, path)) is not None:
            return checkpoint
        # What a part looks like says little of the whole.
        if not weights.left_out:
            text = text or near_miss(weights.tensors)
            misses.extend([text] if text else [])
        return None

    found = read_weights(document, path, wanted, read, lambda tensors: float32(tensors, path))
    if found is None:
        what = misses[0] if misses else other_model(path) or no_family(readings[0].tensors)
        raise CheckpointError(f"checkpoint {path} {what}")
    checkpoint, weights = found
    return replace(checkpoint, steps=(*weights.steps, *checkpoint.steps))


def _recognised(
    recognisers: list[Recogniser], tensors: dict[str, torch.Tensor], path: Path
) -> Checkpoint | None:
    for recogniser in recognisers:
        try:
            if (checkpoint := recogniser(tensors, path)) is not None:
                return checkpoint
        except BadInputError:
            raise
        except (LookupError, ArithmeticError, ValueError):
            # Names of a family with other tensors or shapes than it has.
            continue
    return None
