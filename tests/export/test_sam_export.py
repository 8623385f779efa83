"""SAM's two graphs against segment_anything's own modules, with the tiny SAM's trained weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from sam_models import SMALL_SAM

import seg_export.export as export_steps
from seg_export.checkpoints.checkpoint import Checkpoint, build_model, load_checkpoint
from seg_export.checkpoints.pretrained import pretrained_path
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.export import export_model, export_models
from seg_export.families.sam.network import build_sam
from seg_export.families.semantic.random import random_unet
from seg_export.tracing.trace import optimise
from seg_export.verification.published import verify_published
from seg_export.verification.verify import VerificationError
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.files.images import list_images, read_image
from seg_runtime.model_config import from_text, to_text
from seg_runtime.repository import Repository
from seg_runtime.sam import SamPredictor

pytestmark = pytest.mark.full

Run = Callable[..., list[NDArray[np.float32]]]
PADDING, NOT_A_POINT, FOREGROUND, CORNERS = -10, -1, 1, (2, 3)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(pretrained_path("sam_tiny"))


@pytest.fixture(scope="module")
def sam(checkpoint: Checkpoint) -> Any:
    return build_model(checkpoint)


@pytest.fixture(scope="module")
def repo(tiny_sam_repo: Path) -> Path:
    """The tiny SAM, published, which it is after its verification only."""
    return tiny_sam_repo


def runner(repo: Path, model: str) -> Run:
    session = ort.InferenceSession(
        str(Repository(repo).graph_path(model)), providers=["CPUExecutionProvider"]
    )

    def run(**inputs: NDArray[Any]) -> list[NDArray[np.float32]]:
        outputs: list[NDArray[np.float32]] = session.run(None, inputs)
        return outputs

    return run


@pytest.fixture(scope="module")
def decode(repo: Path) -> Run:
    return runner(repo, "sam_tiny_decoder")


@pytest.fixture(scope="module")
def embedding(sam: Any, xray_folder: Path) -> torch.Tensor:
    image = read_image(list_images([xray_folder / "images"])[0], 3, gray=False)
    pixels = torch.from_numpy(np.kron(image, np.ones((2, 2, 1), np.uint8)))
    with torch.inference_mode():
        result: torch.Tensor = sam.image_encoder(sam.preprocess(pixels.permute(2, 0, 1).float()[None]))
    return result


def reference(
    sam: Any, embedding: torch.Tensor, points: Any, boxes: Any = None, masks: Any = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All four masks and scores of segment_anything: the single one, then the three."""
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=masks)
        answers = [
            sam.mask_decoder(
                embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=many
            )
            for many in (False, True)
        ]
    masks, scores = (torch.cat(parts, dim=1).numpy() for parts in zip(*answers, strict=True))
    return masks, scores


def prompts(count: int, length: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Points in both lungs and around them, foreground and background."""
    generator = np.random.default_rng(seed)
    coords = generator.uniform(100, 900, (count, length, 2)).astype(np.float32)
    return coords, generator.integers(0, 2, (count, length)).astype(np.int32)


def ended(
    coords: NDArray[np.float32], labels: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """With the "not a point" that segment_anything adds by itself where there is no box."""
    return np.pad(coords, ((0, 0), (0, 1), (0, 0))), np.pad(
        labels, ((0, 0), (0, 1)), constant_values=NOT_A_POINT
    )


def no_masks(count: int) -> dict[str, NDArray[np.float32]]:
    return {
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(count, np.float32),
    }


def assert_same_masks(
    outputs: list[NDArray[np.float32]], expected: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    scale = np.abs(expected[0]).max()
    assert np.abs(outputs[0] - expected[0]).max() <= 1e-5 * scale
    assert np.abs(outputs[1] - expected[1]).max() <= 1e-5
    union = (outputs[0] > 0) | (expected[0] > 0)
    assert ((outputs[0] > 0) & (expected[0] > 0)).sum() >= 0.9999 * union.sum()
    assert union.any(), "empty masks prove nothing"


@pytest.mark.full
@pytest.mark.parametrize("valid_hw", [(1024, 1024), (683, 1024), (1024, 333), (1, 1024)])
def test_encoder_equals_preprocess_and_image_encoder(sam: Any, repo: Path, valid_hw: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (1, 1024, 1024, 3), np.uint8)
    height, width = valid_hw
    with torch.inference_mode():
        pixels = torch.from_numpy(image[0, :height, :width]).permute(2, 0, 1).float()
        expected = sam.image_encoder(sam.preprocess(pixels)[None]).numpy()
    (given,) = runner(repo, "sam_tiny_encoder")(image=image, valid_hw=np.array([valid_hw], np.int32))
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("count", "length"), [(1, 1), (1, 6), (2, 3), (5, 2), (5, 4), (2, 5)])
def test_decoder_equals_segment_anything_for_points(
    sam: Any, decode: Run, embedding: torch.Tensor, count: int, length: int
) -> None:
    coords, labels = prompts(count, length)
    expected = reference(sam, embedding, (torch.from_numpy(coords), torch.from_numpy(labels)))
    coords, labels = ended(coords, labels)
    outputs = decode(
        image_embeddings=embedding.numpy(), point_coords=coords, point_labels=labels, **no_masks(count)
    )
    assert_same_masks(outputs, expected)


@pytest.mark.parametrize("with_points", [False, True])
@pytest.mark.parametrize("with_masks", [False, True])
def test_decoder_equals_segment_anything_for_boxes_points_and_masks(
    sam: Any, decode: Run, embedding: torch.Tensor, with_points: bool, with_masks: bool
) -> None:
    boxes = np.array([[100, 100, 900, 950], [90, 150, 480, 800]], np.float32)
    coords, labels = prompts(2, 2)
    points = (torch.from_numpy(coords), torch.from_numpy(labels)) if with_points else None
    generator = np.random.default_rng(1)
    masks = generator.normal(0, 8, (2, 1, 256, 256)).astype(np.float32)
    expected = reference(
        sam, embedding, points, torch.from_numpy(boxes), torch.from_numpy(masks) if with_masks else None
    )
    corners, corner_labels = boxes.reshape(2, 2, 2), np.tile(np.array(CORNERS, np.int32), (2, 1))
    outputs = decode(
        image_embeddings=embedding.numpy(),
        point_coords=np.concatenate([coords, corners], axis=1) if with_points else corners,
        point_labels=np.concatenate([labels, corner_labels], axis=1) if with_points else corner_labels,
        mask_input=masks,
        has_mask_input=np.full(2, with_masks, np.float32),
    )
    assert_same_masks(outputs, expected)


def test_mask_counts_for_the_prompts_that_have_one_only(decode: Run, embedding: torch.Tensor) -> None:
    coords, labels = ended(*prompts(3, 1))
    mask = np.random.default_rng(2).normal(0, 8, (1, 1, 256, 256)).astype(np.float32)
    common = {"image_embeddings": embedding.numpy(), "point_coords": coords, "point_labels": labels}
    without, _ = decode(**common, **no_masks(3))
    some = np.array([0, 1, 0], np.float32)
    shared, _ = decode(**common, mask_input=mask, has_mask_input=some)
    own, _ = decode(**common, mask_input=np.repeat(mask, 3, axis=0), has_mask_input=some)
    np.testing.assert_allclose(shared, own, rtol=0, atol=1e-5 * np.abs(own).max())
    np.testing.assert_allclose(shared[[0, 2]], without[[0, 2]], rtol=0, atol=1e-5 * np.abs(without).max())
    assert np.abs(shared[1] - without[1]).max() > 1


def test_box_mask_alone_and_points_together_equal_each_alone(
    sam: Any, decode: Run, embedding: torch.Tensor
) -> None:
    mask = np.random.default_rng(3).normal(0, 8, (1, 1, 256, 256)).astype(np.float32)
    rows = [
        ([(300, 500), (0, 0), (7, 7)], [FOREGROUND, NOT_A_POINT, PADDING]),
        ([(90, 150), (480, 800), (7, 7)], [*CORNERS, PADDING]),
        ([(7, 7), (7, 7), (7, 7)], [PADDING] * 3),
    ]
    outputs = decode(
        image_embeddings=embedding.numpy(),
        point_coords=np.array([coords for coords, _ in rows], np.float32),
        point_labels=np.array([labels for _, labels in rows], np.int32),
        mask_input=np.repeat(mask, 3, axis=0),
        has_mask_input=np.array([0, 0, 1], np.float32),
    )
    alone = [
        reference(sam, embedding, (torch.tensor([[[300.0, 500.0]]]), torch.tensor([[FOREGROUND]]))),
        reference(sam, embedding, None, torch.tensor([[90.0, 150.0, 480.0, 800.0]])),
        reference(sam, embedding, None, None, torch.from_numpy(mask)),
    ]
    assert_same_masks(outputs, tuple(np.concatenate(parts) for parts in zip(*alone, strict=True)))


@pytest.mark.parametrize("extra", [1, 3, 11])
def test_padded_points_change_nothing(decode: Run, embedding: torch.Tensor, extra: int) -> None:
    coords, labels = ended(*prompts(4, 2))
    inputs = {"image_embeddings": embedding.numpy(), **no_masks(4)}
    masks, scores = decode(point_coords=coords, point_labels=labels, **inputs)
    far = np.full((4, extra, 2), 600, np.float32)
    padding = np.full((4, extra), PADDING, np.int32)
    padded_masks, padded_scores = decode(
        point_coords=np.concatenate([coords, far], axis=1),
        point_labels=np.concatenate([labels, padding], axis=1),
        **inputs,
    )
    assert np.abs(padded_masks - masks).max() <= 1e-5 * np.abs(masks).max()
    assert np.abs(padded_scores - scores).max() <= 1e-5
    live, _ = decode(
        point_coords=np.concatenate([coords, far], axis=1),
        point_labels=np.concatenate([labels, np.full_like(padding, NOT_A_POINT)], axis=1),
        **inputs,
    )
    assert np.abs(live - masks).max() > 0.1, "SAM's own label -1 is a live token"


def test_both_contracts_survive_their_configuration(repo: Path, checkpoint: Checkpoint) -> None:
    encoder, decoder = (Repository(repo).spec(f"sam_tiny_{part}") for part in ("encoder", "decoder"))
    for spec, task, batch in ((encoder, "sam-encoder", 1), (decoder, "sam-decoder", 0)):
        assert from_text(to_text(spec)) == spec
        assert (spec.task, spec.family, spec.max_batch_size) == (task, "sam", batch)
        assert (spec.resize, spec.threshold, spec.channels) == ("longest-side", 0.0, 3)
        assert (spec.input_size_hw, spec.weights) == ((1024, 1024), "trained")
        assert spec.checkpoint_sha256 == checkpoint.sha256 != ""
        assert spec.parity is not None and spec.parity.mask_iou >= 0.9999
    assert encoder.parameter_count + decoder.parameter_count == 4947760
    assert [tensor.axes for tensor in decoder.outputs] == [("prompts",), ("prompts",)]
    assert [tensor.shape for tensor in decoder.inputs] == [
        (1, 256, 64, 64),
        (-1, -1, 2),
        (-1, -1),
        (-1, 1, 256, 256),
        (-1,),
    ]


def test_ensemble_takes_an_image_with_prompts_and_gives_what_the_decoder_gives(repo: Path) -> None:
    specs = {part: Repository(repo).spec(f"sam_tiny{part}") for part in ("", "_encoder", "_decoder")}
    ensemble, encoder, decoder = specs.values()
    assert from_text(to_text(ensemble)) == ensemble
    assert (ensemble.task, ensemble.max_batch_size) == ("sam", 0)
    assert [(tensor.name, tensor.shape) for tensor in ensemble.inputs] == [
        ("image", (1, 1024, 1024, 3)),
        ("valid_hw", (1, 2)),
        ("point_coords", (-1, -1, 2)),
        ("point_labels", (-1, -1)),
        ("mask_input", (-1, 1, 256, 256)),
        ("has_mask_input", (-1,)),
    ]
    assert ensemble.outputs == decoder.outputs
    assert ensemble.parameter_count == encoder.parameter_count + decoder.parameter_count
    for field in ("checkpoint_sha256", "threshold", "resize", "channels", "input_size_hw", "weights"):
        assert getattr(ensemble, field) == getattr(encoder, field) == getattr(decoder, field)
    assert [(step.model, step.version) for step in ensemble.steps] == [(encoder.name, 1), (decoder.name, 1)]


def test_only_the_encoder_asks_for_the_response_cache(repo: Path) -> None:
    configs = [path for path in repo.glob("*/config.pbtxt") if "response_cache" in path.read_text()]
    assert [path.parent.name for path in configs] == ["sam_tiny_encoder"]


def test_axes_of_one_length_have_one_name(repo: Path) -> None:
    graph = onnx.load(Repository(repo).graph_path("sam_tiny_decoder")).graph
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes["point_coords"] == ["prompts", "points", 2]
    assert shapes["mask_input"] == ["masks", 1, 256, 256]
    assert shapes["low_res_masks"] == ["prompts", 4, 256, 256]


def test_graphs_hold_standard_operators_only_and_no_score_matrix(repo: Path) -> None:
    for part in ("encoder", "decoder"):
        model = onnx.load(Repository(repo).graph_path(f"sam_tiny_{part}"))
        assert {node.domain for node in model.graph.node} == {""}
        assert not {node.op_type for node in model.graph.node} & {"If", "Loop", "NonZero", "ScatterND"}
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        sizes = [
            np.prod([axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim])
            for value in inferred.graph.value_info
        ]
        assert max(sizes) < 4 * 4096 * 4096 / 8


def test_published_halves_are_verified_against_any_checkpoint(repo: Path, small_sam_repo: Path) -> None:
    small = random_checkpoint("sam", SMALL_SAM)
    assert verify_published(small_sam_repo, "small_fp32_encoder", small).passed
    assert verify_published(small_sam_repo, "small_fp32_decoder", small).passed
    other = random_checkpoint("sam", SMALL_SAM, seed=1)
    assert not verify_published(small_sam_repo, "small_fp32_encoder", other).passed
    assert not verify_published(small_sam_repo, "small_fp32_decoder", other).passed
    with pytest.raises(BadInputError, match="takes 64x64 and no other"):
        verify_published(repo, "sam_tiny_encoder", small)


@pytest.mark.slow
def test_half_precision_embeddings_join_graphs_in_fp32(small_sam_repo: Path) -> None:
    repository = Repository(small_sam_repo)
    encoder, decoder = (repository.spec(f"small_fp16_{part}") for part in ("encoder", "decoder"))
    assert encoder.outputs[0].dtype == decoder.inputs[0].dtype == "float16"
    for spec in (encoder, decoder):
        assert spec.precision == "fp32"
        graph = onnx.load(repository.graph_path(spec.name)).graph
        assert "Cast" in {node.op_type for node in graph.node}
        assert onnx.TensorProto.FLOAT16 not in {weight.data_type for weight in graph.initializer}
        report = verify_published(small_sam_repo, spec.name, random_checkpoint("sam", SMALL_SAM))
        assert report.passed and report.precision == "fp32, fp16 tensors"


def test_half_precision_embedding_is_the_rounded_one_and_leads_to_the_same_masks(
    small_sam_repo: Path,
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 64, 3), np.uint8)
    with connect(small_sam_repo) as session:
        whole, half = (SamPredictor(session, name) for name in ("small_fp32", "small_fp16"))
        whole.set_image(image)
        half.set_image(image)
        expected = whole.get_image_embedding()
        assert half.get_image_embedding().dtype == np.float32
        np.testing.assert_array_equal(half.get_image_embedding(), expected.astype(np.float16))
        masks, scores, logits = whole.predict([[20, 30]], [1], return_logits=True)
        half_masks, half_scores, half_logits = half.predict([[20, 30]], [1], return_logits=True)
    np.testing.assert_allclose(half_scores, scores, atol=1e-3)
    assert 0 < np.abs(half_logits - logits).max() <= 1e-3 * np.abs(logits).max()
    assert np.mean((half_masks > 0) != (masks > 0)) < 0.005


@pytest.mark.slow
def test_embeddings_that_overflow_half_precision_are_refused(tmp_path: Path) -> None:
    small = random_checkpoint("sam", SMALL_SAM)
    name = "image_encoder.neck.3.weight"
    state = {**small.state_dict, name: 1e6 * small.state_dict[name]}
    with pytest.raises(VerificationError, match=r"image_embeddings.*not finite"):
        export_models(replace(small, state_dict=state), tmp_path / "repo", "half", embeddings="fp16")
    assert list(tmp_path.iterdir()) == []


def test_models_without_an_embedding_cannot_have_it_in_half_precision(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="a U-Net has no image embedding"):
        export_models(random_unet(features=(4, 8)), tmp_path / "repo", embeddings="fp16")


@pytest.mark.slow
def test_nothing_is_published_when_the_second_graph_strays(
    small_sam_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def traced(model: Any, opset: int, weights_file: Path) -> Any:
        # What was traced and published before: a trace takes long.
        part = model.spec.name.removeprefix("small_")
        return onnx.load(Repository(small_sam_repo).graph_path(f"small_fp32_{part}"))

    def sabotaged(graph: Any, model: Any) -> Any:
        changed = optimise(graph, model)
        if model.spec.task == "sam-decoder":
            bias = next(item for item in changed.graph.initializer if item.name.endswith("layers.2.bias"))
            values = onnx.numpy_helper.to_array(bias) + np.float32(0.1)
            bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        return changed

    monkeypatch.setattr(export_steps, "trace", traced)
    monkeypatch.setattr(export_steps, "optimise", sabotaged)
    with pytest.raises(VerificationError, match="of model 'small_decoder'"):
        export_models(random_checkpoint("sam", SMALL_SAM), tmp_path / "repo", "small")
    assert list(tmp_path.iterdir()) == []


def test_sizes_and_calls_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    small = random_checkpoint("sam", SMALL_SAM)
    with pytest.raises(BadInputError, match="takes 64x64 and no other size"):
        export_models(small, tmp_path / "repo", size_hw=(64, 96))
    with pytest.raises(BadInputError, match="becomes several models"):
        export_model(small, tmp_path / "repo")
    with pytest.raises(BadInputError, match="image_size 60 must be a multiple of patch_size"):
        build_sam(**{**SMALL_SAM, "image_size": 60})
    four = random_checkpoint("sam", {**SMALL_SAM, "num_multimask_outputs": 4})
    with pytest.raises(CheckpointError, match="makes 5 masks per prompt"):
        export_models(four, tmp_path / "repo")


@pytest.mark.parametrize("model", ["sam_tiny", "sam_tiny_encoder", "sam_tiny_decoder"])
def test_committed_configurations_are_what_the_shipped_sam_is_published_with(
    tiny_sam_repo: Path, model: str
) -> None:
    committed = Repository(Path(__file__).parents[2] / "triton_repo").spec(model)
    # Differences to PyTorch depend on the processor.
    published = replace(Repository(tiny_sam_repo).spec(model), parity=committed.parity)
    assert published == committed
