"""Starts and stops a Triton server on this machine. The command is `seg-serve`."""

from __future__ import annotations

from seg_runtime.server.options import ServerOptions, ServerTls
from seg_runtime.server.process import TritonServer

__all__ = ["ServerOptions", "ServerTls", "TritonServer"]
