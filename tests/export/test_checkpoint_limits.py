"""Files of weights, configurations and graphs that ask for too much: one line, before the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hostile_checkpoints import CHECKPOINTS, archive, safetensors, sparse, tensor
from onnx import TensorProto, helper

from seg_bench.data.splits import load_split
from seg_bench.record_files import is_record, readable_runs
from seg_export.checkpoints.checkpoint import load_checkpoint
from seg_export.checkpoints.files import read_plain
from seg_export.checkpoints.folders.folder import read_json
from seg_export.checkpoints.folders.monai_config import read_config, resolved
from seg_export.checkpoints.nested import weights_in
from seg_export.families.onnx.read import read_original
from seg_runtime.errors import BadInputError, CheckpointError

_READ = r"""
import re, sys
from pathlib import Path
from seg_export.checkpoints.checkpoint import load_checkpoint
from seg_runtime.errors import CheckpointError

def memory():
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])

before = memory()
for path in map(Path, sys.argv[1:]):
    try:
        load_checkpoint(path)
        print(f"{path}: was read")
    except CheckpointError as error:
        print(error)
print(memory() - before)
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a process prints that reads every file of the corpus, and its memory for that in KiB."""
    folder, paths = tmp_path_factory.mktemp("hostile"), []
    for number, (name, make, _) in enumerate(CHECKPOINTS.values()):
        paths.append(folder / f"{number}{name}")
        paths[-1].write_bytes(make())
    command = [sys.executable, "-c", _READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(("number", "what"), list(enumerate(CHECKPOINTS)), ids=list(CHECKPOINTS))
def test_a_hostile_checkpoint_is_refused_in_one_line(refusals: list[str], number: int, what: str) -> None:
    assert CHECKPOINTS[what][2] in refusals[number]
    assert refusals[number].startswith("checkpoint ")


def test_hostile_checkpoints_take_little_memory(refusals: list[str]) -> None:
    assert len(refusals) == len(CHECKPOINTS) + 1
    assert int(refusals[-1]) < 300 * 1024


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.onnx"])
def test_what_is_no_file_is_never_opened(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    read = read_original if name.endswith("onnx") else load_checkpoint
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match=r"no checkpoint file|not a regular file"):
        read(path)
    for target in ("/dev/zero", name):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(CheckpointError, match=r"no checkpoint file|not a regular file|Too many levels"):
            read(path)


def test_files_of_holes_are_refused(tmp_path: Path) -> None:
    header = json.dumps({"a.weight": {"dtype": "F32", "shape": [2**15, 2**15], "data_offsets": [0, 2**32]}})
    for path, begin in (
        (tmp_path / "a.pth", b"\x80\x02"),
        (tmp_path / "a.safetensors", safetensors(header.encode())),
    ):
        with pytest.raises(CheckpointError, match="says 42949"):
            read_plain(sparse(path, begin))
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match="over 2 GB"):
        read_original(sparse(tmp_path / "a.onnx", b"\x08\x08"))


def test_usual_checkpoints_are_read_as_before(tmp_path: Path) -> None:
    weights = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.half": torch.ones(2, 2, dtype=torch.float16)}
    for old in (False, True):
        path = tmp_path / f"{old}.pth"
        torch.save({"model": weights, "notes": ["x"] * 1000}, path, _use_new_zipfile_serialization=not old)
        read = read_plain(path)
        assert read["notes"] == ["x"] * 1000
        assert all(torch.equal(read["model"][name], each) for name, each in weights.items())
    path.write_bytes(archive(tensor(12, (3, 4), (4, 1)), np.arange(12, dtype=np.float32).tobytes()))
    assert torch.equal(read_plain(path)["a.weight"], weights["a.weight"])


def test_weights_are_found_wherever_their_container_lies_twice() -> None:
    weights = {"a.weight": torch.ones(2, 2)}
    deep: object = weights
    for _ in range(9):
        deep = {"in": deep}
    found = weights_in({"deep": deep, "shallow": weights, "twice": [weights]})
    assert {each.name for each in found} == {"shallow", "twice.0"}


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "[]," * 3_000_000 + "[]]"], ids=["deep", "large"])
def test_json_that_python_cannot_hold_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    for read in (read_json, load_split, lambda path: readable_runs([path])):
        with pytest.raises(BadInputError, match=r"nested too deeply|such files have up to"):
            read(path)
    assert not is_record(path)


def test_a_pipe_in_place_of_json_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    os.mkfifo(path)
    for read in (read_json, load_split, lambda path: readable_runs([path])):
        with pytest.raises(BadInputError, match="not a regular file"):
            read(path)
    assert not is_record(path)


def test_references_that_double_at_each_step_are_refused(tmp_path: Path) -> None:
    config: dict[str, object] = {f"a{step}": [f"@a{step - 1}"] * 9 for step in range(1, 12)}
    with pytest.raises(CheckpointError, match="make more than 100000 values"):
        resolved(config | {"a0": 1}, "@a11")
    folder = tmp_path / "configs"
    folder.mkdir()
    lines = [f"a{step}: &a{step} [{', '.join([f'*a{step - 1}'] * 9)}]" for step in range(1, 12)]
    (folder / "train.yaml").write_text("\n".join(["a0: &a0 [1]", *lines]))
    with pytest.raises(CheckpointError, match="make more than 100000 values"):
        resolved(config, read_config(tmp_path, "train")["a11"])


@pytest.mark.parametrize("place", ["/dev/zero", "../outside.bin", "link.bin", "pipe.bin", "circle.bin"])
def test_weights_of_a_graph_are_only_taken_from_files_next_to_it(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "graph"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(16))
    (folder / "link.bin").symlink_to("../outside.bin")
    (folder / "circle.bin").symlink_to("circle.bin")
    os.mkfifo(folder / "pipe.bin")
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=place)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [output], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "model.onnx")
    with pytest.raises(CheckpointError, match=r"outside of its folder|which is missing"):
        read_original(folder / "model.onnx")
