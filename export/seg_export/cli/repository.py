"""`seg-export list`, `rollback` and `remove`: what is in a model repository, and which version serves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seg_export.cli.options import JsonOption, RepoOption
from seg_export.cli.output import echo_json, listing_as_dict, models_table
from seg_runtime.console import stdout_console
from seg_runtime.errors import RepositoryError

__all__ = ["list_command", "remove", "rollback"]

ModelArgument = Annotated[str, typer.Argument(help="Name of the model.")]


def list_command(*, repo: RepoOption = Path("triton_repo"), as_json: JsonOption = False) -> None:
    """List the models of a repository with the version that is served.

    A broken one is shown with the reason, and the exit code is then 2.

    Examples:

      seg-export list

      seg-export list --repo /srv/triton_repo --json
    """
    from seg_export.publishing.manage import list_models

    models = list_models(repo)
    if as_json:
        echo_json([listing_as_dict(model) for model in models])
    else:
        stdout_console().print(models_table(models))
    broken = [model.name for model in models if model.broken]
    if broken:
        raise RepositoryError(f"{len(broken)} of {len(models)} models cannot be served: {', '.join(broken)}")


def rollback(
    model: ModelArgument,
    *,
    to: Annotated[
        int | None, typer.Option(help="Version to serve. Default: the one before the served one.")
    ] = None,
    repo: RepoOption = Path("triton_repo"),
    as_json: JsonOption = False,
) -> None:
    """Serve another version that is still on disk; nothing is deleted.

    Examples:

      seg-export rollback unet_lung

      seg-export rollback unet_lung --to 3 --repo triton_repo --json
    """
    from seg_export.publishing.manage import rollback as roll_back

    spec = roll_back(repo, model, to)
    if as_json:
        echo_json({"model": spec.name, "version": spec.version})
    else:
        typer.echo(f"{spec.name} now serves version {spec.version}")


def remove(
    model: ModelArgument,
    *,
    version: Annotated[int | None, typer.Option(help="Only this version. Default: the whole model.")] = None,
    repo: RepoOption = Path("triton_repo"),
    as_json: JsonOption = False,
) -> None:
    """Remove a model, or one version that is not served.

    Examples:

      seg-export remove unet_lung --version 1

      seg-export remove unet_old --repo triton_repo --json
    """
    from seg_export.publishing.manage import remove as remove_model

    remove_model(repo, model, version)
    if as_json:
        echo_json({"model": model, "version": version})
    else:
        typer.echo(f"removed {model}" + (f" version {version}" if version is not None else ""))
