"""Repositories that many tests read, each made once by a function that fills a new folder.

Use them through the fixtures of conftest.py; to write into one, copy it first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from dependencies import ROOT

WEIGHTS = ROOT / "export" / "seg_export" / "weights"
NUCLEI = ROOT / "tests" / "data" / "nuclei" / "images"
XRAYS = ROOT / "tests" / "data" / "montgomery" / "images"


def tiny(folder: Path) -> None:
    """`unet_tiny.pth`, a seeded random U-Net of 2 levels, gray, 64x64, and `repo` with `unet_tiny`."""
    from seg_export.checkpoints.checkpoint import Preprocessing, save_checkpoint
    from seg_export.export import export_model
    from seg_export.families.semantic.random import random_unet

    # Kaiming initialisation: PyTorch's own makes every probability about 0.5, and any graph look right.
    random = random_unet(features=(4, 8), seed=0)
    save_checkpoint(
        folder / "unet_tiny.pth",
        family=random.family,
        arguments=random.arguments,
        state_dict=random.state_dict,
        preprocessing=Preprocessing(mean=(0.5,), std=(0.25,), input_size_hw=(64, 64)),
        class_names=("lung",),
    )
    export_model(folder / "unet_tiny.pth", folder / "repo", name="unet_tiny")


def tiny_families(folder: Path) -> None:
    """`unetpp_tiny`, the same pruned to depth 1, and `transunet_tiny`, all random."""
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.export import export_models
    from seg_export.families.semantic.pruning import pruned

    nested = random_checkpoint("unetpp", {"features": [4, 6, 8]}, seed=1)
    export_models(nested, folder, "unetpp_tiny", size_hw=(48, 64))
    export_models(pruned(nested, 1), folder, "unetpp_tiny_d1", size_hw=(48, 64))
    sizes = {"image_size": 64, "width": 8, "units": [1, 1, 1], "hidden": 64, "layers": 1, "mlp": 64}
    decoder = {"head_channels": 16, "decoder_channels": [16, 8, 8, 8]}
    export_models(random_checkpoint("transunet", {**sizes, **decoder}, seed=1), folder, "transunet_tiny")


def tiny_sam(folder: Path) -> None:
    """`repo` with the trained `sam_tiny`."""
    from seg_export.export import export_models

    export_models(WEIGHTS / "sam_tiny.pth", folder / "repo", name="sam_tiny", images=_first_of(XRAYS, folder))


def half(folder: Path) -> None:
    """`sam_tiny` and `unet_lung`, trained, in half precision: `sam` and `lung` are their repositories."""
    from seg_export.export import export_models

    images = _first_of(XRAYS, folder)
    export_models(WEIGHTS / "sam_tiny.pth", folder / "sam", "sam_tiny", precision="fp16", images=images)
    export_models(WEIGHTS / "unet_lung.pth", folder / "lung", "unet_lung", precision="fp16", images=images)


def small_sam(folder: Path) -> None:
    """The SAM of `SMALL_SAM` as `small_fp32`, and `small_fp16` with embeddings in half precision."""
    from sam_models import SMALL_SAM

    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.export import export_models

    export_models(random_checkpoint("sam", SMALL_SAM), folder, "small_fp32")
    export_models(random_checkpoint("sam", SMALL_SAM), folder, "small_fp16", embeddings="fp16")


def lung(folder: Path) -> None:
    """`repo` with `unet_lung`, made by the command."""
    command = [str(Path(sys.executable).with_name("seg-export")), "unet", "--pretrained", "lung"]
    subprocess.run([*command, "--repo", str(folder / "repo")], check=True, capture_output=True)


def tiny_maskrcnn(folder: Path) -> None:
    """`cells`, a small random Mask R-CNN of 3 classes for images of 256x320."""
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.export import export_models

    checkpoint = random_checkpoint("maskrcnn", {"arch": "maskrcnn_light_fpn", "num_classes": 4})
    named = replace(checkpoint, class_names=("red", "green", "blue"))
    export_models(named, folder, "cells", size_hw=(256, 320))


def nuclei(folder: Path) -> None:
    """`repo` with the trained `maskrcnn_nuclei`."""
    from seg_export.export import export_models

    images = _first_of(NUCLEI, folder)
    weights = WEIGHTS / "maskrcnn_nuclei.pth"
    export_models(weights, folder / "repo", "maskrcnn_nuclei", images=images, max_batch_size=1)


def small_sam2(folder: Path) -> None:
    """`repo` with the published SAM2 `sam2`, and its `weights.pth`, of `sam2_small`."""
    import sam2_small

    from seg_export.checkpoints.checkpoint import load_checkpoint, write_checkpoint
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.export import export_models

    weights = replace(
        random_checkpoint("sam2", sam2_small.ARGUMENTS), state_dict=sam2_small.small_sam2().state_dict()
    )
    write_checkpoint(folder / "weights.pth", weights)
    export_models(load_checkpoint(folder / "weights.pth"), folder / "repo", "sam2")


def vit_b(folder: Path) -> None:
    """`triton_repo` with a verified SAM of the size ViT-B, and its `weights.pth` for segment_anything."""
    # In a process of its own, which gives its memory back.
    command = [sys.executable, "-m", "seg_bench.random_sam", str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"})


def _first_of(images: Path, folder: Path) -> Path:
    """A folder with one image, for verifications whose time goes with the images."""
    first = folder / "image"
    first.mkdir()
    shutil.copy(min(images.glob("*.png")), first)
    return first
