"""Files as trainers of all kinds write them: the weights in them load as those of a plain state dict."""

from __future__ import annotations

import argparse
import collections
import datetime
import hashlib
import json
import pathlib
import random
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from foreign_files import FAMILIES, assert_short, family_weights, stand_in
from sam2_small import ARGUMENTS as SMALL_SAM2
from typer.testing import CliRunner

from seg_export.checkpoints.checkpoint import build_model, load_checkpoint, write_checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import app
from seg_export.families.maskrcnn.checkpoints import load_maskrcnn_checkpoint
from seg_export.families.sam2.checkpoints import load_sam2_checkpoint
from seg_runtime.errors import CheckpointError, EdgesegError

pytestmark = pytest.mark.full

Tensors = dict[str, torch.Tensor]


def prefixed(weights: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def optimiser(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The state of an Adam that has taken a step."""
    state = {
        index: {"step": torch.tensor(1.0), "exp_avg": tensor, "exp_avg_sq": tensor}
        for index, tensor in enumerate(weights.values())
    }
    return {"state": state, "param_groups": [{"lr": 1e-3, "params": list(state)}]}


def lightning(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {
        "epoch": 9,
        "global_step": 400,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**prefixed(weights, "model."), "criterion.weight": torch.ones(4)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [optimiser(weights)],
        "lr_schedulers": [{"_step_count": 2}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "args": argparse.Namespace(layers=(1, 2))},
    }


def nnunet(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {
        "network_weights": dict(weights),
        "optimizer_state": optimiser(weights),
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0},
        "logging": {"mean_fg_dice": [0.5, np.float64(0.75)]},
        "_best_ema": np.float32(0.7),
        "current_epoch": 1000,
        "init_args": {"plans": {"patch_size": [512, 512]}, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }


def deepspeed(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    return {"module": dict(weights), "param_shapes": [shapes], "optimizer": None, "buffer_names": []}


def swa(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """As torch.optim.swa_utils.AveragedModel."""
    return {"n_averaged": torch.tensor(3), **prefixed(weights, "module.")}


def torch_ema(weights: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """As torch_ema.ExponentialMovingAverage.state_dict: parameters in their order, other than the trained."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    shadow = [0.5 * tensor for name, tensor in weights.items() if not name.endswith(buffers)]
    return {"decay": 0.995, "num_updates": 7, "shadow_params": shadow, "collected_params": None}


def next_to(value: Any) -> Callable[[Tensors], dict[str, Any]]:
    return lambda weights: {"model": weights, "extra": value}


def compiled_part(weights: Tensors) -> Tensors:
    """One child was compiled: its wrapper is in the middle of the names."""
    child = next(iter(weights)).partition(".")[0]
    return {
        name.replace(f"{child}.", f"{child}._orig_mod.", 1) if name.startswith(f"{child}.") else name: tensor
        for name, tensor in weights.items()
    }


CONTAINERS: dict[str, tuple[Callable[[Tensors], Any], tuple[str, ...]]] = {
    "plain": (dict, ()),
    "ordered": (collections.OrderedDict, ()),
    "parameters": (
        lambda w: {
            name: torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor
            for name, tensor in w.items()
        },
        (),
    ),
    "half": (lambda w: {n: t.half().float() if t.is_floating_point() else t for n, t in w.items()}, ()),
    **{
        name: (lambda w, name=name: {name: w, "epoch": 3}, (f"unwrapped '{name}'", "left out epoch"))
        for name in (
            "state_dict",
            "model",
            "model_state_dict",
            "net",
            "network_weights",
            "ema",
            "ema_state_dict",
            "model_ema",
            "params",
            "weights",
            "student",
        )
    },
    "nested": (lambda w: {"checkpoint": {"model": {"state_dict": w}}}, ("'checkpoint.model.state_dict'",)),
    "in a list": (lambda w: {"models": [w]}, ("unwrapped 'models.0'",)),
    "in a tuple": (lambda w: (w, optimiser(w)), ("unwrapped '0'",)),
    **{
        f"prefix {prefix}": (
            lambda w, prefix=prefix: prefixed(w, prefix),
            (f"stripped the prefix '{prefix}' of ",),
        )
        for prefix in (
            "module.",
            "_orig_mod.",
            "model.",
            "net.",
            "sam.",
            "backbone.unet.",
            "module._orig_mod.",
        )
    },
    "prefix in front of a wrapper": (
        lambda w: prefixed(w, "model._orig_mod."),
        ("stripped the prefix '_orig_mod.'", "stripped the prefix 'model.'"),
    ),
    "wrapper within": (compiled_part, ("stripped the prefix '_orig_mod.'",)),
    "container and prefix": (
        lambda w: {"model": prefixed(w, "module."), "optimizer": optimiser(w), "best": 0.5},
        ("unwrapped 'model'", "stripped the prefix 'module.'", "left out optimizer, best"),
    ),
    "lightning": (lightning, ("unwrapped 'state_dict'", "left out 1 tensor: criterion.weight")),
    "nnU-Net": (nnunet, ("unwrapped 'network_weights'",)),
    "deepspeed": (deepspeed, ("unwrapped 'module'",)),
    "averaged": (swa, ("stripped the prefix 'module.'",)),
    "loss next to": (
        lambda w: {**w, "criterion.dice.weight": torch.ones(3, 3), "loss_fn.pos_weight": torch.ones(1)},
        ("left out 2 tensors: criterion.dice.weight, loss_fn.pos_weight",),
    ),
    "thop": (
        lambda w: {**w, "total_ops": torch.zeros(1), f"{next(iter(w))[:3]}.total_params": torch.zeros(1)},
        ("left out 2 tensors: total_ops",),
    ),
    "scalars within": (
        lambda w: {**w, "mask_values": [0, 255], "epoch": 3},
        ("left out mask_values, epoch",),
    ),
    "statistics": (
        lambda w: {**prefixed(w, "model."), "mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)},
        ("left out 2 tensors: mean, std",),
    ),
    "confusion matrix": (
        lambda w: {"model": w, "confusion": torch.zeros(3, 3), "rng": torch.zeros(9, dtype=torch.uint8)},
        ("unwrapped 'model'", "left out confusion, rng"),
    ),
    "another format": (lambda w: {"format": "pt", "version": 2, "weights": w}, ("unwrapped 'weights'",)),
    "own optimiser": (lambda w: {"model": w, "adam": optimiser(w)}, ("unwrapped 'model'",)),
    "namespace": (next_to(argparse.Namespace(lr=0.1, out=pathlib.Path("out"))), ("unwrapped 'model'",)),
    "simple namespace": (next_to(SimpleNamespace(a=[1])), ("unwrapped 'model'",)),
    "numpy": (
        next_to([np.float64(0.5), np.int32(3), np.bool_(True), np.zeros((2, 3)), np.dtype("float32")]),
        ("unwrapped 'model'",),
    ),
    "random state": (next_to(np.random.default_rng(0).bit_generator.state), ("unwrapped 'model'",)),
    "default dict": (next_to(collections.defaultdict(list, {"loss": [0.1]})), ("unwrapped 'model'",)),
    "date": (next_to([datetime.datetime(2026, 1, 2), datetime.timedelta(1)]), ("unwrapped 'model'",)),
    "path": (next_to(pathlib.PurePosixPath("/data")), ("unwrapped 'model'",)),
    "torch version": (next_to(torch.__version__), ("unwrapped 'model'",)),
    "torch_ema": (
        lambda w: {"net": w, "ema": torch_ema(w)},
        ("unwrapped 'net'", "left out 'ema.shadow_params': 20 tensors without names"),
    ),
    "list of averages": (
        lambda w: {**w, "ema": torch_ema(w)["shadow_params"]},
        ("left out 'ema': 20 tensors without names",),
    ),
    "frozen set": (next_to(frozenset({1})), ("unwrapped 'model'",)),
}
"""What makes a document of weights, and what the steps say."""


CASES = [(container, "unet") for container in CONTAINERS] + [
    (container, family)
    for container in (
        "plain",
        "nested",
        "prefix module._orig_mod.",
        "container and prefix",
        "lightning",
        "thop",
    )
    for family in FAMILIES
    if family != "unet"
]


@pytest.mark.parametrize(("container", "family"), CASES)
def test_weights_in_a_container_are_those_of_the_plain_file(
    tmp_path: Path, container: str, family: str
) -> None:
    weights = family_weights(family)
    build, steps = CONTAINERS[container]
    path = tmp_path / "file.pth"
    torch.save(build(weights), path)
    loaded = load_checkpoint(path)
    assert loaded.family == family
    plain = plain_checkpoint(family, tmp_path)
    assert loaded.arguments == plain.arguments
    assert loaded.state_dict.keys() == plain.state_dict.keys()
    for name, tensor in plain.state_dict.items():
        torch.testing.assert_close(
            loaded.state_dict[name],
            tensor,
            rtol=1e-3 * (container == "half"),
            atol=1e-4 * (container == "half"),
        )
        assert not loaded.state_dict[name].requires_grad
    for step in steps:
        assert step in "\n".join(loaded.steps)
    assert steps or not loaded.steps
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def plain_checkpoint(family: str, folder: Path) -> Any:
    path = folder / "plain.pth"
    torch.save(family_weights(family), path)
    return load_checkpoint(path)


def test_file_of_the_original_unet_repository_becomes_our_unet(tmp_path: Path) -> None:
    weights = family_weights("unet")
    milesial = {
        name.replace("out.", "outc.conv.", 1) if name.startswith("out.") else name: tensor
        for name, tensor in weights.items()
    }
    torch.save({**milesial, "mask_values": [0, 255]}, tmp_path / "checkpoint_epoch5.pth")
    loaded = load_checkpoint(tmp_path / "checkpoint_epoch5.pth")
    assert loaded.steps == ("left out mask_values", "renamed 'outc.conv.' to 'out.'")
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in weights.items())
    build_model(loaded)


@pytest.mark.parametrize("family", ["unet", "unetpp"])
def test_counters_of_batches_may_be_missing(tmp_path: Path, family: str) -> None:
    weights = {
        name: tensor for name, tensor in family_weights(family).items() if "num_batches_tracked" not in name
    }
    torch.save(weights, tmp_path / "old.pth")
    network = build_model(load_checkpoint(tmp_path / "old.pth"))
    assert any(name.endswith("num_batches_tracked") for name in network.state_dict())


@pytest.mark.parametrize("module", ["pytorch_lightning.utilities.parsing", "lightning.fabric.utilities.data"])
def test_settings_of_lightning_are_read_without_lightning(tmp_path: Path, module: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        settings = stand_in(patch, module, "AttributeDict")(lr=0.1)
        document = {"state_dict": family_weights("unet"), "hyper_parameters": settings}
        torch.save(document, tmp_path / "last.ckpt")
    assert load_checkpoint(tmp_path / "last.ckpt").family == "unet"


def test_official_container_of_sam2_is_unwrapped(tmp_path: Path) -> None:
    weights = random_checkpoint("sam2", SMALL_SAM2).state_dict
    torch.save({"model": prefixed(weights, "module.")}, tmp_path / "sam2.pt")
    loaded = load_sam2_checkpoint(tmp_path / "sam2.pt", SMALL_SAM2)
    assert loaded.steps[0] == "unwrapped 'model'" and loaded.steps[1].startswith(
        "stripped the prefix 'module.'"
    )
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in weights.items())


BOTH: dict[str, tuple[Callable[[Tensors, Tensors], Any], dict[str, int]]] = {
    "model and ema": (lambda a, b: {"model": a, "ema": b}, {"raw": 0, "ema": 1, "model": 0}),
    "state_dict_ema": (lambda a, b: {"state_dict": a, "state_dict_ema": b}, {"raw": 0, "ema": 1}),
    "nested ema": (
        lambda a, b: {"model": a, "ema": {"module": b, "decay": 0.99}},
        {"raw": 0, "ema": 1, "ema.module": 1},
    ),
    "shadow": (lambda a, b: {"net": a, "averager": {"shadow": b}}, {"raw": 0, "ema": 1, "shadow": 1}),
    "root and ema": (lambda a, b: {**a, "ema": b}, {"raw": 0, "ema": 1}),
    "teacher and student": (lambda a, b: {"student": a, "teacher": b}, {"student": 0, "teacher": 1}),
    "folds": (lambda a, b: [a, b], {"0": 0, "1": 1}),
    "generator and another network": (
        lambda a, b: {"generator": a, "discriminator": {"conv.weight": torch.ones(2, 2)}},
        {"generator": 0},
    ),
    "prefixes in one": (
        lambda a, b: {"state_dict": {**prefixed(a, "model."), **prefixed(b, "ema_model.")}},
        {"raw": 0, "ema": 1, "model": 0, "ema_model": 1},
    ),
    "students in one": (
        lambda a, b: {**prefixed(a, "student."), **prefixed(b, "teacher.")},
        {"student": 0, "teacher": 1},
    ),
    "another part": (
        lambda a, b: {**prefixed(a, "coarse."), "refine.conv.weight": torch.ones(4, 4, 3, 3)},
        {"coarse": 0},
    ),
}
"""Files with two sets of weights, and which of them each value of `--weights` is."""


@pytest.mark.parametrize("container", BOTH)
def test_several_sets_of_weights_are_asked_about_and_chosen(tmp_path: Path, container: str) -> None:
    build, choices = BOTH[container]
    sets = [family_weights("unet"), random_checkpoint("unet", {"features": [4, 8]}, 7).state_dict]
    path = tmp_path / "both.pth"
    torch.save(build(*map(dict, sets)), path)
    with pytest.raises(CheckpointError, match="--weights ") as error:
        load_checkpoint(path)
    assert_short(error.value, path)
    for name, index in choices.items():
        loaded = load_checkpoint(path, name)
        assert all(torch.equal(loaded.state_dict[each], tensor) for each, tensor in sets[index].items())
    with pytest.raises(CheckpointError, match=r"no weights 'nothing'|--weights ") as error:
        load_checkpoint(path, "nothing")
    assert_short(error.value, path)


@pytest.mark.parametrize("document", [dict, lambda w: {"model": w}, lambda w: prefixed(w, "module.")])
def test_choice_without_effect_is_refused(tmp_path: Path, document: Callable[[Tensors], Any]) -> None:
    torch.save(document(family_weights("unet")), tmp_path / "one.pth")
    with pytest.raises(CheckpointError, match="--weights ema has no effect") as error:
        load_checkpoint(tmp_path / "one.pth", "ema")
    assert_short(error.value, tmp_path / "one.pth")


@pytest.mark.parametrize(
    ("document", "wanted", "where"),
    [
        (lambda w: {"net": w, "ema": torch_ema(w)}, "ema", " in 'ema.shadow_params'"),
        (lambda w: {"net": w, "ema": torch_ema(w)}, "shadow_params", " in 'ema.shadow_params'"),
        (lambda w: {"ema": torch_ema(w)}, None, " in 'ema.shadow_params'"),
        (torch_ema, None, " in 'shadow_params'"),
        (lambda w: torch_ema(w)["shadow_params"], None, ""),
        (lambda w: dict(enumerate(torch_ema(w)["shadow_params"])), None, ""),
    ],
)
def test_averages_without_names_are_never_taken(
    tmp_path: Path, document: Callable[[Tensors], Any], wanted: str | None, where: str
) -> None:
    torch.save(document(family_weights("unet")), tmp_path / "one.pth")
    expected = f"holds 20 tensors{where} without the names of their layers"
    with pytest.raises(CheckpointError, match=expected) as error:
        load_checkpoint(tmp_path / "one.pth", wanted)
    assert_short(error.value, tmp_path / "one.pth")


def test_choice_without_effect_on_a_checkpoint_of_edgeseg_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "ours.pth", random_checkpoint("unet", {"features": [4, 8]}))
    with pytest.raises(CheckpointError, match="--weights raw has no effect"):
        load_checkpoint(tmp_path / "ours.pth", "raw")


@pytest.mark.parametrize("family", ["sam", "maskrcnn"])
def test_families_loaders_choose_too(tmp_path: Path, family: str) -> None:
    from seg_export.families.sam.checkpoints import load_sam_checkpoint

    weights = family_weights(family)
    torch.save(
        {"model": weights, "ema": {name: tensor * 1 for name, tensor in weights.items()}}, tmp_path / "f"
    )
    if family == "sam":
        assert load_sam_checkpoint(tmp_path / "f", None, "ema").steps[0] == "unwrapped 'ema'"
    else:
        assert load_maskrcnn_checkpoint(tmp_path / "f", weights="ema").steps[0] == "unwrapped 'ema'"


def test_commands_take_the_choice_and_say_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = family_weights("unet")
    torch.save({"net": prefixed(weights, "module."), "ema": {**weights}, "epoch": 3}, "both.pth")
    asked = CliRunner().invoke(app, ["unet", "--checkpoint", "both.pth", "--size", "32"])
    assert isinstance(asked.exception, EdgesegError) and not Path("triton_repo").exists()
    call = ["--checkpoint", "both.pth", "--weights", "raw"]
    exported = CliRunner().invoke(app, ["unet", *call, "--size", "32", "--assume-defaults", "--json"])
    assert exported.exit_code == 0, exported.output
    assert f"checkpoint: stripped the prefix 'module.' of {len(weights)} tensors" in exported.stderr
    steps = json.loads(exported.stdout)["steps"]
    assert steps[:2] == ["unwrapped 'net'", "left out ema, epoch"]
    verified = CliRunner().invoke(app, ["verify", "unet", *call, "--json"])
    assert verified.exit_code == 0 and json.loads(verified.stdout)["steps"] == steps
    assert "checkpoint: unwrapped 'net'" in verified.stderr


@cache
def _small() -> Tensors:
    return dict(random_checkpoint("unet", {"features": [4, 8]}, 3).state_dict)


def _wrapped(value: Any, chance: random.Random) -> Any:
    """A value in a mapping or list, next to what trainers leave there."""
    clutter: dict[str, Any] = {
        "epoch": chance.randrange(99),
        "optimizer": optimiser(_small()),
        "best": torch.tensor(0.5),
        "args": argparse.Namespace(lr=1.0),
        "scores": np.ones(3),
        "history": [{"dice": np.float32(0.5)}],
        "rng_state": torch.zeros(8, dtype=torch.uint8),
        "notes": "text",
        "nothing": None,
    }
    near = {name: clutter[name] for name in chance.sample(sorted(clutter), chance.randrange(5))}
    name = chance.choice(["model", "state_dict", "net", "ema", "a", "generator", "0", "checkpoint", "x.y"])
    items = [*near.items(), (name, value)]
    chance.shuffle(items)
    return dict(items) if chance.random() < 0.8 else [each for _, each in items]


@pytest.mark.parametrize("seed", range(40))
def test_random_nestings_and_prefixes_lead_to_the_same_weights(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    weights = _small()
    parts = ["module.", "_orig_mod.", "model.", "net.", "a.b.", "encoder.", "inc.", "unet."]
    prefix = "".join(chance.choice(parts) for _ in range(chance.randrange(4)))
    document: Any = prefixed(weights, prefix)
    if chance.random() < 0.5:
        document["criterion.weight"] = torch.ones(3)
    for _ in range(chance.randrange(5)):
        document = _wrapped(document, chance)
    path = tmp_path / "random.pth"
    torch.save(document, path, _use_new_zipfile_serialization=chance.random() < 0.7)
    loaded = load_checkpoint(path)
    assert loaded.family == "unet" and loaded.state_dict.keys() == weights.keys()
    assert all(torch.equal(loaded.state_dict[name], tensor) for name, tensor in weights.items())
    with pytest.raises(CheckpointError, match="has no effect"):
        load_checkpoint(path, "no such name")
