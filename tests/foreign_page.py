"""The tables of docs/bring-your-own.md that show which checkpoints of other libraries were tried.

`python tests/foreign_page.py` writes them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from foreign_libraries import ROWS, Row

__all__ = ["PAGE", "table", "with_tables"]

PAGE = Path(__file__).parents[1] / "docs" / "bring-your-own.md"

_TABLE = re.compile(r"(<!-- tried: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """A page with the table of a library between each pair of markers."""
    return _TABLE.sub(lambda found: found[1] + table(found[2]) + found[3], page)


def table(library: str) -> str:
    """What was tried of a library, a line for each outcome."""
    groups: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in ROWS:
        if row.library == library:
            groups[(row.refusal,) if row.refusal else (row.door, row.file)].append(row)
    lines = ["| network | what is handed in | outcome |", "|---|---|---|"]
    for rows in groups.values():
        outcome = f"refused: `{rows[0].refusal}`" if rows[0].refusal else "published"
        lines.append(f"| {_networks(rows)} | {_handed_in(rows)} | {outcome} |")
    return "\n".join(lines) + "\n"


def _networks(rows: list[Row]) -> str:
    """Each once, with what is special about some of them."""
    notes: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        notes[row.network] += [row.note] if row.note else []
    return ", ".join(name + (f" ({'; '.join(each)})" if each else "") for name, each in notes.items())


def _handed_in(rows: list[Row]) -> str:
    """The files, and the commands that get them."""
    doors: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        doors[_file(row)][f"`{row.door}`"] = None
    return "; ".join(f"{', '.join(each)}: {file}" for file, each in doors.items())


def _file(row: Row) -> str:
    if row.door != "module" or row.file == "save_pretrained":
        return "folder of `save_pretrained`" if row.file == "save_pretrained" else row.file
    return "factory" if row.file == "nothing" else f"factory and {row.file}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
