"""Publishes an ONNX file that was exported elsewhere; heavy imports inside the function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Preprocessing
    from seg_export.export import ExportedModel, Precision
    from seg_export.families.onnx.interface import Wishes
    from seg_runtime.spec import ServingSpec

__all__ = ["export_onnx"]


def export_onnx(
    file: Path,
    repo: Path,
    name: str | None = None,
    *,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] = (),
    wishes: Wishes | None = None,
    images: Path | None = None,
    precision: Precision = "fp32",
    calibrate: Path | None = None,
    max_batch_size: int | None = None,
    serving: ServingSpec | None = None,
    on_step: Callable[[str], None] | None = None,
) -> ExportedModel:
    """Publish a segmentation graph that was exported elsewhere, if its wrapper proves right; needs no torch.

    The graph gets preprocessing before it and an activation behind it. What is published is compared with the
    original in ONNX Runtime, which is fed by NumPy.

    Args:
        file: a graph with one image input and maps of logits or probabilities, opset 7 or later.
        repo: the model repository; created when missing.
        name: the model's name; None for the file's.
        preprocessing: what the graph expects. Its `input_size_hw` counts where the graph takes any size and
            `wishes` name none.
        class_names: one per class; () for "class_0" and so on, or "foreground" for a single one.
        wishes: layout, output, activation and size, where the graph does not show them.
        images: a folder of real images to verify with, and synthetic ones too.
        precision: what the graph computes in; one in half precision stays so.
        calibrate: a folder of images like those of use, for int8 and only for it.
        max_batch_size: largest batch that is served; None for 8, or 1 for a graph that takes one image.
        serving: how Triton runs it.
        on_step: called with the name of each of `seg_export.export.STEPS` as it begins.

    Raises:
        CheckpointError: a file that cannot be used: broken, a detector, half of a SAM.
        BadInputError: a value that the graph does not fit, or that is needed.
        ParityError: the wrapped graph strays from the original; nothing was published.
        RepositoryError: the repository cannot be written to; what it served is served still.
        MissingExtraError: a package is not installed.

    Example:
        >>> from pathlib import Path
        >>> from seg_export import export_onnx
        >>> from seg_export.checkpoints.types import Preprocessing
        >>> chest = Preprocessing(mean=(0.5,), std=(0.25,))
        >>> export_onnx(Path("missing.onnx"), Path("triton_repo"), preprocessing=chest)
        Traceback (most recent call last):
        ...
        seg_runtime.errors.CheckpointError: missing.onnx cannot be read: No such file or directory
    """
    from dataclasses import replace

    from seg_export.families.onnx.interface import Wishes, read_interface
    from seg_export.families.onnx.model import onnx_model, publish_onnx_model
    from seg_export.families.onnx.read import read_original

    original = read_original(file)
    wishes = wishes or Wishes()
    if wishes.size_hw is None and original.takes_any_size:
        wishes = replace(wishes, size_hw=preprocessing.input_size_hw)
    interface = read_interface(original, wishes)
    model = onnx_model(original, interface, preprocessing, class_names, name or "", max_batch_size)
    return publish_onnx_model(
        model,
        repo,
        images=images,
        precision=precision,
        calibrate=calibrate,
        serving=serving,
        on_step=on_step or (lambda step: None),
    )
