"""Fixtures shared by all tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data"
WEIGHTS = ROOT / "export" / "seg_export" / "weights"

# Threads for two cores in all: one for each of pytest-xdist's two workers. Tests never reach a network.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


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
def tiny_families_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`unetpp_tiny`, the same pruned to depth 1, and `transunet_tiny`, all random; never write into it."""
    from seg_export.export import export_models
    from seg_export.pruning import pruned
    from seg_export.random_weights import random_semantic

    repo = tmp_path_factory.mktemp("families_repo")
    nested = random_semantic("unetpp", {"features": [4, 6, 8]}, seed=1)
    export_models(nested, repo, "unetpp_tiny", size_hw=(48, 64))
    export_models(pruned(nested, 1), repo, "unetpp_tiny_d1", size_hw=(48, 64))
    sizes = {"image_size": 64, "width": 8, "units": [1, 1, 1], "hidden": 64, "layers": 1, "mlp": 64}
    decoder = {"head_channels": 16, "decoder_channels": [16, 8, 8, 8]}
    export_models(random_semantic("transunet", {**sizes, **decoder}, seed=1), repo, "transunet_tiny")
    return repo


@pytest.fixture(scope="session")
def tiny_sam_repo(tmp_path_factory: pytest.TempPathFactory, one_xray_folder: Path) -> Path:
    """A model repository with the trained `sam_tiny`, its encoder and decoder; never write into it."""
    from seg_export.export import export_models

    repo = tmp_path_factory.mktemp("sam_repo")
    export_models(WEIGHTS / "sam_tiny.pth", repo, name="sam_tiny", images=one_xray_folder)
    return repo


@pytest.fixture(scope="session")
def small_sam_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SAM of `SMALL_SAM` as `small_fp32`, and `small_fp16` with embeddings in half precision.

    Random weights; never write into it.
    """
    from sam_models import SMALL_SAM

    from seg_export.export import export_models
    from seg_export.random_weights import random_sam

    repo = tmp_path_factory.mktemp("small_sam_repo")
    export_models(random_sam(SMALL_SAM), repo, "small_fp32")
    export_models(random_sam(SMALL_SAM), repo, "small_fp16", embeddings="fp16")
    return repo


@pytest.fixture(scope="session")
def lung_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with `unet_lung`, made by the command; never write into it."""
    repo = tmp_path_factory.mktemp("lung") / "repo"
    command = [str(Path(sys.executable).with_name("seg-export")), "unet", "--pretrained", "lung"]
    subprocess.run([*command, "--repo", str(repo)], check=True, capture_output=True)
    return repo


@pytest.fixture(scope="session")
def nuclei_repo(tmp_path_factory: pytest.TempPathFactory, nuclei_folder: Path) -> Path:
    """A model repository with the trained `maskrcnn_nuclei`; never write into it."""
    from seg_export.export import export_models

    repo, first = tmp_path_factory.mktemp("nuclei_repo"), tmp_path_factory.mktemp("one_image")
    shutil.copy(min((nuclei_folder / "images").glob("*.png")), first)
    export_models(WEIGHTS / "maskrcnn_nuclei.pth", repo, "maskrcnn_nuclei", images=first, max_batch_size=1)
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
