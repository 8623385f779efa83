"""A repository is checked before a server sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scaling_model import publish_scaling_model, scaling_spec

from seg_runtime.errors import ModelNotFoundError, RepositoryError
from seg_runtime.model_config import to_text
from seg_runtime.server.check import check_repository, require_servable


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
