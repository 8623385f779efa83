"""Ensembles in process: their steps in turn, and refusing steps that do not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_graph import images, invert_spec, publish_all, semantic_spec

from seg_runtime.ensemble import check_steps
from seg_runtime.errors import EdgesegError, ModelNotFoundError, RepositoryError
from seg_runtime.local_session import LocalSession
from seg_runtime.model_config import to_text
from seg_runtime.repository import Repository
from seg_runtime.session import Handle
from seg_runtime.spec import EnsembleStep, ModelSpec, TensorSpec


def ensemble_spec(**changes: object) -> ModelSpec:
    """`tiny`, then `invert` on what it makes; every tensor has another name than in the two models."""
    steps = (
        EnsembleStep("tiny", 1, {"image": "photo"}, {"probabilities": "between"}),
        EnsembleStep("invert", 1, {"probabilities": "between"}, {"inverted": "background"}),
    )
    values: dict[str, object] = {
        "inputs": (replace(semantic_spec().inputs[0], name="photo"),),
        "outputs": (TensorSpec("background", "float32", invert_spec().outputs[0].shape),),
        "backend": "ensemble",
        "steps": steps,
    }
    return semantic_spec("both", **(values | changes))


def add_ensemble(repo: Path, spec: ModelSpec) -> None:
    (repo / spec.name / str(spec.version)).mkdir(parents=True)
    (repo / spec.name / "config.pbtxt").write_text(to_text(spec))


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = publish_all(tmp_path_factory.mktemp("repo"))
    add_ensemble(folder, ensemble_spec())
    return folder


@pytest.fixture
def session(repo: Path):
    with LocalSession(repo, threads=1) as session:
        yield session


def test_an_ensemble_answers_what_its_models_answer_one_after_the_other(session: LocalSession) -> None:
    assert session.models() == ("both", "invert", "tiny", "tiny_dynamic")
    assert session.spec("both") == ensemble_spec()
    between = session.infer("tiny", {"image": images(3)})
    expected = session.infer("invert", between)["inverted"]
    answer = session.infer("both", {"photo": images(3)})
    assert answer.keys() == {"background"}
    np.testing.assert_array_equal(answer["background"], expected)


def test_what_passes_between_the_steps_stays_a_handle_and_is_freed(
    session: LocalSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Handle] = []
    infer = session.infer

    def watched(model: str, inputs: object, keep: object = ()) -> dict[str, object]:
        answer = infer(model, inputs, keep)
        made.extend(value for value in answer.values() if isinstance(value, Handle))
        return answer

    monkeypatch.setattr(session, "infer", watched)
    answer = session.infer("both", {"photo": images(1)}, keep=["background"])
    assert [handle.output for handle in made] == ["probabilities", "inverted", "inverted"]
    assert [handle.released for handle in made] == [True, False, False]
    expected = infer("both", {"photo": images(1)})["background"]
    np.testing.assert_array_equal(answer["background"].numpy(), expected)


def served(**changes: object):
    """Contracts by name, with `tiny` changed."""
    specs = {"tiny": replace(semantic_spec(), **changes), "invert": invert_spec()}
    return specs.__getitem__


def test_steps_of_another_version_or_checkpoint_are_refused() -> None:
    check_steps(ensemble_spec(), served())
    with pytest.raises(
        RepositoryError,
        match=r"made of version 1 of 'tiny', and version 2 is served: run .*rollback both --to 1",
    ):
        check_steps(ensemble_spec(), served(version=2))
    with pytest.raises(RepositoryError, match=r"of checkpoint abab.*'tiny' of checkpoint cdcd.*'both' again"):
        check_steps(ensemble_spec(), served(checkpoint_sha256="cd" * 32))
    steps = tuple(replace(step, version=-1) for step in ensemble_spec().steps)
    check_steps(ensemble_spec(steps=steps), served(version=2))


def test_a_session_refuses_an_ensemble_whose_model_moved_on_or_is_gone(tmp_path: Path) -> None:
    publish_all(tmp_path)
    add_ensemble(tmp_path, ensemble_spec())
    config = tmp_path / "invert" / "config.pbtxt"
    (tmp_path / "invert" / "1").rename(tmp_path / "invert" / "2")
    config.write_text(to_text(replace(invert_spec(), version=2)))
    expected: list[tuple[type[EdgesegError], str]] = [(RepositoryError, "version 2 is served")]
    for error, message in [*expected, (ModelNotFoundError, "no model 'invert'")]:
        with LocalSession(tmp_path) as session, pytest.raises(error, match=message):
            session.infer("both", {"photo": images(1)})
        config.unlink(missing_ok=True)


def test_an_ensemble_has_no_graph_and_says_what_it_is(repo: Path) -> None:
    with pytest.raises(RepositoryError, match="ensemble of 'tiny' and 'invert': it has no graph of its own"):
        Repository(repo).graph_path("both")
