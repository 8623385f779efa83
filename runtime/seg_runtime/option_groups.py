"""Options that several commands share, as fields of dataclasses that a command takes as parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_args, get_type_hints

from typer.models import ParameterInfo

__all__ = ["expand_option_groups"]


def expand_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a dataclass by its fields, for typer, which takes one option each.

    A field is declared as typer takes parameters, and its place among the fields is the option's in
    `--help`. A subclass may add fields, or declare one again with another default: it keeps its place.

        @dataclass(frozen=True, kw_only=True)
        class TileOptions:
            tile: Annotated[int, typer.Option(help="Side of a tile in pixels.")] = 512
            overlap: Annotated[int, typer.Option(help="Pixels that neighbours share.")] = 64

        @app.command("segment")
        @expand_option_groups
        def segment(image: ImageArgument, *, tiles: TileOptions) -> None:
            print(f"{image} in tiles of {tiles.tile} pixels")

    Args:
        command: its annotations, and those of the fields, can be resolved from their modules.

    Raises:
        TypeError: a field without `typer.Option` or `typer.Argument`.
        ValueError: two parameters of one name.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, type[Any]] = {
        each.name: each.annotation
        for each in parameters
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }

    @wraps(command)
    def expanded(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    flat: list[inspect.Parameter] = []
    for each in parameters:
        flat += _options(each.annotation) if each.name in groups else [_by_name(each)]
    expanded.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    expanded.__annotations__ = {each.name: each.annotation for each in flat}
    return expanded


def _options(group: type[Any]) -> Iterator[inspect.Parameter]:
    """The fields of a dataclass as parameters."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        if not any(isinstance(each, ParameterInfo) for each in get_args(hints[field.name])):
            raise TypeError(
                f"{group.__name__}.{field.name} is no option: declare it as "
                'Annotated[TYPE, typer.Option(help="...")]'
            )
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )


def _by_name(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
