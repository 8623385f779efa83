"""What every engine offers a session, and whether a file holds the model that its configuration describes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from seg_runtime.errors import RepositoryError
from seg_runtime.spec import ModelSpec, TensorSpec

__all__ = ["Engine", "Kept", "check_tensors"]


class Kept(Protocol):
    """An output that stayed where it was made; its memory goes with the last reference to it.

    Attributes:
        shape: full shape, batch axis included.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    def numpy(self) -> NDArray[Any]:
        """A copy of the values."""


class Engine(Protocol):
    """One loaded model. Safe to use from several threads; what it holds goes with the last reference to it.

    Attributes:
        about: what computes, in words: name and version, then the device, as "OpenVINO 2026.4.1, CPU".
        kept_type: class of the outputs that it keeps, and takes as inputs as they are.
    """

    about: str
    kept_type: type[Any]

    def run(self, inputs: Mapping[str, Any], keep: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Run the model once.

        Args:
            inputs: an array of the right dtype and shape, or a `kept_type`, per input.
            keep: outputs to leave where they are made.

        Returns:
            An array per output, for names in `keep` a `Kept` or, on engines whose memory is the
            process's own, an array that nobody else writes to.

        Raises:
            InferenceError: the model failed.
        """


def check_tensors(
    spec: ModelSpec, path: Path, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
) -> None:
    """Refuse a file whose inputs or outputs are not those of its `config.pbtxt`.

    Args:
        spec: what the configuration says.
        path: the file, for the message.
        inputs, outputs: what the file says, by name; shapes have the batch axis, -1 is open.

    Raises:
        RepositoryError: a name, a type or a shape differs.
    """
    batched = spec.max_batch_size > 0
    for kind, tensors, found in (("input", spec.inputs, inputs), ("output", spec.outputs, outputs)):
        expected = {tensor.name: tensor for tensor in tensors}
        if expected.keys() != found.keys():
            raise RepositoryError(
                f"{path} has the {kind}s {', '.join(found)} but its config.pbtxt says {', '.join(expected)}: "
                f"publish '{spec.name}' again with seg-export"
            )
        for name, tensor in expected.items():
            shape = (-1, *tensor.shape) if batched else tensor.shape
            if found[name].dtype != tensor.dtype or not _fits(shape, found[name].shape, kind):
                raise RepositoryError(
                    f"{path} has {kind} '{name}' as {_shown(found[name].dtype, found[name].shape)} but its "
                    f"config.pbtxt says {_shown(tensor.dtype, shape)}: publish '{spec.name}' again with "
                    "seg-export"
                )


def _fits(wanted: tuple[int, ...], found: tuple[int, ...], kind: str) -> bool:
    """Whether the file accepts every input that the contract allows, and makes no other outputs.

    An axis that the file leaves open may have any length.
    """
    return len(wanted) == len(found) and all(
        has in (-1, want) or (kind == "output" and want == -1)
        for has, want in zip(found, wanted, strict=True)
    )


def _shown(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {'x'.join('N' if axis < 0 else str(axis) for axis in shape) or 'scalar'}"
