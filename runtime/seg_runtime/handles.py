"""What the handles of all sessions share: an owner, and refusing to be used after release or elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError, InferenceError
from seg_runtime.session import Handle
from seg_runtime.spec import ModelSpec

__all__ = ["ArrayHandle", "OwnedHandle", "usable_handle"]


class OwnedHandle(Handle):
    """A handle that knows which session made it.

    Attributes:
        owner: a token of the session, not the session itself, so that a forgotten handle does not
            keep models and connections alive.
    """

    def __init__(
        self, spec: ModelSpec, output: str, shape: tuple[int, ...], dtype: str, owner: object
    ) -> None:
        super().__init__(spec, output, shape, dtype)
        self.owner = owner

    @property
    @abstractmethod
    def released(self) -> bool:
        """Whether the memory was given back."""

    def released_error(self) -> InferenceError:
        """The error for a handle that is used after its release."""
        return InferenceError(
            f"the handle of '{self.output}' was released or its session closed: run '{self.spec.name}' again"
        )


class ArrayHandle(OwnedHandle):
    """A kept output that had to be fetched: the server is remote, or the output's size is not fixed."""

    def __init__(self, spec: ModelSpec, output: str, values: NDArray[Any], owner: object) -> None:
        super().__init__(spec, output, values.shape, values.dtype.name, owner)
        self._values: NDArray[Any] | None = values

    @property
    def released(self) -> bool:
        return self._values is None

    @property
    def values(self) -> NDArray[Any]:
        """The array itself, not to be written to. Raises InferenceError after `release()`."""
        values = self._values
        if values is None:
            raise self.released_error()
        return values

    def numpy(self) -> NDArray[Any]:
        return np.array(self.values)

    def release(self) -> None:
        self._values = None


def usable_handle(handle: Handle, owner: object) -> OwnedHandle:
    """The handle itself, when the session with this token made it and it was not released.

    Raises:
        BadInputError: another session made it.
        InferenceError: it was released.
    """
    if not isinstance(handle, OwnedHandle) or handle.owner is not owner:
        raise BadInputError(
            f"the handle of '{handle.output}' was made by another session: pass handle.numpy() instead"
        )
    if handle.released:
        raise handle.released_error()
    return handle
