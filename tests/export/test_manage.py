"""Listing, rolling back and removing."""

from __future__ import annotations

from pathlib import Path

import pytest

from seg_export.manage import list_models, remove, rollback
from seg_export.publish import GRAPH_FILE, publish
from seg_export.staging import staging_folder
from seg_runtime.errors import ModelNotFoundError, RepositoryError
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec, ServingSpec, TensorSpec


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Two models: `unet_lung` with versions 1 to 3, of which 3 is served, and `unet_cell` with one."""
    folder = tmp_path / "repo"
    for name in ("unet_lung", "unet_lung", "unet_cell", "unet_lung"):
        tensor = TensorSpec("x", "float32", (1,))
        spec = ModelSpec(name, 1, "semantic", "test", (tensor,), (tensor,), weights="random")
        with staging_folder(folder) as staging:
            version = staging / "version"
            version.mkdir()
            (version / GRAPH_FILE).write_bytes(b"graph")
            publish(folder, spec, ServingSpec(), version)
    return folder


def test_list_names_every_model_and_what_is_wrong_with_it(repo: Path) -> None:
    (repo / "broken").mkdir()
    (repo / "broken" / "config.pbtxt").write_text("platform: ")
    remove_graph = repo / "unet_cell" / "1" / GRAPH_FILE
    remove_graph.unlink()
    broken, cell, lung = list_models(repo)
    assert (broken.name, broken.spec, broken.versions) == ("broken", None, ())
    assert "cannot be parsed" in broken.problem
    assert cell.spec is not None and not cell.built and "version 1 is not built" in cell.problem
    assert lung.spec is not None and (lung.spec.version, lung.versions) == (3, (1, 2, 3))
    assert lung.built and lung.problem == "" and lung.size_bytes > 5


def test_rollback_goes_one_version_back_or_to_the_named_one(repo: Path) -> None:
    for to, expected in ((None, 2), (None, 1), (3, 3), (1, 1)):
        assert rollback(repo, "unet_lung", to).version == expected
        assert Repository(repo).spec("unet_lung").version == expected
    with pytest.raises(RepositoryError, match="has no version before 1, which is served"):
        rollback(repo, "unet_lung")
    assert Repository(repo).versions("unet_lung") == (1, 2, 3)


def test_rollback_after_which_a_new_version_gets_a_new_number(repo: Path) -> None:
    spec = rollback(repo, "unet_lung")
    with staging_folder(repo) as staging:
        (staging / "version").mkdir()
        (staging / "version" / GRAPH_FILE).write_bytes(b"graph")
        assert publish(repo, spec, ServingSpec(), staging / "version").spec.version == 4


def test_rollback_refuses_what_is_not_there_and_changes_nothing(repo: Path) -> None:
    before = (repo / "unet_lung" / "config.pbtxt").read_bytes()
    with pytest.raises(RepositoryError, match="has no version 7; on disk: 1, 2, 3"):
        rollback(repo, "unet_lung", 7)
    with pytest.raises(ModelNotFoundError, match="did you mean 'unet_lung'"):
        rollback(repo, "unet_lungs")
    (repo / "unet_lung" / "1" / "config.pbtxt").unlink()
    with pytest.raises(RepositoryError, match=r"version 1 of model 'unet_lung' keeps no config\.pbtxt"):
        rollback(repo, "unet_lung", 1)
    (repo / "unet_lung" / "2" / GRAPH_FILE).unlink()
    with pytest.raises(RepositoryError, match="is not a whole version 2"):
        rollback(repo, "unet_lung", 2)
    assert (repo / "unet_lung" / "config.pbtxt").read_bytes() == before


def test_missing_repository_is_not_created(tmp_path: Path) -> None:
    for call in (list_models, lambda repo: rollback(repo, "m"), lambda repo: remove(repo, "m")):
        with pytest.raises(RepositoryError, match="is not a folder"):
            call(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_remove_takes_a_version_or_the_whole_model(repo: Path) -> None:
    with pytest.raises(RepositoryError, match="version 3 of model 'unet_lung' is being served: roll back"):
        remove(repo, "unet_lung", 3)
    with pytest.raises(RepositoryError, match="has no version 9"):
        remove(repo, "unet_lung", 9)
    remove(repo, "unet_lung", 1)
    assert Repository(repo).versions("unet_lung") == (2, 3)
    remove(repo, "unet_lung")
    assert Repository(repo).models() == ("unet_cell",)
    assert sorted(entry.name for entry in repo.parent.iterdir()) == ["repo"]
