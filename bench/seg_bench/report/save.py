"""Writes a report file."""

from __future__ import annotations

from pathlib import Path

from seg_runtime.errors import BadInputError

__all__ = ["save_report"]


def save_report(text: str, path: Path) -> None:
    """Write a report as UTF-8, making its folder. Raises BadInputError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"cannot write the report to '{path}': {error.strerror or error}") from error
