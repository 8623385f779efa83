"""A trained U-Net++ cut to a smaller depth, as a checkpoint of its own."""

from __future__ import annotations

from dataclasses import replace

from seg_export.checkpoints.checkpoint import Checkpoint
from seg_export.checkpoints.random_weights import tensors_sha256
from seg_export.families.semantic.unetpp import pruned_unetpp
from seg_runtime.errors import BadInputError

__all__ = ["pruned"]


def pruned(checkpoint: Checkpoint, depth: int) -> Checkpoint:
    """What depth `depth` of a deeply supervised U-Net++ needs.

    Args:
        checkpoint: of the whole network.
        depth: 1 (two levels of resolution) to the whole network's.

    Returns:
        A checkpoint whose `sha256` is that of its tensors, since there is no file.

    Raises:
        BadInputError: another family, a depth that there is not, or no head there.
    """
    if checkpoint.family != "unetpp":
        raise BadInputError(f"--depth prunes a U-Net++, and this checkpoint is a {checkpoint.family}")
    arguments, state_dict = pruned_unetpp(checkpoint.arguments, checkpoint.state_dict, depth)
    metadata = {**checkpoint.metadata, "pruned_from": checkpoint.sha256, "depth": depth}
    return replace(
        checkpoint,
        arguments=arguments,
        state_dict=state_dict,
        metadata=metadata,
        sha256=tensors_sha256(state_dict),
    )
