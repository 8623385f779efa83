"""Turns what tritonclient, gRPC and the HTTP client raise into this project's errors, in one place."""

from __future__ import annotations

import http.client
import re
import ssl

from seg_runtime.errors import (
    EdgesegError,
    InferenceError,
    ModelNotFoundError,
    ModelNotReadyError,
    ServerError,
    ServerTimeoutError,
    ServerUnavailableError,
)
from seg_runtime.triton.access import API_KEY

__all__ = [
    "ModelLoadingError",
    "RegionInUseError",
    "RegionLostError",
    "RestrictedError",
    "client_errors",
    "timed_out",
    "translate",
]

_UNAVAILABLE = {"StatusCode.UNAVAILABLE", "502", "503", "504"}
_TIMED_OUT = {"StatusCode.DEADLINE_EXCEEDED"}
_REFUSED = {"StatusCode.UNAUTHENTICATED", "StatusCode.PERMISSION_DENIED", "401", "403"}
_NOT_TRITON = {"StatusCode.UNIMPLEMENTED"}
_RESTRICTED = re.compile(
    r"This (?:API|protocol) is restricted, expecting header '(?:triton-grpc-protocol-)?([^']*)'"
)
_UNKNOWN_MODEL = re.compile(r"unknown model: '([^']*)'")
_LOST_REGION = re.compile(r"Unable to find shared memory region: '([^']*)'")
_CUT_OFF = re.compile(r"connection closed|Invalid EOF state|Incomplete response")
_TLS_FAILED = re.compile(r"tls handshake|SSL_ERROR", re.IGNORECASE)
_REGION_IN_USE = re.compile(r"Cannot unregister shared memory region '[^']*', it is currently in use")


class ModelLoadingError(ModelNotReadyError):
    """The server is loading the model at this moment: worth waiting for."""


class RestrictedError(ServerError):
    """The server wants a key for this, in a header."""

    def __init__(self, header: str, address: str) -> None:
        cure = f"send its header '{header}'"
        if header == API_KEY:
            cure = "give its API key with --api-key-file, EDGESEG_API_KEY or connect(api_key=...)"
        super().__init__(f"the server at {address} refuses this to strangers: {cure}")


class RegionLostError(ServerError):
    """The server does not know a shared-memory region, because it was restarted.

    Attributes:
        region: the name that the server did not know.
    """

    def __init__(self, region: str, address: str) -> None:
        super().__init__(f"the server at {address} lost the shared-memory region '{region}': try again")
        self.region = region


class RegionInUseError(ServerError):
    """A request that was given up still runs in the server and may write into its region."""


def client_errors() -> tuple[type[Exception], ...]:
    """Everything that tritonclient's gRPC and HTTP clients raise when a server is away or refuses.

    ValueError comes from its JSON parser, for unusable headers and for a closed connection.
    """
    from tritonclient.utils import InferenceServerException

    return (InferenceServerException, http.client.HTTPException, OSError, ValueError)


def translate(error: Exception, address: str) -> EdgesegError:
    """The error of this project for one of `client_errors()`; raise it `from` the original."""
    if isinstance(error, ssl.SSLError):
        return ServerError(
            f"no TLS connection to {address} ({_line(error)}): check the scheme and certificates"
        )
    if isinstance(error, TimeoutError):
        return timed_out(address)
    if isinstance(error, OSError) or _CUT_OFF.search(str(error)):
        return _unavailable(address, _line(error))
    if isinstance(error, http.client.HTTPException) or type(error).__name__ == "JSONDecodeError":
        return _not_triton(address, _line(error))
    if isinstance(error, ValueError):
        return ServerError(f"no request could be made to {address}: {_line(error)}")
    status, message = str(getattr(error, "status", str)()), _message(error)
    return _of_message(message, address) or _of_status(status, message, address)


def _of_message(message: str, address: str) -> EdgesegError | None:
    """The errors that a server tells apart only in words."""
    if restricted := _RESTRICTED.search(message):
        return RestrictedError(restricted[1], address)
    if unknown := _UNKNOWN_MODEL.search(message):
        return ModelNotFoundError(f"no model '{unknown[1]}' at {address}")
    if lost := _LOST_REGION.search(message):
        return RegionLostError(lost[1], address)
    if _REGION_IN_USE.search(message):
        return RegionInUseError(message)
    if _TLS_FAILED.search(message):
        return _no_tls(address, message)
    return None


def _of_status(status: str, message: str, address: str) -> EdgesegError:
    """The errors that have a status of their own: gRPC's code, or HTTP's as text."""
    if status in _UNAVAILABLE:
        return _unavailable(address, message)
    if status in _TIMED_OUT:
        return timed_out(address)
    if status in _REFUSED:
        return ServerError(f"the server at {address} refused the request ({message}): check the headers")
    if status in _NOT_TRITON or "exception occurred in the client while decoding" in message:
        return _not_triton(address, message)
    return InferenceError(f"the server at {address} answered: {message}")


def _no_tls(address: str, reason: str) -> ServerError:
    return ServerError(f"no TLS connection to {address} ({reason}): check the scheme and the certificates")


def _unavailable(address: str, reason: str) -> ServerUnavailableError:
    return ServerUnavailableError(
        f"no server answers at {address} ({reason}): start one with seg-serve or check the address"
    )


def timed_out(address: str) -> ServerTimeoutError:
    """The error for a request that did not end within its deadline."""
    return ServerTimeoutError(f"the server at {address} did not answer in time: try a longer timeout")


def _not_triton(address: str, reason: str) -> ServerError:
    return ServerError(
        f"what answers at {address} is not a Triton server ({reason}): check the port, "
        f"usually 8001 for grpc:// and 8000 for http://"
    )


def _message(error: Exception) -> str:
    """The server's own words in one line, without the wrapping of gRPC's connection errors."""
    message = str(getattr(error, "message", str)() or error)
    return " ".join(message.rpartition("last error: ")[2].split())


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
