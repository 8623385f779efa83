"""The documentation says what the commands do."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "seg-export": "seg_export.cli",
    "seg-serve": "seg_runtime.cli.serve",
    "seg-run": "seg_runtime.cli.run",
    "seg-bench": "seg_bench.cli",
}


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for child, value in command.commands.items():
            yield from leaves(f"{name} {child}", value)
    else:
        yield name, command


def all_commands() -> list[tuple[str, click.Command]]:
    apps = {name: importlib.import_module(module).app for name, module in COMMANDS.items()}
    return [leaf for name, app in apps.items() for leaf in leaves(name, typer.main.get_command(app))]


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_every_command_has_examples_and_every_option_help(name: str, command: click.Command) -> None:
    assert command.help and "Examples" in command.help, f"{name}: its help has no examples"
    silent = [option.name for option in command.params if not getattr(option, "help", None)]
    assert not silent, f"{name}: no help for {silent}"


def test_commands_page_is_not_stale() -> None:
    page = ""
    for name, module in COMMANDS.items():
        call = [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name]
        page += subprocess.run(call, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
