"""The two models of a published SAM: found, checked to belong together, and the decoder run in parts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from seg_runtime.contracts import Contracts
from seg_runtime.errors import BadInputError, ModelNotFoundError
from seg_runtime.sam.prompts import Prompts
from seg_runtime.session import Handle, Session, check_same_checkpoint
from seg_runtime.spec import ModelSpec

__all__ = ["EMBEDDINGS", "decode", "find_sam", "sam_pair"]

EMBEDDINGS = "image_embeddings"
"""The output of every encoder that its decoder takes."""

_TOKENS_PER_CALL = 1024
"""Points of all prompts of one call: prompts of very many points go in smaller calls."""


def find_sam(session: Session) -> str:
    """The name of the one SAM that a session has.

    Raises:
        ModelNotFoundError: it has none.
        BadInputError: it has several.
    """
    models = session.models()
    names = [name.removesuffix("_decoder") for name in models if name.endswith("_decoder")]
    names = [name for name in names if f"{name}_encoder" in models]
    if not names:
        raise ModelNotFoundError(
            "there is no SAM encoder with its decoder: publish them with  seg-export sam"
        )
    if len(names) > 1:
        raise BadInputError(f"there are several SAMs ({', '.join(names)}): choose one with --model")
    return names[0]


def sam_pair(contracts: Contracts, name: str) -> tuple[ModelSpec, ModelSpec]:
    """The contracts of `<name>_encoder` and `<name>_decoder`.

    Raises:
        ModelNotFoundError: one or both are missing.
        BadInputError: they are of different checkpoints, or no halves of a SAM, or the one makes
            embeddings of another type than the other takes.
    """
    specs = []
    for part in ("encoder", "decoder"):
        model = f"{name}_{part}"
        try:
            spec = contracts.spec(model)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(
                f"SAM '{name}' needs the models '{name}_encoder' and '{name}_decoder', and the {part} is "
                f"missing ({error}): publish both with  seg-export sam"
            ) from error
        if spec.task != f"sam-{part}":
            raise BadInputError(f"model '{model}' is for the task '{spec.task}', not 'sam-{part}'")
        specs.append(spec)
    encoder, decoder = specs
    check_same_checkpoint(decoder, encoder)
    made, taken = encoder.output(EMBEDDINGS), decoder.input(EMBEDDINGS)
    if made and taken and made.dtype != taken.dtype:
        raise BadInputError(
            f"model '{encoder.name}' makes {EMBEDDINGS} as {made.dtype} and '{decoder.name}' takes "
            f"{taken.dtype}: publish both with one  seg-export sam"
        )
    return encoder, decoder


def decode(
    session: Session, decoder: str, embedding: Handle, prompts: Prompts, prompts_per_call: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Run the decoder on a few prompts at a time.

    Yields:
        low_res: (n, 4, 256, 256) float32 logits: the mask for unambiguous prompts, then three candidates.
        scores: (n, 4) float32.

    Raises:
        BadInputError: the decoder was published anew, from another checkpoint, since the image was set.
        InferenceError, ServerError: as from `Session.infer`.
    """
    size = max(1, min(prompts_per_call, _TOKENS_PER_CALL // prompts.labels.shape[1]))
    side = 4 * embedding.shape[-1]
    for part in prompts.chunks(size):
        count = len(part)
        # Without masks one empty one stands for all prompts.
        masks = np.zeros((1, 1, side, side), np.float32) if part.masks is None else part.masks[:, None]
        outputs = session.infer(
            decoder,
            {
                EMBEDDINGS: embedding,
                "point_coords": part.coords,
                "point_labels": part.labels,
                "mask_input": masks,
                "has_mask_input": np.full(count, part.masks is not None, np.float32),
            },
        )
        # The check before the call was against the contract known then.
        check_same_checkpoint(session.spec(decoder), embedding.spec)
        yield outputs["low_res_masks"], outputs["iou_predictions"]
