"""Which options were given, and an error for those that cannot take effect."""

from __future__ import annotations

import typer

from seg_runtime.errors import BadInputError

__all__ = ["given", "refuse_without"]


def given(context: typer.Context, parameter: str) -> bool:
    """Whether a parameter of the command was on the command line, be it with its default."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def refuse_without(context: typer.Context, needed: str, *parameters: str) -> None:
    """Refuse options that were given without the one that they describe.

    Args:
        context: of the command.
        needed: the parameter without which the others have no effect, for example "random".
        parameters: the others.

    Raises:
        BadInputError: names the option, and what to do.
    """
    if given(context, needed):
        return
    for parameter in parameters:
        if given(context, parameter):
            other = _option(context, needed)
            raise BadInputError(
                f"{_option(context, parameter)} has no effect without {other}: leave it out, or pass {other}"
            )


def _option(context: typer.Context, parameter: str) -> str:
    """How an option is written, for example "--seed"."""
    return next(str(each.opts[0]) for each in context.command.params if each.name == parameter)
