"""What tests share is what they would make themselves, and is made once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import artifacts
import onnx
import pytest
import torch
from torch import nn

from seg_export.engines.check import check_graphs
from seg_export.families import traceable_model
from seg_export.families.semantic.random import random_unet
from seg_export.tracing.trace import save_graph, trace


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_exports: None) -> Iterator[Path]:
    """An empty store."""
    monkeypatch.setattr(artifacts, "STORE", tmp_path / "store")
    yield tmp_path / "store"


def count_exports(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one each time that PyTorch's exporter really runs."""
    runs: list[object] = []
    export = torch.onnx.export

    def counted(module: nn.Module, *arguments: object, **options: object) -> object:
        runs.append(module)
        return export(module, *arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", counted)
    return runs


@pytest.mark.full
def test_stored_graph_is_the_exporters_own(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = count_exports(monkeypatch)
    model = traceable_model(random_unet(features=(4, 8)), "unet", (16, 24), 8)
    wanted = trace(model)
    with artifacts.shared_exports():
        graphs = [trace(model), trace(model)]
    assert len(runs) == 2
    for graph in graphs:
        assert graph.SerializeToString(deterministic=True) == graphs[0].SerializeToString(deterministic=True)
        assert [node.op_type for node in graph.graph.node] == [node.op_type for node in wanted.graph.node]
        weights, expected = (
            {item.name: onnx.numpy_helper.to_array(item).tobytes() for item in each.graph.initializer}
            for each in (graph, wanted)
        )
        assert weights == expected


@pytest.mark.full
def test_other_weights_attributes_sizes_and_options_are_traced_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = count_exports(monkeypatch)
    checkpoint = random_unet(features=(4, 8))
    darker = replace(checkpoint, preprocessing=replace(checkpoint.preprocessing, mean=(0.1,)))
    with artifacts.shared_exports():
        for weights, size_hw, opset in (
            (checkpoint, (16, 24), 18),
            (random_unet(features=(4, 8), seed=1), (16, 24), 18),
            (darker, (16, 24), 18),
            (checkpoint, (24, 16), 18),
            (checkpoint, (16, 24), 19),
            (checkpoint, (16, 24), 18),
        ):
            trace(traceable_model(weights, "unet", size_hw, 8), opset)
    assert len(runs) == 5


@pytest.mark.full
def test_module_that_cannot_be_pickled_is_traced_each_time(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = count_exports(monkeypatch)
    model = traceable_model(random_unet(features=(4, 8)), "unet", (16, 24), 8)
    model.module.register_forward_hook(lambda module, inputs, output: output)
    with artifacts.shared_exports():
        trace(model)
        trace(model)
    assert len(runs) == 2


@pytest.mark.full
def test_reason_of_a_graph_that_does_not_build_is_stored(store: Path, tmp_path: Path) -> None:
    model = traceable_model(random_unet(features=(4, 8)), "unet", (16, 24), 8)
    save_graph(trace(model), tmp_path / "good.onnx")
    with artifacts.shared_exports():
        first = check_graphs([str(tmp_path / "good.onnx")], tmp_path, ("86",))
        second = check_graphs([str(tmp_path / "good.onnx")], tmp_path, ("86",))
    assert [replace(item, seconds=0.0) for item in first] == [replace(item, seconds=0.0) for item in second]
    assert len([path for path in (store / "plans").iterdir() if path.suffix != ".lock"]) == 1


def fill(folder: Path) -> None:
    """Where it was made and by which process."""
    (folder / "file").write_text("made")
    with (artifacts.STORE / "made").open("a") as log:
        log.write("once\n")


def broken(folder: Path) -> None:
    (folder / "file").write_text("half")
    raise ValueError("no more")


@pytest.mark.full
def test_folder_is_made_once_for_all_processes(store: Path) -> None:
    program = (
        "import sys, artifacts; from pathlib import Path; artifacts.STORE = Path(sys.argv[1])\n"
        "import test_artifacts\nprint(artifacts.artifact(test_artifacts.fill))"
    )
    store.mkdir()
    environment = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", program, str(store)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)
    ]
    folders = {process.communicate()[0].strip() for process in running}
    (folder,) = folders
    assert (Path(folder) / "file").read_text() == "made"
    assert (store / "made").read_text() == "once\n"


def test_folder_that_could_not_be_made_is_made_again(store: Path) -> None:
    with pytest.raises(ValueError, match="no more"):
        artifacts.artifact(broken)
    with pytest.raises(ValueError, match="no more"):
        artifacts.artifact(broken)


def test_folder_that_a_test_wrote_into_is_an_error_and_made_again(store: Path) -> None:
    folder = artifacts.artifact(fill)
    (folder / "file").write_text("changed")
    with pytest.raises(RuntimeError, match="a test wrote into the shared folder"):
        artifacts.artifact(fill)
    assert (artifacts.artifact(fill) / "file").read_text() == "made"
