"""`seg-export bundle`: models and images in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seg_export.cli.options import JsonOption, RepoOption
from seg_export.cli.output import echo_json

__all__ = ["bundle"]


def bundle(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="The bundle to write.")] = Path("bundle.tar"),
    repo: RepoOption = Path("triton_repo"),
    models: Annotated[
        str, typer.Option(help="Models, separated by commas; all that are built by default.")
    ] = "",
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of labelled images to take along. May be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pack the served versions of models, with labelled images, into one file for another machine.

    There,  seg-bench reproduce --bundle FILE  checks every file and measures the
    models; neither PyTorch nor a network is needed. Engines stay behind, since
    each runs on one kind of machine only.

    \b
    Examples:
      seg-export bundle -o jetson.tar
      seg-export bundle --models unet_lung,unetpp_lung --data data/montgomery \\
        -o jetson.tar
    """
    from seg_runtime.bundle import write_bundle
    from seg_runtime.console import progress_bar

    names = [name.strip() for name in models.split(",") if name.strip()]
    with progress_bar() as bar:
        task = bar.add_task("packing", total=None)
        size = write_bundle(
            out,
            repo,
            names,
            data or (),
            lambda name, done, total: bar.update(task, description=name, completed=done, total=total),
        )
    if as_json:
        echo_json({"bundle": str(out), "bytes": size})
    else:
        typer.echo(f"wrote {out}, {size / 2**20:.1f} MiB")
