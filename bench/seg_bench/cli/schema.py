"""`seg-bench schema`: the JSON schema of record files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["schema"]


def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write to this file instead of the terminal.")
    ] = None,
) -> None:
    """Print the JSON schema (draft 7) of the files that seg-bench run writes and the other commands read.

    \b
    Examples:
      seg-bench schema
      seg-bench schema --out docs/records.schema.json
    """
    import json

    from seg_bench.json_schema import records_schema

    text = json.dumps(records_schema(), indent=1, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    from seg_bench.report.save import save_report

    save_report(text, out)
    typer.echo(f"wrote {out}", err=True)
