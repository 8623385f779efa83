"""Reading a model repository from disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg_runtime.errors import ModelNotFoundError, RepositoryError
from seg_runtime.model_config import to_text
from seg_runtime.repository import Repository, model_not_found
from seg_runtime.spec import ModelSpec, TensorSpec


def add_model(repo: Path, name: str, version: int, *, built: bool = True) -> ModelSpec:
    tensor = TensorSpec("x", "float32", (1,))
    spec = ModelSpec(name, version, "semantic", "test", (tensor,), (tensor,))
    (repo / name).mkdir(exist_ok=True)
    (repo / name / "config.pbtxt").write_text(to_text(spec))
    if built:
        (repo / name / str(version)).mkdir()
        (repo / name / str(version) / "model.onnx").write_bytes(b"graph")
    return spec


def test_models_are_folders_with_a_configuration(tmp_path: Path) -> None:
    add_model(tmp_path, "unet_lung", 1)
    add_model(tmp_path, "unet_cell", 1, built=False)
    (tmp_path / "no_model").mkdir()
    (tmp_path / "file.txt").write_text("")
    (tmp_path / ".staging").mkdir()
    (tmp_path / ".staging" / "config.pbtxt").write_text("")
    assert Repository(tmp_path).models() == ("unet_cell", "unet_lung")


def test_versions_are_the_numbered_folders_in_numeric_order(tmp_path: Path) -> None:
    for version in (10, 9, 1):
        add_model(tmp_path, "m", version)
    (tmp_path / "m" / "backup").mkdir()
    (tmp_path / "m" / "11").write_text("a file is no version")
    assert Repository(tmp_path).versions("m") == (1, 9, 10)


def test_served_version_is_the_one_that_the_configuration_names(tmp_path: Path) -> None:
    add_model(tmp_path, "m", 2)
    spec = add_model(tmp_path, "m", 1)
    assert Repository(tmp_path).spec("m") == spec
    assert Repository(str(tmp_path)).graph_path("m") == tmp_path / "m" / "1" / "model.onnx"


def test_missing_repository_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(RepositoryError, match="is not a folder: publish a model with seg-export"):
            Repository(path)


def test_unknown_model_names_the_nearest_or_all(tmp_path: Path) -> None:
    add_model(tmp_path, "unet_lung", 1)
    repository = Repository(tmp_path)
    for call in (repository.spec, repository.versions, repository.graph_path):
        with pytest.raises(ModelNotFoundError, match=r"no model 'unet_lungs' .*did you mean 'unet_lung'\?"):
            call("unet_lungs")
    with pytest.raises(ModelNotFoundError, match="there are: unet_lung"):
        repository.spec("xyz")
    assert "no models at all" in str(model_not_found("x", (), "here"))


def test_model_that_was_never_built_says_so(tmp_path: Path) -> None:
    add_model(tmp_path, "m", 4, built=False)
    with pytest.raises(RepositoryError, match="version 4 of model 'm' is not built"):
        Repository(tmp_path).graph_path("m")


@pytest.mark.parametrize("contents", [b"name: {", b"\xff\xfe\x00", b'name: "m"'])
def test_unusable_configuration_names_its_file(tmp_path: Path, contents: bytes) -> None:
    add_model(tmp_path, "m", 1)
    (tmp_path / "m" / "config.pbtxt").write_bytes(contents)
    with pytest.raises(RepositoryError, match=r"config\.pbtxt"):
        Repository(tmp_path).spec("m")


def test_folder_that_was_renamed_by_hand_is_refused(tmp_path: Path) -> None:
    add_model(tmp_path, "m", 1)
    (tmp_path / "m").rename(tmp_path / "n")
    with pytest.raises(RepositoryError, match="is named 'm' but its folder is 'n': rename one of them"):
        Repository(tmp_path).spec("n")
