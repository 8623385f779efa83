"""SAM on the real Triton server: what eight clients get at once, and what stays on the server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tiny_graph import publish

from seg_export.tensor_types import cast_half_tensors, half_embeddings
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError
from seg_runtime.images import read_image
from seg_runtime.repository import Repository
from seg_runtime.sam import SamAutomaticMaskGenerator, SamPredictor
from seg_runtime.server import ServerOptions, TritonServer
from seg_runtime.session import Session
from seg_runtime.triton_client import TritonClient

pytest.importorskip("pytriton")
pytestmark = pytest.mark.server

CLIENTS = 8
ROUNDS = 2


@pytest.fixture(scope="module")
def repo(tiny_sam_repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sam_tiny`, and `sam_half`: the same with embeddings in half precision."""
    repo = tmp_path_factory.mktemp("two") / "repo"
    shutil.copytree(tiny_sam_repo, repo)
    for part in ("encoder", "decoder"):
        published = Repository(tiny_sam_repo)
        spec = half_embeddings(published.spec(f"sam_tiny_{part}"))
        graph = onnx.load(published.graph_path(spec.name))
        cast_half_tensors(graph, spec)
        publish(repo, replace(spec, name=f"sam_half_{part}"), graph)
    return repo


@pytest.fixture(scope="module")
def server(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = str(tmp_path_factory.mktemp("temporary"))
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        with TritonServer(repo, options) as running:
            yield running


@pytest.fixture(scope="module")
def images(xray_folder: Path) -> list[NDArray[np.uint8]]:
    """One image per client, of different sizes."""
    paths = sorted((xray_folder / "images").glob("*.png"))
    crops = [read_image(path, 3)[: 512 - 30 * number, 9 * number :] for number, path in enumerate(paths)]
    return (crops * CLIENTS)[:CLIENTS]


def predict(session: Session, image: NDArray[np.uint8], name: str = "sam_tiny") -> list[NDArray[Any]]:
    """Masks, scores and logits for a point, then for a box refined with the point's logits."""
    height, width = image.shape[:2]
    with SamPredictor(session, name) as predictor:
        predictor.set_image(image)
        first = predictor.predict([[width / 3, height / 2]], [1])
        box = [width / 8, height / 8, width / 2, height * 0.9]
        return [*first, *predictor.predict(box=box, mask_input=first[2][:1], multimask_output=False)]


@pytest.fixture(scope="module")
def expected(tiny_sam_repo: Path, images: list[NDArray[np.uint8]]) -> list[list[NDArray[Any]]]:
    with connect(tiny_sam_repo) as session:
        return [predict(session, image) for image in images]


def assert_same(got: list[NDArray[Any]], wanted: list[NDArray[Any]]) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        if ours.dtype == np.bool_:
            assert np.mean(ours != theirs) < 1e-4
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-3)


def run_clients(
    sessions: list[Session], images: list[NDArray[np.uint8]], expected: list[list[NDArray[Any]]]
) -> None:
    """Every client on its own image, on one of the sessions, and with the answer it gets alone."""

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            assert_same(predict(sessions[number % len(sessions)], images[number]), expected[number])

    with ThreadPoolExecutor(CLIENTS) as pool:
        for job in [pool.submit(work, number) for number in range(CLIENTS)]:
            job.result()


@pytest.mark.parametrize(
    ("shared_memory", "count"),
    [(True, 1), (True, CLIENTS), (False, CLIENTS)],
    ids=["shared memory, one session", "shared memory, a session each", "messages, a session each"],
)
def test_eight_clients_of_a_server_never_get_each_others_embeddings(
    server: TritonServer,
    images: list[NDArray[np.uint8]],
    expected: list[list[NDArray[Any]]],
    shared_memory: bool,
    count: int,
) -> None:
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(connect(server.grpc_url, shared_memory=shared_memory, timeout_s=120))
            for _ in range(count)
        ]
        run_clients(sessions, images, expected)


def test_eight_threads_in_process_never_get_each_others_embeddings(
    tiny_sam_repo: Path, images: list[NDArray[np.uint8]], expected: list[list[NDArray[Any]]]
) -> None:
    with connect(tiny_sam_repo) as session:
        run_clients([session], images, expected)


def regions(server: TritonServer) -> list[str]:
    from tritonclient import grpc

    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        return sorted(client.get_system_shared_memory_status(as_json=True).get("regions", {}))


def test_shared_memory_is_given_back_on_close_and_after_an_exception(
    server: TritonServer, images: list[NDArray[np.uint8]]
) -> None:
    before = regions(server)
    with connect(server.grpc_url, shared_memory=True) as session:
        with pytest.raises(BadInputError), SamPredictor(session, "sam_tiny") as predictor:
            predictor.set_image(images[0])
            assert len(regions(server)) > len(before)
            predictor.predict(box=[9, 9, 1, 1])
        predictor.set_image(images[1])
        for _ in range(3):
            predictor.set_image(images[0])
            predictor.predict([[9, 9]], [1])
        held = len(regions(server))
        predictor.set_image(images[0])
        assert len(regions(server)) <= held, "images of a predictor reuse the memory of earlier ones"
    assert regions(server) == before


@pytest.fixture
def in_messages(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Bytes of tensors inside the requests and the answers of `ModelInfer`, model by model."""
    sizes: dict[str, list[int]] = {}
    infer = TritonClient.infer

    def noted(self: TritonClient, model: str, inputs: list[Any], outputs: list[Any]) -> Any:
        answer = infer(self, model, inputs, outputs)
        sent = [len(tensor._get_content() or b"") for tensor in inputs]
        received = map(len, answer.get_response().raw_output_contents)
        sizes.setdefault(model, []).append(sum(sent) + sum(received))
        return answer

    monkeypatch.setattr(TritonClient, "infer", noted)
    return sizes


@pytest.mark.parametrize("name", ["sam_tiny", "sam_half"])
def test_neither_embeddings_nor_masks_travel_in_messages_of_a_local_server(
    server: TritonServer,
    repo: Path,
    images: list[NDArray[np.uint8]],
    in_messages: dict[str, list[int]],
    name: str,
) -> None:
    before = regions(server)
    with connect(repo) as session:
        expected = predict(session, images[0], name)
    with connect(server.grpc_url, shared_memory=True) as session:
        assert_same(predict(session, images[0], name), expected)
    assert in_messages == {f"{name}_encoder": [0], f"{name}_decoder": [0, 0]}
    assert regions(server) == before


@pytest.mark.parametrize("name", ["sam_tiny", "sam_half"])
def test_embeddings_travel_in_messages_as_wide_as_the_contract_says(
    server: TritonServer,
    repo: Path,
    images: list[NDArray[np.uint8]],
    in_messages: dict[str, list[int]],
    name: str,
) -> None:
    with connect(repo) as session:
        expected = predict(session, images[0], name)
    with connect(server.grpc_url, shared_memory=False) as session:
        assert_same(predict(session, images[0], name), expected)
    embedding = 256 * 64 * 64 * (2 if name == "sam_half" else 4)
    assert embedding <= in_messages[f"{name}_encoder"][0] - 1024 * 1024 * 3 <= embedding + 100
    mask = 256 * 256 * 4
    assert embedding + 5 * mask <= in_messages[f"{name}_decoder"][0] <= embedding + 5 * mask + 200


def test_embeddings_are_refused_by_a_decoder_that_wants_them_in_another_type(
    server: TritonServer, images: list[NDArray[np.uint8]]
) -> None:
    with connect(server.grpc_url) as session, SamPredictor(session, "sam_half") as predictor:
        predictor.set_image(images[0])
        assert predictor.get_image_embedding().dtype == np.float32
        predictor._decoder = session.spec("sam_tiny_decoder")
        with pytest.raises(BadInputError, match="wants image_embeddings as float32, not float16"):
            predictor.predict([[9, 9]], [1])


def test_everything_found_on_the_server_is_what_is_found_in_process(
    server: TritonServer, tiny_sam_repo: Path, images: list[NDArray[np.uint8]]
) -> None:
    settings = {"points_per_side": 3, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.5}
    found = []
    for target in (server.grpc_url, tiny_sam_repo):
        with connect(target) as session:
            generator = SamAutomaticMaskGenerator(session, "sam_tiny", **settings)
            found.append(generator.generate(images[0]))
    assert len(found[0]) == len(found[1]) > 0
    for one, other in zip(*found, strict=True):
        assert np.mean(one["segmentation"] != other["segmentation"]) < 1e-4
