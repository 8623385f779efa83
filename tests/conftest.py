"""Fixtures shared by all tests."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"

# One thread pool per process is enough on a small machine, and tests never reach a network.
os.environ.setdefault("OMP_NUM_THREADS", "2")


@pytest.fixture(scope="session")
def xray_folder() -> Path:
    """8 chest X-rays of the test split, 512x512, with masks: `images/` and `masks/`."""
    return DATA / "montgomery"


@pytest.fixture(scope="session")
def nuclei_folder() -> Path:
    """6 microscopy images of the test split with maps of nuclei: `images/` and `labels/`."""
    return DATA / "nuclei"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net with seeded random weights, 2 levels, gray, 64x64 pixels."""
    from seg_export.checkpoint import Preprocessing, save_checkpoint
    from seg_export.random_weights import random_unet

    # Kaiming initialisation: PyTorch's own makes every probability about 0.5, and any graph look right.
    random = random_unet(features=(4, 8), seed=0)
    path = tmp_path_factory.mktemp("checkpoint") / "unet_tiny.pth"
    save_checkpoint(
        path,
        family=random.family,
        arguments=random.arguments,
        state_dict=random.state_dict,
        preprocessing=Preprocessing(mean=(0.5,), std=(0.25,), input_size_hw=(64, 64)),
        class_names=("lung",),
    )
    return path


@pytest.fixture(scope="session")
def tiny_repo(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A model repository with the published `unet_tiny`; never write into it."""
    from seg_export.export import export_model

    repo = tmp_path_factory.mktemp("repo")
    export_model(tiny_checkpoint, repo, name="unet_tiny")
    return repo


@pytest.fixture(scope="session")
def tiny_sam_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with `sam_tiny_encoder` and `sam_tiny_decoder`, trained; never write into it."""
    from seg_export.export import export_models

    repo = tmp_path_factory.mktemp("sam_repo")
    export_models(ROOT / "export" / "seg_export" / "weights" / "sam_tiny.pth", repo, name="sam_tiny")
    return repo


@pytest.fixture(scope="session")
def tiny_maskrcnn_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with `cells`, a small random Mask R-CNN of 3 classes; never write into it."""
    from dataclasses import replace

    from seg_export.export import export_models
    from seg_export.random_weights import random_maskrcnn

    repo = tmp_path_factory.mktemp("maskrcnn_repo")
    arguments = {"arch": "maskrcnn_light_fpn", "num_classes": 4, "max_detections": 20}
    checkpoint = replace(random_maskrcnn(arguments), class_names=("red", "green", "blue"))
    export_models(checkpoint, repo, "cells", size_hw=(128, 160))
    return repo


@pytest.fixture(scope="session")
def small_sam2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`repo` with the published SAM2 `sam2`, and its `weights.pth`, of `sam2_small`; never write into it.

    Tracing takes half a minute, so that all processes of a run of tests share one.
    """
    from dataclasses import replace

    from sam2_small import ARGUMENTS, small_sam2

    from seg_export.checkpoint import load_checkpoint, write_checkpoint
    from seg_export.export import export_models
    from seg_export.random_weights import random_sam2

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small_sam2"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            weights = replace(random_sam2(ARGUMENTS), state_dict=small_sam2().state_dict())
            write_checkpoint(folder / "weights.pth", weights)
            export_models(load_checkpoint(folder / "weights.pth"), folder / "repo", "sam2")
            (folder / "complete").touch()
    return folder


@pytest.fixture(scope="session")
def vit_b_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`triton_repo` with a verified SAM of the size ViT-B, and its `weights.pth` for segment_anything."""
    folder = tmp_path_factory.mktemp("vit_b")
    # In a process of its own, which gives its memory back.
    command = [sys.executable, "-m", "seg_bench.microbench.sam_everything", "prepare", str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    return folder
