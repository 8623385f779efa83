"""What a command says of records that it could not read and went on without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from seg_runtime.errors import EdgesegError

__all__ = ["INCOMPLETE", "say_left_out"]

INCOMPLETE = 2
"""Exit code of a command that went on without records it was given: they are bad input."""


def say_left_out(errors: Sequence[EdgesegError], read: int) -> None:
    """Say on stderr why records were left out, one line each, and how many.

    Args:
        errors: of those that could not be read.
        read: how many could be.
    """
    from seg_runtime.boundary import one_line

    for error in errors:
        typer.echo(f"left out: {one_line(error)}", err=True)
    if errors:
        typer.echo(f"error: {len(errors)} of {len(errors) + read} records were left out", err=True)
