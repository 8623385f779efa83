"""Options that say what a model expects of its images, where its file does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

__all__ = ["PreprocessingOptions"]


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """What the network was trained on."""

    mean: Annotated[
        str | None, typer.Option(help="Mean per channel, of pixels / scale: 0.485,0.456,0.406.")
    ] = None
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel: 0.229,0.224,0.225.")] = None
    scale: Annotated[float | None, typer.Option(help="What pixels of 0 to 255 are divided by: 255.")] = None
    channel_order: Annotated[
        Literal["rgb", "bgr"] | None, typer.Option(help="Order of the channels that the network takes.")
    ] = None
    clahe: Annotated[
        bool | None, typer.Option("--clahe/--no-clahe", help="Whether images had their contrast equalised.")
    ] = None
    class_names: Annotated[
        str | None, typer.Option(help="Names of the classes, separated by commas, in their order.")
    ] = None
    threshold: Annotated[
        float | None, typer.Option(help="Probability from which on one class is foreground. Default: 0.5.")
    ] = None
    assume_defaults: Annotated[
        bool, typer.Option("--assume-defaults", help="Take ImageNet's values for what is not given.")
    ] = False
