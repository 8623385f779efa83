"""Models with weights that were never trained: for timing and tests, and marked as such for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from seg_export.checkpoints.types import Checkpoint
from seg_export.families import family_named

__all__ = ["random_checkpoint", "tensors_sha256"]


def random_checkpoint(family: str, arguments: Mapping[str, Any], seed: int = 0) -> Checkpoint:
    """A network with seeded random weights; the global random state is left alone.

    Args:
        family: a key of `seg_export.families.FAMILIES`.
        arguments: keyword arguments of its constructor.
        seed: of PyTorch's generator.

    Returns:
        A checkpoint whose `sha256` is that of its tensors, since there is no file.

    Raises:
        CheckpointError: an unknown family.
        BadInputError: sizes that cannot be built.
        MissingExtraError: a package that the family is built with is not installed.

    Example:
        >>> random_checkpoint("unet", {"features": [4, 8]}).metadata
        {'weights': 'random', 'seed': 0}
    """
    row = family_named(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = row.build(**arguments)
        row.spread(network)
    state_dict = network.state_dict()
    return Checkpoint(
        family=family,
        arguments=dict(arguments),
        state_dict=state_dict,
        preprocessing=row.preprocessing(network, arguments),
        metadata={"weights": "random", "seed": seed},
        sha256=tensors_sha256(state_dict),
    )


def tensors_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of weights that are no file, in hex."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
