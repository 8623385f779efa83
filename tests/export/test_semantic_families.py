"""`seg-export unetpp` and `transunet`: published, recognised, verified, in half precision, refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch

from seg_export.checkpoints.checkpoint import load_checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import main
from seg_export.families import FAMILIES
from seg_export.families.semantic.transunet import VARIANTS
from seg_export.precision.kept import kept_nodes
from seg_runtime.repository import Repository

Run = Callable[..., tuple[int, str, str]]
NESTED = ["unetpp", "--random", "--features", "4,6,8", "--size", "32"]


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


def test_contracts_name_the_family_and_each_depths_own_parameters(tiny_families_repo: Path) -> None:
    repository = Repository(tiny_families_repo)
    whole, cut, transformer = (
        repository.spec(name) for name in ("unetpp_tiny", "unetpp_tiny_d1", "transunet_tiny")
    )
    assert (whole.family, cut.family, transformer.family) == ("unetpp", "unetpp", "transunet")
    assert cut.parameter_count < whole.parameter_count
    assert whole.checkpoint_sha256 != cut.checkpoint_sha256
    assert transformer.input_size_hw == (64, 64)
    assert all(spec.weights == "random" for spec in (whole, cut, transformer))


def test_pruned_depth_is_published_under_its_name_and_verified_at_that_depth(run: Run) -> None:
    code, out, _ = run(*NESTED, "--depth", "1", "--json")
    assert code == 0 and json.loads(out)["spec"]["name"] == "unetpp_d1"
    random = random_checkpoint("unetpp", {"in_channels": 1, "num_classes": 1, "features": [4, 6, 8]})
    torch.save(random.state_dict, "nested.pth")
    assert run("verify", "unetpp_d1", "--checkpoint", "nested.pth", "--depth", "1")[0] == 0
    assert run("verify", "unetpp_d1", "--checkpoint", "nested.pth")[0] == 3


def test_half_precision_keeps_the_stem_of_a_transunet_and_all_norms(tiny_families_repo: Path) -> None:
    graph = onnx.load(tiny_families_repo / "transunet_tiny" / "1" / "model.onnx")
    kept = kept_nodes(graph, FAMILIES["transunet"].kept["semantic"])
    kept_ops = [node.op_type for node in graph.graph.node if node.name in kept]
    # Root, three bottlenecks and their three projections are convolutions that lead to a norm.
    assert kept_ops.count("Conv") == 1 + 3 * 3 + 3
    assert {"InstanceNormalization", "LayerNormalization", "Softmax"} <= set(kept_ops)
    assert "MatMul" not in kept_ops


@pytest.mark.slow
@pytest.mark.parametrize("family", ["unetpp", "transunet"])
def test_shipped_weights_are_published_without_any_image(run: Run, tmp_path: Path, family: str) -> None:
    """On flat images two right computations of a TransUNet differ by more than anywhere else."""
    code, out, _ = run(family, "--pretrained", "lung")
    assert code == 0 and f"published {family}_lung version 1" in out
    assert (tmp_path / "triton_repo" / f"{family}_lung" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize("family", ["unetpp", "transunet"])
def test_plain_state_dicts_are_recognised_by_their_tensors(tmp_path: Path, family: str) -> None:
    arguments = {"unetpp": {"features": [4, 6]}, "transunet": {**VARIANTS["small"], "image_size": 96}}[family]
    random = random_checkpoint(family, arguments)
    torch.save(random.state_dict, tmp_path / "plain.pth")
    loaded = load_checkpoint(tmp_path / "plain.pth")
    assert loaded.family == family and loaded.class_names == ("foreground",)
    assert {**loaded.arguments, **arguments} == loaded.arguments
    assert loaded.preprocessing.input_size_hw == ((96, 96) if family == "transunet" else (512, 512))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unetpp"], "exactly one of --checkpoint FILE, --pretrained lung and --random"),
        (["transunet", "--random", "--pretrained", "lung"], "exactly one of"),
        (["unetpp", "--checkpoint", "trans.pth"], "is a transunet: export it with seg-export transunet"),
        ([*NESTED, "--depth", "3"], "depth 3: this U-Net++ has the depths 1 to 2"),
        (["unetpp", "--checkpoint", "shallow.pth", "--depth", "1"], "without deep supervision"),
        (["transunet", "--random", "--arch", "huge"], "--arch 'huge': there are r50_vit_b16 and small"),
        (["transunet", "--random", "--arch", "small", "--size", "100"], "multiple of 16"),
        (["verify", "unetpp", "--checkpoint", "trans.pth", "--depth", "1"], "a TransUNet cannot be pruned"),
        (["unetpp", "--pretrained", "liver"], "no packaged weights 'liver'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_changes_nothing(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    small = random_checkpoint("transunet", {**VARIANTS["small"], "image_size": 64, "layers": 1})
    torch.save(small.state_dict, tmp_path / "trans.pth")
    shallow = random_checkpoint("unetpp", {"features": [4, 6], "deep_supervision": False})
    torch.save(shallow.state_dict, tmp_path / "shallow.pth")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_transunet_of_another_size_than_its_positions_is_refused(tmp_path: Path) -> None:
    from seg_export.export import export_models
    from seg_runtime.errors import BadInputError

    weights = random_checkpoint("transunet", {**VARIANTS["small"], "image_size": 64})
    with pytest.raises(BadInputError, match="learned positions for 64x64 alone"):
        export_models(weights, tmp_path / "repo", size_hw=(96, 96))
    assert not (tmp_path / "repo" / "transunet").exists()
