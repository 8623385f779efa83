"""`make audit` and `make sbom`: what is found, what could not be asked, and what every package is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dependencies import ROOT

FINE = {"name": "numpy", "version": "1.26.4", "vulns": []}
VULNERABLE = {"name": "pillow", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.0"]}]}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited"}


def _audit(folder: Path, *, printed: str, code: int = 0) -> tuple[int, str]:
    """Run the audit with a stand-in for pip-audit: exit code, all that was printed."""
    (folder / "pip_audit.py").write_text(f"import sys\nprint({printed!r})\nsys.exit({code})\n")
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "audit.py", ROOT / "constraints.txt"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([FINE], 0, "no known vulnerability in 1 packages"),
        ([FINE, VULNERABLE], 1, "pillow 1.0: PYSEC-1, fixed in 2.0"),
        ([SKIPPED, VULNERABLE], 1, "1 known vulnerabilities; 1 packages could not be looked up"),
        ([SKIPPED, SKIPPED], 3, "NOT AUDITED: 2 of 2 packages could not be looked up"),
        ([FINE, SKIPPED], 3, "NOT AUDITED: 1 of 2 packages could not be looked up (torch"),
        ([], 3, "NOT AUDITED"),
    ],
)
def test_packages_that_nobody_answered_for_are_not_taken_for_safe(
    tmp_path: Path, packages: list[dict[str, Any]], code: int, says: str
) -> None:
    ended, printed = _audit(tmp_path, printed=json.dumps({"dependencies": packages, "fixes": []}))
    assert ended == code and says in printed


def test_an_unreachable_service_is_no_vulnerability(tmp_path: Path) -> None:
    ended, printed = _audit(tmp_path, printed="", code=1)
    assert ended == 3 and "NOT AUDITED: the advisory service could not be asked" in printed


@pytest.mark.parametrize(("audit", "code"), [(0, 0), (3, 0), (1, 1), (2, 2)])
def test_ci_fails_for_what_is_found_and_not_for_being_offline(tmp_path: Path, audit: int, code: int) -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if "audit.py" in line)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f"#!/bin/sh\nexit {audit}\n")
    python.chmod(0o755)
    script = "\n".join(["set -euo pipefail", "make() { :; }", *lines[start : start + 2]])
    assert subprocess.run(["bash", "-c", script], cwd=tmp_path, check=False).returncode == code


def test_sbom_lists_every_pinned_package(tmp_path: Path) -> None:
    out = tmp_path / "new" / "sbom.json"
    command = [sys.executable, ROOT / ".ci" / "sbom.py", ROOT / "constraints.txt", out]
    subprocess.run(command, check=True, capture_output=True)
    document = json.loads(out.read_text(encoding="utf-8"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    listed = {(part["name"], part["version"]) for part in document["components"]}
    pinned = re.findall(r"^([^#=\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert len(pinned) > 100 and listed == set(pinned)
    assert {part["purl"] for part in document["components"]} == {
        part["bom-ref"] for part in document["components"]
    }
    (whole,) = (each for each in document["dependencies"] if each["ref"] == "edgeseg")
    assert len(whole["dependsOn"]) == len(pinned)
