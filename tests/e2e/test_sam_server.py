"""SAM on the real Triton server: what eight clients get at once, and what stays on the server."""

from __future__ import annotations

import shutil
import tempfile
import time
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
from server_regions import mapped_regions
from tiny_graph import publish

from seg_export.precision.tensor_types import cast_half_tensors, half_embeddings
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError
from seg_runtime.files.images import read_image
from seg_runtime.repository import Repository
from seg_runtime.sam import ResizeLongestSide, SamAutomaticMaskGenerator, SamPredictor
from seg_runtime.server import ServerOptions, TritonServer
from seg_runtime.session import Session
from seg_runtime.triton.client import TritonClient

pytest.importorskip("pytriton")
pytestmark = [pytest.mark.server, pytest.mark.full]

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


def test_shared_memory_is_given_back_on_close_and_after_an_exception(
    server: TritonServer, images: list[NDArray[np.uint8]]
) -> None:
    before = mapped_regions(server)
    with connect(server.grpc_url, shared_memory=True) as session:
        with pytest.raises(BadInputError), SamPredictor(session, "sam_tiny") as predictor:
            predictor.set_image(images[0])
            assert len(mapped_regions(server)) > len(before)
            predictor.predict(box=[9, 9, 1, 1])
        predictor.set_image(images[1])
        for _ in range(3):
            predictor.set_image(images[0])
            predictor.predict([[9, 9]], [1])
        held = len(mapped_regions(server))
        predictor.set_image(images[0])
        assert len(mapped_regions(server)) <= held, "images of a predictor reuse the memory of earlier ones"
    assert mapped_regions(server) == before


@pytest.fixture
def in_messages(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Bytes of tensors inside the requests and the answers of `ModelInfer`, model by model."""
    sizes: dict[str, list[int]] = {}
    infer = TritonClient.infer

    def noted(self: TritonClient, model: str, inputs: list[Any], outputs: list[Any], *more: Any) -> Any:
        answer = infer(self, model, inputs, outputs, *more)
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
    before = mapped_regions(server)
    with connect(repo) as session:
        expected = predict(session, images[0], name)
    with connect(server.grpc_url, shared_memory=True) as session:
        assert_same(predict(session, images[0], name), expected)
    assert in_messages == {f"{name}_encoder": [0], f"{name}_decoder": [0, 0]}
    assert mapped_regions(server) == before


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


def one_shot(image: NDArray[np.uint8], point_xy: tuple[float, float]) -> dict[str, NDArray[Any]]:
    """What a client without edgeseg sends to the ensemble for one point."""
    transform = ResizeLongestSide(1024)
    resized = transform.apply_image(image)
    height, width = resized.shape[:2]
    square = np.zeros((1, 1024, 1024, 3), np.uint8)
    square[0, :height, :width] = resized
    coords = np.zeros((1, 2, 2), np.float32)
    coords[0, 0] = transform.apply_coords([point_xy], image.shape[:2])[0]
    return {
        "image": square,
        "valid_hw": np.array([[height, width]], np.int32),
        "point_coords": coords,
        "point_labels": np.array([[1, -1]], np.int32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }


def counts(server: TritonServer, part: str) -> dict[str, int]:
    """How often one of the models ran, and how often the cache had or lacked its answer."""
    from tritonclient import grpc

    with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
        (stats,) = client.get_inference_statistics(f"sam_tiny_{part}").model_stats
    hits = stats.inference_stats
    return {"ran": stats.execution_count, "hits": hits.cache_hit.count, "misses": hits.cache_miss.count}


def check_change(
    server: TritonServer, part: str, before: dict[str, int], wanted: tuple[int, int, int], why: str = ""
) -> None:
    """(ran, hits, misses) since then. Triton counts a request only after it has answered it."""
    deadline = time.monotonic() + 10
    while True:
        changed = tuple(count - before[what] for what, count in counts(server, part).items())
        if changed == wanted or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert changed == wanted, why


@pytest.mark.parametrize(
    ("on_server", "shared_memory"),
    [(True, True), (True, False), (False, None)],
    ids=["shared memory", "messages", "in process"],
)
def test_one_request_gives_what_the_predictor_gives(
    server: TritonServer,
    tiny_sam_repo: Path,
    images: list[NDArray[np.uint8]],
    on_server: bool,
    shared_memory: bool | None,
) -> None:
    image, point = images[1], (150.0, 200.0)
    target = server.grpc_url if on_server else tiny_sam_repo
    with connect(target, shared_memory=shared_memory) as session:
        answer = session.infer("sam_tiny", one_shot(image, point))
        with SamPredictor(session, "sam_tiny") as predictor:
            predictor.set_image(image)
            _, scores, low_res = predictor.predict([point], [1])
    np.testing.assert_array_equal(answer["low_res_masks"][0, 1:], low_res)
    np.testing.assert_array_equal(answer["iou_predictions"][0, 1:], scores)


def test_the_second_click_on_an_image_runs_the_decoder_only(
    server: TritonServer, images: list[NDArray[np.uint8]]
) -> None:
    image = images[2][:, ::-1]
    with connect(server.grpc_url) as session:
        encoder, decoder = counts(server, "encoder"), counts(server, "decoder")
        first = session.infer("sam_tiny", one_shot(image, (100, 200)))
        check_change(server, "encoder", encoder, (1, 0, 1))
        session.infer("sam_tiny", one_shot(image, (300, 250)))
        again = session.infer("sam_tiny", one_shot(image, (100, 200)))
        check_change(server, "encoder", encoder, (1, 2, 1))
        session.infer("sam_tiny", one_shot(image[5:], (100, 200)))
        check_change(server, "encoder", encoder, (2, 2, 2), "another image is encoded")
        check_change(server, "decoder", decoder, (4, 0, 0), "the decoder is not cached")
    np.testing.assert_array_equal(first["low_res_masks"], again["low_res_masks"])


def test_a_predictor_finds_the_embedding_that_another_client_had_made(
    server: TritonServer, images: list[NDArray[np.uint8]]
) -> None:
    image = images[3][:, ::-1]
    answers, embeddings = [], []
    before = counts(server, "encoder")
    for shared_memory in (True, True, False):
        with (
            connect(server.grpc_url, shared_memory=shared_memory) as session,
            SamPredictor(session, "sam_tiny") as predictor,
        ):
            predictor.set_image(image)
            embeddings.append(predictor.get_image_embedding())
            answers.append(predictor.predict([[100, 200]], [1])[2])
    check_change(server, "encoder", before, (1, 2, 1))
    for other in (1, 2):
        np.testing.assert_array_equal(embeddings[0], embeddings[other])
        np.testing.assert_array_equal(answers[0], answers[other])


def test_a_server_asked_for_the_ensemble_alone_loads_its_models(
    tiny_sam_repo: Path, images: list[NDArray[np.uint8]]
) -> None:
    options = ServerOptions(models=("sam_tiny",), http_port=0, grpc_port=0, metrics_port=0)
    with TritonServer(tiny_sam_repo, options) as server, connect(server.http_url) as session:
        assert session.models() == ("sam_tiny", "sam_tiny_decoder", "sam_tiny_encoder")
        answer = session.infer("sam_tiny", one_shot(images[0], (100, 200)))
        assert answer["low_res_masks"].shape == (1, 4, 256, 256)
