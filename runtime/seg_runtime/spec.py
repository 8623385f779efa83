"""What a client must know about a model: frozen descriptions that ride in the model's `config.pbtxt`.

`seg_runtime.model_config` turns them into Triton's `ModelConfig` message and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

__all__ = [
    "CONTRACT_VERSION",
    "VERSION_WITH_STATISTICS",
    "ChannelOrder",
    "ClaheSpec",
    "EnsembleStep",
    "ModelSpec",
    "Parity",
    "Precision",
    "Resize",
    "ServingSpec",
    "Task",
    "TensorSpec",
    "Weights",
]

CONTRACT_VERSION = 2
"""Of what this version writes. It reads all up to this one; the first had no number, and no mean and std."""

VERSION_WITH_STATISTICS = 2
"""From which on a contract holds mean, std, scale and channel order."""

Task = Literal[
    "semantic",
    "instances",
    "sam",
    "sam-encoder",
    "sam-decoder",
    "sam2-image-encoder",
    "sam2-mask-decoder",
    "sam2-mask-prompt",
    "sam2-memory-attention",
    "sam2-memory-encoder",
    "sam2-prompt",
    "sam2-track",
    "sam2-remember",
]
"""Masks per class; objects; SAM in one request and its halves; the parts and ensembles of a SAM2."""

Precision = Literal["fp32", "fp16", "int8"]
Resize = Literal["stretch", "longest-side"]
ChannelOrder = Literal["rgb", "bgr"]
Weights = Literal["trained", "random"]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    `shape` leaves out the batch axis of a model that batches (`ModelSpec.max_batch_size` > 0);
    -1 is an axis of any length. `dtype` is NumPy's name of the type, for example "uint8".
    `axes` names those of any length, in their order, or is empty: axes of one name have one length in
    a request and its answer, so that the size of an output is known before the call.

    Raises:
        ValueError: some axes of any length have a name and others have none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.axes and len(self.axes) != sum(axis < 0 for axis in self.shape):
            raise ValueError(f"tensor '{self.name}' of shape {list(self.shape)} has the axes {self.axes}")

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        return np.dtype(self.dtype)

    def byte_size(self, batch: int, lengths: Mapping[str, int]) -> int:
        """Bytes of a batch of this tensor with these lengths of named axes; 0 when one is not known."""
        names = iter(self.axes)
        shape = [lengths.get(next(names, ""), -1) if axis < 0 else axis for axis in self.shape]
        if any(axis < 0 for axis in shape):
            return 0
        return batch * int(np.prod(shape, dtype=np.int64)) * self.numpy_dtype.itemsize


@dataclass(frozen=True)
class ClaheSpec:
    """Contrast-limited adaptive histogram equalisation, as in OpenCV's `createCLAHE`.

    The client applies it to the 8-bit image after resizing to the model's input size.
    """

    clip_limit: float = 2.0
    tile_grid_hw: tuple[int, int] = (8, 8)


@dataclass(frozen=True)
class Parity:
    """How closely the graph follows the PyTorch model: upper bounds over all verified inputs.

    Tensor differences are rounded up to a power of ten, so that the same model published on two
    machines gets the same configuration; `mask_iou` is rounded down to 4 decimals.
    """

    max_abs: float
    max_rel: float
    mask_iou: float


@dataclass(frozen=True)
class EnsembleStep:
    """One model that an ensemble runs.

    Attributes:
        model: its name.
        version: the version that the ensemble was published with; it runs no other.
        inputs: which tensor of the ensemble each input of the model gets.
        outputs: which tensor of the ensemble each output of the model becomes.
    """

    model: str
    version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class ModelSpec:
    """One published version of a model: its tensors and the contract with the client.

    Attributes:
        name: the model's folder in the repository.
        version: the version that is served.
        task: what it does, see `Task`.
        family: the exporter that made it, for example "unet".
        backend: Triton's backend, "onnxruntime" or "tensorrt"; "ensemble" for a model made of `steps`.
        max_batch_size: largest batch; 0 when the model has no batch axis.
        input_size_hw: (height, width) in pixels that the client resizes to.
        resize: how it resizes; "stretch" ignores the aspect, as the lung data sets were made,
            "longest-side" keeps it and pads at the right and bottom, as SAM does.
        channels: of the uint8 NHWC image input: 1 (gray), 3 (RGB), or up to 16 bands.
        mean: per channel, of pixels divided by `scale`; the graph subtracts it. Empty where it is not
            known, as in contracts of version 1.
        std: per channel, of pixels divided by `scale`; the graph divides by it.
        scale: what the graph divides pixels by before, for example 255.
        channel_order: of the network's input; the image input is RGB, and the graph turns it round.
        class_names: one per output channel.
        threshold: a probability at or above it is foreground (one class); with several classes
            the largest probability wins and the threshold is not used. For SAM, a logit above it.
        score_threshold: of a model that finds objects: one counts from this score on where a yes or no is
            wanted.
        clahe: contrast equalisation the model was trained with, or None.
        precision: "fp32", "fp16" or "int8".
        checkpoint_sha256: hex SHA-256 of the checkpoint file.
        weights: "trained", or "random" for weights that were never trained.
        parameter_count: learned parameters of the PyTorch model.
        parity: figures of the verification, or None when the model was not made by seg-export.
        toolkit_version: edgeseg's version that published it.
        contract_version: of the contract that it was read from, see `CONTRACT_VERSION`.
        assumed: what neither the checkpoint nor an option said, and the value that was taken, for example
            {"mean": "0.485"}; empty for a checkpoint that says how its images are to be prepared.
        steps: the models that an ensemble runs, in order; empty for a model with a graph of its own.
        by_products: what an ensemble makes besides `outputs` and no client asks for; Triton wants every
            tensor between the steps to be used or given out.
    """

    name: str
    version: int
    task: Task
    family: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    backend: str = "onnxruntime"
    max_batch_size: int = 0
    input_size_hw: tuple[int, int] = (512, 512)
    resize: Resize = "stretch"
    channels: int = 1
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float = 255.0
    channel_order: ChannelOrder = "rgb"
    class_names: tuple[str, ...] = ()
    threshold: float = 0.5
    score_threshold: float = 0.5
    clahe: ClaheSpec | None = None
    precision: Precision = "fp32"
    checkpoint_sha256: str = ""
    weights: Weights = "trained"
    parameter_count: int = 0
    parity: Parity | None = None
    toolkit_version: str = ""
    contract_version: int = CONTRACT_VERSION
    assumed: Mapping[str, str] = field(default_factory=dict, hash=False)
    steps: tuple[EnsembleStep, ...] = ()
    by_products: tuple[TensorSpec, ...] = ()

    def input(self, name: str) -> TensorSpec | None:
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def output(self, name: str) -> TensorSpec | None:
        return next((tensor for tensor in self.outputs if tensor.name == name), None)


@dataclass(frozen=True)
class ServingSpec:
    """How Triton runs a model; none of it changes an answer.

    Attributes:
        preferred_batch_sizes: batches that the dynamic batcher aims for; empty turns it off.
        max_queue_delay_us: how long a request may wait for others, in microseconds.
        instances: copies of the model that run at the same time.
        instance_kind: "auto", "cpu" or "gpu".
        warm_up: run one zero batch before the model counts as ready.
        response_cache: let the server answer repeated requests from its cache.
    """

    preferred_batch_sizes: tuple[int, ...] = (4, 8)
    max_queue_delay_us: int = 100
    instances: int = 1
    instance_kind: Literal["auto", "cpu", "gpu"] = "auto"
    warm_up: bool = True
    response_cache: bool = False
