"""An engine that does not fit the machine or its graph is told from one that does, before it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from seg_runtime.engines.engine_file import (
    EngineFingerprint,
    Machine,
    engine_fault,
    graph_sha256,
    read_fingerprint,
    require_engine,
    write_fingerprint,
)
from seg_runtime.errors import RepositoryError

ORIN = Machine("8.7", "Orin", {"tensorrt": "10.3.0.30"})
RTX = Machine("8.6", "NVIDIA RTX A4000", {"tensorrt-rtx": "1.7.1.116"})
BUILT_ON_ORIN = EngineFingerprint("tensorrt", "10.3.0.30", "8.7", "Orin", "fp16", "", {}, "0.1.0")
BUILT_ON_RTX = EngineFingerprint(
    "tensorrt-rtx", "1.7.1.116", "8.6", "NVIDIA RTX A4000", "fp16", "", {}, "0.1.0"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A version folder with a graph, its weights, and an engine of them."""
    folder = tmp_path / "repo" / "unet" / "3"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "model.onnx.data").write_bytes(b"weights")
    (folder / "model.plan").write_bytes(b"engine")
    shapes = {"image": ((1, 8, 8, 1), (1, 8, 8, 1), (4, 8, 8, 1))}
    write_fingerprint(folder, replace(BUILT_ON_ORIN, graph_sha256=graph_sha256(folder), profile=shapes))
    return folder


def test_fingerprint_is_read_as_it_was_written(folder: Path) -> None:
    read = read_fingerprint(folder)
    assert (read.tensorrt_version, read.device, read.precision) == ("10.3.0.30", "Orin", "fp16")
    assert read.profile["image"] == ((1, 8, 8, 1), (1, 8, 8, 1), (4, 8, 8, 1))
    assert require_engine(folder, "unet", folder.parents[1], ORIN) == read


@pytest.mark.parametrize(
    ("machine", "fault"),
    [
        (Machine(None, "", {}), "needs an NVIDIA GPU and there is none here"),
        (replace(ORIN, versions={"tensorrt": "10.16.1.2"}), "built with tensorrt 10.3.0.30 and 10.16.1.2"),
        (replace(ORIN, versions={"tensorrt": "10.3.0.26"}), "built with tensorrt 10.3.0.30 and 10.3.0.26"),
        (replace(ORIN, compute_capability="11.0", device="Thor"), "8.7 (Orin) and this GPU, Thor, has 11.0"),
        (replace(ORIN, device="Orin Nano"), "was built for Orin and this GPU is Orin Nano"),
    ],
)
def test_engine_of_another_machine_or_tensorrt_is_refused_with_the_command_that_rebuilds_it(
    folder: Path, machine: Machine, fault: str
) -> None:
    with pytest.raises(RepositoryError) as caught:
        require_engine(folder, "unet", folder.parents[1], machine)
    told = str(caught.value)
    assert told.startswith("version 3 of model 'unet' has an engine that ")
    assert fault in told
    assert told.endswith(f"run  seg-export build unet --repo {folder.parents[1]}")
    assert "\n" not in told


@pytest.mark.parametrize("version", ["10.3.0", "10.3.0.30", "10.3"])
def test_versions_are_compared_as_far_as_both_are_known(folder: Path, version: str) -> None:
    """NVIDIA's server images have TensorRT's library, which tells three numbers, without its binding."""
    assert engine_fault(folder, replace(ORIN, versions={"tensorrt": version})) is None


def test_tensorrt_that_is_not_installed_is_not_compared(folder: Path) -> None:
    """Then loading it names the package to install."""
    assert engine_fault(folder, replace(ORIN, versions={"tensorrt-rtx": "1.0"})) is None


def test_engine_of_tensorrt_for_rtx_fits_every_gpu_of_its_compute_capability(folder: Path) -> None:
    write_fingerprint(folder, replace(BUILT_ON_RTX, graph_sha256=graph_sha256(folder)))
    assert engine_fault(folder, replace(RTX, device="NVIDIA GeForce RTX 3080")) is None
    assert "tensorrt-rtx 1.7.1.116 and 1.8.0" in str(
        engine_fault(folder, replace(RTX, versions={"tensorrt-rtx": "1.8.0"}))
    )


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data"])
def test_engine_is_stale_when_the_graph_or_its_weights_beside_it_change(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"others")
    assert engine_fault(folder, ORIN) == "has an engine of another graph than the model.onnx beside it"


def test_engine_without_its_graph_is_judged_by_the_machine_alone(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx.data").unlink()
    assert engine_fault(folder, ORIN) is None


def _without(key: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        values = json.loads(path.read_text(encoding="utf-8"))
        del values[key]
        path.write_text(json.dumps(values), encoding="utf-8")

    return damage


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (Path.unlink, "has no engine.json beside its engine"),
        (lambda path: path.write_text(""), "has an engine.json that cannot be used"),
        (lambda path: path.write_text("[]"), "has an engine.json that cannot be used"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "has an engine.json that cannot be used"),
        (_without("profile"), "has an engine.json that cannot be used"),
        (_without("device"), "has an engine.json that cannot be used"),
    ],
)
def test_damaged_fingerprint_is_one_line(folder: Path, damage: Callable[[Path], None], fault: str) -> None:
    damage(folder / "engine.json")
    with pytest.raises(RepositoryError, match=fault) as caught:
        require_engine(folder, "unet", folder.parents[1], ORIN)
    assert "\n" not in str(caught.value)
    assert "run  seg-export build unet" in str(caught.value)


def test_missing_engine_names_the_command_that_makes_one(folder: Path) -> None:
    (folder / "model.plan").unlink()
    with pytest.raises(RepositoryError, match=r"has no model\.plan: run  seg-export build unet"):
        require_engine(folder, "unet", folder.parents[1], ORIN)
