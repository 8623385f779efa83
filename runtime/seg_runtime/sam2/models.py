"""The models of a published SAM2: found, and checked to belong together."""

from __future__ import annotations

from collections.abc import Iterable

from seg_runtime.contracts import Contracts, ListedContracts
from seg_runtime.errors import BadInputError, ModelNotFoundError
from seg_runtime.session import check_same_checkpoint
from seg_runtime.spec import ModelSpec

__all__ = ["IMAGE_PARTS", "SERVER_PARTS", "VIDEO_PARTS", "find_sam2", "sam2_models"]

IMAGE_PARTS = ("image_encoder", "mask_decoder")
VIDEO_PARTS = (*IMAGE_PARTS, "mask_prompt", "memory_attention", "memory_encoder")

SERVER_PARTS = {
    "prompt": ("image_encoder", "mask_decoder"),
    "track": ("image_encoder", "memory_attention", "mask_decoder"),
    "remember": ("image_encoder", "memory_encoder"),
}
"""Ensembles, by what their names end in, and the models that they run: a remote client sends them the image,
and the features that the server has in its cache do not travel."""


def find_sam2(contracts: ListedContracts) -> str:
    """The name of the one SAM2 that there is.

    Raises:
        ModelNotFoundError: there is none.
        BadInputError: there are several.
    """
    models = contracts.models()
    names = [name.removesuffix("_mask_decoder") for name in models if name.endswith("_mask_decoder")]
    names = [name for name in names if f"{name}_image_encoder" in models]
    if not names:
        raise ModelNotFoundError(
            "there is no SAM2 image encoder with its decoder: publish them with  seg-export sam2"
        )
    if len(names) > 1:
        raise BadInputError(f"there are several SAM2 models ({', '.join(names)}): choose one with --model")
    return names[0]


def sam2_models(contracts: Contracts, name: str, parts: Iterable[str]) -> dict[str, ModelSpec]:
    """The contracts of `<name>_<part>` by part.

    Raises:
        ModelNotFoundError: one is missing.
        BadInputError: they are of different checkpoints or input sizes, or no parts of a SAM2.
    """
    specs = {part: _part(contracts, name, part) for part in parts}
    encoder = specs["image_encoder"]
    for spec in specs.values():
        check_same_checkpoint(spec, encoder)
        if spec.input_size_hw != encoder.input_size_hw:
            raise BadInputError(
                f"model '{spec.name}' is for images of {spec.input_size_hw[1]} pixels and '{encoder.name}' "
                f"for {encoder.input_size_hw[1]}: publish all parts with one  seg-export sam2"
            )
    return specs


def _part(contracts: Contracts, name: str, part: str) -> ModelSpec:
    model, task = f"{name}_{part}", f"sam2-{part.replace('_', '-')}"
    try:
        spec = contracts.spec(model)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"SAM2 '{name}' needs the model '{model}', which is missing ({error}): publish all parts with  "
            "seg-export sam2"
        ) from error
    if spec.task != task:
        raise BadInputError(f"model '{model}' is for the task '{spec.task}', not '{task}'")
    return spec
