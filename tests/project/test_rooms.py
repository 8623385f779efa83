"""What is particular to a model family stays in its folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import seg_export
from seg_export.families import FAMILIES
from seg_export.families.family import Family

PACKAGE = Path(seg_export.__file__).parent
OUTSIDE = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "families"]
OUTSIDE = [path for path in OUTSIDE if PACKAGE / "families" not in path.parents]

# PyTorch's DataParallel puts "module" before the names of weights.
NAMES = FAMILIES.keys() - {"module"}


def particulars(tree: ast.AST) -> Iterator[str]:
    """Names of families, comparisons of a family, and imports from the folder of one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in NAMES:
            yield f"line {node.lineno}: {node.value!r}"
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            if any(isinstance(side, ast.Attribute) and side.attr == "family" for side in sides):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seg_export.families."):
            room = (node.module or "").split(".")[2]
            if room in {path.name for path in (PACKAGE / "families").iterdir() if path.is_dir()}:
                yield f"line {node.lineno}: {node.module}"


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_outside_the_families_knows_one(path: Path) -> None:
    assert list(particulars(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_what_is_looked_for_is_found() -> None:
    code = 'if model.family == "sam":\n    from seg_export.families.sam.cases import prompt_cases'
    assert len(list(particulars(ast.parse(code)))) == 3


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_is_found_under_its_name_and_imports_what_it_names(name: str) -> None:
    family = FAMILIES[name]
    assert isinstance(family, Family) and family.name == name and family.title
    assert family.command is None or callable(family.command())
    assert all(len(sha256) >= 8 for _, sha256 in family.official().values())
