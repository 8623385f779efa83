"""How much a network amplifies the rounding of float32: no graph can be closer to it than that."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from seg_export.families.module.reference import ModuleReference
from seg_export.verification.cases import synthetic_cases
from seg_runtime.spec import ModelSpec

__all__ = ["has_norms_of_maps", "rounding_of"]

_LAST_PLACE = 2.0**-23


def has_norms_of_maps(network: nn.Module) -> bool:
    """Whether it has norms over the maps of an image that sum a whole map in one go.

    Of a flat image these make what rounding makes of it. `RowwiseNorm` does not.

    Example:
        >>> has_norms_of_maps(nn.InstanceNorm2d(4)), has_norms_of_maps(nn.BatchNorm2d(4))
        (True, False)
    """
    return any(isinstance(layer, nn.GroupNorm | nn.InstanceNorm2d) for layer in network.modules())


def rounding_of(reference: ModuleReference, spec: ModelSpec, *, flat: bool) -> float:
    """The largest change of its probabilities when what each layer gives changes in the last place.

    Two libraries differ by that much in a layer, and norms over maps amplify it.

    Args:
        reference: of the network in float32.
        spec: the contract, of which synthetic images are taken.
        flat: as `synthetic_cases` takes it.
    """
    stirred = copy.deepcopy(reference)
    generator = torch.Generator().manual_seed(0)
    for layer in stirred.network.modules():
        if next(layer.children(), None) is None:
            layer.register_forward_hook(lambda layer, arguments, output: _stirred(output, generator))
    name = spec.inputs[0].name
    batches = [torch.from_numpy(case.inputs[name]) for case in synthetic_cases(spec, flat=flat)[1:]]
    with torch.inference_mode():
        return max(float((reference(batch) - stirred(batch)).abs().max()) for batch in batches)


def _stirred(output: Any, generator: torch.Generator) -> Any:
    if not isinstance(output, torch.Tensor) or output.dtype != torch.float32:
        return output
    return output * (1 + _LAST_PLACE * (2 * torch.rand(output.shape, generator=generator) - 1))
