"""Chromium without a window, for the tests of HTML pages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Visit", "require_browser", "visit"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Visit:
    """What a page became: its document after its scripts ran, and what they printed or broke on."""

    document: str
    console: list[str]


def require_browser() -> str:
    """The browser's program. In CI a missing one is a failure, elsewhere the test is skipped."""
    for name in _NAMES:
        if program := shutil.which(name):
            return program
    message = "no Chromium: apt-get install chromium"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def visit(
    page: Path, *, screenshot: Path | None = None, width: int = 1200, height: int = 900, dark: bool = False
) -> Visit:
    """Open a file in a browser that has no network.

    Args:
        page: the HTML file.
        screenshot: PNG to write.
        width, height: of the window in pixels.
        dark: whether the reader prefers dark pages.
    """
    scheme = 0 if dark else 1
    flags = [
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-extensions", "--disable-background-networking"),
        # Any request that leaves the machine fails and shows in the console.
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--log-level=0"),
        f"--window-size={width},{height}",
        f"--user-data-dir={page.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}",
    ]
    output = [f"--screenshot={screenshot}"] if screenshot else ["--dump-dom"]
    call = [require_browser(), *flags, *output, page.as_uri()]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True)
    console = re.findall(r":CONSOLE[:(].*", done.stderr)
    return Visit(done.stdout, console)
