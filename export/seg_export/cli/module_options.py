"""Which module, as `seg-export module` and `seg-export verify` take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

__all__ = ["ModuleOptions"]


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
