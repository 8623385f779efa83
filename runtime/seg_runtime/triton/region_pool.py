"""Which shared-memory regions a session has: borrowed by requests, owned by handles, reused when free."""

from __future__ import annotations

import mmap
import threading
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import EdgesegError, ServerTimeoutError, ServerUnavailableError
from seg_runtime.handles import OwnedHandle
from seg_runtime.spec import ModelSpec, TensorSpec
from seg_runtime.triton.client import TritonClient
from seg_runtime.triton.errors import RegionInUseError
from seg_runtime.triton.shared_memory import Region, register_region

__all__ = ["RegionHandle", "RegionPool"]

_FREE_REGIONS = 16
"""Free regions kept for reuse; mapping and registering a new one takes about a millisecond."""
_LAST_USE_S, _PAUSE_S = 1.0, 0.005
"""How long a session that closes waits for the server to let go of answered requests, and between tries."""
_ROOMY = 8
"""A region is not used for tensors more than this many times smaller."""


class RegionHandle(OwnedHandle):
    """A kept output in a region of its own, which the server reads when it is an input again."""

    def __init__(self, spec: ModelSpec, tensor: TensorSpec, region: Region, pool: RegionPool) -> None:
        super().__init__(spec, tensor.name, tensor.shape, tensor.dtype, pool.owner)
        self.region = region
        self.byte_size = int(np.prod(tensor.shape, dtype=np.int64)) * tensor.numpy_dtype.itemsize
        self._pool = pool
        # Also runs when the handle is forgotten; it touches neither locks nor the network.
        self._free = weakref.finalize(self, pool.give_back, region)
        self._free.atexit = False

    @property
    def released(self) -> bool:
        return not self._free.alive or self._pool.closed

    def numpy(self) -> NDArray[Any]:
        if self.released:
            raise self.released_error()
        return self.region.read(self.shape, self.dtype)

    def release(self) -> None:
        self._free()


class RegionPool:
    """The regions of one session: borrowed by requests, owned by handles, reused when free.

    Args:
        client: the connection that regions are registered over.
        owner: the session's token, for handles.
    """

    def __init__(self, client: TritonClient, owner: object) -> None:
        self.owner = owner
        self.closed = False
        self._client = client
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._all: set[Region] = set()
        self._free: list[Region] = []
        self._doubtful: list[Region] = []
        self._returned: deque[Region] = deque()

    def borrow(self, byte_size: int) -> Region:
        """A registered region of at least this size; bring it back with `give_back`.

        Raises:
            OSError: /dev/shm is full or not writable.
            ServerError, InferenceError: the server is away or refuses to map it.
        """
        found, surplus = self._take(byte_size)
        self._discard(surplus)
        if found is None:
            found = Region(*register_region(self._client, byte_size))
            with self._lock:
                self._all.add(found)
        return found

    def give_back(self, region: Region) -> None:
        """Return a region for reuse; safe at any moment, in a finaliser too."""
        self._returned.append(region)

    def hold(self, regions: Collection[Region]) -> None:
        """Keep regions from being reused while a request reads them, even if a handle is released."""
        self._count_users(regions, 1)

    def let_go(self, regions: Collection[Region]) -> None:
        """End of `hold`."""
        self._count_users(regions, -1)

    def renew(self, region: Region, lost_name: str) -> None:
        """Register a region again that the server lost when it was restarted; its contents are kept."""
        with self._renewing:
            if region.name == lost_name:  # else another thread was faster
                region.name, region.memory = register_region(self._client, region.byte_size, region.memory)

    def close(self) -> None:
        """Let the server unmap everything; a region that it still writes into stays mapped there.

        A server that is away or does not answer is asked once, not for every region.
        """
        with self._lock:
            self.closed = True
            regions = list(self._all)
            self._all.clear()
            self._free.clear()
            self._doubtful.clear()
            self._returned.clear()
        deadline = time.monotonic() + _LAST_USE_S
        for region in regions:
            try:
                self._unregister(region, deadline)
            except (ServerTimeoutError, ServerUnavailableError):
                return
            except EdgesegError:
                continue

    def _unregister(self, region: Region, deadline: float) -> None:
        """Triton answers a request a moment before it lets go of its regions: try until then."""
        while True:
            try:
                return self._client.unregister(region.name)
            except RegionInUseError:
                if region.doubtful or time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE_S)

    def _take(self, byte_size: int) -> tuple[Region | None, list[Region]]:
        """The best free region if any fits, and regions to give up."""
        with self._lock:
            self._sort_returned()
            roomy = _ROOMY * max(byte_size, mmap.PAGESIZE)
            fitting = [region for region in self._free if byte_size <= region.byte_size <= roomy]
            found = min(fitting, key=lambda region: region.byte_size, default=None)
            if found is not None:
                self._free.remove(found)
            surplus = self._free[:-_FREE_REGIONS] + self._doubtful
            self._free = self._free[-_FREE_REGIONS:]
            self._doubtful = []
            return found, surplus

    def _sort_returned(self) -> None:
        """Free what was given back, except what is still in use or doubtful. The lock is held."""
        for _ in range(len(self._returned)):
            region = self._returned.popleft()
            if region.users:
                self._returned.append(region)
            else:
                (self._doubtful if region.doubtful else self._free).append(region)

    def _discard(self, regions: Iterable[Region]) -> None:
        """Unmap regions; one that the server still uses is tried again at the next `borrow`."""
        for region in regions:
            try:
                self._client.unregister(region.name)
            except RegionInUseError:
                with self._lock:
                    self._doubtful.append(region)
                continue
            except EdgesegError:
                # The server is away and its mappings with it, or it does not know the region.
                pass
            with self._lock:
                self._all.discard(region)

    def _count_users(self, regions: Collection[Region], step: int) -> None:
        with self._lock:
            for region in regions:
                region.users += step
