"""The graph of a user's network, and what it is verified against."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from seg_export.checkpoints.types import Checkpoint, Preprocessing
from seg_export.families.module.network import MIN_SIDE
from seg_export.families.module.norms import with_rowwise_norms
from seg_export.families.module.outputs import pick
from seg_export.families.module.reference import ModuleReference
from seg_export.families.module.rounding import has_norms_of_maps, rounding_of
from seg_export.families.semantic.engine import semantic_labels
from seg_export.families.semantic.graph import SemanticGraph, semantic_spec
from seg_export.tracing.traceable import TraceableModel
from seg_export.verification.cases import semantic_case, semantic_cases
from seg_runtime.errors import CheckpointError

__all__ = ["ModuleGraph", "module_model"]


class ModuleGraph(SemanticGraph):
    """A user's network behind the input and output of semantic graphs.

    Args:
        model: (N, C, H, W) float32, normalised, to (N, num_classes, h, w), or to several outputs.
        preprocessing: what it expects of its input.
        output: name of the output that counts, as `outputs.pick` takes it.
        activation: "sigmoid", "softmax" or "none".
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, output: str, activation: str) -> None:
        super().__init__(model, preprocessing)
        self.output = output
        self.activation = activation

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(N, H, W, C) uint8 to (N, num_classes, H, W) float32 probabilities."""
        logits = pick(self.model(self.prepared(image)), self.output)
        if logits.shape[2:] != image.shape[1:3]:
            size_hw = (int(image.shape[1]), int(image.shape[2]))
            logits = F.interpolate(logits, size_hw, mode="bilinear", align_corners=False)
        if self.activation == "sigmoid":
            return torch.sigmoid(logits)
        return torch.softmax(logits, dim=1) if self.activation == "softmax" else logits


def module_model(
    checkpoint: Checkpoint, name: str, size_hw: tuple[int, int], max_batch_size: int
) -> TraceableModel:
    """Build the graph of a module's checkpoint.

    Args:
        checkpoint: of `module_checkpoint`, with the network itself.
        name: the model's name.
        size_hw: (height, width) in pixels of the graph's input.
        max_batch_size: largest batch that is served.

    Raises:
        BadInputError: a size or batch that cannot be.
        CheckpointError: it has no network, or a preprocessing that does not fit it.
    """
    network = checkpoint.network
    if network is None:
        raise CheckpointError("the checkpoint of a module has no module: make it with module_checkpoint")
    spec = semantic_spec(checkpoint, network, name, size_hw, MIN_SIDE, max_batch_size)
    chosen = checkpoint.arguments["output"], checkpoint.arguments["activation"]
    traced = with_rowwise_norms(network)
    graph = ModuleGraph(traced, checkpoint.preprocessing, *chosen).eval()
    reference = ModuleReference(network, checkpoint.preprocessing, *chosen).eval()
    labels = partial(semantic_labels, spec)
    flat = not has_norms_of_maps(traced)
    return TraceableModel(
        spec,
        labels,
        graph,
        reference,
        cases=partial(semantic_cases, flat=flat),
        image_case=semantic_case,
        rounding=rounding_of(reference, spec, flat=flat),
    )
