"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import published
import pytest
import typer
from artifacts import artifact, remove_unused, shared_exports

# Hooks of pytest, which it takes from here.
from full_size import (  # noqa: F401
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_report_header,
    pytest_runtest_protocol,
)
from marks import full_size, pytest_itemcollected, slow_to_make  # noqa: F401

import seg_runtime  # noqa: F401 - before any library that it keeps from sending telemetry

DATA = Path(__file__).parent / "data"

# Threads for two cores in all: one for each of pytest-xdist's two workers. Tests never reach a network.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


@pytest.fixture(scope="session", autouse=True)
def parsers_are_built_once() -> Iterator[None]:
    """Typer's `CliRunner` builds all parsers of an app at each call, longer than most of these calls take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session")
def xray_folder() -> Path:
    """8 chest X-rays of the test split, 512x512, with masks: `images/` and `masks/`."""
    return DATA / "montgomery"


@pytest.fixture(scope="session")
def one_xray_folder(tmp_path_factory: pytest.TempPathFactory, xray_folder: Path) -> Path:
    """A folder with the first of these X-rays, for verifications whose time goes with the images."""
    folder = tmp_path_factory.mktemp("one_xray")
    shutil.copy(min((xray_folder / "images").glob("*.png")), folder)
    return folder


@pytest.fixture(scope="session")
def nuclei_folder() -> Path:
    """6 microscopy images of the test split with maps of nuclei: `images/` and `labels/`."""
    return DATA / "nuclei"


_sharing = ExitStack()


def pytest_runtest_setup() -> None:
    """Share what the exporters make as soon as a test has imported PyTorch; without one it stays away."""
    if "torch" in sys.modules:
        _sharing.enter_context(shared_exports())


def pytest_sessionfinish(session: pytest.Session) -> None:
    _sharing.close()
    if not hasattr(session.config, "workerinput"):
        remove_unused()


@pytest.fixture
def fresh_exports() -> Iterator[None]:
    """For tests of the exporters themselves: nothing is taken from the store."""
    _sharing.close()
    yield


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """A U-Net with seeded random weights, 2 levels, gray, 64x64 pixels; never write into its folder."""
    return artifact(published.tiny) / "unet_tiny.pth"


@pytest.fixture(scope="session")
def tiny_repo() -> Path:
    """A model repository with the published `unet_tiny`; never write into it."""
    return artifact(published.tiny) / "repo"


@pytest.fixture(scope="session")
def tiny_families_repo() -> Path:
    """`unetpp_tiny`, the same pruned to depth 1, and `transunet_tiny`, all random; never write into it."""
    return artifact(published.tiny_families)


@pytest.fixture(scope="session")
@slow_to_make
def tiny_sam_repo() -> Path:
    """A model repository with the trained `sam_tiny`, its encoder and decoder; never write into it."""
    return artifact(published.tiny_sam) / "repo"


@pytest.fixture(scope="session")
def small_sam_repo() -> Path:
    """The SAM of `SMALL_SAM` as `small_fp32`, and `small_fp16` with embeddings in half precision.

    Random weights; never write into it.
    """
    return artifact(published.small_sam)


@pytest.fixture(scope="session")
@full_size
def half_folder() -> Path:
    """Repositories in half precision, `sam` and `lung`, of the models that ship; never write into them."""
    return artifact(published.half)


@pytest.fixture(scope="session")
@slow_to_make
def lung_repo() -> Path:
    """A model repository with `unet_lung`, made by the command; never write into it."""
    return artifact(published.lung) / "repo"


@pytest.fixture(scope="session")
@slow_to_make
def nuclei_repo() -> Path:
    """A model repository with the trained `maskrcnn_nuclei`; never write into it."""
    return artifact(published.nuclei) / "repo"


@pytest.fixture(scope="session")
@slow_to_make
def tiny_maskrcnn_repo() -> Path:
    """A model repository with `cells`, a random Mask R-CNN of 3 classes, 256x320; never write into it."""
    return artifact(published.tiny_maskrcnn)


@pytest.fixture(scope="session")
@slow_to_make
def small_sam2_folder() -> Path:
    """`repo` with the published SAM2 `sam2`, and its `weights.pth`, of `sam2_small`; never write into it."""
    return artifact(published.small_sam2)


@pytest.fixture(scope="session")
@full_size
def vit_b_folder() -> Path:
    """`triton_repo` with a verified SAM of the size ViT-B, and its `weights.pth` for segment_anything."""
    return artifact(published.vit_b)
