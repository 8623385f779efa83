"""`seg-bench doctor`: what this machine can do, and what to install."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["doctor"]


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print facts and findings as JSON, sizes in bytes.")
    ] = False,
) -> None:
    """Show what this machine can do for edgeseg, and what to install for what is missing.

    Nothing is installed or changed. The exit code is 0 whatever is found.

    \b
    Examples:
      seg-bench doctor
      seg-bench doctor --json
    """
    from seg_bench.doctor.findings import examine
    from seg_bench.doctor.gather import gather
    from seg_bench.doctor.screen import print_findings, to_json_text
    from seg_runtime.console import working

    with working("asking this machine"):
        facts = gather()
    findings = examine(facts)
    if as_json:
        typer.echo(to_json_text(facts, findings))
    else:
        from seg_runtime.console import stdout_console

        print_findings(findings, stdout_console())
