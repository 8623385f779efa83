"""The options that say how images were prepared, where the file of a network does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from seg_runtime.errors import BadInputError

if TYPE_CHECKING:
    from seg_export.checkpoints.claims import Claims
    from seg_export.checkpoints.types import Checkpoint

__all__ = [
    "AssumeDefaultsOption",
    "ClassNamesOption",
    "MeanOption",
    "PreprocessingOptions",
    "StdOption",
    "claimed",
    "parse_names",
    "parse_numbers",
]

Number = TypeVar("Number", int, float)

_UNSAID = "Where the file does not say it"

MeanOption = Annotated[
    str | None,
    typer.Option("--mean", help=f"{_UNSAID}: mean per channel after --scale, as 0.485,0.456,0.406."),
]
StdOption = Annotated[
    str | None,
    typer.Option("--std", help=f"{_UNSAID}: standard deviation per channel after --scale."),
]
ClassNamesOption = Annotated[
    str | None, typer.Option("--class-names", help=f"{_UNSAID}: names of the classes, as lung,heart.")
]
AssumeDefaultsOption = Annotated[
    bool,
    typer.Option(
        "--assume-defaults",
        help="Take defaults for what neither the file nor an option says, and print each.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class PreprocessingOptions:
    """How the images were prepared that a network was trained with; None for what is not said."""

    mean: MeanOption = None
    std: StdOption = None
    scale: Annotated[
        float | None,
        typer.Option(
            help=f"{_UNSAID}: what pixels were divided by first: 255, or 1 for mean and std of pixel values."
        ),
    ] = None
    channel_order: Annotated[
        Literal["rgb", "bgr"] | None,
        typer.Option(help=f"{_UNSAID}: rgb, or bgr as OpenCV reads; for 3 channels."),
    ] = None
    clahe: Annotated[
        bool | None,
        typer.Option(
            "--clahe/--no-clahe",
            help=f"{_UNSAID}: whether contrast was equalised (limit 2, 8x8 tiles).",
            show_default=False,
        ),
    ] = None
    class_names: ClassNamesOption = None
    threshold: Annotated[
        float | None,
        typer.Option(help=f"{_UNSAID}: probability from which on a pixel is foreground; for 1 class."),
    ] = None
    assume_defaults: AssumeDefaultsOption = False

    def claims(self) -> Claims:
        """What was said. Raises BadInputError for text that is no numbers."""
        from seg_export.checkpoints.claims import Claims

        return Claims(
            mean=parse_numbers("--mean", self.mean, float),
            std=parse_numbers("--std", self.std, float),
            scale=self.scale,
            channel_order=self.channel_order,
            clahe=self.clahe,
            class_names=parse_names(self.class_names),
            threshold=self.threshold,
        )


def claimed(checkpoint: Checkpoint, claims: Claims, *, assume_defaults: bool, size_given: bool) -> Checkpoint:
    """A checkpoint with what the options say of it.

    Args:
        checkpoint: loaded weights.
        claims: of the options.
        assume_defaults: whether defaults may be taken for the rest.
        size_given: whether the input's size was asked for.

    Raises:
        BadInputError: what `with_claims` refuses, something is missing, or nothing that defaults could be
            taken for.
    """
    from seg_export.checkpoints.claims import missing_claims, require_claims, with_claims

    checkpoint = with_claims(checkpoint, claims)
    if not assume_defaults:
        require_claims(checkpoint, size_given=size_given)
    elif not missing_claims(checkpoint, size_given=size_given):
        raise BadInputError(
            "--assume-defaults has no effect: it is known how the images of these weights are prepared; "
            "leave it out"
        )
    return checkpoint


def parse_numbers(
    option: str, text: str | None, number: Callable[[str], Number]
) -> tuple[Number, ...] | None:
    """Numbers from "0.485,0.456"; None for None. Raises BadInputError, naming the option."""
    if text is None:
        return None
    try:
        return tuple(number(part) for part in text.split(","))
    except ValueError as error:
        example = "32,64,128,256,512" if number is int else "0.485,0.456,0.406"
        raise BadInputError(
            f"{option} '{text}': expected numbers with commas between them, as {example}"
        ) from error


def parse_names(text: str | None) -> tuple[str, ...] | None:
    """Names from "lung, heart"; None for None."""
    return None if text is None else tuple(name.strip() for name in text.split(","))
