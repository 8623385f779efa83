"""The command `seg-export`: exit codes, one-line errors, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brightness import brightness_spec
from onnx import numpy_helper

import seg_export.export as export_steps
from seg_export.checkpoints.checkpoint import save_checkpoint
from seg_export.cli.exporting import _input_text
from seg_export.cli.main import main
from seg_export.cli.options import parse_size_hw
from seg_export.families.semantic.random import random_unet
from seg_export.tracing.trace import optimise
from seg_runtime.errors import BadInputError

Run = Callable[..., tuple[int, str, str]]
RANDOM = ["unet", "--random", "--features", "4,8", "--size", "16x24"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `seg-export` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seg-export", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.pth"
    weights = random_unet(features=(4, 8))
    save_checkpoint(
        path,
        family=weights.family,
        arguments=weights.arguments,
        state_dict=weights.state_dict,
        preprocessing=replace(weights.preprocessing, input_size_hw=(16, 16)),
        class_names=("lung",),
    )
    return path


def test_export_list_verify_rollback_and_remove(run: Run, checkpoint: Path) -> None:
    code, out, err = run("unet", "--checkpoint", str(checkpoint), "--name", "tiny", "--json")
    exported: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    assert exported["spec"]["weights"] == "trained" and exported["spec"]["input_size_hw"] == [16, 16]
    assert exported["folder"] == "triton_repo/tiny/1" and exported["verification"]["passed"]
    assert [row["batch"] for row in exported["verification"]["comparisons"]] == [1, 2, 3]

    code, out, _ = run("unet", "--checkpoint", str(checkpoint), "--name", "tiny")
    assert code == 0 and "published tiny version 2" in out and "probabilities" in out

    code, out, _ = run("list", "--json")
    (listed,) = json.loads(out)
    assert (listed["name"], listed["versions"], listed["spec"]["version"]) == ("tiny", [1, 2], 2)
    assert "tiny" in run("list")[1]

    code, out, _ = run("verify", "tiny", "--checkpoint", str(checkpoint), "--json")
    assert code == 0 and json.loads(out)["passed"]

    assert run("rollback", "tiny") == (0, "tiny now serves version 1\n", "")
    assert run("rollback", "tiny", "--to", "2", "--json")[1].split() == [
        "{",
        '"model":',
        '"tiny",',
        '"version":',
        "2",
        "}",
    ]
    assert run("remove", "tiny", "--version", "1") == (0, "removed tiny version 1\n", "")
    assert run("remove", "tiny", "--json")[0] == 0
    assert json.loads(run("list", "--json")[1]) == []


def test_a_broken_model_is_listed_as_such_and_the_others_go_on(run: Run, checkpoint: Path) -> None:
    run("unet", "--checkpoint", str(checkpoint), "--name", "tiny")
    broken = Path("triton_repo/broken")
    broken.mkdir()
    (broken / "config.pbtxt").write_text("platform: ")
    code, out, err = run("list")
    assert code == 2 and err == "error: 1 of 2 models cannot be served: broken\n"
    assert "broken: " in out and "cannot be" in out and "ready" in out
    code, out, err = run("list", "--json")
    assert code == 2 and "cannot be parsed" in json.loads(out)[0]["problem"]
    assert run("verify", "tiny", "--checkpoint", str(checkpoint))[0] == 0


def test_random_weights_are_marked_and_serving_options_reach_triton(run: Run) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    serving = [
        "--max-batch",
        "4",
        "--queue-delay-us",
        "70",
        "--instances",
        "2",
        "--response-cache",
        "--no-warm-up",
    ]
    code, out, _ = run(*RANDOM, "--transposed", "--channels", "3", "--classes", "2", *serving, "--json")
    assert code == 0
    spec = json.loads(out)["spec"]
    assert (spec["name"], spec["weights"], spec["channels"]) == ("unet", "random", 3)
    text = Path("triton_repo/unet/config.pbtxt").read_text()
    config: Any = text_format.Parse(text, pb.ModelConfig())
    assert list(config.dynamic_batching.preferred_batch_size) == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 70
    assert config.instance_group[0].count == 2 and config.response_cache.enable
    assert not config.model_warmup and config.max_batch_size == 4


def test_graph_that_strays_exits_3_with_the_figures_and_publishes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sabotaged(graph: Any, spec: Any) -> Any:
        changed = optimise(graph, spec)
        (bias,) = (item for item in changed.graph.initializer if item.name.endswith("out.bias"))
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), bias.name))
        return changed

    monkeypatch.setattr(export_steps, "optimise", sabotaged)
    code, out, err = run(*RANDOM, "--json")
    assert (code, out) == (3, "")
    assert "fail" in err and "strays from PyTorch: it needs a tolerance of" in err
    assert list(Path().iterdir()) == []


def test_verify_against_other_weights_exits_3(run: Run, checkpoint: Path) -> None:
    run(*RANDOM, "--seed", "5")
    code, out, err = run("verify", "unet", "--checkpoint", str(checkpoint))
    assert code == 3 and "strays from PyTorch" in err and "fail" in out


def test_xrays_are_used_to_verify(run: Run, tmp_path: Path) -> None:
    import cv2

    (tmp_path / "xrays").mkdir()
    for index in range(2):
        image = np.random.default_rng(index).integers(0, 256, (40, 50), np.uint8)
        cv2.imwrite(str(tmp_path / "xrays" / f"{index}.png"), image)
    code, out, _ = run(*RANDOM, "--images", "xrays", "--json")
    assert code == 0
    cases = [row["case"] for row in json.loads(out)["verification"]["comparisons"]]
    assert cases[:3] == ["images"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unet"], "exactly one of --checkpoint FILE, --pretrained lung and --random"),
        (["unet", "--random", "--pretrained", "lung"], "exactly one of"),
        (["unet", "--checkpoint", "none.pth"], "none.pth"),
        (["unet", "--checkpoint", "list.pth"], "list.pth"),
        (["unet", "--checkpoint", "linear.pth"], "is a plain state dict of no known network"),
        (["unet", "--pretrained", "liver"], "no packaged weights 'liver': there are lung"),
        ([*RANDOM, "--size", "big"], "--size 'big': expected pixels as 512"),
        ([*RANDOM, "--size", "4"], "each side must be 8 to 4096 pixels"),
        ([*RANDOM, "--features", "4;8"], "--features '4;8'"),
        ([*RANDOM, "--features", "3,8"], "even channel counts"),
        ([*RANDOM, "--name", "a/b"], "cannot be a model's name"),
        ([*RANDOM, "--opset", "17"], "opset 17: expected one of 18, 19, 20"),
        ([*RANDOM, "--images", "none"], "none"),
        ([*RANDOM, "--images", "text"], "cannot read image"),
        ([*RANDOM, "--repo", "file"], "cannot write to model repository 'file'"),
        (["list", "--repo", "none"], "is not a folder"),
        (["rollback", "unet"], "is not a folder"),
        (["verify", "unet", "--checkpoint", "linear.pth"], "is a plain state dict of no known network"),
        (["verify", "unet"], "exactly one of --checkpoint FILE and --pretrained lung"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_changes_nothing(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.png").write_text("no image")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_rollback_of_an_unknown_model_suggests_the_nearest(run: Run) -> None:
    run(*RANDOM)
    assert run("rollback", "unett")[2] == "error: no model 'unett' in 'triton_repo'; did you mean 'unet'?\n"


@pytest.mark.parametrize(("channels", "shown"), [(1, "gray"), (3, "BGR"), (4, "4 bands"), (5, "5 bands")])
def test_what_images_a_model_takes_is_said_after_its_export(channels: int, shown: str) -> None:
    values = (0.5,) * channels
    spec = replace(brightness_spec(channels=channels), mean=values, std=values, channel_order="bgr")
    assert f"images: 32x32 (stretch), {shown}, pixels / 255, mean 0.5" in _input_text(spec)


@pytest.mark.parametrize(
    ("text", "size_hw"), [("512", (512, 512)), ("384X512", (384, 512)), (" 64 ", (64, 64))]
)
def test_sizes_are_read_as_height_and_width(text: str, size_hw: tuple[int, int]) -> None:
    assert parse_size_hw(text) == size_hw


@pytest.mark.parametrize("text", ["", "512x", "-5", "5.5", "1x2x3", "1e3"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="--size"):
        parse_size_hw(text)
