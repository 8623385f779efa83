"""What all commands share: one-line errors, exit codes and progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from seg_runtime.boundary import known_error, one_line
from seg_runtime.errors import EdgesegError

if TYPE_CHECKING:
    import typer
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["progress_bar", "run_app", "stderr_console", "stdout_console", "working"]


def run_app(app: typer.Typer) -> None:
    """Run a command; an error becomes one line on stderr and its exit code, Ctrl-C becomes 130."""
    try:
        app()
    except EdgesegError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:  # noqa: BLE001 - known_error shows its traceback to who asks for it
        sys.stderr.write(f"error: {one_line(known_error(error))}\n")
        sys.exit(1)


def stderr_console() -> Console:
    """For progress and notes; stdout is left to results that a machine may read."""
    from rich.console import Console

    return Console(stderr=True)


def stdout_console() -> Console:
    """For tables and results."""
    from rich.console import Console

    return Console()


def progress_bar(transient: bool = True) -> Progress:
    """A bar on stderr: what is done, how much, time spent and left; silent where that is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = stderr_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows what is being done and for how long, where nobody knows how long it will take."""
    with progress_bar() as bar:
        bar.add_task(what, total=None)
        yield
