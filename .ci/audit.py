"""Known vulnerabilities of pinned packages, by pip-audit, which takes "nobody answered" for "none found".

    python .ci/audit.py constraints.txt

Exit codes: 0 when every package was looked up and none is vulnerable, 1 when one is, 3 when some could not be
looked up: offline, or behind a mirror that has no advisories.
"""

from __future__ import annotations

import json
import subprocess
import sys


def main(requirements: str) -> int:
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--no-deps", "--disable-pip"]
    options = ["--format", "json", "--progress-spinner", "off"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return _say(3, f"NOT AUDITED: the advisory service could not be asked: {reason}")
    found = [(each, vulnerability) for each in packages for vulnerability in each.get("vulns", ())]
    for package, vulnerability in found:
        fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
        _say(1, f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {fixed}")
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    if found:
        return _say(1, f"{len(found)} known vulnerabilities; {len(skipped)} packages could not be looked up")
    if skipped or not packages:
        some = f" ({', '.join(skipped[:3])}, ...)" if skipped else ""
        return _say(
            3, f"NOT AUDITED: {len(skipped)} of {len(packages)} packages could not be looked up{some}"
        )
    return _say(0, f"no known vulnerability in {len(packages)} packages")


def _say(code: int, text: str) -> int:
    (sys.stderr if code else sys.stdout).write(f"audit: {text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
