"""Versions of the machines that edgeseg is deployed on, in one place.

The Dockerfiles, docs/jetson.md and `seg-bench doctor` repeat or read what is here; a test holds them
together. Sources are listed at the end of docs/jetson.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["TARGETS", "TRITON_IMAGE", "Target", "jetpack_of_l4t", "read_l4t", "target_of_jetpack"]

TRITON_IMAGE = "nvcr.io/nvidia/tritonserver"
"""NVIDIA's server image; a target's `triton_tag` completes it."""


@dataclass(frozen=True)
class Target:
    """One kind of machine and the versions that belong together on it.

    Attributes:
        name: short name, also the key in `TARGETS`.
        devices: what it is, in words.
        jetpack: JetPack release the versions were read from, or None where there is none.
        compute_capabilities: of its GPUs, as "8.7"; empty where it depends on the card.
        python: of the container and, on a Jetson, of the system.
        cuda, tensorrt: of the system; on a server, of the container.
        triton_tag: tag of `TRITON_IMAGE`.
        dockerfile: the file at the root of the project that builds on that tag.
        onnxruntime_index: package index with `onnxruntime-gpu` for its GPU, for use outside of the
            container. None on a server, where the `gpu` extra brings it, and where no index has one.
    """

    name: str
    devices: str
    jetpack: str | None
    compute_capabilities: tuple[str, ...]
    python: str
    cuda: str
    tensorrt: str
    triton_tag: str
    dockerfile: str
    onnxruntime_index: str | None = None

    @property
    def image(self) -> str:
        """The server image with its tag."""
        return f"{TRITON_IMAGE}:{self.triton_tag}"


TARGETS = {
    target.name: target
    for target in (
        Target(
            name="jetpack-6",
            devices="Jetson Orin, JetPack 6.1 to 6.2",
            jetpack="6.2",
            compute_capabilities=("8.7",),
            python="3.10",
            cuda="12.6",
            tensorrt="10.3",
            # The last tag with TensorRT 10.3 and CUDA 12.6, so that engines built on the device
            # load in it and its driver (540) is new enough.
            triton_tag="24.08-py3-igpu",
            dockerfile="Dockerfile.jetson",
            onnxruntime_index="https://pypi.jetson-ai-lab.io/jp6/cu126",
        ),
        Target(
            name="jetpack-7",
            devices="Jetson Orin and Thor, JetPack 7.2",
            jetpack="7.2",
            compute_capabilities=("8.7", "11.0"),
            python="3.12",
            cuda="13.2",
            tensorrt="10.16",
            # 26.02 was the last release for Jetson alone: since 26.03 the SBSA (arm64) half of the
            # server image is for Jetson too. 26.04 is the one with JetPack 7.2's CUDA.
            triton_tag="26.04-py3",
            dockerfile="Dockerfile",
        ),
        Target(
            name="server",
            devices="x86-64 or SBSA server, with an NVIDIA GPU or without",
            jetpack=None,
            compute_capabilities=(),
            python="3.12",
            cuda="13.4",
            tensorrt="10.16 to 11",
            triton_tag="26.10-py3",
            dockerfile="Dockerfile",
        ),
    )
}
"""By name."""

_JETPACK_OF_L4T = {
    "36.3": "6.0",
    "36.4": "6.1",
    "36.4.2": "6.1.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5": "6.2.2",
    "36.5.2": "6.2.3",
    "38.2": "7.0",
    "38.2.1": "7.0",
    "38.2.2": "7.0",
    "38.4": "7.1",
    "39.2": "7.2",
    "39.2.1": "7.2.1",
}
_JETPACK_SERIES = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}


def read_l4t(release: str) -> str | None:
    """The release of Jetson Linux in the text of `/etc/nv_tegra_release`, as "36.4.3".

    Its first line is `# R36 (release), REVISION: 4.3, GCID: ...`. None when there is no such line.
    """
    found = re.search(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", release)
    return f"{found[1]}.{found[2]}" if found else None


def jetpack_of_l4t(l4t: str) -> str | None:
    """The JetPack of a release of Jetson Linux.

    Returns:
        "6.2" for "36.4.3"; "6.x" where only the series is known; None for an unknown series.
    """
    known = _JETPACK_OF_L4T.get(l4t) or _JETPACK_OF_L4T.get(l4t.removesuffix(".0"))
    series = _JETPACK_SERIES.get(l4t.partition(".")[0])
    return known or (f"{series}.x" if series else None)


def target_of_jetpack(jetpack: str) -> Target | None:
    """The target of a JetPack such as "6.2.1", by its series; None for an older series.

    Its `jetpack` is the release to update to where the board has an earlier one, as 6.0 or 7.1.
    """
    return TARGETS.get(f"jetpack-{jetpack.partition('.')[0]}")
