"""SAM2 on the real Triton server: the same masks over every way there, and where a video's state is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sam2_clips import FolderSource, moving_shapes, write_jpegs
from sam2_flows import FLOWS, Step, at, steps
from sam2_small import GRID, SIDE
from server_regions import mapped_regions

from seg_runtime.cli import run
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError, ModelNotReadyError, RepositoryError, ServerUnavailableError
from seg_runtime.model_config import to_text
from seg_runtime.repository import Repository
from seg_runtime.sam2 import Sam2ImagePredictor, Sam2VideoPredictor
from seg_runtime.server import ServerOptions, TritonServer, process
from seg_runtime.server.check import check_repository, require_servable
from seg_runtime.session import Session
from seg_runtime.triton import shared_memory
from seg_runtime.triton.client import TritonClient
from seg_runtime.triton.session import TritonSession

pytest.importorskip("pytriton")
pytestmark = [pytest.mark.server, pytest.mark.full]

FRAMES = 8
VIDEOS = 3
OPTIONS = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)
WAYS = {
    "gRPC, shared memory": ("grpc_url", True),
    "gRPC, messages": ("grpc_url", False),
    "HTTP, shared memory": ("http_url", True),
    "HTTP, messages": ("http_url", False),
}


@pytest.fixture(scope="module")
def repo(small_sam2_folder: Path) -> Path:
    """The five models of `sam2` and their ensembles; never write into it."""
    return small_sam2_folder / "repo"


@pytest.fixture(scope="module")
def server(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        with TritonServer(repo, OPTIONS) as running:
            yield running


@pytest.fixture(scope="module")
def in_process(repo: Path) -> Iterator[Session]:
    with connect(repo, engine="onnxruntime", threads=1) as session:
        yield session


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of frames of different sizes, each with its own speed."""
    folders = []
    for number in range(VIDEOS):
        frames = moving_shapes(FRAMES + number, (120 - 8 * number, 200 - 5 * number))
        folders.append(write_jpegs(frames, tmp_path_factory.mktemp(f"video{number}")))
    return folders


def two_objects(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    """A point and a box, and a correction in the middle."""
    yield predictor.add_new_points_or_box(state, 0, 1, [at(size_hw, 0.2, 0.5)], [1])
    box = [*at(size_hw, 0.6, 0.1), *at(size_hw, 0.9, 0.5)]
    yield predictor.add_new_points_or_box(state, 0, "box", box=box)
    yield from predictor.propagate_in_video(state, max_frame_num_to_track=4)
    yield predictor.add_new_points_or_box(state, 4, 1, [at(size_hw, 0.6, 0.3)], [0])
    yield from predictor.propagate_in_video(state, 5)


def track(session: Session, folder: Path, flow: Callable[..., Iterable[Any]] = two_objects) -> list[Step]:
    source = FolderSource(folder)
    with Sam2VideoPredictor(session, "sam2") as predictor:
        state = predictor.init_state(source)
        return steps(flow(predictor, state, FRAMES, source.size_hw))


def assert_equal(got: list[Step], wanted: list[Step]) -> None:
    assert [step[:2] for step in got] == [step[:2] for step in wanted]
    for (frame, _, ours), (_, _, theirs) in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5, err_msg=f"frame {frame}")


@pytest.fixture(scope="module")
def alone(in_process: Session, videos: list[Path]) -> list[list[Step]]:
    """What each video gives in process, with nothing beside it."""
    return [track(in_process, folder) for folder in videos]


def open_way(server: TritonServer, way: str) -> Session:
    scheme, shared = WAYS[way]
    return connect(getattr(server, scheme), shared_memory=shared, timeout_s=120)


@pytest.mark.parametrize("way", WAYS)
def test_objects_are_tracked_on_the_server_as_in_process(
    server: TritonServer, alone: list[list[Step]], videos: list[Path], way: str
) -> None:
    assert any(0.02 < np.mean(masks > 0) < 0.98 for _, _, masks in alone[0])
    with open_way(server, way) as session:
        assert_equal(track(session, videos[0]), alone[0])


@pytest.mark.parametrize("way", ["gRPC, shared memory", "gRPC, messages"])
def test_a_frame_before_the_only_prompt_attends_to_no_pointer_on_the_server_too(
    server: TritonServer, in_process: Session, videos: list[Path], way: str
) -> None:
    wanted = track(in_process, videos[1], FLOWS["three_objects"])
    with open_way(server, way) as session:
        assert_equal(track(session, videos[1], FLOWS["three_objects"]), wanted)


def predict(session: Session) -> list[NDArray[Any]]:
    image = np.ascontiguousarray(next(moving_shapes(3, (SIDE, SIDE))))
    with Sam2ImagePredictor(session, "sam2") as predictor:
        predictor.set_image(image)
        first = predictor.predict([[60, 128]], [1])
        boxes = [[20, 90, 100, 200], [5, 5, 250, 250]]
        refined = predictor.predict(box=[20, 90, 100, 200], mask_input=first[2][:1], multimask_output=False)
        return [*first, *predictor.predict(box=boxes), *refined]


@pytest.mark.parametrize("way", WAYS)
def test_masks_of_an_image_are_those_found_in_process(
    server: TritonServer, in_process: Session, way: str
) -> None:
    with open_way(server, way) as session:
        for ours, theirs in zip(predict(session), predict(in_process), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shared", "count"),
    [(True, 1), (True, VIDEOS), (False, 1)],
    ids=["shared memory, one session", "shared memory, a session each", "messages, one session"],
)
def test_videos_tracked_at_once_do_not_mix(
    server: TritonServer, alone: list[list[Step]], videos: list[Path], shared: bool, count: int
) -> None:
    start = threading.Barrier(VIDEOS)

    def work(session: Session, folder: Path) -> list[Step]:
        start.wait()
        return track(session, folder)

    with ExitStack() as stack, ThreadPoolExecutor(VIDEOS) as pool:
        sessions = [
            stack.enter_context(connect(server.grpc_url, shared_memory=shared, timeout_s=120))
            for _ in range(count)
        ]
        jobs = [pool.submit(work, sessions[number % count], folder) for number, folder in enumerate(videos)]
        for job, wanted in zip(jobs, alone, strict=True):
            assert_equal(job.result(), wanted)


@pytest.fixture
def in_messages(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, int]]]:
    """Bytes of tensors inside the requests and the answers, model by model."""
    sizes: dict[str, list[tuple[int, int]]] = {}
    infer = TritonClient.infer

    def noted(self: TritonClient, model: str, inputs: list[Any], outputs: list[Any], *more: Any) -> Any:
        answer = infer(self, model, inputs, outputs, *more)
        if self.address.grpc:
            up = sum(len(tensor._get_content() or b"") for tensor in inputs)
            down = sum(map(len, answer.get_response().raw_output_contents))
        else:
            up, down = sum(len(tensor._get_binary_data()) for tensor in inputs), len(answer._buffer)
        sizes.setdefault(model, []).append((up, down))
        return answer

    monkeypatch.setattr(TritonClient, "infer", noted)
    return sizes


def test_nothing_of_a_video_travels_in_messages_of_a_local_server(
    server: TritonServer, videos: list[Path], in_messages: dict[str, list[tuple[int, int]]]
) -> None:
    before = mapped_regions(server)
    with connect(server.grpc_url, shared_memory=True) as session:
        track(session, videos[0])
    parts = ("image_encoder", "mask_decoder", "memory_attention", "memory_encoder")
    assert set(in_messages) == {f"sam2_{part}" for part in parts}
    assert {pair for calls in in_messages.values() for pair in calls} == {(0, 0)}
    assert mapped_regions(server) == before


LEVEL, LOGITS, MEMORY = 256 * GRID**2 * 4, (4 * GRID) ** 2 * 4, 64 * GRID**2 * 4
# The finer levels have 64 channels at twice the grid and 32 at four times: as much, and twice as much.
IMAGE, FEATURES = SIDE**2 * 3, 4 * LEVEL
# Seven memories at most with their slots, and 16 pointers of 256 channels with their distances.
ATTENTION = 7 * (MEMORY + 4) + 16 * (1024 + 4) + 4


def encoder_runs(session: Session) -> tuple[int, int]:
    """How often the server ran the image encoder, and how often its cache answered, since it started."""
    assert isinstance(session, TritonSession)
    counts = session._client.statistics("sam2_image_encoder")
    return counts.requests - counts.cache_hits, counts.cache_hits


@pytest.mark.parametrize("scheme", ["grpc_url", "http_url"])
def test_features_never_travel_and_a_frame_is_encoded_once_on_a_remote_server(
    server: TritonServer,
    videos: list[Path],
    in_messages: dict[str, list[tuple[int, int]]],
    scheme: str,
) -> None:
    """The bytes of docs/serving.md, in the size of the small model: its grid is G = S / 16."""
    folder = videos[0 if scheme == "grpc_url" else 2]
    with connect(getattr(server, scheme), shared_memory=False, timeout_s=120) as session:
        predictor = Sam2VideoPredictor(session, "sam2")
        in_messages.clear()  # what asks for the cache
        runs, hits = encoder_runs(session)
        source = FolderSource(folder)
        steps(two_objects(predictor, predictor.init_state(source), FRAMES, source.size_hw))
        runs, hits = (now - before for now, before in zip(encoder_runs(session), (runs, hits), strict=True))
    assert set(in_messages) == {"sam2_prompt", "sam2_track", "sam2_remember"}
    assert runs <= FRAMES, "once for each frame, or never where another test has sent it"
    assert runs + hits == sum(map(len, in_messages.values()))
    for up, down in in_messages["sam2_prompt"]:
        assert IMAGE + LOGITS <= up <= IMAGE + LOGITS + 200
        assert 4 * LOGITS <= down <= 4 * LOGITS + 5000
    for up, down in in_messages["sam2_track"]:
        assert IMAGE + MEMORY + LOGITS < up <= IMAGE + ATTENTION + LOGITS + 200
        assert 4 * LOGITS <= down <= 4 * LOGITS + 5000
    assert max(up for up, _ in in_messages["sam2_track"]) > IMAGE + 6 * MEMORY
    assert set(in_messages["sam2_remember"]) == {(IMAGE + LOGITS + 8, MEMORY)}


def test_an_image_goes_up_with_each_prompt_and_its_features_stay_on_a_remote_server(
    server: TritonServer, in_process: Session, in_messages: dict[str, list[tuple[int, int]]]
) -> None:
    image = np.random.default_rng(7).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    with connect(server.grpc_url, shared_memory=False) as session:
        predictor = Sam2ImagePredictor(session, "sam2")
        in_messages.clear()
        runs, _ = encoder_runs(session)
        predictor.set_image(image)
        assert encoder_runs(session)[0] == runs + 1, "the first prompt does not have to wait for the encoder"
        predictor.predict([[60, 128]], [1])
        assert [*in_messages] == ["sam2_prompt"]
        assert max(max(pair) for pair in in_messages["sam2_prompt"]) < IMAGE + 2 * LOGITS < FEATURES
        embedding = predictor.get_image_embedding()
        assert encoder_runs(session)[0] == runs + 1
    with Sam2ImagePredictor(in_process, "sam2") as predictor:
        predictor.set_image(image)
        np.testing.assert_allclose(embedding, predictor.get_image_embedding(), rtol=1e-5, atol=1e-5)


def test_features_come_down_once_and_go_up_once_per_model_with_a_remote_server_without_a_cache(
    repo: Path, alone: list[list[Step]], videos: list[Path], in_messages: dict[str, list[tuple[int, int]]]
) -> None:
    with (
        TritonServer(repo, replace(OPTIONS, response_cache_mb=0)) as server,
        connect(server.grpc_url, shared_memory=False) as session,
    ):
        assert_equal(track(session, videos[0]), alone[0])
    parts = ("image_encoder", "mask_decoder", "memory_attention", "memory_encoder")
    assert set(in_messages) == {f"sam2_{part}" for part in parts}
    assert set(in_messages["sam2_image_encoder"]) == {(IMAGE, FEATURES)}
    for up, down in in_messages["sam2_mask_decoder"]:
        assert FEATURES + LOGITS <= up <= FEATURES + LOGITS + 200
        assert 4 * LOGITS <= down <= 4 * LOGITS + 5000
    for up, down in in_messages["sam2_memory_encoder"]:
        assert (up, down) == (LEVEL + LOGITS + 8, MEMORY)
    assert LEVEL + 6 * MEMORY < max(up for up, _ in in_messages["sam2_memory_attention"]) <= LEVEL + ATTENTION
    assert {down for _, down in in_messages["sam2_memory_attention"]} == {LEVEL}


def test_attention_decoder_and_memory_encoder_read_the_features_where_the_encoder_left_them(
    server: TritonServer, videos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: dict[str, str] = {}
    read: set[tuple[str, str]] = set()
    infer = TritonClient.infer

    def place(tensor: Any) -> str:
        name: str = tensor._get_tensor().parameters["shared_memory_region"].string_param
        return name

    def noted(self: TritonClient, model: str, inputs: list[Any], outputs: list[Any], *more: Any) -> Any:
        if model == "sam2_image_encoder":
            written.update({tensor.name(): place(tensor) for tensor in outputs})
        for tensor in inputs:
            if written.get(tensor.name()) == place(tensor):
                read.add((model.removeprefix("sam2_"), tensor.name()))
        return infer(self, model, inputs, outputs, *more)

    monkeypatch.setattr(TritonClient, "infer", noted)
    with connect(server.grpc_url, shared_memory=True) as session:
        track(session, videos[0])
        # Three levels of features of one frame, what attention gives, and one region for each model's rest.
        assert len(mapped_regions(server)) <= 12
    assert read == {
        ("memory_attention", "image_embeddings"),
        ("memory_encoder", "image_embeddings"),
        ("mask_decoder", "image_embeddings"),
        ("mask_decoder", "high_res_features_0"),
        ("mask_decoder", "high_res_features_1"),
    }


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["seg-run", "track", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    return int(ended.value.code or 0)


def test_track_command_writes_on_the_server_what_it_writes_in_process(
    server: TritonServer, repo: Path, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = ["--point", "30,60", "--box", "140,20,176,50#2", "--point", "100,60,0@5", "--masks", "png"]
    targets = {"there": ("--url", server.grpc_url), "here": ("--repo", repo, "--engine", "onnxruntime")}
    written = {}
    for name, target in targets.items():
        out = tmp_path / f"{name}.mp4"
        assert call(monkeypatch, videos[0], *prompts, *target, "-o", out) == 0
        masks = sorted((tmp_path / f"{name}_masks").iterdir())
        assert len(masks) == FRAMES
        written[name] = [out.read_bytes(), *(file.read_bytes() for file in masks)]
    assert written["here"] == written["there"]


CLIENT = """
import sys, time
from sam2_clips import FolderSource
from seg_runtime.connection import connect
from seg_runtime.sam2 import Sam2VideoPredictor
from pathlib import Path
predictor = Sam2VideoPredictor(connect(sys.argv[1], shared_memory=True), "sam2")
state = predictor.init_state(FolderSource(Path(sys.argv[2])))
predictor.add_new_points_or_box(state, 0, 1, [[30, 60]], [1])
for frame, _, _ in predictor.propagate_in_video(state):
    if frame == 3:
        print("frame 3", flush=True)
        time.sleep(60)
"""


def test_what_a_killed_client_had_mapped_is_freed_when_the_next_one_connects(
    server: TritonServer, videos: list[Path]
) -> None:
    with connect(server.grpc_url, shared_memory=True) as living:
        predictor = Sam2VideoPredictor(living, "sam2")
        state = predictor.init_state(FolderSource(videos[0]))
        ours = mapped_regions(server)
        path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
        with subprocess.Popen(
            [sys.executable, "-c", CLIENT, server.grpc_url, str(videos[0])],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        ) as client:
            assert client.stdout is not None
            assert client.stdout.readline() == "frame 3\n"
            with connect(server.grpc_url, shared_memory=True):
                assert len(mapped_regions(server)) >= len(ours) + 4, "a living client keeps its regions"
            client.kill()
            client.wait(timeout=10)
        assert list(shared_memory.FOLDER.glob("edgeseg-*")) == []
        assert len(mapped_regions(server)) >= len(ours) + 4, "Triton does not notice that a client is gone"
        with connect(server.grpc_url, shared_memory=True):
            assert mapped_regions(server) == ours
        predictor.add_new_points_or_box(state, 0, 1, [[30, 60]], [1])
    assert mapped_regions(server) == []


@pytest.mark.parametrize("shared", [True, False], ids=["shared memory", "messages"])
def test_a_server_that_goes_away_in_the_middle_of_a_video_is_one_line(
    repo: Path, videos: list[Path], shared: bool
) -> None:
    with (
        TritonServer(repo, OPTIONS) as server,
        connect(server.grpc_url, shared_memory=shared, retry_budget_s=0.5) as session,
    ):
        predictor = Sam2VideoPredictor(session, "sam2")
        state = predictor.init_state(FolderSource(videos[0]))
        predictor.add_new_points_or_box(state, 0, 1, [[30, 60]], [1])
        frames = predictor.propagate_in_video(state)
        tracked = [next(frames)[0], next(frames)[0]]
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerUnavailableError, match="no server answers at grpc://") as error:
            tracked += [frame for frame, _, _ in frames]
        assert "\n" not in str(error.value)
        predictor.close()
    assert tracked == [0, 1]
    assert list(shared_memory.FOLDER.glob("edgeseg-*")) == []


@pytest.fixture
def damaged(repo: Path, tmp_path: Path) -> Path:
    """A copy of the repository, to be damaged."""
    return Path(shutil.copytree(repo, tmp_path / "damaged"))


def exchange_checkpoint(repo: Path, model: str) -> None:
    spec = replace(Repository(repo).spec(model), checkpoint_sha256="cd" * 32)
    (repo / model / "config.pbtxt").write_text(to_text(spec))


def test_a_repository_with_all_parts_of_one_checkpoint_is_servable(repo: Path) -> None:
    assert len(require_servable(repo).servable) == 8
    two = ["sam2_image_encoder", "sam2_mask_decoder"]
    assert require_servable(repo, two).servable == tuple(two)


@pytest.mark.parametrize("models", [(), ("sam2_image_encoder", "sam2_mask_decoder")], ids=["all", "two"])
def test_a_repository_without_one_of_the_parts_is_refused(damaged: Path, models: tuple[str, ...]) -> None:
    shutil.rmtree(damaged / "sam2_memory_attention" / "1")
    message = "SAM2 'sam2' needs the model 'sam2_memory_attention', which is missing"
    with pytest.raises(RepositoryError, match=rf"^{message} \(it is not built\)"):
        require_servable(damaged, models)
    shutil.rmtree(damaged / "sam2_memory_attention")
    with pytest.raises(
        RepositoryError, match=rf"^{message} .*publish all parts with  seg-export sam2( \(and 1 more\))?$"
    ) as error:
        TritonServer(damaged, replace(OPTIONS, models=models)).start()
    assert "\n" not in str(error.value)


def test_a_repository_with_parts_of_several_checkpoints_is_refused(damaged: Path) -> None:
    exchange_checkpoint(damaged, "sam2_memory_encoder")
    with pytest.raises(
        RepositoryError,
        match=r"^model 'sam2_memory_encoder' is of checkpoint cdcdcdcdcdcd and 'sam2_image_encoder' of "
        r"checkpoint [0-9a-f]{12}: chain models that were published from one checkpoint \(and 1 more\)$",
    ):
        TritonServer(damaged, OPTIONS).start()


def test_an_encoder_of_another_variant_is_refused_by_the_client_of_a_server_that_serves_it(
    damaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange_checkpoint(damaged, "sam2_image_encoder")
    # As a server that edgeseg has not started.
    monkeypatch.setattr(process, "require_servable", check_repository)
    two = ("sam2_image_encoder", "sam2_mask_decoder")
    with (
        TritonServer(damaged, replace(OPTIONS, models=two, model_control="explicit")) as server,
        connect(server.grpc_url) as session,
    ):
        with pytest.raises(BadInputError, match=r"^model 'sam2_mask_decoder' is of checkpoint .* cdcd"):
            Sam2ImagePredictor(session, "sam2")
        with pytest.raises(ModelNotReadyError, match=r"^model 'sam2_mask_prompt' .* \(it is not loaded\)"):
            Sam2VideoPredictor(session, "sam2")
