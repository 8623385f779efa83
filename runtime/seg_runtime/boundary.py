"""The boundary around one item of many: its failure is an error with one line, and the others go on."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from seg_runtime.errors import EdgesegError, ServerError, UnexpectedError

__all__ = ["DEBUG_VARIABLE", "attempt", "known_error", "one_line"]

DEBUG_VARIABLE = "EDGESEG_DEBUG"
"""Where it is set, the traceback of an unexpected error goes to stderr."""

T = TypeVar("T")


def attempt(action: Callable[[], T]) -> T | EdgesegError:
    """What an action gives, or its error: never an exception that concerns one item alone.

    Args:
        action: reads, runs or writes one file, model, row or record.

    Raises:
        ServerError: the server is away, for all items.

    Example:
        >>> attempt(lambda: 1 + 1)
        2
        >>> attempt(lambda: {}["mask"])
        UnexpectedError('unexpected KeyError (EDGESEG_DEBUG=1 shows where)')
    """
    try:
        return action()
    except ServerError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged bytes make decoders raise anything
        return known_error(error)


def known_error(error: Exception) -> EdgesegError:
    """An error of this package as it is, any other as an `UnexpectedError`.

    The text of others is left out: a decoder may quote what it reads, which may be about a patient.
    """
    if isinstance(error, EdgesegError):
        return error
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, OSError) and error.strerror:
        return UnexpectedError(error.strerror)
    return UnexpectedError(f"unexpected {type(error).__name__} ({DEBUG_VARIABLE}=1 shows where)")


def one_line(error: EdgesegError) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())
