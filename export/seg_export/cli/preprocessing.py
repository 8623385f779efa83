"""Options that say how images are prepared for a network, and what its classes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

__all__ = ["PreprocessingOptions"]

_PANEL = "Preprocessing"


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """What the network was trained with, which its weights do not say."""

    mean: Annotated[
        str | None, typer.Option(help="Mean per channel of pixels / scale: 0.485,0.456,0.406.")
    ] = None
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel of pixels / scale.")] = None
    scale: Annotated[
        float | None, typer.Option(help="What pixels of 0 to 255 are divided by first.", show_default="255")
    ] = None
    channel_order: Annotated[
        Literal["rgb", "bgr"] | None,
        typer.Option(help="Order of colours that the network takes.", show_default="rgb"),
    ] = None
    clahe: Annotated[
        bool | None,
        typer.Option("--clahe/--no-clahe", help="Equalise contrast first.", show_default="no-clahe"),
    ] = None
    class_names: Annotated[
        str | None, typer.Option(help="Names of the classes in the order of the outputs: lung,heart.")
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability from which one class is foreground.", show_default="0.5"),
    ] = None
    assume_defaults: Annotated[
        bool,
        typer.Option("--assume-defaults", help="Take usual values for what is not given, and list them."),
    ] = False
