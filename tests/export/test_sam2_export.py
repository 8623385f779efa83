"""SAM2's five graphs against sam2's own model, which is called as its predictors call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from marks import full_size, slow_to_make
from numpy.typing import NDArray
from sam2_clips import FolderSource, moving_shapes, write_jpegs
from sam2_flows import FLOWS, assert_steps_equal, steps
from sam2_models import GRID, SIDE, SMALL
from sam2_small import memories_as_float32
from torch.nn import functional as F

from seg_bench.sam2_trackers import Sam2Tracker
from seg_export.checkpoints.checkpoint import Checkpoint, build_model
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.engines.check import check_graphs
from seg_export.export import (
    ExportedModel,
    export_model,
    export_models,
)
from seg_export.families import traceable_models
from seg_export.families.sam2.align import align_single_masks
from seg_export.families.sam2.graphs import PARTS
from seg_export.families.sam2.memory import round_to_bfloat16
from seg_export.families.sam2.network import VARIANTS
from seg_export.verification.published import load_published, verify_published
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError
from seg_runtime.repository import Repository
from seg_runtime.sam2 import Sam2VideoPredictor

pytestmark = pytest.mark.full

Arrays = dict[str, NDArray[Any]]
Run = Callable[..., Arrays]
PADDING, NOT_A_POINT = -10, -1
ABSENT = -1024.0


@pytest.fixture(scope="module", params=["2.1", "2"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    return random_checkpoint("sam2", {**SMALL, "first_release": request.param == "2"})


@pytest.fixture(scope="module")
def sam2(checkpoint: Checkpoint) -> Any:
    return build_model(checkpoint)


@pytest.fixture(scope="module")
@slow_to_make
def repo(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small SAM2, published; its verification is part of what is tested."""
    folder = tmp_path_factory.mktemp("sam2") / "repo"
    exported = export_models(checkpoint, folder, "small")
    names = [f"small_{part}" for part in (*PARTS, "prompt", "track", "remember")]
    assert [model.published.spec.name for model in exported] == names
    assert all(model.report is not None and model.report.passed for model in exported[: len(PARTS)])
    return folder


@pytest.fixture(scope="module")
def run(repo: Path) -> Run:
    """Run one of the graphs: arrays by name, in and out."""
    sessions = {
        part: ort.InferenceSession(
            str(Repository(repo).graph_path(f"small_{part}")), providers=["CPUExecutionProvider"]
        )
        for part in PARTS
    }

    def call(part: str, **inputs: NDArray[Any]) -> Arrays:
        names = [output.name for output in sessions[part].get_outputs()]
        return dict(zip(names, sessions[part].run(names, inputs), strict=True))

    return call


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def levels() -> Arrays:
    return {
        "image_embeddings": noise(1, 256, GRID, GRID),
        "high_res_features_0": noise(1, 32, 4 * GRID, 4 * GRID, seed=1),
        "high_res_features_1": noise(1, 64, 2 * GRID, 2 * GRID, seed=2),
    }


def no_mask(count: int) -> Arrays:
    return {
        "mask_input": np.zeros((1, 1, 4 * GRID, 4 * GRID), np.float32),
        "has_mask_input": np.zeros(count, np.float32),
    }


def assert_same_logits(logits: Any, expected: torch.Tensor) -> None:
    wanted = expected.numpy()
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-4)
    union = np.count_nonzero((logits > 0) | (wanted > 0))
    assert np.count_nonzero((logits > 0) & (wanted > 0)) >= 0.999 * union


@torch.inference_mode()
def heads(sam2: Any, points: Any, *, many: bool, mask: Any = None, no_memory: float = 1) -> tuple[Any, ...]:
    """`SAM2Base._forward_sam_heads` on `levels()`; points are (coords, labels) of one prompt or None."""
    image = {name: torch.from_numpy(array) for name, array in levels().items()}
    embedding = image["image_embeddings"] + no_memory * sam2.no_mem_embed.reshape(1, -1, 1, 1)
    result: tuple[Any, ...] = sam2._forward_sam_heads(
        embedding,
        None if points is None else {"point_coords": points[0], "point_labels": points[1]},
        mask,
        [image["high_res_features_0"], image["high_res_features_1"]],
        multimask_output=many,
    )
    return result


def assert_same_answer(sam2: Any, answer: Arrays, row: int, points: Any, **options: Any) -> None:
    """One prompt's row against sam2 with and without several masks."""
    presence = answer["object_score_logits"][row]
    masks = (
        answer["low_res_masks"][row] if presence > 0 else np.full_like(answer["low_res_masks"][row], ABSENT)
    )
    for many, which in ((False, slice(0, 1)), (True, slice(1, 4))):
        logits, _, quality, _, _, pointer, score = heads(sam2, points, many=many, **options)
        assert_same_logits(masks[which], logits[0])
        np.testing.assert_allclose(answer["iou_predictions"][row][which], quality[0], atol=1e-5)
        np.testing.assert_allclose(presence, score[0], atol=1e-5)
        token = 1 + int(quality.argmax()) if many else 0
        np.testing.assert_allclose(answer["object_pointers"][row][token], pointer[0], atol=1e-5)


def test_contracts_name_one_checkpoint_and_what_the_graphs_are(repo: Path, checkpoint: Checkpoint) -> None:
    specs = [Repository(repo).spec(f"small_{part}") for part in PARTS]
    assert {spec.checkpoint_sha256 for spec in specs} == {checkpoint.sha256}
    assert [spec.task for spec in specs] == [f"sam2-{part.replace('_', '-')}" for part in PARTS]
    assert [spec.max_batch_size for spec in specs] == [1, 0, 0, 0, 0]
    for spec in specs:
        assert (spec.family, spec.resize, spec.input_size_hw) == ("sam2", "stretch", (SIDE, SIDE))
        assert (spec.weights, spec.threshold) == ("random", 0.0)
    attention = specs[PARTS.index("memory_attention")]
    assert [tensor.axes for tensor in attention.inputs] == [
        (),
        ("memories",),
        ("memories",),
        ("pointers",),
        ("pointers",),
        (),
    ]


def test_graphs_keep_every_input_of_their_contract(repo: Path) -> None:
    for part in PARTS:
        spec = Repository(repo).spec(f"small_{part}")
        session = ort.InferenceSession(str(Repository(repo).graph_path(spec.name)))
        assert [value.name for value in session.get_inputs()] == [tensor.name for tensor in spec.inputs]


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_encoder_gives_what_the_image_predictor_encodes(sam2: Any, run: Run) -> None:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    image = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    predictor = SAM2ImagePredictor(sam2)
    predictor._bb_feat_sizes = [(4 * GRID, 4 * GRID), (2 * GRID, 2 * GRID), (GRID, GRID)]
    predictor.set_image(image)
    answer = run("image_encoder", image=image[None])
    # The predictor has added the embedding for "no memory", which is the decoder's here.
    embedding = predictor._features["image_embed"] - sam2.no_mem_embed.reshape(1, -1, 1, 1)
    np.testing.assert_allclose(answer["image_embeddings"], embedding.detach(), atol=1e-4)
    for index in (0, 1):
        expected = predictor._features["high_res_feats"][index]
        np.testing.assert_allclose(answer[f"high_res_features_{index}"], expected.detach(), atol=1e-4)


@pytest.mark.parametrize("no_memory", [0, 1])
def test_prompts_of_every_kind_in_one_call_follow_sam2(sam2: Any, run: Run, no_memory: int) -> None:
    generator = np.random.default_rng(5)
    coords = generator.uniform(10, 240, (5, 3, 2)).astype(np.float32)
    labels = np.array(
        [[1, 0, PADDING], [2, 3, PADDING], [2, 3, 1], [NOT_A_POINT, PADDING, PADDING], [1, 1, 0]], np.int32
    )
    masks = noise(5, 1, 4 * GRID, 4 * GRID, seed=7) * 5
    has_mask = np.array([0, 1, 0, 0, 1], np.float32)
    answer = run(
        "mask_decoder",
        **levels(),
        point_coords=coords,
        point_labels=labels,
        mask_input=masks,
        has_mask_input=has_mask,
        no_memory=np.array([no_memory], np.float32),
    )
    for row in range(5):
        live = labels[row] != PADDING
        points = (torch.from_numpy(coords[row][live])[None], torch.from_numpy(labels[row][live])[None])
        mask = torch.from_numpy(masks[row : row + 1]) if has_mask[row] else None
        assert_same_answer(sam2, answer, row, points, mask=mask, no_memory=no_memory)


def test_tracked_frame_is_one_point_of_label_minus_one(sam2: Any, run: Run) -> None:
    answer = run(
        "mask_decoder",
        **levels(),
        point_coords=np.zeros((1, 1, 2), np.float32),
        point_labels=np.full((1, 1), NOT_A_POINT, np.int32),
        **no_mask(1),
        no_memory=np.zeros(1, np.float32),
    )
    assert_same_answer(sam2, answer, 0, None, no_memory=0)


def test_prompt_without_points_is_a_mask_alone(sam2: Any, run: Run) -> None:
    """As sam2's image predictor gives it: no point, and so none that pads."""
    mask = noise(1, 1, 4 * GRID, 4 * GRID, seed=9) * 5
    answer = run(
        "mask_decoder",
        **levels(),
        point_coords=np.zeros((1, 1, 2), np.float32),
        point_labels=np.full((1, 1), PADDING, np.int32),
        mask_input=mask,
        has_mask_input=np.ones(1, np.float32),
        no_memory=np.zeros(1, np.float32),
    )
    image = [torch.from_numpy(array) for array in levels().values()]
    with torch.inference_mode():
        sparse, dense = sam2.sam_prompt_encoder(points=None, boxes=None, masks=torch.from_numpy(mask))
        logits, *_ = sam2.sam_mask_decoder(
            image[0], sam2.sam_prompt_encoder.get_dense_pe(), sparse, dense, True, True, image[1:]
        )
    assert_same_logits(answer["low_res_masks"][:, 1:], logits)


def test_object_that_is_absent_has_the_pointer_for_none(sam2: Any, checkpoint: Checkpoint) -> None:
    """The small SAM2 sees an object everywhere: a bias of its score makes it see none."""
    gone = build_model(checkpoint)
    last = gone.sam_mask_decoder.pred_obj_score_head.layers[-1]
    last.bias = torch.nn.Parameter(last.bias.detach() - 100)
    from seg_export.families.sam2.decoder import Sam2DecoderGraph

    point = (torch.full((1, 1, 2), 100.0), torch.ones(1, 1, dtype=torch.int32))
    with torch.inference_mode():
        inputs = [torch.from_numpy(array) for array in (*levels().values(), *no_mask(1).values())]
        graph = Sam2DecoderGraph(gone)
        *_, presence, pointers = graph(*inputs[:3], *point, *inputs[3:], torch.ones(1))
    assert presence < 0
    expected = heads(gone, point, many=False)[5]
    np.testing.assert_allclose(pointers[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(pointers[:, 3], gone.no_obj_ptr.detach(), atol=1e-6)


@pytest.mark.parametrize("filled", [True, False])
def test_mask_prompt_with_the_decoder_is_sam2s_mask_as_output(sam2: Any, run: Run, filled: bool) -> None:
    row, column = np.mgrid[:SIDE, :SIDE]
    mask = ((np.hypot(row - 90, column - 130) < 61) & filled).astype(np.uint8)[None]
    made = run("mask_prompt", mask=mask)
    image = [torch.from_numpy(array) for array in levels().values()]
    with torch.inference_mode():
        low_res, _, _, _, _, pointer, _ = sam2._use_mask_as_output(
            image[0], image[1:], torch.from_numpy(mask)[:, None]
        )
    assert_same_logits(made["low_res_masks"], low_res)
    decoded = run(
        "mask_decoder",
        **levels(),
        point_coords=np.zeros((1, 1, 2), np.float32),
        point_labels=np.full((1, 1), NOT_A_POINT, np.int32),
        mask_input=made["mask_input"],
        has_mask_input=np.ones(1, np.float32),
        no_memory=np.zeros(1, np.float32),
    )
    found = decoded["object_pointers"][:, 0] if filled else made["no_object_pointer"]
    np.testing.assert_allclose(found, pointer, atol=1e-5)


@pytest.mark.parametrize("from_prompt", [False, True])
@pytest.mark.parametrize("score", [-2.0, 2.0])
def test_memories_are_those_that_sam2_stores(sam2: Any, run: Run, from_prompt: bool, score: float) -> None:
    embedding, logits = levels()["image_embeddings"], noise(1, 1, 4 * GRID, 4 * GRID, seed=4) * 3
    answer = run(
        "memory_encoder",
        image_embeddings=embedding,
        low_res_masks=logits,
        from_prompt=np.array([from_prompt], np.float32),
        object_score_logits=np.array([[score]], np.float32),
    )["memory"]
    high_res = F.interpolate(
        torch.from_numpy(logits), size=(SIDE, SIDE), mode="bilinear", align_corners=False
    )
    with torch.inference_mode():
        memory, _ = sam2._encode_new_memory(
            [torch.from_numpy(embedding).flatten(2).permute(2, 0, 1)],
            [(GRID, GRID)],
            high_res,
            torch.tensor([[score]]),
            from_prompt,
        )
    stored = memory.to(torch.bfloat16).float().numpy()
    # A value between two of bfloat16 may round to either.
    assert np.count_nonzero(answer != stored) <= 0.005 * stored.size
    np.testing.assert_allclose(answer, stored, rtol=2**-7, atol=1e-5)
    np.testing.assert_array_equal(answer, torch.from_numpy(answer).to(torch.bfloat16).float().numpy())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("frame", [1, 3, 12])
def test_attention_is_that_of_sam2_with_its_memory_bank(
    sam2: Any, run: Run, frame: int, reverse: bool
) -> None:
    """`_prepare_memory_conditioned_features` chooses memories and pointers; the same go into the graph."""
    frames = 20
    start = frames - 1 if reverse else 0
    sign = -1 if reverse else 1
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    position = sam2.memory_encoder.position_encoding(torch.zeros(1, 64, GRID, GRID))
    for age in range(frame):
        kind = "cond_frame_outputs" if age == 0 else "non_cond_frame_outputs"
        outputs[kind][start + sign * age] = {
            "maskmem_features": torch.from_numpy(noise(1, 64, GRID, GRID, seed=age)),
            "maskmem_pos_enc": [position],
            "obj_ptr": torch.from_numpy(noise(1, 256, seed=100 + age)),
        }
    embedding = torch.from_numpy(levels()["image_embeddings"])
    encoding = sam2.image_encoder.neck.position_encoding(embedding)
    with torch.inference_mode():
        expected = sam2._prepare_memory_conditioned_features(
            start + sign * frame,
            False,
            [embedding.flatten(2).permute(2, 0, 1)],
            [encoding.flatten(2).permute(2, 0, 1)],
            [(GRID, GRID)],
            outputs,
            frames,
            track_in_reverse=reverse,
        )
    ages = [0, *(age for age in range(frame - 6, frame) if age > 0)]
    pointers = [0, *(age for age in range(frame - 1, max(frame - 16, 0), -1))]
    answer = run(
        "memory_attention",
        image_embeddings=embedding.numpy(),
        memories=np.concatenate([noise(1, 64, GRID, GRID, seed=age) for age in ages]),
        memory_slots=np.array([6, *(frame - age - 1 for age in ages[1:])], np.int32),
        object_pointers=np.concatenate([noise(1, 256, seed=100 + age) for age in pointers]),
        pointer_distances=np.array([frame - age for age in pointers], np.float32),
        pointer_range=np.array([15], np.float32),
    )["image_embeddings_with_memory"]
    np.testing.assert_allclose(answer, expected, atol=1e-4)


def test_attention_takes_no_pointers(sam2: Any, run: Run) -> None:
    """As when a frame lies before all frames with prompts."""
    memory, embedding = noise(1, 64, GRID, GRID), levels()["image_embeddings"]
    answer = run(
        "memory_attention",
        image_embeddings=embedding,
        memories=memory,
        memory_slots=np.array([6], np.int32),
        object_pointers=np.zeros((0, 256), np.float32),
        pointer_distances=np.zeros(0, np.float32),
        pointer_range=np.array([15], np.float32),
    )["image_embeddings_with_memory"]

    def tokens(values: NDArray[np.float32] | torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(values).flatten(2).permute(2, 0, 1)

    position = tokens(sam2.memory_encoder.position_encoding(torch.zeros(1, 64, GRID, GRID)))
    with torch.inference_mode():
        expected = sam2.memory_attention(
            curr=tokens(embedding),
            curr_pos=tokens(sam2.image_encoder.neck.position_encoding(torch.from_numpy(embedding))),
            memory=tokens(memory),
            memory_pos=position + sam2.maskmem_tpos_enc[6],
        )
    np.testing.assert_allclose(answer[0].reshape(256, -1).T[:, None], expected, atol=1e-4)


def test_rounding_is_that_of_bfloat16() -> None:
    near_one = torch.arange(-70000, 70000) / 2**15 + 1
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(100_000, generator=generator) * torch.exp(
        4 * torch.randn(100_000, generator=generator)
    )
    powers = 2.0 ** torch.arange(-20, 20)
    values = torch.cat([torch.zeros(1), near_one, wide, powers, torch.nextafter(powers, torch.zeros(1))])
    assert torch.equal(round_to_bfloat16(values), values.to(torch.bfloat16).float())


def single_choice(masks: NDArray[np.float32], quality: list[float], index: int) -> Arrays:
    masks = masks.copy()
    scores = np.array([quality], np.float32)
    if index:
        masks[0, 0], scores[0, 0] = masks[0, index], scores[0, index]
    return {"low_res_masks": masks, "iou_predictions": scores}


def test_choice_of_the_single_mask_is_only_aligned_at_a_tie() -> None:
    masks = noise(1, 4, 8, 8)
    tie, clear = [0.5, 0.8, 0.8001, 0.1], [0.5, 0.8, 0.5, 0.1]
    wanted, given = align_single_masks(single_choice(masks, tie, 2), single_choice(masks, tie, 1), 0.01)
    np.testing.assert_array_equal(wanted["low_res_masks"], given["low_res_masks"])
    wanted, given = align_single_masks(single_choice(masks, clear, 2), single_choice(masks, clear, 1), 0.01)
    assert not np.array_equal(wanted["low_res_masks"], given["low_res_masks"])


def test_choice_of_an_unstable_mask_is_aligned_and_of_a_stable_one_is_not() -> None:
    masks, quality = noise(1, 4, 8, 8), [0.5, 0.8, 0.5, 0.1]
    stable = (
        np.where(masks > 0, 9, -9).astype(np.float32)
        * np.array([1, 0.9, 0.8, 0.7], np.float32)[:, None, None]
    )
    wanted, given = align_single_masks(
        single_choice(masks, quality, 0), single_choice(masks, quality, 1), 0.01
    )
    np.testing.assert_array_equal(wanted["low_res_masks"], given["low_res_masks"])
    wanted, given = align_single_masks(
        single_choice(stable, quality, 0), single_choice(stable, quality, 1), 1e-3
    )
    assert not np.array_equal(wanted["low_res_masks"], given["low_res_masks"])


def test_another_size_and_a_single_model_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="takes 256x256 and no other size"):
        traceable_models(checkpoint, "small", (512, 512), 1)
    with pytest.raises(BadInputError, match="becomes several models"):
        export_model(checkpoint, tmp_path)
    with pytest.raises(BadInputError, match="a SAM2 has no image embedding"):
        export_models(checkpoint, tmp_path, "small", embeddings="fp16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_every_graph_in_fp32_compiles_from_ampere_on(repo: Path) -> None:
    results = check_graphs((), repo, ("80", "86", "89", "120"))
    assert [(item.model, item.reason) for item in results if not item.built] == []


@pytest.fixture(scope="module")
@slow_to_make
def half_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repo = tmp_path_factory.mktemp("sam2_half")
    exported = export_models(random_checkpoint("sam2", SMALL), repo, "half", precision="fp16")
    assert all(model.report is not None and model.report.passed for model in exported[: len(PARTS)])
    return repo


@pytest.mark.full
def test_half_precision_keeps_memories_that_bfloat16_holds(half_repo: Path) -> None:
    model, path, cases = load_published(
        half_repo, "half_memory_encoder", random_checkpoint("sam2", SMALL), None
    )
    assert model.spec.precision == "fp16"
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (memory,) = session.run(None, cases[0].inputs)
    np.testing.assert_array_equal(memory, torch.from_numpy(memory).to(torch.bfloat16).float().numpy())


@pytest.mark.full
def test_every_graph_in_half_precision_compiles_for_every_capability(half_repo: Path) -> None:
    results = check_graphs((), half_repo)
    assert [(item.model, item.compute_capability, item.reason) for item in results if not item.built] == []


@pytest.fixture(scope="module")
@full_size
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path, tuple[ExportedModel, ...]]:
    """The smallest official size with random weights, with which objects appear, and its repository."""
    checkpoint = random_checkpoint("sam2", VARIANTS["sam2.1_tiny"])
    checkpoint.state_dict["sam_mask_decoder.pred_obj_score_head.layers.2.bias"].fill_(10.0)
    repo = tmp_path_factory.mktemp("sam2_tiny") / "repo"
    return checkpoint, repo, export_models(checkpoint, repo, "tiny")


def test_tiny_variant_at_full_size_is_verified(tiny: Any) -> None:
    _, _, exported = tiny
    assert all(model.report is not None and model.report.passed for model in exported[: len(PARTS)])
    attention = next(model for model in exported if model.published.spec.task == "sam2-memory-attention")
    assert {item.batch for item in attention.report.comparisons} == {1, 2, 7} if attention.report else False


def test_tiny_variant_at_full_size_tracks_three_objects_over_four_frames_as_sam2_does(
    tiny: Any, tmp_path: Path
) -> None:
    checkpoint, repo, _ = tiny
    theirs: Any = Sam2Tracker(checkpoint, 1)._predictor
    theirs.memory_attention.register_forward_pre_hook(memories_as_float32, with_kwargs=True)
    source = FolderSource(write_jpegs(moving_shapes(4), tmp_path))
    arguments = source.frame_count, source.size_hw
    wanted = steps(FLOWS["three_objects"](theirs, theirs.init_state(str(tmp_path)), *arguments))
    with connect(repo) as session, Sam2VideoPredictor(session, "tiny") as ours:
        got = steps(FLOWS["three_objects"](ours, ours.init_state(source), *arguments))
    assert any(0.02 < np.mean(mask > 0) < 0.98 for _, _, masks in wanted for mask in masks)
    assert_steps_equal(got, wanted, relative=1e-3, min_iou=0.999)


def test_images_are_refused_for_a_model_that_takes_none(small_sam2_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="'sam2_mask_prompt' takes no images: leave --images out"):
        verify_published(
            small_sam2_folder / "repo", "sam2_mask_prompt", small_sam2_folder / "weights.pth", images=tmp_path
        )
