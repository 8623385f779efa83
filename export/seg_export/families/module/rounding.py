"""How much a network amplifies the rounding of float32: no graph can be closer to it than that."""

from __future__ import annotations

import copy

import torch

from seg_export.families.module.reference import ModuleReference
from seg_export.verification.cases import synthetic_cases
from seg_runtime.spec import ModelSpec

__all__ = ["rounding_of"]


def rounding_of(reference: ModuleReference, spec: ModelSpec) -> float:
    """The largest difference between its probabilities in float32 and in float64.

    Args:
        reference: of the network in float32.
        spec: the contract, of which synthetic images are taken: black, white and noise.

    Returns:
        0 for a network that computes in float32 only.
    """
    double = ModuleReference(
        copy.deepcopy(reference.network).double(),
        reference.preprocessing,
        reference.output,
        reference.activation,
        torch.float64,
    ).eval()
    images = torch.from_numpy(synthetic_cases(spec)[-1].inputs[spec.inputs[0].name])
    try:
        with torch.inference_mode():
            return float((reference(images) - double(images)).abs().max())
    except RuntimeError:
        # It makes tensors of float32 itself.
        return 0.0
