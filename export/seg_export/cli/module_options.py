"""Which module, as `seg-export module` and `seg-export verify` take it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from seg_export.cli.given import given
from seg_runtime.errors import BadInputError

__all__ = ["ModuleOptions", "names_folder", "refuse_with_folder"]


@dataclass(frozen=True, kw_only=True)
class ModuleOptions:
    """How the module is made and which of its outputs counts."""

    args: Annotated[
        str | None, typer.Option("--args", help="Keyword arguments of the factory as a JSON object.")
    ] = None
    output: Annotated[
        str | None, typer.Option(help="Name or index of the output that counts, where there are several.")
    ] = None
    activation: Annotated[
        Literal["sigmoid", "softmax", "none"] | None,
        typer.Option(
            help="What makes the outputs probabilities; none where they are.",
            show_default="sigmoid for one class, softmax for several",
        ),
    ] = None


def names_folder(text: str) -> bool:
    """Whether a text names a folder, and no factory."""
    return ":" not in text or Path(text).is_dir()


def refuse_with_folder(context: typer.Context) -> None:
    """Refuse options of a factory where a folder was named. Raises BadInputError."""
    for parameter, option in (("args", "--args"), ("checkpoint", "--checkpoint")):
        if given(context, parameter):
            raise BadInputError(f"{option} has no effect on a folder, which says it: leave it out")
