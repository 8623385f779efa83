"""Runs `seg-export` in the process of a test."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from seg_export.cli.main import app
from seg_runtime.errors import EdgesegError


def run_export(*arguments: str) -> Result:
    """A command that ends well. Raises the error that it ended with."""
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, EdgesegError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result
