"""Networks that users bring: `seg-export module` and `export_module`."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import module_nets
import numpy as np
import pytest
import torch
from export_command import run_export
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from seg_export import Preprocessing, export_module
from seg_export.checkpoints.factory import make_module
from seg_export.cli.main import app
from seg_export.families.module.network import input_channels
from seg_export.families.module.reference import ModuleReference
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.cli.run import app as run_app
from seg_runtime.errors import BadInputError, CheckpointError, EdgesegError
from seg_runtime.preprocess import resize_image
from seg_runtime.repository import Repository

pytestmark = pytest.mark.slow  # Most of them export a network.

RGB = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--size", "64"]
RGB += ["--assume-defaults"]
FIVE = Preprocessing((0.1, 0.2, 0.3, 0.4, 0.5), (0.3, 0.25, 0.2, 0.35, 0.4), input_size_hw=(48, 64))


def in_pytorch(
    module: nn.Module, image: np.ndarray, prepared: Preprocessing, choose: Any = lambda result: result
) -> np.ndarray:
    """Probabilities of an image of the input's size, as its author would compute them."""
    mean, std = (torch.tensor(each)[:, None, None] for each in (prepared.mean, prepared.std))
    pixels = torch.from_numpy(image).permute(2, 0, 1).float() / prepared.scale
    with torch.inference_mode():
        logits = choose(module.eval()(((pixels - mean) / std)[None]))
    logits = F.interpolate(logits, image.shape[:2], mode="bilinear")
    return (torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, 1))[0].numpy()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return tmp_path / "repo"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_network_of_five_bands_is_served_from_npy_and_tiff_as_pytorch_computes_it(
    repo: Path, tmp_path: Path, precision: Any
) -> None:
    module = module_nets.small(channels=5, classes=3)
    image = noise(48, 64, 5)
    np.save(tmp_path / "a.npy", image)
    cv2.imwritemulti(str(tmp_path / "b.tif"), [np.ascontiguousarray(image[..., band]) for band in range(5)])
    np.save(tmp_path / "c.npy", image[..., :4])
    exported = export_module(
        module, repo, "bands", preprocessing=FIVE, class_names=["a", "b", "c"], precision=precision
    )
    assert exported.report is not None and exported.report.passed
    assert exported.published.spec.channels == 5 and exported.published.spec.family == "module"

    wanted = in_pytorch(module, image, FIVE)
    with connect(repo) as session:
        segmenter = SemanticSegmenter(session, "bands")
        found = segmenter.segment(image)
        assert np.abs(found.probabilities - wanted).max() < (1e-5 if precision == "fp32" else 2e-2)
        larger = noise(100, 90, 5)
        tiled = SemanticSegmenter(session, "bands", tile_overlap=0.25).segment(larger)
        assert tiled.mask.shape == (100, 90)
        assert segmenter.segment(larger).mask.shape == (100, 90)

    run = "from seg_runtime.cli.run import main; main()"
    arguments = ["segment", *map(str, sorted(tmp_path.glob("?.*"))), "--repo", str(repo), "-m", "bands"]
    done = subprocess.run(
        [sys.executable, "-c", run, *arguments, "-o", str(tmp_path / "out")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "1 of 3 images were left out" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert "wants 5 bands and it has 4" in rows[2]["error"]
    for row in rows[:2]:
        mask = cv2.imread(row["mask"], cv2.IMREAD_UNCHANGED)
        assert np.mean(mask == wanted.argmax(0)) > (0.9999 if precision == "fp32" else 0.99)
        assert cv2.imread(row["overlay"]).shape == (48, 64, 3)


@pytest.mark.full
def test_torchvision_network_is_exported_by_its_output_out(repo: Path) -> None:
    network = "torchvision.models.segmentation:lraspp_mobilenet_v3_large"
    arguments = '{"weights": null, "weights_backbone": null, "num_classes": 4}'
    torch.manual_seed(0)
    made = run_export(
        "module", network, "--args", arguments, *RGB, "--repo", str(repo), "--json", "--classes", "4"
    ).stdout
    report = json.loads(made[: made.rindex("}") + 1])
    assert report["verification"]["passed"] and report["spec"]["name"] == "lraspp_mobilenet_v3_large"
    values = {row["what"]: (row["value"], row["origin"]) for row in report["assumptions"]}
    assert values["weights"] == ("as the factory made them", "file")
    assert values["activation"] == ("softmax", "assumed")
    assert values["mean"] == ("0.485, 0.456, 0.406", "option")
    assert values["output"] == ("out of out", "file")


def test_network_with_an_auxiliary_head_asks_for_the_output(repo: Path) -> None:
    network = "torchvision.models.segmentation:fcn_resnet50"
    arguments = '{"weights": null, "weights_backbone": null, "num_classes": 2, "aux_loss": true}'
    with pytest.raises(BadInputError, match=r"2 outputs: choose .* out \(1x2x64x64\), aux \(1x2x64x64\)"):
        run_export("module", network, "--args", arguments, *RGB, "--repo", str(repo))
    assert not repo.exists()


@pytest.mark.parametrize(("output", "index"), [("0", 0), ("1", 1)])
def test_deep_supervision_is_chosen_by_index_and_resized(repo: Path, output: str, index: int) -> None:
    run_export(
        "module", "module_nets:small", "--args", '{"deep": true}', *RGB, "--repo", str(repo),
        "--output", output, "--name", "deep", "--channel-order", "bgr",
    )  # fmt: skip
    image, module = noise(64, 64, 3), module_nets.small(deep=True)
    prepared = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with connect(repo) as session:
        found = SemanticSegmenter(session, "deep").segment(image)
    wanted = in_pytorch(module, image[..., ::-1].copy(), prepared, lambda result: result[index])
    assert np.abs(found.probabilities - wanted).max() < 1e-5


def test_logits_of_a_dictionary_are_resized_in_the_graph_and_that_is_said(repo: Path) -> None:
    prepared = Preprocessing((0.5,) * 3, (0.25,) * 3, input_size_hw=(32, 40))
    torch.manual_seed(0)
    module = module_nets.Dictionary()
    export_module(module, repo, "dictionary", preprocessing=prepared, output="logits")
    made = run_export(
        "module", "module_nets:Dictionary", *RGB, "--output", "logits", "--repo", str(repo / "more"), "--json"
    ).stdout
    assert "32x32, resized bilinearly in the graph" in made
    image = noise(32, 40, 3)
    with connect(repo) as session:
        found = SemanticSegmenter(session, "dictionary").segment(image).probabilities
    wanted = in_pytorch(module, image, prepared, lambda result: result["logits"])
    assert np.abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize(
    ("make", "lowest", "highest"),
    [
        (module_nets.small, 1e-5, 1e-5),
        (module_nets.InstanceNorms, 1e-5, 1e-4),
        (module_nets.Amplifying, 1e-4, 2e-2),
    ],
)
def test_tolerance_grows_with_the_rounding_of_the_network_itself(
    repo: Path, make: Callable[[], nn.Module], lowest: float, highest: float
) -> None:
    torch.manual_seed(0)
    module = make().eval()
    channels = input_channels(module)
    prepared = Preprocessing((0.5,) * channels, (0.25,) * channels, input_size_hw=(64, 64))
    exported = export_module(module, repo, "net", preprocessing=prepared)
    assert exported.report is not None and exported.report.passed
    tolerance = exported.report.tolerance.atol
    assert lowest <= tolerance <= highest
    flat = torch.full((1, channels, 64, 64), -2.0)
    with torch.inference_mode():
        exact = copy.deepcopy(module).double()(flat.double()).sigmoid()
        assert tolerance >= min(float((module(flat).sigmoid() - exact).abs().max()), 2e-2)


def test_network_that_computes_in_float32_only_has_the_usual_tolerance(repo: Path) -> None:
    prepared = Preprocessing((0.5,), (0.25,), input_size_hw=(64, 64))
    exported = export_module(module_nets.InFloat32().eval(), repo, "net", preprocessing=prepared)
    assert exported.report is not None and exported.report.tolerance.atol == 1e-5


def test_module_of_the_user_is_left_as_it_is(repo: Path) -> None:
    module = module_nets.small().train().double()
    export_module(
        module, repo, "small", preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3), size_hw=(32, 32)
    )
    assert module.training and next(module.parameters()).dtype == torch.float64


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_activation_is_the_one_that_was_asked_for(repo: Path, activation: Any) -> None:
    module, image = module_nets.small(), noise(32, 32, 3)
    module = nn.Sequential(module, nn.Sigmoid()) if activation == "none" else module
    prepared = Preprocessing((0.5,) * 3, (0.25,) * 3, input_size_hw=(32, 32))
    export_module(module, repo, "small", preprocessing=prepared, activation=activation)
    with connect(repo) as session:
        found = SemanticSegmenter(session, "small").segment(image).probabilities
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        logits = module.eval()((pixels - 0.5) / 0.25)
    apply: Any = {"sigmoid": torch.sigmoid, "softmax": lambda x: x.softmax(1), "none": lambda x: x}
    assert np.abs(found - apply[activation](logits)[0].numpy()).max() < 1e-4


def test_graph_that_is_another_than_the_module_is_not_published(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = ModuleReference.forward
    monkeypatch.setattr(ModuleReference, "forward", lambda self, image: right(self, image) * 1.001)
    prepared = Preprocessing((0.5,) * 3, (0.25,) * 3, input_size_hw=(32, 32))
    with pytest.raises(EdgesegError, match="strays from PyTorch"):
        export_module(module_nets.small(), repo, "small", preprocessing=prepared)
    assert not repo.exists()


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("module_nets", [], "there is no folder 'module_nets': name one, or a factory as PACKAGE.MODULE"),
        ("module_nets:", [], "names no factory: expected PACKAGE.MODULE:FACTORY"),
        ("module_netz:small", [], "there is no module 'module_netz'"),
        ("module_nets.inner:small", [], "there is no module 'module_nets.inner'"),
        ("module_nets:smal", [], "has no 'smal'; did you mean 'small'"),
        ("module_nets:NUMBER", [], "is a int: expected a function or class"),
        ("module_nets:no_module", [], "returned a str, expected a torch.nn.Module"),
        (
            "module_nets:raises",
            ["--args", '{"message": "x y"}'],
            r"raises\(message='x y'\) raised RuntimeError: x y",
        ),
        ("module_nets:small", ["--args", "{deep}"], "--args '{deep}' is not JSON"),
        ("module_nets:small", ["--args", "[" * 100_000], "is not JSON .it is nested too deeply"),
        ("module_nets:small", ["--args", "[1]"], "expected a JSON object"),
        ("module_nets:small", ["--args", '{"depth": 3}'], "raised TypeError: .*depth"),
        ("module_nets:small", ["--args", '{"channels": 4}'], "its first convolution takes 4 channels"),
        ("module_nets:small", ["--output", "out"], "returns one tensor; leave it out"),
        ("module_nets:small", ["--args", '{"deep": true}'], r"one of 0 \(1x2x64x64\), 1 \(1x2x32x32\)"),
        ("module_nets:small", ["--args", '{"deep": true}', "--output", "2"], "has no such output"),
        ("module_nets:small", ["--classes", "5"], "--classes 5: the module has 2"),
        ("module_nets:small", ["--class-names", "lung"], "--class-names lung: 1 name, expected 2"),
        (
            "module_nets:small",
            ["--args", '{"classes": 1}', "--activation", "softmax"],
            "softmax: of one class it gives 1 everywhere",
        ),
        ("module_nets:Volumes", ["--mean", "0.5", "--std", "0.5"], "is a 3-D network"),
        ("module_nets:LabelMap", ["--mean", "0.5", "--std", "0.5"], "is int64, expected logits"),
        ("module_nets:Dictionary", ["--output", "hidden_states"], "is a tuple, expected a tensor"),
        ("module_nets:Branching", ["--mean", "0.5", "--std", "0.5"], "cannot be traced"),
        ("module_nets:small", ["--std", "1,1"], "--std 1,1: 2 values, expected 3, one per channel"),
        ("module_nets:small", ["--mean", "a,b,c"], "expected numbers with commas"),
        ("module_nets:small", ["--checkpoint", "gone.pth"], "no checkpoint file gone.pth"),
        ("module_nets:small", ["--size", "4"], "each side must be 8 to 4096"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(BadInputError, match=message) as caught:
        run_export("module", factory, *RGB, *arguments)
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_pytorch_prints_nothing_about_a_module_that_it_cannot_follow(
    repo: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gray = Preprocessing((0.5,), (0.5,), input_size_hw=(32, 32))
    with pytest.raises(CheckpointError, match="cannot be traced"):
        export_module(module_nets.Branching(), repo, "branching", preprocessing=gray)
    assert capfd.readouterr() == ("", "")


def test_what_a_module_prints_stays_out_of_json(repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Talking(nn.Conv2d):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            sys.stdout.write("forward\n")
            return super().forward(pixels)

    gray = Preprocessing((0.5,), (0.5,), input_size_hw=(32, 32))
    export_module(Talking(1, 1, 3, padding=1), repo, "talking", preprocessing=gray)
    out, err = capfd.readouterr()
    assert out == "" and "forward" in err


def test_mean_and_std_must_be_given_or_assumed_aloud(repo: Path) -> None:
    with pytest.raises(BadInputError, match=r"Missing: --mean \(3 values\), --std \(3 values\), --scale"):
        run_export("module", "module_nets:small", "--repo", str(repo))
    made = run_export(
        "module", "module_nets:small", "--size", "32", "--repo", str(repo), "--assume-defaults", "--json"
    ).stdout
    spec = json.loads(made[: made.rindex("}") + 1])["spec"]
    assert spec["assumed"]["mean"] == "0.485, 0.456, 0.406"


def test_weights_of_a_file_are_loaded_strictly(repo: Path, tmp_path: Path) -> None:
    trained = module_nets.SmallNet().state_dict()
    torch.save(trained, tmp_path / "net.pth")
    export = ["module", "module_nets:small", *RGB, "--repo", str(repo), "--name", "net"]
    run_export(*export, "--checkpoint", str(tmp_path / "net.pth"))
    verify = ["verify", "net", "--repo", str(repo), "--module", "module_nets:small"]
    run_export(*verify, "--checkpoint", str(tmp_path / "net.pth"))
    with pytest.raises(EdgesegError, match="strays from PyTorch"):
        run_export(*verify)

    lightning = {"epoch": 3, "state_dict": {f"model.{name}": value for name, value in trained.items()}}
    torch.save(lightning, tmp_path / "lightning.ckpt")
    run_export(*verify, "--checkpoint", str(tmp_path / "lightning.ckpt"))

    del trained["head.weight"], trained["head.bias"]
    torch.save({**trained, "extra": torch.zeros(1), "more": torch.zeros(1)}, tmp_path / "net.pth")
    wrong = r"head.weight is missing, head.bias is missing, extra is not expected and 1 more"
    with pytest.raises(CheckpointError, match=wrong):
        run_export(*export, "--checkpoint", str(tmp_path / "net.pth"))
    assert Repository(repo).versions("net") == (1,)


def test_verify_says_that_it_needs_the_module(repo: Path, tmp_path: Path) -> None:
    run_export("module", "module_nets:small", *RGB, "--repo", str(repo))
    with pytest.raises(BadInputError, match=r"--module PACKAGE\.MODULE:FACTORY"):
        run_export("verify", "small", "--repo", str(repo))


@pytest.mark.full
def test_factory_in_the_current_directory_is_found_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Conv2d(1, 1, 3, padding=1)\n"
    )
    # The script of the installed package has no current directory on its path.
    run = "import sys; sys.path.remove(''); from seg_export.cli.main import main; main()"
    arguments = ["module", "mine:net", "--mean", "0.5", "--std", "0.2", "--assume-defaults", "--size", "32"]
    done = subprocess.run(
        [sys.executable, "-c", run, *arguments], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "published net version 1" in done.stdout
    assert "as the factory made them" in done.stderr


def test_module_at_hand_is_taken_as_it_is_and_takes_no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Conv2d(1, 1, 1)
    monkeypatch.setattr(module_nets, "READY", module, raising=False)
    assert make_module("module_nets:READY") is module
    with pytest.raises(BadInputError, match="takes no --args"):
        make_module("module_nets:READY", {"bias": False})


def test_baseline_of_a_module_is_said_to_be_missing(repo: Path, tmp_path: Path) -> None:
    from seg_bench.run.options import RunOptions
    from seg_bench.run.originals import find_checkpoints
    from seg_bench.run.subjects import Subject

    run_export("module", "module_nets:small", *RGB, "--repo", str(repo))
    subject = Subject("small", (Repository(repo).spec("small"),))
    with pytest.raises(BadInputError, match="no PyTorch baseline of small"):
        find_checkpoints(RunOptions(data=tmp_path, repo=repo, baseline=True), [subject], tmp_path)


def test_bands_are_resized_each_like_a_gray_image() -> None:
    image = noise(50, 70, 7)
    for size_hw in ((20, 30), (90, 100)):
        planes = [resize_image(np.ascontiguousarray(image[..., band]), size_hw) for band in range(7)]
        assert np.array_equal(resize_image(image, size_hw), np.dstack(planes))


def test_page_about_it_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bring-your-own.md").read_text(encoding="utf-8")
    page = page.partition("## An ONNX file")[0]
    nets, in_python = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    commands = "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ").splitlines()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "my_nets.py").write_text(nets)
    np.save("scene.npy", noise(200, 150, 5))
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "python":
            subprocess.run([sys.executable, *arguments], check=True)
            continue
        result = CliRunner().invoke({"seg-export": app, "seg-run": run_app}[program], arguments)
        assert result.exit_code == 0, result.output
    assert cv2.imread("masks/scene_mask.png", cv2.IMREAD_UNCHANGED).shape == (200, 150)
    exec(in_python, {})
    assert Repository("triton_repo").versions("fields") == (1, 2)
