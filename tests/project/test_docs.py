"""The documentation says what the commands do."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from seg_bench.report.page_tables import updated_text

ROOT = Path(__file__).parents[2]
COMMANDS = {
    "seg-export": "seg_export.cli.main",
    "seg-serve": "seg_runtime.cli.serve",
    "seg-run": "seg_runtime.cli.run",
    "seg-bench": "seg_bench.cli",
}


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
    for child, value in (children or {}).items():
        yield from leaves(f"{name} {child}", value)


@cache
def all_commands() -> list[tuple[str, Any]]:
    apps = {name: importlib.import_module(module).app for name, module in COMMANDS.items()}
    return [leaf for name, app in apps.items() for leaf in leaves(name, typer.main.get_command(app))]


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_every_command_has_examples_and_every_option_help(name: str, command: Any) -> None:
    assert command.help and "Examples" in command.help, f"{name}: its help has no examples"
    silent = [option.name for option in command.params if not getattr(option, "help", None)]
    assert not silent, f"{name}: no help for {silent}"


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_help_is_shown_as_it_is_written_in_80_columns(name: str, command: Any) -> None:
    """A terminal would break longer lines anywhere, and a command could not be copied from it."""
    program, *words = name.split()
    app = importlib.import_module(COMMANDS[program]).app
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}).stdout
    rows = {row.strip() for row in shown.splitlines()}
    _, _, below_the_summary = re.sub(r"\[/?bold\]", "", command.help).partition("\n\n")
    broken = [line for line in map(str.strip, below_the_summary.splitlines()) if line.strip("\b") not in rows]
    assert not broken, (
        f"{name}: write lines of at most 78 columns, and commands with a backslash at their ends"
    )


@pytest.mark.parametrize(("name", "command"), all_commands())
def test_help_is_in_plain_english(name: str, command: Any) -> None:
    texts = [command.help, *(option.help or "" for option in command.params)]
    dialect = r"\b(?:besides?|told|tells|anew|of (?:its|their|one's) own)\b"
    assert not [text for text in texts if re.search(dialect, text)], name


def test_a_command_without_checkpoints_speaks_of_none() -> None:
    command = dict(all_commands())["seg-export onnx"]
    assert not [option.name for option in command.params if "checkpoint" in (option.help or "")]


def test_commands_page_is_not_stale() -> None:
    page = ""
    for name, module in COMMANDS.items():
        call = [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name]
        page += subprocess.run(call, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == page, "run `make docs`"


def shown_commands() -> list[str]:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("export/**/*.md")]
    text = "\n".join(page.read_text(encoding="utf-8").replace("\\\n", " ") for page in pages)
    lines = (line.strip().removeprefix("$ ").split("#")[0] for line in text.splitlines())
    return sorted({line for line in lines if re.match(r"seg-\w+ +[\w-]", line) and "[OPTIONS]" not in line})


@pytest.mark.parametrize("line", shown_commands())
def test_commands_shown_in_the_documentation_exist_with_their_options(line: str) -> None:
    commands = dict(all_commands())
    words = line.split()
    name = next((name for name in commands if words[: len(name.split())] == name.split()), None)
    assert name is not None, f"there is no command '{line}'"
    known = {flag for option in commands[name].params for flag in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known | {"--help"}


README, RESULTS, TRAINING = (ROOT / name for name in ("README.md", "docs/results.md", "docs/training.md"))


def tables_of(page: Path) -> list[tuple[str, str]]:
    text = page.read_text(encoding="utf-8")
    return re.findall(r"<!-- table: (.+?) -->\n(.*?)<!-- end of table -->", text, re.DOTALL)


def test_results_have_a_table_of_each_kind_of_model() -> None:
    shown = [command for command, _ in tables_of(RESULTS)]
    for record in ("table_montgomery", "suite_montgomery", "sam_montgomery", "maskrcnn_nuclei"):
        assert any(record in command for command in shown)


@pytest.mark.parametrize("page", [README, RESULTS, TRAINING], ids=lambda page: page.name)
def test_tables_are_the_committed_records(page: Path) -> None:
    assert updated_text(page) == page.read_text(encoding="utf-8"), "run `make tables`"


def test_the_readme_is_short_and_so_is_its_table() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.split()) < 900
    ((_, table),) = tables_of(README)
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) <= 2 + 8
    assert {line.count("|") for line in rows} <= set(range(10))


@pytest.mark.parametrize("page", [README, RESULTS, TRAINING], ids=lambda page: page.name)
def test_a_table_is_what_its_own_command_prints_less_the_notes_below_it(page: Path) -> None:
    command, table = tables_of(page)[0]
    program, *arguments = command.split()
    call = [str(Path(sys.executable).parent / program), *arguments]
    page = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert table.strip() == page.split("\n\n")[0].strip()


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_page_of_engines_lists_every_engine_with_extras_that_exist() -> None:
    from importlib.metadata import metadata

    from seg_runtime.engines import ENGINES

    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| `model\..*\| (.*) \|$", page, re.MULTILINE)
    assert {name for name, _ in rows} == set(ENGINES)
    extras = {extra for _, install in rows for extra in re.findall(r"edgeseg\[([\w-]+)\]", install)}
    assert extras <= set(metadata("edgeseg").get_all("Provides-Extra") or ())
