"""A repository is checked before a server sees it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from scaling_model import publish_scaling_model, scaling_spec

from seg_runtime.errors import ModelNotFoundError, RepositoryError
from seg_runtime.model_config import to_text
from seg_runtime.repository import Repository
from seg_runtime.server.check import check_repository, require_servable
from seg_runtime.spec import EnsembleStep, ServingSpec


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    publish_scaling_model(tmp_path, "good", graph=b"graph")
    return tmp_path


def test_complete_models_are_servable_and_a_fresh_checkout_is_only_not_built(repo: Path) -> None:
    (repo / "fresh").mkdir()
    (repo / "fresh" / "config.pbtxt").write_text(to_text(scaling_spec("fresh")))
    found = require_servable(repo)
    assert found.servable == ("good",)
    assert found.not_built == ("fresh",)
    with pytest.raises(RepositoryError, match="model 'fresh' is not built: publish it with seg-export"):
        require_servable(repo, ["fresh"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "1" / "model.onnx").unlink(), "version 1 has no model.onnx"),
        (lambda folder: (folder / "1" / "model.onnx").write_bytes(b""), "version 1 has an empty model.onnx"),
        (lambda folder: (folder / "1").rename(folder / "2"), "version 1 is served but its folder is missing"),
        (lambda folder: (folder / "config.pbtxt").write_text("max_batch_size: {"), "cannot be parsed"),
        (lambda folder: (folder / "config.pbtxt").write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda folder: (folder / "config.pbtxt").write_text('name: "other"'), "names it 'other'"),
    ],
)
def test_a_broken_model_is_refused_in_one_line_that_names_it(repo: Path, damage, message: str) -> None:
    publish_scaling_model(repo, "bad", graph=b"graph")
    damage(repo / "bad")
    with pytest.raises(RepositoryError, match=message) as error:
        require_servable(repo)
    assert "model 'bad'" in str(error.value)
    assert check_repository(repo).servable == ("good",)
    assert require_servable(repo, ["good"]).servable == ("good",)


def test_every_problem_is_counted(repo: Path) -> None:
    for name in ("bad", "worse"):
        publish_scaling_model(repo, name, graph=b"")
    with pytest.raises(RepositoryError, match=r"model 'bad': .* \(and 1 more\)"):
        require_servable(repo)
    assert len(check_repository(repo).problems) == 2


def test_an_unknown_model_brings_the_nearest_name(repo: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model 'goood'.*did you mean 'good'"):
        require_servable(repo, ["goood"])


def test_an_empty_repository_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="has no model to serve: publish one with seg-export"):
        require_servable(tmp_path)
    with pytest.raises(RepositoryError, match="is not a folder"):
        require_servable(tmp_path / "nowhere")


def test_the_highest_version_counts_when_the_policy_is_left_out(repo: Path) -> None:
    config = repo / "good" / "config.pbtxt"
    config.write_text('name: "good" backend: "onnxruntime"')
    (repo / "good" / "3").mkdir()
    with pytest.raises(RepositoryError, match=r"version 3 has no model\.onnx"):
        require_servable(repo)


def test_a_tensorrt_model_needs_its_engine(repo: Path) -> None:
    config = repo / "good" / "config.pbtxt"
    config.write_text(config.read_text().replace("onnxruntime", "tensorrt"))
    with pytest.raises(RepositoryError, match=r"version 1 has no model\.plan"):
        require_servable(repo)


def add_ensemble(repo: Path, version: int = 1, **changes: object) -> None:
    """`both`, which runs a version of `good`."""
    step = EnsembleStep("good", version, {"image": "image"}, {"probabilities": "probabilities"})
    spec = replace(scaling_spec("both"), backend="ensemble", steps=(step,), **changes)
    (repo / "both" / "1").mkdir(parents=True)
    (repo / "both" / "config.pbtxt").write_text(to_text(spec))


def test_an_ensemble_is_servable_with_the_models_it_is_made_of(repo: Path) -> None:
    add_ensemble(repo)
    assert require_servable(repo).servable == ("both", "good")
    assert require_servable(repo, ["both"]).servable == ("both",)


def test_an_ensemble_that_would_run_another_version_is_refused_in_one_line(repo: Path) -> None:
    add_ensemble(repo, version=2)
    message = "model 'both': ensemble 'both' is made of version 2 of 'good', and version 1 is served"
    with pytest.raises(RepositoryError, match=message) as error:
        require_servable(repo)
    assert "\n" not in str(error.value)
    assert require_servable(repo, ["good"]).servable == ("good",)


def test_an_ensemble_that_would_mix_checkpoints_is_refused_in_one_line(repo: Path) -> None:
    spec = replace(Repository(repo).spec("good"), checkpoint_sha256="cd" * 32)
    (repo / "good" / "config.pbtxt").write_text(to_text(spec))
    add_ensemble(repo, checkpoint_sha256="ab" * 32)
    with pytest.raises(RepositoryError, match=r"of checkpoint abab.* and 'good' of checkpoint cdcd") as error:
        require_servable(repo)
    assert "\n" not in str(error.value)


def test_an_ensemble_is_refused_for_a_model_that_is_broken_unbuilt_or_gone(repo: Path) -> None:
    add_ensemble(repo)
    graph = repo / "good" / "1" / "model.onnx"
    graph.write_bytes(b"")
    with pytest.raises(RepositoryError, match=r"'both': step 'good': version 1 has an empty model\.onnx"):
        require_servable(repo, ["both"])
    shutil.rmtree(graph.parent)
    with pytest.raises(RepositoryError, match="'both': step 'good': it is not built"):
        require_servable(repo, ["both"])
    (repo / "good" / "config.pbtxt").unlink()
    with pytest.raises(RepositoryError, match="'both': no model 'good'"):
        require_servable(repo, ["both"])


def test_an_ensemble_made_by_hand_needs_no_contract(repo: Path) -> None:
    add_ensemble(repo)
    config = repo / "both" / "config.pbtxt"
    step = 'step { model_name: "good" model_version: -1 }'
    config.write_text(f'name: "both" platform: "ensemble" ensemble_scheduling {{ {step} }}')
    assert require_servable(repo).servable == ("both", "good")


def test_models_that_ask_for_a_cache_are_noticed_also_behind_an_ensemble(repo: Path) -> None:
    publish_scaling_model(repo, "cached", graph=b"graph", serving=ServingSpec(response_cache=True))
    add_ensemble(repo)
    assert check_repository(repo).response_cache
    assert not check_repository(repo, ["good"]).response_cache
    assert not check_repository(repo, ["both"]).response_cache
    (repo / "good" / "config.pbtxt").write_text(
        to_text(scaling_spec("good"), ServingSpec(response_cache=True))
    )
    assert check_repository(repo, ["both"]).response_cache
