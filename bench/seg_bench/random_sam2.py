"""A SAM2 with random weights whose tracked masks can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from seg_export.checkpoints.checkpoint import Checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint

__all__ = ["random_sam2_that_finds"]

_SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


def random_sam2_that_finds(arguments: Mapping[str, Any]) -> Checkpoint:
    """Random weights by which an object appears on every frame.

    With `random_sam2` alone most objects appear nowhere: all engines then agree on masks that are empty.

    Args:
        arguments: of `seg_export.families.sam2.network.build_sam2`.

    Returns:
        A checkpoint that counts as random.

    Raises:
        BadInputError: sizes that cannot be built.
        MissingExtraError: sam2 is not installed.
    """
    checkpoint = random_checkpoint("sam2", arguments)
    checkpoint.state_dict[_SCORE_BIAS].fill_(10.0)
    digest = hashlib.sha256(f"{checkpoint.sha256} with objects that appear".encode())
    return replace(checkpoint, sha256=digest.hexdigest())
