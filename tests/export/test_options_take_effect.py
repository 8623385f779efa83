"""Every option of every `seg-export` command changes what is done, or is refused: none is ignored."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from onnx import TensorProto, helper
from published import WEIGHTS
from typer.main import get_command
from typer.testing import CliRunner

import seg_export.checkpoints.random_weights
import seg_export.cli.exporting
import seg_export.engines.build
import seg_export.engines.check
import seg_export.export
import seg_export.families.maskrcnn.checkpoints
import seg_export.families.maskrcnn.command
import seg_export.families.module.command
import seg_export.families.onnx.command
import seg_export.families.onnx.model
import seg_export.families.sam.checkpoints
import seg_export.families.sam.command
import seg_export.families.sam2.checkpoints
import seg_export.families.sam2.command
import seg_export.families.semantic.command
import seg_export.families.variant_options
import seg_export.publishing.manage
import seg_export.verification.bisect
import seg_export.verification.published
import seg_export.verification.verify
import seg_runtime.bundle
from seg_export.checkpoints.checkpoint import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Checkpoint,
    Preprocessing,
    load_checkpoint,
)
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import app
from seg_runtime.errors import BadInputError, EdgesegError

pytestmark = pytest.mark.full

SMALL_TRANSUNET = {
    "image_size": 64,
    "width": 8,
    "units": [1, 1, 1],
    "hidden": 64,
    "layers": 1,
    "mlp": 64,
    "head_channels": 16,
    "decoder_channels": [16, 8, 8, 8],
}

SAID = ["--std", "0.5", "--scale", "255", "--no-clahe", "--threshold", "0.5"]
COLOUR = ["--mean", "0.1,0.2,0.3", "--std", "1,1,1", "--scale", "255", "--channel-order", "rgb", "--no-clahe"]
ONE_BAND = ["--mean", "0.5", "--size", "64", "--class-names", "lung", *SAID]
DETECTOR = [*COLOUR[:4], "--class-names", "nucleus", "--anchors", "32,64,128,256,512", "--size", "64"]

BASES: dict[str, dict[str, list[str]]] = {
    "unet": {
        "checkpoint": [
            *("--checkpoint", "unet.pth", "--size", "64", "--threshold", "0.5", "--class-names", "lung"),
            *COLOUR,
        ],
        "pretrained": ["--pretrained", "lung"],
        "random": ["--random", "--features", "4,8"],
    },
    "unetpp": {
        "checkpoint": [
            *("--checkpoint", "unetpp.pth", "--size", "64", "--mean", "0", "--class-names", "lung"),
            *SAID,
        ],
        "pretrained": ["--pretrained", "lung"],
        "random": ["--random", "--features", "4,8"],
    },
    "transunet": {
        "checkpoint": ["--checkpoint", "transunet.pth", "--mean", "0", "--class-names", "lung", *SAID],
        "pretrained": ["--pretrained", "lung"],
        "random": ["--random", "--arch", "small", "--size", "64"],
    },
    "maskrcnn": {
        "checkpoint": ["--checkpoint", "plain_maskrcnn.pth", *DETECTOR],
        "described": ["--checkpoint", "maskrcnn.pth"],
        "pretrained": ["--pretrained", "nuclei"],
        "download": ["--download"],
        "random": ["--random", "--arch", "maskrcnn_light_fpn"],
    },
    "sam": {
        "checkpoint": ["--checkpoint", "sam.pth"],
        "download": ["--download"],
        "pretrained": ["--tiny"],
        "random": ["--random"],
    },
    "sam2": {
        "checkpoint": ["--checkpoint", "sam2.pth"],
        "download": ["--download"],
        "random": ["--random"],
    },
    "module": {
        "": ["nets:make", *ONE_BAND],
        "checkpoint": ["nets:make", *ONE_BAND, "--checkpoint", "net.pth"],
    },
    "onnx": {
        "": [
            *("graph.onnx", "--mean", "0.5", "--std", "0.25", "--scale", "255", "--no-clahe"),
            *("--class-names", "lung", "--output", "logits"),
        ]
    },
    "list": {"": []},
    "verify": {
        "checkpoint": ["model", "--checkpoint", "unetpp.pth"],
        "pretrained": ["model", "--pretrained", "unetpp_lung"],
        "factory": ["model", "--module", "nets:make"],
    },
    "check": {"": ["model"]},
    "build": {"": ["model"]},
    "bundle": {"": []},
    "rollback": {"": ["model"]},
    "remove": {"": ["model"]},
}
"""Commands, the sources that each can take its weights from, and the arguments that name one."""

VALUES = {
    "activation": "none",
    "anchors": "8,16,32,64,128",
    "arch": "maskrcnn_resnet34_fpn",
    "args": '{"padding": 0}',
    "backend": "tensorrt",
    "calibrate": "folder",
    "channel_order": "bgr",
    "channels": "3",
    "checkpoint": "unet.pth",
    "class_names": "other",
    "classes": "3",
    "compute_capability": "86",
    "data": "folder",
    "depth": "1",
    "embeddings": "fp16",
    "engine": "openvino",
    "factory": "nets:make",
    "features": "4,6",
    "images": "folder",
    "input": "uint8",
    "instances": "2",
    "layout": "nhwc",
    "masks": "folder",
    "max_batch": "3",
    "max_detections": "7",
    "mean": "0.25",
    "models": "model",
    "name": "other",
    "norm_eps": "0.1",
    "opset": "19",
    "out": "other.tar",
    "output": "1",
    "precision": "fp16",
    "pretrained": "nuclei",
    "queue_delay_us": "70",
    "repo": "elsewhere",
    "resize": "stretch",
    "scale": "1",
    "seed": "7",
    "size": "96",
    "std": "0.25",
    "threshold": "0.25",
    "to": "3",
    "variant": "vit_l",
    "variant_config": "variant.json",
    "version": "3",
    "weights_name": "ema",
}
"""Another value than the default for each option that is no flag."""

OTHERS = {
    ("unet", "mean"): "0.25,0.25,0.25",
    ("unet", "std"): "0.25,0.25,0.25",
    ("maskrcnn", "mean"): "0.25,0.25,0.25",
    ("maskrcnn", "std"): "0.25,0.25,0.25",
    ("transunet", "arch"): "r50_vit_b16",
    ("module", "checkpoint"): "net.pth",
    ("onnx", "class_names"): "heart",
    ("onnx", "std"): "0.3",
    ("onnx", "name"): "graph2",
    ("onnx", "output"): "other",
    ("sam2", "variant"): "sam2.1_small",
    ("sam2", "variant_config"): "variant2.json",
}
"""Where one command's values are not another's."""

PLAIN_DETECTOR = Checkpoint(
    family="maskrcnn",
    arguments={"arch": "maskrcnn_resnet50_fpn", "num_classes": 2},
    state_dict={},
    preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, None, (64, 64)),
    class_names=("object",),
    described=False,
)
"""What a plain state dict is loaded as."""

COMMANDS: Any = get_command(app)


def _options(command: str) -> list[Any]:
    parameters = COMMANDS.commands[command].params
    return [each for each in parameters if each.param_type_name == "option" and each.name != "help"]


CASES = [
    (command, source, option.name)
    for command, sources in BASES.items()
    for source in sources
    for option in _options(command)
    if option.name != source and (source, option.name) != ("described", "checkpoint")
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small plain state dicts, a description of a variant and a folder."""
    folder = tmp_path_factory.mktemp("files")
    for family, arguments in (
        ("unet", {"features": [4, 8], "in_channels": 3}),
        ("unetpp", {"features": [4, 6, 8]}),
        ("transunet", SMALL_TRANSUNET),
    ):
        torch.save(random_checkpoint(family, arguments).state_dict, folder / f"{family}.pth")
    shutil.copy(WEIGHTS / "maskrcnn_nuclei.pth", folder / "maskrcnn.pth")
    (folder / "plain_maskrcnn.pth").touch()
    for name in ("sam.pth", "sam2.pth"):
        (folder / name).touch()
    sam = {"encoder_embed_dim": 8, "encoder_depth": 1, "encoder_num_heads": 1}
    sam2 = {"embed_dim": 8, "num_heads": 1, "stages": [1], "global_att_blocks": []}
    (folder / "variant.json").write_text(json.dumps({**sam, "encoder_global_attn_indexes": []}))
    (folder / "variant2.json").write_text(json.dumps(sam2))
    (folder / "folder").mkdir()
    (folder / "nets.py").write_text(
        "import torch\n"
        "def make(padding=1):\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Conv2d(1, 1, 3, padding=padding)\n"
    )
    torch.save(torch.nn.Conv2d(1, 1, 3).state_dict(), folder / "net.pth")
    _write_graph(folder / "graph.onnx")
    return folder


def _write_graph(path: Path) -> None:
    """Gray images of 32x32 to logits and twice their values."""
    shape = ["n", 1, 32, 32]
    image, *maps = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "logits", "other")
    )
    nodes = [
        helper.make_node("Neg", ["x"], ["logits"]),
        helper.make_node("Sub", ["logits", "x"], ["other"]),
    ]
    graph = helper.make_graph(nodes, "graph", [image], maps)
    imports = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


@pytest.fixture(scope="module")
def load_once() -> Any:
    """`load_checkpoint`, which reads a file once."""
    return cache(load_checkpoint)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, files: Path, load_once: Any) -> Iterator[list[Any]]:
    """What the commands hand to the library, which does nothing."""
    monkeypatch.chdir(files)
    seen: list[Any] = []

    def record(value: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            options = {name: each for name, each in options.items() if not _is_function(each)}
            arguments = tuple(each for each in arguments if not _is_function(each))
            seen.append([*map(_plain, arguments), {name: _plain(each) for name, each in options.items()}])
            return value

        return call

    monkeypatch.setattr(seg_export.checkpoints.checkpoint, "load_checkpoint", load_once)
    monkeypatch.setattr(
        seg_export.families.maskrcnn.checkpoints,
        "load_checkpoint",
        lambda path, chosen=None: (
            replace(PLAIN_DETECTOR, sha256=chosen or "")
            if path.name == "plain_maskrcnn.pth"
            else load_once(path, chosen)
        ),
    )
    small = replace(random_checkpoint("unet", {"features": [4, 8]}), arguments={"arch": "small"})
    monkeypatch.setattr(seg_export.checkpoints.random_weights, "random_checkpoint", record(small))
    monkeypatch.setattr(seg_export.families.sam.checkpoints, "load_sam_checkpoint", record(small))
    monkeypatch.setattr(seg_export.families.sam2.checkpoints, "load_sam2_checkpoint", record(small))
    monkeypatch.setattr(seg_export.families.variant_options, "fetch", record(Path("downloaded.pth")))
    monkeypatch.setattr(seg_export.families.maskrcnn.command, "_download", lambda arch: Path("maskrcnn.pth"))
    # Each test's nets.py is its own.
    monkeypatch.setattr(sys, "path", [str(files), *sys.path])
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    for module in ("semantic", "maskrcnn", "sam", "sam2", "module", "onnx"):
        command = getattr(seg_export.families, module).command
        monkeypatch.setattr(command, "show", lambda exported, as_json, *_, **__: seen.append(as_json))
    spec = SimpleNamespace(name="model", version=1)
    report = SimpleNamespace(as_dict=dict, note="")
    for module, name, value in (
        (seg_export.export, "export_models", ()),
        (seg_export.verification.published, "verify_published", report),
        (seg_export.verification.published, "module_as_published", small),
        (seg_export.families.onnx.model, "publish_onnx_model", None),
        (seg_export.verification.verify, "require_parity", None),
        (seg_export.verification.bisect, "bisect_published", SimpleNamespace(as_dict=dict)),
        (seg_export.cli.verify, "report_table", "table"),
        (seg_export.cli.verify, "_show", None),
        (seg_export.engines.check, "check_graphs", ()),
        (seg_export.engines.build, "build_engines", ()),
        (seg_export.publishing.manage, "list_models", ()),
        (seg_runtime.bundle, "write_bundle", 0),
        (seg_export.publishing.manage, "rollback", spec),
        (seg_export.publishing.manage, "remove", None),
    ):
        monkeypatch.setattr(module, name, record(value))
    yield seen


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], Any]:
    """What a command does with its source alone, once it was run."""
    return {}


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, torch.nn.Module)


def _plain(value: Any) -> str:
    """Weights by what they are, anything else by what it prints."""
    if isinstance(value, Checkpoint):
        said = value.preprocessing, value.class_names
        return repr((value.family, value.arguments, value.sha256, *said))
    return repr(value)


def _outcome(seen: list[Any], *arguments: str) -> tuple[str, str]:
    """What a command did and printed. Raises the error that it ended with."""
    seen.clear()
    result = CliRunner().invoke(app, arguments)
    if isinstance(result.exception, EdgesegError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return repr(seen), result.stdout


@pytest.mark.parametrize(("command", "source", "option"), CASES)
def test_option_changes_what_is_done_or_is_refused(
    seen: list[Any], outcomes: dict[tuple[str, str], Any], command: str, source: str, option: str
) -> None:
    (parameter,) = (each for each in _options(command) if each.name == option)
    value = [] if parameter.is_flag else [OTHERS.get((command, option)) or VALUES[option]]
    base = [command, *BASES[command][source]]
    if (command, source) not in outcomes:
        outcomes[command, source] = _outcome(seen, *base)
    try:
        assert _outcome(seen, *base, parameter.opts[0], *value) != outcomes[command, source]
    except EdgesegError as error:
        assert error.exit_code == 2
        assert parameter.opts[0] in str(error)


def test_all_commands_are_looked_at() -> None:
    assert set(BASES) == set(COMMANDS.commands)


def test_defaults_are_taken_only_where_they_are_asked_for(seen: list[Any]) -> None:
    with pytest.raises(BadInputError, match=r"Missing: --mean \(3 values\), --std"):
        _outcome(seen, "unet", "--checkpoint", "unet.pth")
    assert seen == []
    assert (
        "'assume_defaults': 'True'"
        in _outcome(seen, "unet", "--checkpoint", "unet.pth", "--assume-defaults")[0]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unet", "--checkpoint", "unet.pth", "--classes", "1"], "--classes has no effect without --random"),
        (
            ["unetpp", "--pretrained", "lung", "--max-batch", "1", "--queue-delay-us", "100"],
            "--queue-delay-us has no effect with --max-batch 1",
        ),
        (["check", "model.onnx", "--repo", "elsewhere"], "--repo has no effect on ONNX files"),
        (["sam", "--tiny", "--seed", "0"], "--seed has no effect without --random"),
        (
            ["unet", "--pretrained", "lung", "--no-clahe"],
            "says its own CLAHE: leave --clahe or --no-clahe out",
        ),
        (["unet", "--pretrained", "lung", "--assume-defaults"], "--assume-defaults has no effect"),
        (["unet", "--pretrained", "lung", "--masks", "folder"], "--masks has no effect without --images"),
    ],
)
def test_option_without_effect_is_refused_even_with_its_default(
    seen: list[Any], arguments: list[str], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        _outcome(seen, *arguments)
    assert seen == []


def test_epsilon_of_norms_is_refused_where_torchvision_sets_its_own(
    seen: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from seg_export.families.maskrcnn import checkpoints as maskrcnn_checkpoints

    second = replace(
        random_checkpoint("unet", {"features": [4, 8]}), arguments={"arch": "maskrcnn_resnet50_fpn_v2"}
    )
    monkeypatch.setattr(maskrcnn_checkpoints, "load_maskrcnn_checkpoint", lambda *_, **__: second)
    with pytest.raises(BadInputError, match="--norm-eps has no effect on maskrcnn_resnet50_fpn_v2"):
        _outcome(seen, "maskrcnn", "--download", "--norm-eps", "0")
