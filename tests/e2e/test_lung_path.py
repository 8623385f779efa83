"""The whole path as the README tells it: shipped checkpoint, published graph, real server, true masks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from seg_bench.metrics import dice_score
from seg_runtime.repository import Repository
from seg_runtime.server import ServerOptions, TritonServer

pytest.importorskip("pytriton")
pytestmark = pytest.mark.server

BIN = Path(sys.executable).parent
STANDARD_REPO = Path(__file__).parents[2] / "triton_repo"


def run_command(*call: object) -> str:
    done = subprocess.run(
        [str(BIN / str(call[0])), *map(str, call[1:])], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def lung_server(lung_repo: Path) -> Iterator[TritonServer]:
    with TritonServer(lung_repo, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
        yield server


def segment(xrays: Path, out: Path, *place: object) -> dict[str, np.ndarray]:
    """Run `seg-run segment` and return the mask of each X-ray by its file name."""
    call = ("seg-run", "segment", xrays / "images", "--model", "unet_lung", "-o", out, "--json", *place)
    lines = [json.loads(line) for line in run_command(*call).splitlines()]
    return {Path(line["path"]).name: cv2.imread(line["mask"], cv2.IMREAD_UNCHANGED) for line in lines}


def test_masks_of_the_shipped_model_are_the_radiologists_lungs(
    lung_repo: Path, xray_folder: Path, tmp_path: Path
) -> None:
    masks = segment(xray_folder, tmp_path / "out", "--repo", lung_repo)
    assert len(masks) == 8
    for name, mask in masks.items():
        truth = cv2.imread(str(xray_folder / "masks" / name), cv2.IMREAD_GRAYSCALE) > 127
        assert dice_score(mask > 0, truth) >= 0.93, name


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_served_masks_equal_those_in_process(
    transport: str, lung_repo: Path, lung_server: TritonServer, xray_folder: Path, tmp_path: Path
) -> None:
    url = lung_server.grpc_url if transport == "grpc" else lung_server.http_url
    local = segment(xray_folder, tmp_path / "local", "--repo", lung_repo)
    served = segment(xray_folder, tmp_path / "served", "--url", url)
    assert local.keys() == served.keys()
    assert all(np.array_equal(local[name], served[name]) for name in local)


def test_configuration_in_version_control_is_what_the_shipped_checkpoint_publishes(lung_repo: Path) -> None:
    committed, published = (Repository(repo).spec("unet_lung") for repo in (STANDARD_REPO, lung_repo))
    # Another processor may differ from PyTorch in another digit.
    assert replace(committed, parity=None) == replace(published, parity=None)
