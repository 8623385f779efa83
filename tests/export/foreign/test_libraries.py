"""Checkpoints that other libraries made: published as the library computes them, or refused in one line."""

from __future__ import annotations

import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_libraries import ROWS, File, Row
from foreign_page import PAGE, with_tables
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from seg_export.checkpoints.factory import make_module, parse_arguments
from seg_export.cli.main import app
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import EdgesegError

pytestmark = [
    pytest.mark.full,
    # Of timm, MONAI and transformers, when they are imported and when their networks are built or traced.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

MEAN, STD = 0.4, 0.2


def settled(row: Row) -> nn.Module:
    """The network of a row in eval mode, its batch norms on the way to the statistics of noise.

    With those that it is made with, deep networks make the same of every image; with those of noise they
    amplify flat images as no trained network does.
    """
    network = row.make()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.6
    with torch.no_grad():
        network.train()(torch.randn(2, row.channels, row.side, row.side))
    return network.eval()


def without_memory(row: Row) -> nn.Module:
    """The network of a row; where only names and shapes of its tensors count, they take no memory."""
    if not row.factory.startswith("torchvision.models.") or row.door == "module" or row.note == "quantised":
        return row.make()
    with torch.device("meta"):
        network = row.make()
    for part in network.modules():
        for kind in (part._parameters, part._buffers):
            for name, tensor in kind.items():
                if tensor is not None:
                    kind[name] = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return network


def lightning(network: nn.Module, path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "pytorch-lightning_version": "2.5.0", "state_dict": state}, path)


def adapter(network: nn.Module, path: Path) -> None:
    """As peft names the tensors of a LoRA of the attention."""
    layers = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    names = [f"base_model.model.{layer}.lora_{side}.weight" for layer in layers for side in "AB"]
    torch.save({name: torch.ones(4, 8) for name in names}, path)


def quantised(network: nn.Module, path: Path) -> None:
    made = torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)
    torch.save(made.state_dict(), path)


def example(network: nn.Module) -> torch.Tensor:
    first = next(part for part in network.modules() if isinstance(part, nn.Conv2d))
    return torch.randn(1, first.in_channels, 64, 64)


def script(network: nn.Module, path: Path) -> None:
    torch.jit.trace(network.eval(), example(network), strict=False).save(path)


def program(network: nn.Module, path: Path) -> None:
    torch.export.save(torch.export.export(network.eval(), (example(network),)), path)


def onnx_graph(network: nn.Module, path: Path) -> None:
    torch.onnx.export(network, (example(network),), path, dynamo=True, external_data=False, verbose=False)


WRITERS: dict[File, tuple[str, Callable[[Any, Path], None]]] = {
    "state dict": ("net.pth", lambda network, path: torch.save(network.state_dict(), path)),
    "Lightning checkpoint": ("net.ckpt", lightning),
    "LoRA adapter": ("adapter.pth", adapter),
    "quantised state dict": ("net.pth", quantised),
    "whole module": ("net.pth", torch.save),
    "TorchScript": ("net.pt", script),
    "torch.export": ("net.pt2", program),
    "save_pretrained": ("net", lambda network, path: network.save_pretrained(path)),
    "ONNX graph": ("net.onnx", onnx_graph),
    "nothing": ("", lambda network, path: None),
}
"""The name of a file and what writes it."""


def written(row: Row, make: Callable[[Row], nn.Module], folder: Path) -> Path:
    name, write = WRITERS[row.file]
    with warnings.catch_warnings():
        # Of exporters and of what is deprecated: people have such files.
        warnings.simplefilter("ignore")
        write(make(row), folder / name)
    return folder / name


def command(row: Row, path: Path) -> list[str]:
    """The command that gets the file, and all that it wants to know."""
    if row.file == "save_pretrained":
        source = ["module", str(path)]
    elif row.door == "module":
        source = ["module", row.factory, "--args", json.dumps(row.arguments)]
        source += ["--checkpoint", str(path)] if path.is_file() else []
    elif row.door == "onnx":
        source = ["onnx", str(path)]
    else:
        return [row.door, "--checkpoint", str(path)]
    statistics = [",".join([str(value)] * row.channels) for value in (MEAN, STD)]
    size = [] if row.door == "onnx" else ["--size", str(row.side)]
    return [
        *source,
        "--mean",
        statistics[0],
        "--std",
        statistics[1],
        *size,
        "--assume-defaults",
        *row.options,
    ]


def in_the_library(row: Row, network: nn.Module, image: np.ndarray) -> np.ndarray:
    """Probabilities (classes, H, W) of an image (H, W, C), as its author would compute them."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        result: Any = network((pixels - MEAN) / STD)
    if row.options[:1] == ("--output",):
        name = row.options[1]
        result = result[int(name) if name.isdigit() else name]
    elif not isinstance(result, torch.Tensor):
        result = next(iter(result.values() if isinstance(result, Mapping) else result))
    logits = F.interpolate(result, image.shape[:2], mode="bilinear")
    if row.arguments.get("activation"):
        return logits[0].numpy()
    return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1))[0].numpy()


def name_of(row: Row) -> str:
    return "-".join(filter(None, (row.library, row.network, row.note, row.door, row.file)))


PUBLISHED = [row for row in ROWS if not row.refusal]
REFUSED = [row for row in ROWS if row.refusal]


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
@pytest.mark.parametrize("row", PUBLISHED, ids=name_of)
def test_published_graph_labels_an_image_as_the_library_does(row: Row, tmp_path: Path) -> None:
    network, repo = settled(row), tmp_path / "repo"
    path = written(row, lambda row: network, tmp_path)
    done = CliRunner().invoke(app, [*command(row, path), "--repo", str(repo), "--name", "net", "--json"])
    assert done.exit_code == 0, done.exception or done.output
    report = json.loads(done.stdout[: done.stdout.rindex("}") + 1])

    image = np.random.default_rng(1).integers(0, 256, (row.side, row.side, row.channels), dtype=np.uint8)
    wanted = in_the_library(row, network, image)
    with connect(repo) as session:
        found = SemanticSegmenter(session, "net").segment(image[..., 0] if row.channels == 1 else image)
    allowed = report["verification"]["tolerance"]
    difference = np.abs(found.probabilities - wanted) - allowed["rtol"] * wanted
    assert difference.max() <= allowed["atol"]
    labels = wanted.argmax(0) if len(wanted) > 1 else wanted[0] >= 0.5
    assert np.mean(found.mask == labels) >= 0.999
    # Probabilities of another network, or of another image, would be further away.
    assert wanted.std(axis=(1, 2)).max() > 20 * allowed["atol"]


@pytest.mark.parametrize("row", REFUSED, ids=name_of)
def test_refusal_says_what_it_is_and_the_next_step(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(row, without_memory, tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command(row, path))
    assert isinstance(done.exception, EdgesegError), done.output
    assert all(part in str(done.exception) for part in row.refusal.split(" ... "))
    assert "\n" not in str(done.exception) and done.stdout == ""
    assert not (tmp_path / "triton_repo").exists()


def test_the_page_shows_all_of_them() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run  python tests/foreign_page.py"
    assert {row.library for row in ROWS} == set(re.findall("<!-- tried: (.*) -->", page))
    assert f"{len(ROWS)} checkpoints that the libraries themselves made" in page and len(ROWS) >= 60


@pytest.mark.full
def test_examples_of_the_page_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint that an example names is made with its own factory."""
    page = PAGE.read_text(encoding="utf-8").partition("## What was tried")[2]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.DOTALL):
        Path(name).write_text(code)
    commands = re.findall(r"```sh\nseg-export (.*?)```", page, re.DOTALL)
    for arguments in (shlex.split(command.replace("\\\n", " ")) for command in commands):
        given = dict(pairwise(arguments))
        network = make_module(given["module"], parse_arguments(given.get("--args")))
        torch.save(network.state_dict(), given["--checkpoint"])
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.exception or done.output
    names = {path.name for path in Path("triton_repo").iterdir()}
    assert names == {"organs", "spleen", "roads", "lesions"}
