"""A Mask R-CNN behind the real Triton server answers as in process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from seg_runtime.cli.run import app
from seg_runtime.connection import connect
from seg_runtime.files.images import list_images, read_image
from seg_runtime.instances import InstanceSegmenter
from seg_runtime.server import ServerOptions, TritonServer

pytest.importorskip("pytriton")
pytestmark = pytest.mark.server


def test_server_and_process_find_the_same(
    tiny_maskrcnn_repo: Path, xray_folder: Path, tmp_path: Path
) -> None:
    images = [read_image(file, 3, gray=True) for file in list_images([xray_folder / "images"])[:3]]
    images[1] = images[1][:300]
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)
    with TritonServer(tiny_maskrcnn_repo, options) as server:
        with connect(tiny_maskrcnn_repo) as local, connect(server.grpc_url) as remote:
            found = [
                list(InstanceSegmenter(session, "cells").stream(images, batch_size))
                for session, batch_size in ((local, 1), (remote, 3))
            ]
        for ours, theirs in zip(*found, strict=True):
            assert len(ours) == len(theirs) > 0
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
            np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, atol=0.05)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            assert (ours.masks() != theirs.masks()).mean() < 1e-4
        command = ["instances", str(xray_folder / "images"), "--url", server.http_url, "--score", "0.1"]
        result = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout.splitlines()[0])["objects"] > 0
