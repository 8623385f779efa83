"""Which files of this repository a test rests on, read from the imports in its source."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SOURCES = ("export", "runtime", "bench", "tests")
_DATA = ("export/seg_export/weights/*.pth", "tests/data/**/*")
_COMMANDS = {
    "seg-bench": "seg_bench.cli",
    "seg-export": "seg_export.cli.main",
    "seg-run": "seg_runtime.cli.run",
    "seg-serve": "seg_runtime.cli.serve",
}


def fingerprint(sources: Iterable[Path], *, data: bool = False, without: Iterable[Path] = ()) -> str:
    """SHA-256 of these Python files and of every file that they import.

    Args:
        sources: Python files of this repository.
        data: add the weights and images of the repository, which sources name by path only.
        without: files that do not count.
    """
    files = set(closure(sources))
    if data:
        files |= {path for pattern in _DATA for path in ROOT.glob(pattern) if path.is_file()}
    files -= {path.resolve() for path in without}
    lines = {path.relative_to(ROOT).as_posix(): _sha256(path) for path in files}
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()


def closure(sources: Iterable[Path]) -> frozenset[Path]:
    """These files and what they import from this repository, directly or not.

    Imports inside functions count, and so do modules and commands that a string names, since they are
    run as processes; imports for type checkers do not.
    """
    found: set[Path] = set()
    waiting = [path.resolve() for path in sources]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _direct(path)
    return frozenset(found)


@cache
def _direct(path: Path) -> tuple[Path, ...]:
    if path == Path(__file__).resolve():
        return ()  # It names the commands above, and runs none.
    modules = _modules()
    found = set()
    for name in _names(_RuntimeOnly().visit(ast.parse(path.read_text()))):
        # The packages that a module lies in are imported with it.
        while name:
            found |= {modules[name]} if name in modules else set()
            name = name.rpartition(".")[0]  # noqa: PLW2901
    return tuple(found)


def _names(tree: ast.AST) -> set[str]:
    """Dotted names that may be modules."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(_COMMANDS.get(node.value, node.value))
    return names


class _RuntimeOnly(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


@cache
def _modules() -> dict[str, Path]:
    """Every module of the repository by its import name; tests are imported by their bare name."""
    modules = {}
    for source in _SOURCES:
        for path in (ROOT / source).rglob("*.py"):
            parts = path.relative_to(ROOT / source).with_suffix("").parts
            parts = parts[-1:] if source == "tests" else parts
            modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
