"""`export_module`: a PyTorch module at hand into the model repository."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from seg_export.checkpoints.types import Preprocessing
from seg_export.export import ExportedModel, Precision, export_model
from seg_export.families.module.network import Activation, module_checkpoint
from seg_export.tracing.trace import DEFAULT_OPSET
from seg_runtime.spec import ServingSpec

__all__ = ["export_module"]


def export_module(
    module: nn.Module,
    repo: Path | str,
    name: str,
    *,
    preprocessing: Preprocessing,
    class_names: Sequence[str] = (),
    activation: Activation | None = None,
    output: str | int | None = None,
    size_hw: tuple[int, int] | None = None,
    images: Path | None = None,
    precision: Precision = "fp32",
    calibrate: Path | None = None,
    opset: int = DEFAULT_OPSET,
    max_batch_size: int = 8,
    serving: ServingSpec | None = None,
    on_step: Callable[[str], None] | None = None,
) -> ExportedModel:
    """Publish a segmentation network as the next version of a model, if its graph proves right.

    The graph takes images as (N, H, W, C) uint8; it normalises them, runs the module, resizes an output of
    another size to (H, W) and applies the activation. It is verified against the module itself, which is
    left as it is.

    Args:
        module: (N, C, H, W) float32, normalised, to (N, classes, h, w) logits; it may also return a tuple,
            list or dict of which one tensor is that.
        repo: the model repository; created when missing.
        name: the model's name.
        preprocessing: what the module was trained with: mean and std per channel, which say how many
            channels there are, 1 to 16.
        class_names: one per class; none for "class_0" and so on.
        activation: "sigmoid", "softmax", or "none" where the module's outputs are probabilities already;
            None for a sigmoid of one class and a softmax over several.
        output: name or index of the output that counts, where there are several.
        size_hw: (height, width) in pixels of the input; None for `preprocessing.input_size_hw`.
        images, precision, calibrate, opset, max_batch_size, serving, on_step: as for
            `seg_export.export.export_models`.

    Returns:
        The published version and the proof that it computes what the module computes.

    Raises:
        BadInputError: a 3-D network, an output that is no (N, classes, h, w), several outputs and none
            chosen, or settings that do not fit.
        CheckpointError: a module that cannot be traced.
        ParityError: the graph strays from the module; nothing was published.
        RepositoryError: the repository cannot be written to.
        MissingExtraError: a package of the `export` extra is not installed.

    Example:
        >>> from torchvision.models.segmentation import lraspp_mobilenet_v3_large
        >>> module = lraspp_mobilenet_v3_large(weights="DEFAULT")  # doctest: +SKIP
        >>> statistics = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> export_module(module, "triton_repo", "lraspp", preprocessing=statistics)  # doctest: +SKIP
    """
    if size_hw is not None:
        preprocessing = replace(preprocessing, input_size_hw=size_hw)
    checkpoint = module_checkpoint(
        module, preprocessing, class_names=class_names, activation=activation, output=output
    )
    return export_model(
        checkpoint,
        Path(repo),
        name,
        size_hw=size_hw,
        images=images,
        precision=precision,
        calibrate=calibrate,
        opset=opset,
        max_batch_size=max_batch_size,
        serving=serving,
        on_step=on_step,
    )
