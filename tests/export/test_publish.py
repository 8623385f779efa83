"""Publishing: whole versions or none, whatever fails or is killed in between."""

from __future__ import annotations

import errno
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import seg_export.export as export_steps
from seg_export.export import export_model
from seg_export.families.semantic.random import random_unet
from seg_export.publishing.publish import (
    PublishedModel,
    StagedModel,
    check_model_name,
    publish,
    publish_together,
)
from seg_export.publishing.staging import staging_folder
from seg_export.tracing.trace import trace
from seg_runtime.connection import connect
from seg_runtime.ensemble import check_steps
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.repository import GRAPH_FILE, Repository
from seg_runtime.spec import EnsembleStep, ModelSpec, ServingSpec, TensorSpec

SPEC = ModelSpec(
    name="m",
    version=1,
    task="semantic",
    family="test",
    inputs=(TensorSpec("x", "float32", (1,)),),
    outputs=(TensorSpec("y", "float32", (1,)),),
    max_batch_size=1,
    weights="random",
)


def constant_graph(value: float) -> bytes:
    """A graph that adds `value` to its input."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in "xy"]
    constant = helper.make_tensor("c", TensorProto.FLOAT, [1], [value])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])], "g", tensors[:1], tensors[1:], [constant]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def publish_constant(repo: Path, value: float, name: str = "m") -> PublishedModel:
    """Publish the graph; its value stands in the contract too, as the class name."""
    with staging_folder(repo) as staging:
        folder = staging / "version"
        folder.mkdir()
        (folder / GRAPH_FILE).write_bytes(constant_graph(value))
        return publish(repo, replace(SPEC, name=name, class_names=(str(value),)), ServingSpec(), folder)


def load_served(repo: Path) -> tuple[int, float]:
    """Version and value of the served graph, which must agree with its contract."""
    repository = Repository(repo)
    spec = repository.spec("m")
    session = ort.InferenceSession(str(repository.graph_path("m")), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": np.zeros((1, 1), np.float32)})
    assert spec.class_names == (str(float(result[0, 0])),), "configuration and graph are of two versions"
    return spec.version, float(result[0, 0])


def names_in(folder: Path) -> list[str]:
    return sorted(str(entry.relative_to(folder)) for entry in folder.rglob("*"))


def test_each_publication_is_served_as_the_next_version(tmp_path: Path) -> None:
    repo = tmp_path / "new" / "repo"
    for value in (1.5, 2.5):
        published = publish_constant(repo, value)
        assert load_served(repo) == (published.spec.version, value)
    assert published.folder == repo / "m" / "2"
    assert names_in(tmp_path) == sorted(
        ["new", "new/repo", "new/repo/m", "new/repo/m/config.pbtxt"]
        + [f"new/repo/m/{v}{file}" for v in (1, 2) for file in ("", "/config.pbtxt", "/model.onnx")]
    )


def test_committed_configuration_without_a_version_becomes_version_1(tmp_path: Path) -> None:
    publish_constant(tmp_path / "built", 9.5)
    (tmp_path / "repo" / "m").mkdir(parents=True)
    shutil.copy(tmp_path / "built" / "m" / "config.pbtxt", tmp_path / "repo" / "m")
    publish_constant(tmp_path / "repo", 1.5)
    assert load_served(tmp_path / "repo") == (1, 1.5)


def test_unusable_configuration_is_replaced(tmp_path: Path) -> None:
    publish_constant(tmp_path, 1.5)
    (tmp_path / "m" / "config.pbtxt").write_text("not { a config")
    publish_constant(tmp_path, 2.5)
    assert load_served(tmp_path) == (2, 2.5)


@pytest.mark.parametrize("name", ["", ".hidden", "../m", "a/b", "a b", "naïve", "-x", "a\n"])
def test_names_that_cannot_be_a_folder_are_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="cannot be a model's name"):
        check_model_name(name)
    assert check_model_name("unet_lung-2.v3") == "unet_lung-2.v3"


def test_file_in_place_of_the_repository_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for repo in (tmp_path / "file", tmp_path / "file" / "repo"):
        with pytest.raises(RepositoryError, match=r"cannot write to model repository .* choose a folder"):
            publish_constant(repo, 1.5)
    assert names_in(tmp_path) == ["file"]


@pytest.mark.parametrize("method", ["write_bytes", "write_text", "rename", "replace"])
def test_full_disk_at_any_step_leaves_what_was_served(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    publish_constant(repo, 1.5)
    before = names_in(tmp_path)

    def fail(path: Path, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(Path, method, fail)
        with pytest.raises(RepositoryError, match="no space left on the disk") as caught:
            publish_constant(repo, 2.5)
    assert "\n" not in str(caught.value)
    assert load_served(repo) == (1, 1.5)
    # A version that is complete but not current may stay; halves of one may not.
    assert [name for name in names_in(tmp_path) if not name.startswith("repo/m/2")] == before


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root; the test above simulates a full one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_repository_on_a_disk_of_its_own_that_fills_up(tiny_disk: Path) -> None:
    """No rename leads in from beside a mount point: staging lies inside, and is gone afterwards."""
    publish_constant(tiny_disk, 1.5)
    before = names_in(tiny_disk)
    assert not (tiny_disk / ".staging").exists()
    with (
        pytest.raises(RepositoryError, match="no space left on the disk"),
        staging_folder(tiny_disk) as staging,
    ):
        assert staging.parent == tiny_disk / ".staging"
        (staging / GRAPH_FILE).write_bytes(bytes(1_000_000))
    assert names_in(tiny_disk) == before
    publish_constant(tiny_disk, 2.5)
    assert load_served(tiny_disk) == (2, 2.5)


@pytest.fixture
def one_kilobyte_per_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights go to a file of their own as if protobuf ended at 1 kB."""
    monkeypatch.setattr(export_steps, "trace", partial(trace, external_data_above=1000))


@pytest.mark.slow
@pytest.mark.usefixtures("one_kilobyte_per_file")
def test_weights_beside_the_graph_are_published_with_it_and_run(tmp_path: Path) -> None:
    repo, checkpoint = tmp_path / "repo", random_unet(features=(4, 8))
    for version in (1, 2):
        folder = export_model(checkpoint, repo, "unet", size_hw=(32, 32)).published.folder
        assert folder == repo / "unet" / str(version)
        assert sorted(file.name for file in folder.iterdir()) == [
            "config.pbtxt",
            "model.onnx",
            "model.onnx.data",
        ]
    with connect(repo) as session:
        image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1), np.uint8)
        assert session.infer("unet", {"image": image})["probabilities"].shape == (1, 1, 32, 32)
    assert [entry.name for entry in tmp_path.iterdir()] == ["repo"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_kilobyte_per_file")
def test_disk_that_fills_up_with_weights_beside_the_graph(tiny_disk: Path) -> None:
    publish_constant(tiny_disk, 1.5)
    before = names_in(tiny_disk)
    with pytest.raises(RepositoryError, match="no space left on the disk") as caught:
        export_model(random_unet(features=(32, 64, 128)), tiny_disk, "unet", size_hw=(32, 32))
    assert "\n" not in str(caught.value)
    assert names_in(tiny_disk) == before
    assert load_served(tiny_disk) == (1, 1.5)


def test_publishers_at_the_same_time_get_a_version_each(tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        published = list(pool.map(lambda value: publish_constant(tmp_path, value + 0.5), range(12)))
    assert sorted(item.spec.version for item in published) == list(range(1, 13))
    assert load_served(tmp_path)[0] == 12
    assert [entry.name for entry in tmp_path.parent.iterdir() if entry.name.endswith(".staging")] == []


def test_staging_of_a_live_process_is_kept_and_of_a_dead_one_removed(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    with staging_folder(repo) as live:
        dead = live.parent / "dead"
        dead.mkdir()
        with staging_folder(repo):
            assert live.is_dir() and not dead.exists()
    assert names_in(tmp_path) == []


KILLED_PUBLISHER = """
import importlib.util, json, os, shutil, signal, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("test_publish", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
base, work = Path(sys.argv[2]), Path(sys.argv[3])
import seg_runtime.model_config

OPERATIONS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"}

def kill_at(step):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in OPERATIONS and any(str(work) in str(argument) for argument in arguments):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

step = 0
while True:
    step += 1
    repo = work / str(step) / "repo"
    shutil.copytree(base, repo)
    child = os.fork()
    if child == 0:
        kill_at(step)
        getattr(module, sys.argv[4])(repo, 2.5)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(json.dumps(step))
"""


@pytest.mark.full
@pytest.mark.parametrize("before", ["nothing", "a configuration without its version", "a version"])
def test_publisher_killed_before_any_file_operation_leaves_a_loadable_repository(
    before: str, tmp_path: Path
) -> None:
    """The publisher is killed before its first, second, ... file operation, each in a fresh copy."""
    base, work = tmp_path / "base", tmp_path / "work"
    base.mkdir()
    work.mkdir()
    if before != "nothing":
        publish_constant(base, 1.5)
    if before == "a configuration without its version":
        shutil.rmtree(base / "m" / "1")
    steps = kill_at_every_step("publish_constant", base, work)
    outcomes = {served_after_kill(work / str(step) / "repo") for step in range(1, steps)}
    after = {(2, 2.5)} if before == "a version" else {(1, 2.5)}
    assert outcomes == after | ({(1, 1.5)} if before == "a version" else {None})


def kill_at_every_step(publisher: str, base: Path, work: Path) -> int:
    """Kill a function of this file before each of its file operations, in copies `<work>/<n>/repo`."""
    call = [sys.executable, "-W", "ignore", "-c", KILLED_PUBLISHER, __file__, str(base), str(work), publisher]
    steps = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    assert isinstance(steps, int) and steps > 20
    return steps


def publish_three(repo: Path, value: float) -> None:
    """`m`, `n` and `both`, an ensemble of them."""
    with staging_folder(repo) as staging:
        models = []
        for name in ("m", "n"):
            (staging / name).mkdir()
            (staging / name / GRAPH_FILE).write_bytes(constant_graph(value))
            models.append(StagedModel(replace(SPEC, name=name), ServingSpec(), staging / name))
        steps = tuple(EnsembleStep(model.spec.name, 1, {"x": "x"}, {"y": "x"}) for model in models)
        ensemble = replace(SPEC, name="both", backend="ensemble", steps=steps)
        (staging / "both").mkdir()
        publish_together(repo, [*models, StagedModel(ensemble, ServingSpec(), staging / "both")])


@pytest.mark.full
def test_publisher_of_an_ensemble_killed_before_any_file_operation_never_leaves_a_mixed_one(
    tmp_path: Path,
) -> None:
    base, work = tmp_path / "base", tmp_path / "work"
    publish_three(base, 1.5)
    work.mkdir()
    outcomes = set()
    for step in range(1, kill_at_every_step("publish_three", base, work)):
        repo = work / str(step) / "repo"
        outcomes.add((versions_served(repo), runs_together(repo)))
        if not runs_together(repo):
            publish_three(repo, 3.5)
            assert (versions_served(repo), runs_together(repo)) == ((3, 3, 3), True)
            assert [entry.name for entry in repo.parent.iterdir()] == ["repo"], (
                "stale staging was not removed"
            )
    assert outcomes == {((1, 1, 1), True), ((1, 2, 1), False), ((1, 2, 2), False), ((2, 2, 2), True)}


def versions_served(repo: Path) -> tuple[int, ...]:
    """Of `both`, `m` and `n`."""
    return tuple(Repository(repo).spec(name).version for name in Repository(repo).models())


def runs_together(repo: Path) -> bool:
    """Whether the ensemble's models are those that it was published with."""
    try:
        check_steps(Repository(repo).spec("both"), Repository(repo).spec)
    except RepositoryError:
        return False
    return True


def served_after_kill(repo: Path) -> tuple[int, float] | None:
    """What is served, None when no model is built; then publish once more, which must clean up."""
    models = Repository(repo).models()
    assert models or not list(repo.glob("[!.]*")), "half a model is visible"
    built = models and (repo / "m" / str(Repository(repo).spec("m").version)).exists()
    served = load_served(repo) if built else None
    version = publish_constant(repo, 3.5).spec.version
    assert load_served(repo) == (version, 3.5)
    assert [entry.name for entry in repo.parent.iterdir()] == ["repo"], "stale staging was not removed"
    return served


PUBLISHER_IN_A_LOOP = """
import importlib.util, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("test_publish", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for value in range(1000):
    module.publish_constant(Path(sys.argv[2]), value + 0.5)
    print(value, flush=True)
"""


@pytest.mark.full
def test_publisher_killed_at_random_moments_leaves_a_loadable_repository(tmp_path: Path) -> None:
    repo, delays, version = tmp_path / "repo", random.Random(0), 0
    for _ in range(4):
        call = [sys.executable, "-c", PUBLISHER_IN_A_LOOP, __file__, str(repo)]
        with subprocess.Popen(call, stdout=subprocess.PIPE) as publisher:
            assert publisher.stdout is not None
            publisher.stdout.readline()
            time.sleep(delays.uniform(0, 0.05))
            publisher.kill()
        served, _ = load_served(repo)
        assert served > version
        version = served
    publish_constant(repo, 0.25)
    assert names_in(tmp_path)[0] == "repo" and load_served(repo)[1] == 0.25
