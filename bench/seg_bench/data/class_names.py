"""Names of the classes of a data set: `classes.txt`, a line for each class from 0 on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seg_runtime.errors import BadInputError

__all__ = ["BACKGROUND", "CLASSES_FILE", "FOREGROUND", "check_names", "read_class_names"]

CLASSES_FILE = "classes.txt"

BACKGROUND = "background"
"""Name of a class that is no object: means over classes leave it out."""

FOREGROUND = "foreground"
"""Name of the one class of masks that nobody named: it may be anything."""


def read_class_names(root: Path) -> tuple[str, ...]:
    """The names in `classes.txt` of a folder; none without such a file.

    Raises:
        BadInputError: it cannot be read, is empty, or has a name twice.
    """
    path = root / CLASSES_FILE
    if not path.exists():
        return ()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"cannot read '{path}': save it as UTF-8 text, one class in a line") from error
    return check_names([line.strip() for line in lines if line.strip()], f"'{path}'")


def check_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names. Raises BadInputError unless there is at least one and each is there once."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if not names or twice or not all(names):
        fault = f"has '{twice[0]}' twice" if twice else "has an empty name" if names else "names no class"
        raise BadInputError(f"{where} {fault}: give one name for each class, from class 0 on")
    return tuple(names)
