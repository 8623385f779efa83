"""The command `seg-export`: one module per subcommand, heavy imports inside the functions."""

from __future__ import annotations

import typer

from seg_export.cli import build, bundle, check, repository, verify
from seg_export.families import FAMILIES
from seg_runtime.console import run_app

__all__ = ["app", "main"]

app = typer.Typer(
    name="seg-export",
    help="From a checkpoint to a verified graph in a Triton model repository.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for family in FAMILIES.values():
    if family.command is not None:
        app.command(family.name)(family.command())
app.command("list")(repository.list_command)
app.command("verify")(verify.verify)
app.command("check")(check.check)
app.command("build")(build.build)
app.command("bundle")(bundle.bundle)
app.command("rollback")(repository.rollback)
app.command("remove")(repository.remove)


def main() -> None:
    """Entry point of `seg-export`."""
    run_app(app)
