"""Options that commands share are fields of dataclasses."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from seg_runtime.option_groups import expand_option_groups

SideOption = Annotated[int, typer.Option(min=1, help="Side in pixels.", rich_help_panel="Tiles")]


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    image: Annotated[Path, typer.Argument(help="To segment.")]
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of masks.")]


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    side: SideOption = 512
    overlap: Annotated[int, typer.Option(help="Pixels that neighbours share.")] = 64


@dataclass(frozen=True, kw_only=True)
class VolumeTileOptions(TileOptions):
    depth: Annotated[int | None, typer.Option(help="Slices.")] = None
    side: SideOption = 128


@dataclass(frozen=True, kw_only=True)
class Undeclared:
    side: int = 512


SEEN: list[Any] = []


@expand_option_groups
def segment(
    context: typer.Context,
    *,
    source: SourceOptions,
    gray: Annotated[bool, typer.Option("--gray", help="One channel.")] = False,
    tiles: VolumeTileOptions,
) -> None:
    """Segment an image."""
    side_source = context.get_parameter_source("side")
    SEEN.append((source, gray, tiles, side_source and side_source.name))


APP = typer.Typer()
APP.command()(segment)


def run(*arguments: str) -> Any:
    """What `segment` was called with."""
    SEEN.clear()
    result = CliRunner().invoke(APP, arguments)
    assert result.exit_code == 0, result.output
    (seen,) = SEEN
    return seen


def test_fields_stand_in_the_order_of_groups_and_other_parameters() -> None:
    names = list(inspect.signature(segment).parameters)
    assert names == ["context", "image", "out", "gray", "side", "overlap", "depth"]
    command = get_command(APP)
    assert [each.name for each in command.params if each.name in names] == names[1:]
    assert command.help == "Segment an image."


def test_a_field_keeps_what_it_was_declared_with() -> None:
    options: dict[str | None, Any] = {each.name: each for each in get_command(APP).params}
    assert options["image"].param_type_name == "argument" and options["image"].required
    assert options["out"].opts == ["--out", "-o"] and options["out"].required
    side = options["side"]
    assert (side.help, side.rich_help_panel) == ("Side in pixels.", "Tiles")
    assert options["overlap"].help == "Pixels that neighbours share."


def test_a_command_gets_its_groups_with_values_and_defaults() -> None:
    source, gray, tiles, _ = run("a.png", "-o", "masks", "--gray", "--overlap", "8")
    assert source == SourceOptions(image=Path("a.png"), out=Path("masks"))
    assert gray is True
    assert tiles == VolumeTileOptions(side=128, overlap=8, depth=None)


@pytest.mark.parametrize(("given", "where"), [([], "DEFAULT"), (["--side", "128"], "COMMANDLINE")])
def test_the_context_knows_whether_the_option_of_a_field_was_given(given: list[str], where: str) -> None:
    assert run("a.png", "-o", "masks", *given)[-1] == where


def test_a_subclass_changes_the_default_of_its_own_command_alone() -> None:
    @expand_option_groups
    def flat(*, tiles: TileOptions) -> None: ...

    defaults = {name: each.default for name, each in inspect.signature(flat).parameters.items()}
    assert defaults == {"side": 512, "overlap": 64}


def test_a_value_out_of_the_range_of_its_field_is_refused() -> None:
    SEEN.clear()
    result = CliRunner().invoke(APP, ["a.png", "-o", "masks", "--side", "0"])
    assert result.exit_code == 2
    assert SEEN == []


def test_a_field_without_an_option_is_refused() -> None:
    def command(*, tiles: Undeclared) -> None: ...

    with pytest.raises(TypeError, match=r"Undeclared\.side is no option: declare it as Annotated"):
        expand_option_groups(command)


def test_two_groups_with_the_same_option_are_refused() -> None:
    def command(*, first: TileOptions, second: VolumeTileOptions) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'side'"):
        expand_option_groups(command)
