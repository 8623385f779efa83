"""Publishing that is killed at random moments: what is served is the old state or the new one, and whole."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
from onnx import TensorProto, helper

from microbench.forked import Ended
from microbench.workplace import FileOutcome, Workplace, outcome_of
from seg_export.publishing.publish import StagedModel, publish_together
from seg_export.publishing.staging import staging_folder
from seg_runtime.connection import connect
from seg_runtime.ensemble import check_steps
from seg_runtime.errors import EdgesegError
from seg_runtime.repository import GRAPH_FILE, Repository
from seg_runtime.spec import EnsembleStep, ModelSpec, ServingSpec, TensorSpec

__all__ = ["PUBLISHERS", "try_kills"]

_SPEC = ModelSpec(
    name="first",
    version=1,
    task="semantic",
    family="test",
    inputs=(TensorSpec("x", "float32", (1,)),),
    outputs=(TensorSpec("y", "float32", (1,)),),
    max_batch_size=1,
    weights="random",
)


def _publish_one(repo: Path, value: int) -> None:
    with staging_folder(repo) as staging:
        publish_together(repo, [_staged(staging, "first", value)])


def _publish_ensemble(repo: Path, value: int) -> None:
    """Two models and an ensemble that runs one after the other."""
    with staging_folder(repo) as staging:
        models = [_staged(staging, name, value) for name in ("first", "second")]
        steps = tuple(EnsembleStep(model.spec.name, 1, {"x": "x"}, {"y": "x"}) for model in models)
        (staging / "both").mkdir()
        both = replace(_SPEC, name="both", backend="ensemble", steps=steps)
        publish_together(repo, [*models, StagedModel(both, ServingSpec(), staging / "both")])


def _staged(staging: Path, name: str, value: int) -> StagedModel:
    """A graph that adds a value; the contract has it too, as the name of its class."""
    tensors = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n", 1]) for each in "xy"]
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [float(value)])
    node = helper.make_node("Add", ["x", "c"], ["y"])
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (staging / name).mkdir()
    (staging / name / GRAPH_FILE).write_bytes(model.SerializeToString())
    return StagedModel(replace(_SPEC, name=name, class_names=(str(value),)), ServingSpec(), staging / name)


PUBLISHERS: dict[str, tuple[bool, Callable[[Path, int], None]]] = {
    "a model's first version": (False, _publish_one),
    "a model's next version": (True, _publish_one),
    "an ensemble's next version": (True, _publish_ensemble),
}
"""Whether there is a version before, and what publishes."""


def try_kills(kind: str, place: Workplace, tries: int) -> Iterator[FileOutcome]:
    """Kill a process that publishes, at moments from its start to a little after its end.

    Args:
        kind: a key of `PUBLISHERS`.
        place: where.
        tries: how many kills.
    """
    there_before, publisher = PUBLISHERS[kind]
    folder = place.new_folder("work")
    whole_s = min(
        float(place.forked.call(_timed, publisher, folder / str(each)).printed) for each in range(3)
    )
    for seed in range(tries):
        repo = place.new_folder("work") / "repo"
        if there_before:
            place.forked.call(publisher, repo, 1)
        after_s = Random(f"{kind} {seed}").uniform(0.0, 1.2 * whole_s)
        killed = place.forked.call(publisher, repo, 2, kill_after_s=after_s)
        failure = _complaint(killed, repo, 1 if there_before else 0)
        following = place.forked.call(publisher, repo, 3)
        failure = failure or following.complaint or _complaint_after(repo)
        left = tuple(entry.name for entry in repo.parent.iterdir() if entry.name != repo.name)
        yield outcome_of(
            following, f"killed after {after_s * 1000:.0f} ms: {failure}" if failure else "", left
        )


def _timed(publisher: Callable[[Path, int], None], repo: Path) -> None:
    """Print how long a publication takes that nobody kills, in s."""
    begin = time.monotonic()
    publisher(repo, 1)
    sys.stdout.write(str(time.monotonic() - begin))


def _complaint(killed: Ended, repo: Path, before: int) -> str:
    """What a reader meets after the kill: the version before, or 2; each model whole."""
    if killed.code not in (0, -9):
        return killed.complaint
    if not repo.exists():
        return "" if not before else "the repository is gone"
    try:
        served = {name: _served(repo, name) for name in Repository(repo).models() if name != "both"}
    except (EdgesegError, StopIteration) as error:
        return f"what is served is not whole: {error}"
    if not set(served.values()) <= {before, 2} or (before and not served):
        return f"served {served}, expected {before} or 2"
    return ""


def _complaint_after(repo: Path) -> str:
    """Of the publication that follows, which nobody kills."""
    try:
        repository = Repository(repo)
        served = {_served(repo, name) for name in repository.models() if name != "both"}
        if "both" in repository.models():
            check_steps(repository.spec("both"), repository.spec)
    except EdgesegError as error:
        return f"the next version is not whole: {error}"
    return "" if served == {3} else f"the next version is not served, but {served}"


def _served(repo: Path, name: str) -> int:
    """The value that graph and contract of the served version agree on. Raises EdgesegError."""
    with connect(repo) as session:
        (answer,) = session.infer(name, {"x": np.zeros((1, 1), np.float32)}).values()
        value = int(answer[0, 0])
        if session.spec(name).class_names != (str(value),):
            raise EdgesegError(f"contract {session.spec(name).class_names} and graph {value} differ")
    return value
