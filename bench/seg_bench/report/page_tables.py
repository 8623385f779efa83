"""Tables inside a Markdown page that are made from records, each after a marker with its command.

<!-- table: seg-bench report bench/results/table_montgomery.json --format markdown -->
<!-- end of table -->
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from seg_bench.record_files import read_runs
from seg_bench.report.markdown import to_markdown
from seg_bench.report.save import save_report
from seg_runtime.errors import BadInputError
from seg_runtime.plain_files import read_text

__all__ = ["update_page", "updated_text"]

_MARKER = re.compile(r"(<!-- table: (.+?) -->\n)(.*?)(<!-- end of table -->|(?=<!-- table: )|\Z)", re.DOTALL)
_PROGRAM = ["seg-bench", "report"]
_FORM = ["--format", "markdown"]
_COLUMNS = "--columns"


def updated_text(page: Path) -> str:
    """The page with every table made again; record files are relative to the page's folder or the one above.

    Raises:
        BadInputError: the page cannot be read, has no table, a table without an end, or one with another
            command; and as `seg_bench.record_files.read_runs`.
    """
    try:
        text = read_text(page)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"cannot read '{page}': {error}") from error
    if not _MARKER.search(text):
        raise BadInputError(
            f"'{page}' has no table to update: put  <!-- table: seg-bench report FILE.json --format markdown "
            "-->  and  <!-- end of table -->  where one belongs"
        )
    return _MARKER.sub(lambda found: _table(page, found), text)


def update_page(page: Path) -> bool:
    """Write the page with its tables made anew; False when they were not stale. Raises as `updated_text`."""
    text = updated_text(page)
    if text == page.read_text(encoding="utf-8"):
        return False
    save_report(text, page)
    return True


def _table(page: Path, found: re.Match[str]) -> str:
    start, command, _, end = found.groups()
    if not end:
        raise BadInputError(f"'{page}': the table of  {command}  has no  <!-- end of table -->")
    words, columns = shlex.split(command), []
    if _COLUMNS in words[-2:-1]:
        columns = words[-1].split(",")
        words = words[:-2]
    if words[:2] != _PROGRAM or words[-2:] != _FORM or not words[2:-2]:
        raise BadInputError(
            f"'{page}': the command of a table must be  seg-bench report FILES... --format markdown "
            f"[--columns KEYS], not  {command}"
        )
    # Records lie in the folder of the page, or of the project that the page is a part of.
    folder = page.parent if (page.parent / words[2]).exists() else page.parent.parent
    table = to_markdown(read_runs(folder / name for name in words[2:-2]), columns)
    return start + table.split("\n\n")[0].strip() + "\n" + end
