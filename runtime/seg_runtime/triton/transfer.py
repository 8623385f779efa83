"""How the tensors of one request travel to a Triton server and back: in the message, or in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import InferenceError
from seg_runtime.handles import ArrayHandle
from seg_runtime.session import Handle, axis_lengths
from seg_runtime.spec import ModelSpec, TensorSpec
from seg_runtime.triton.client import field
from seg_runtime.triton.region_pool import RegionHandle, RegionPool
from seg_runtime.triton.shared_memory import Region

__all__ = ["MessageTransfer", "SharedTransfer", "Values"]

_ALIGNMENT = 64
_TRITON_TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
}
_DTYPES = {name: dtype for dtype, name in _TRITON_TYPES.items()}

Values = Mapping[str, NDArray[Any] | Handle]
"""Inputs by name: arrays, and handles that this session made."""


class MessageTransfer:
    """Everything inside the request and the answer; a kept output comes back as an `ArrayHandle`.

    Args:
        tensors: tritonclient's module, `tritonclient.grpc` or `tritonclient.http`.
        spec: the model.
        values: its inputs.
        keep: outputs to return as handles.
        owner: the session's token, for handles.
    """

    in_message = True

    def __init__(
        self, tensors: Any, spec: ModelSpec, values: Values, keep: frozenset[str], owner: object
    ) -> None:
        self._tensors = tensors
        self._spec = spec
        self._values = values
        self._keep = keep
        self._owner = owner

    def inputs(self) -> list[Any]:
        """tritonclient's `InferInput`s."""
        return [_message_input(self._tensors, tensor, self._values) for tensor in self._spec.inputs]

    def outputs(self) -> list[Any]:
        """tritonclient's `InferRequestedOutput`s."""
        return [self._tensors.InferRequestedOutput(tensor.name) for tensor in self._spec.outputs]

    def results(self, answer: Any, spec: ModelSpec) -> dict[str, Any]:
        """The outputs of an `InferResult`; `spec` is that of the version that answered."""
        return {
            tensor.name: _message_output(answer, tensor.name, spec, tensor.name in self._keep, self._owner)
            for tensor in self._spec.outputs
        }

    def server_lost(self, region_name: str) -> None:
        """There are no regions to lose."""

    def distrust(self) -> None:
        """There are no regions to distrust."""

    def close(self) -> None:
        """There is nothing to free."""


@dataclass(frozen=True)
class _Slot:
    """A place for one tensor in a region."""

    region: Region
    offset: int
    byte_size: int

    def assign(self, message: Any) -> Any:
        message.set_shared_memory(self.region.name, self.byte_size, self.offset)
        return message


class SharedTransfer:
    """Tensors in regions that the server has mapped; only their names travel.

    Arrays and ordinary outputs share one region that is given back afterwards; a kept output gets one
    of its own, and a `RegionHandle` is read where it is. An output of unknown size comes in the answer.
    """

    in_message = False

    def __init__(
        self, tensors: Any, spec: ModelSpec, values: Values, keep: frozenset[str], pool: RegionPool
    ) -> None:
        self._tensors = tensors
        self._spec = spec
        self._values = values
        self._keep = keep
        self._pool = pool
        self._borrowed: list[Region] = []
        self._handles = [value for value in values.values() if isinstance(value, RegionHandle)]
        self._inputs: dict[str, _Slot] = {}
        self._outputs: dict[str, _Slot] = {}

    def open(self) -> None:
        """Find regions and write the inputs; `close` must follow. Raises what `RegionPool.borrow` raises."""
        self._pool.hold([handle.region for handle in self._handles])
        try:
            for handle in self._handles:
                if handle.released:  # by another thread, since it was checked
                    raise handle.released_error()
            self._place()
        except BaseException:
            self.close()
            raise

    def inputs(self) -> list[Any]:
        """tritonclient's `InferInput`s."""
        messages = []
        for tensor in self._spec.inputs:
            shape = list(self._values[tensor.name].shape)
            message = self._tensors.InferInput(tensor.name, shape, _TRITON_TYPES[tensor.dtype])
            messages.append(self._inputs[tensor.name].assign(message))
        return messages

    def outputs(self) -> list[Any]:
        """tritonclient's `InferRequestedOutput`s."""
        messages = []
        for tensor in self._spec.outputs:
            message = self._tensors.InferRequestedOutput(tensor.name)
            slot = self._outputs.get(tensor.name)
            messages.append(slot.assign(message) if slot else message)
        return messages

    def results(self, answer: Any, spec: ModelSpec) -> dict[str, Any]:
        """The outputs of an `InferResult`; `spec` is that of the version that answered."""
        return {tensor.name: self._result(answer, tensor, spec) for tensor in self._spec.outputs}

    def server_lost(self, region_name: str) -> None:
        """Register the region of this name again, after the server was restarted."""
        for slot in (*self._inputs.values(), *self._outputs.values()):
            self._pool.renew(slot.region, region_name)

    def distrust(self) -> None:
        """The request was given up: the server may still write into what it was to fill."""
        for region in self._borrowed:
            region.doubtful = True

    def close(self) -> None:
        """Give the regions back, except those that handles own now."""
        self._pool.let_go([handle.region for handle in self._handles])
        for region in self._borrowed:
            self._pool.give_back(region)
        self._borrowed.clear()

    def _result(self, answer: Any, tensor: TensorSpec, spec: ModelSpec) -> Any:
        slot, kept = self._outputs.get(tensor.name), tensor.name in self._keep
        if slot is None:
            return _message_output(answer, tensor.name, spec, kept, self._pool.owner)
        shape, dtype = _answered(answer, tensor.name, slot.byte_size, spec)
        if not kept:
            return slot.region.read(shape, dtype, slot.offset)
        self._borrowed.remove(slot.region)
        return RegionHandle(spec, TensorSpec(tensor.name, dtype, shape), slot.region, self._pool)

    def _place(self) -> None:
        batch = next(iter(self._values.values())).shape[0] if self._spec.max_batch_size else 1
        arrays: dict[str, NDArray[Any]] = {}
        for name, value in self._values.items():
            if isinstance(value, RegionHandle):
                self._inputs[name] = _Slot(value.region, 0, value.byte_size)
            else:
                arrays[name] = _array(value)
        lengths = axis_lengths(self._spec, self._values)
        sizes = {tensor.name: tensor.byte_size(batch, lengths) for tensor in self._spec.outputs}
        for name in self._keep:
            if sizes[name]:
                self._outputs[name] = _Slot(self._borrow(sizes[name]), 0, sizes[name])
        read_back = {name: size for name, size in sizes.items() if size and name not in self._keep}
        self._share_one_region(arrays, read_back)

    def _share_one_region(self, arrays: dict[str, NDArray[Any]], read_back: dict[str, int]) -> None:
        """Put the arrays, and room for the outputs that are read back, one after the other."""
        sizes = [*(array.nbytes for array in arrays.values()), *read_back.values()]
        offsets = np.cumsum([0, *(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)]).tolist()
        if not sizes:
            return
        region = self._borrow(offsets[-1])
        slots = [_Slot(region, offset, size) for offset, size in zip(offsets[:-1], sizes, strict=True)]
        for (name, array), slot in zip(arrays.items(), slots[: len(arrays)], strict=True):
            region.write(array, slot.offset)
            self._inputs[name] = slot
        self._outputs.update(zip(read_back, slots[len(arrays) :], strict=True))

    def _borrow(self, byte_size: int) -> Region:
        region = self._pool.borrow(byte_size)
        self._borrowed.append(region)
        return region


def _message_input(tensors: Any, tensor: TensorSpec, values: Values) -> Any:
    array = _array(values[tensor.name])
    message = tensors.InferInput(tensor.name, list(array.shape), _TRITON_TYPES[tensor.dtype])
    return message.set_data_from_numpy(array)


def _answered(answer: Any, name: str, byte_size: int, spec: ModelSpec) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of what the server wrote into a place of that size.

    They are the answer's own: a version that was published after the contract was read may have others.

    Raises:
        InferenceError: it cannot be in there.
    """
    output = answer.get_output(name)
    shape, dtype = tuple(field(output, "shape")), _DTYPES.get(field(output, "datatype"), "")
    if not dtype or int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize > byte_size:
        raise InferenceError(
            f"model '{spec.name}' answered with {name} as {field(output, 'datatype')} {list(shape)}, which "
            f"is not what its config.pbtxt says: publish it again with seg-export"
        )
    return shape, dtype


def _array(value: NDArray[Any] | Handle) -> NDArray[Any]:
    """The values of an input, to be copied into a message or a region at once."""
    if isinstance(value, ArrayHandle):
        return value.values
    return value.numpy() if isinstance(value, Handle) else value


def _message_output(answer: Any, name: str, spec: ModelSpec, kept: bool, owner: object) -> Any:
    # tritonclient's array is a read-only view of the answer.
    array = np.array(answer.as_numpy(name))
    return ArrayHandle(spec, name, array, owner) if kept else array
