"""Makes a Debian arm64 root with Python and the thin wheel, and runs it under qemu's user emulation.

Needs no Docker, no chroot, no kernel support and no rights: Debian packages are unpacked into a folder,
wheels for aarch64 into another, and qemu looks into the folder first for every absolute path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seg_runtime.errors import BadInputError

__all__ = ["CPU", "ArmPython", "make_arm_python", "resolve_wheels", "run"]

CPU = "cortex-a76"
"""The processor that qemu plays: Armv8.2-A, as the Cortex-A78AE of a Jetson Orin, which it does not have."""

_PACKAGES = ("python3", "libstdc++6")
# pip takes these as given and derives none from another: each is a name that wheels of today carry.
_GLIBCS = ("_2_28", "_2_27", "_2_26", "_2_17", "2014")

# qemu hands the host's /proc/cpuinfo through, and ONNX Runtime's look at the processor crashes on
# what an x86 kernel writes there. This is what a kernel writes for a Cortex-A76.
_CPUINFO = """\
processor\t: {number}
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


@dataclass(frozen=True)
class ArmPython:
    """An aarch64 Python with edgeseg's thin install, and the emulator that runs it.

    Attributes:
        qemu: the emulator's program.
        root: Debian's packages, unpacked.
        site: edgeseg and its dependencies.
    """

    qemu: Path
    root: Path
    site: Path

    def run(self, code: str, arguments: Sequence[str] = (), doing: str = "the emulated Python") -> str:
        """What a program prints. Raises BadInputError when it fails."""
        environment = {"PATH": os.defpath, "PYTHONPATH": str(self.site), "QEMU_CPU": CPU, "LANG": "C.UTF-8"}
        python = [str(self.qemu), "-L", str(self.root), str(self.root / "usr" / "bin" / "python3")]
        return run([*python, "-c", code, *arguments], doing, environment)


def make_arm_python(project: Path, work: Path) -> ArmPython:
    """Download, unpack and install everything.

    Args:
        project: a checkout of edgeseg; its wheel is built.
        work: folder to work in; what is there from an earlier call is replaced.

    Raises:
        BadInputError: a program is missing (says how to install it), or a step fails.
    """
    qemu = _program(("qemu-aarch64-static", "qemu-aarch64"), "apt-get install qemu-user-static")
    _program(("apt-get",), "this on Debian, whose arm64 packages it unpacks")
    root, site = work / "root", work / "site"
    for folder in (root, site, work / "wheel", work / "apt"):
        shutil.rmtree(folder, ignore_errors=True)
    _unpack_debian(root, work / "apt")
    _write_cpuinfo(root)
    _install_thin(project, work / "wheel", site, _python_version(root))
    return ArmPython(qemu, root, site)


def resolve_wheels(project: Path, python: str) -> dict[str, str]:
    """The aarch64 wheels that the newest thin install would bring, by name; nothing is installed.

    Args:
        project: a checkout of edgeseg.
        python: version such as "3.10".

    Raises:
        BadInputError: some dependency has no wheel for this Python on aarch64.
    """
    # pip wants a target for another platform, although it writes nothing there.
    report = ["--dry-run", "--target", "unused", "--report", "-", f"{project}[cpu]"]
    answer = run([*_pip("install"), *_for_arm(python), *report], f"resolving for Python {python}")
    packages = (entry["metadata"] for entry in json.loads(answer)["install"])
    return {package["name"]: package["version"] for package in packages}


def run(command: Sequence[str], doing: str, environment: Mapping[str, str] | None = None) -> str:
    """The standard output of a program. Raises BadInputError with its last line when it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BadInputError(f"{doing} failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout


def _program(names: Sequence[str], cure: str) -> Path:
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        raise BadInputError(f"{names[0]} is not installed: run  {cure}")
    return Path(found)


def _unpack_debian(root: Path, apt: Path) -> None:
    """Unpack Python's packages from the sources that apt has, as on a machine with nothing installed."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True)
    (apt / "state" / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "Acquire::Languages": "none",
        "Dir::State": str(apt.resolve() / "state"),
        "Dir::State::status": str(apt.resolve() / "state" / "status"),
        "Dir::Cache": str(apt.resolve() / "cache"),
    }
    apt_get = ["apt-get", *(f"-o{name}={value}" for name, value in settings.items()), "--yes"]
    run([*apt_get, "update"], "apt-get update for arm64")
    wanted = ["install", "--download-only", "--no-install-recommends", *_PACKAGES]
    run([*apt_get, *wanted], "downloading Debian's arm64 packages")
    root.mkdir(parents=True)
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        run(["dpkg-deb", "--extract", str(package), str(root)], f"unpacking {package.name}")


def _write_cpuinfo(root: Path) -> None:
    (root / "proc").mkdir(exist_ok=True)
    text = "".join(_CPUINFO.format(number=number) for number in range(os.cpu_count() or 1))
    (root / "proc" / "cpuinfo").write_text(text, encoding="ascii")


def _python_version(root: Path) -> str:
    return (root / "usr" / "bin" / "python3").readlink().name.removeprefix("python")


def _install_thin(project: Path, wheels: Path, site: Path, python: str) -> None:
    build = [*_pip("wheel"), "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(project)]
    run(build, "building the wheel")
    (wheel,) = wheels.glob("edgeseg-*.whl")
    wanted = ["--target", str(site), "--constraint", str(project / "constraints.txt"), f"{wheel}[cpu]"]
    run([*_pip("install"), *_for_arm(python), *wanted], "installing wheels for aarch64")


def _pip(command: str) -> list[str]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", command]


def _for_arm(python: str) -> list[str]:
    platforms = [f"--platform=manylinux{glibc}_aarch64" for glibc in _GLIBCS]
    return [*platforms, "--python-version", python, "--implementation", "cp", "--only-binary=:all:"]
