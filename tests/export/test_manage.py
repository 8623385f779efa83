"""Listing, rolling back and removing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seg_export.publishing.manage import list_models, remove, rollback
from seg_export.publishing.publish import StagedModel, publish, publish_together
from seg_export.publishing.staging import staging_folder
from seg_runtime.errors import ModelNotFoundError, RepositoryError
from seg_runtime.repository import GRAPH_FILE, Repository
from seg_runtime.spec import EnsembleStep, ModelSpec, ServingSpec, TensorSpec


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
    assert [model.broken for model in (broken, cell, lung)] == [True, False, False]


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


def publish_trio(folder: Path, sha256: str = "", fail: bool = False) -> None:
    """`sam`, an ensemble of `sam_encoder` and `sam_decoder`; the last one cannot be written with `fail`."""
    tensor = TensorSpec("x", "float32", (1,))
    with staging_folder(folder) as staging:
        models = []
        for name in ("sam_encoder", "sam_decoder", "sam"):
            steps = tuple(EnsembleStep(model.spec.name, 1, {"x": "x"}, {"x": "x"}) for model in models)
            spec = ModelSpec(name, 1, "sam", "test", (tensor,), (tensor,), checkpoint_sha256=sha256)
            version = staging / name
            if not (fail and name == "sam"):
                version.mkdir()
            if name == "sam":
                spec = replace(spec, backend="ensemble", steps=steps)
            else:
                (version / GRAPH_FILE).write_bytes(b"graph")
            models.append(StagedModel(spec, ServingSpec(), version))
        publish_together(folder, models)


def served(repo: Path) -> dict[str, int]:
    return {name: Repository(repo).spec(name).version for name in Repository(repo).models()}


@pytest.fixture
def trio(tmp_path: Path) -> Path:
    """Two versions of three models, of two checkpoints."""
    folder = tmp_path / "repo"
    publish_trio(folder, "ab" * 32)
    publish_trio(folder, "cd" * 32)
    return folder


def test_an_ensemble_is_published_with_the_versions_of_its_models(trio: Path) -> None:
    assert served(trio) == {"sam": 2, "sam_decoder": 2, "sam_encoder": 2}
    steps = Repository(trio).spec("sam").steps
    assert [(step.model, step.version) for step in steps] == [("sam_encoder", 2), ("sam_decoder", 2)]
    assert [listing.problem for listing in list_models(trio)] == ["", "", ""]
    assert [listing.built for listing in list_models(trio)] == [True, True, True]


def test_models_that_are_published_together_share_a_number_whatever_is_on_disk(trio: Path) -> None:
    remove(trio, "sam")
    remove(trio, "sam_decoder")
    publish_trio(trio)
    assert served(trio) == {"sam": 3, "sam_decoder": 3, "sam_encoder": 3}
    assert Repository(trio).versions("sam") == (3,)


def test_nothing_is_served_anew_when_the_last_of_three_cannot_be_written(trio: Path) -> None:
    before = sorted(trio.rglob("*"))
    with pytest.raises(RepositoryError, match="cannot write to model repository"):
        publish_trio(trio, fail=True)
    assert sorted(trio.rglob("*")) == before
    assert served(trio) == {"sam": 2, "sam_decoder": 2, "sam_encoder": 2}
    assert sorted(entry.name for entry in trio.parent.iterdir()) == ["repo"]


def test_nothing_is_left_when_the_first_publication_of_three_fails(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError):
        publish_trio(tmp_path / "repo", fail=True)
    assert list(tmp_path.iterdir()) == []


def test_rolling_back_an_ensemble_takes_its_models_along(trio: Path) -> None:
    assert rollback(trio, "sam").version == 1
    assert served(trio) == {"sam": 1, "sam_decoder": 1, "sam_encoder": 1}
    assert {Repository(trio).spec(name).checkpoint_sha256 for name in served(trio)} == {"ab" * 32}
    assert [listing.problem for listing in list_models(trio)] == ["", "", ""]
    publish_trio(trio)
    assert served(trio) == {"sam": 3, "sam_decoder": 3, "sam_encoder": 3}


def test_an_ensemble_is_not_rolled_back_when_a_model_of_it_cannot_be(trio: Path) -> None:
    remove(trio, "sam_decoder", 1)
    with pytest.raises(RepositoryError, match="model 'sam_decoder' has no version 1; on disk: 2"):
        rollback(trio, "sam")
    assert served(trio) == {"sam": 2, "sam_decoder": 2, "sam_encoder": 2}


def test_a_step_of_an_ensemble_is_neither_rolled_back_nor_removed_alone(trio: Path) -> None:
    with pytest.raises(RepositoryError, match="'sam_encoder' is a step of ensemble 'sam': roll that back"):
        rollback(trio, "sam_encoder")
    with pytest.raises(RepositoryError, match="'sam_decoder' is a step of ensemble 'sam': remove that first"):
        remove(trio, "sam_decoder")
    assert served(trio) == {"sam": 2, "sam_decoder": 2, "sam_encoder": 2}
    for name in ("sam", "sam_decoder", "sam_encoder"):
        remove(trio, name)
    assert Repository(trio).models() == ()


def test_list_tells_that_a_model_of_an_ensemble_moved_on(trio: Path) -> None:
    (trio / "sam_decoder" / "config.pbtxt").write_bytes(
        (trio / "sam_decoder" / "1" / "config.pbtxt").read_bytes()
    )
    ensemble, decoder, encoder = list_models(trio)
    assert "made of version 2 of 'sam_decoder', and version 1 is served" in ensemble.problem
    assert decoder.problem == encoder.problem == ""
    rollback(trio, "sam", 2)
    assert [listing.problem for listing in list_models(trio)] == ["", "", ""]


def test_rollback_takes_along_the_other_ensembles_of_the_same_models(tmp_path: Path) -> None:
    """As a SAM2's, which all run its image encoder: none may be left with a version that is not served."""
    folder = tmp_path / "repo"
    tensor = TensorSpec("x", "float32", (1,))
    names = {"encoder": (), "memory": (), "prompt": ("encoder",), "remember": ("encoder", "memory")}
    for _ in range(2):
        with staging_folder(folder) as staging:
            models = []
            for name, parts in names.items():
                steps = tuple(EnsembleStep(part, 1, {"x": "x"}, {"x": "x"}) for part in parts)
                spec = ModelSpec(name, 1, "sam", "test", (tensor,), (tensor,), steps=steps)
                (staging / name).mkdir()
                if steps:
                    spec = replace(spec, backend="ensemble")
                else:
                    (staging / name / GRAPH_FILE).write_bytes(b"graph")
                models.append(StagedModel(spec, ServingSpec(), staging / name))
            publish_together(folder, models)
    assert rollback(folder, "prompt").version == 1
    assert served(folder) == dict.fromkeys(names, 1)
    assert [listing.problem for listing in list_models(folder)] == [""] * 4
    (folder / "remember" / "2" / "config.pbtxt").unlink()
    with pytest.raises(RepositoryError, match="version 2 of model 'remember' keeps no"):
        rollback(folder, "prompt", 2)
    assert served(folder) == dict.fromkeys(names, 1)
