"""A software bill of materials (CycloneDX 1.6, JSON) of pinned packages.

python .ci/sbom.py constraints.txt out/sbom.json
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL


def main(requirements: Path, out: Path) -> None:
    bom = Bom()
    root = Component(name="edgeseg", type=ComponentType.APPLICATION, bom_ref="edgeseg")
    bom.metadata.component = root
    pins = re.findall(r"^([\w.-]+)==(\S+)$", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    parts = [_component(name, version) for name, version in pins]
    bom.components.update(parts)
    bom.register_dependency(root, parts)
    out.parent.mkdir(parents=True, exist_ok=True)
    JsonV1Dot6(bom).output_to_file(str(out), allow_overwrite=True, indent=2)
    sys.stdout.write(f"sbom: {len(parts)} packages in {out}\n")


def _component(name: str, version: str) -> Component:
    purl = PackageURL("pypi", name=name, version=version)
    return Component(name=name, version=version, purl=purl, bom_ref=purl.to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
