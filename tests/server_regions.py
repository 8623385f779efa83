"""Asks a server which regions of clients' shared memory it has mapped, as its own user may."""

from __future__ import annotations

from contextlib import closing

from seg_runtime.server import TritonServer
from seg_runtime.triton.address import ClientOptions, parse_address
from seg_runtime.triton.client import TritonClient

__all__ = ["mapped_regions"]


def mapped_regions(server: TritonServer) -> list[str]:
    """Their names, sorted."""
    address = parse_address(server.grpc_url)
    assert address is not None
    with closing(TritonClient(address, ClientOptions())) as client:
        return sorted(client.regions())
