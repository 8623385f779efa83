"""What is timed and scored for a SAM: ours, segment_anything's in PyTorch, and its exported decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from bench_records import torch_candidate
from sam_models import WEIGHTS, DiscSamSession, load_tiny_sam

from seg_bench.data.samples import Sample
from seg_bench.official_decoder import decoder_file, export_official_decoders
from seg_bench.pipelines.sam import BoxPrompts, SamPipeline
from seg_bench.pipelines.sam_torch import TorchSamPipeline
from seg_bench.run.checkpoints import remake_random_sam
from seg_bench.run.subjects import Subject
from seg_export.checkpoints.checkpoint import load_checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.families.sam import network as sam_module
from seg_export.families.sam.graphs import sam_models
from seg_runtime.errors import BadInputError

SMALL = {
    "encoder_embed_dim": 32,
    "encoder_depth": 1,
    "encoder_num_heads": 2,
    "encoder_global_attn_indexes": [0],
    "image_size": 256,
    "decoder_mlp_dim": 64,
}


def sample(folder: Path, mask: np.ndarray, image_hw: tuple[int, int] | None = None) -> Sample:
    image = np.full(image_hw or mask.shape, 90, np.uint8)
    for name, pixels in (("image", image), ("mask", mask)):
        assert cv2.imwrite(str(folder / f"{name}.png"), pixels)
    return Sample("xray", folder / "image.png", (folder / "mask.png",))


def two_parts() -> np.ndarray:
    mask = np.zeros((120, 160), np.uint8)
    cv2.ellipse(mask, (40, 60), (25, 40), 0, 0, 360, 255, -1)
    cv2.ellipse(mask, (115, 60), (25, 40), 0, 0, 360, 255, -1)
    return mask


def test_all_boxes_go_in_one_call_and_the_union_of_their_masks_comes_back(tmp_path: Path) -> None:
    session = DiscSamSession()
    with SamPipeline(session, "sam_tiny") as pipeline:
        outcome = pipeline.run([pipeline.load(sample(tmp_path, two_parts()))])
    found, wanted = outcome.masks[0], two_parts() > 0
    assert session.decoder_calls == [2]
    # The made-up SAM answers a box with the ellipse in it.
    assert np.count_nonzero(found & wanted) / np.count_nonzero(found | wanted) > 0.9
    assert all(handle.released for handle in session.handles)


def test_the_stages_of_a_sam_add_up(tmp_path: Path) -> None:
    with SamPipeline(DiscSamSession(), "sam_tiny") as pipeline:
        spent = pipeline.run([pipeline.load(sample(tmp_path, two_parts()))]).spent_ms
    assert all(milliseconds > 0 for milliseconds in spent.values())
    assert spent["infer"] == spent["encode"] + spent["decode"]
    assert spent["preprocess"] + spent["infer"] + spent["postprocess"] == pytest.approx(spent["total"])


def test_an_image_without_objects_or_of_another_size_is_refused(tmp_path: Path) -> None:
    with SamPipeline(DiscSamSession(), "sam_tiny") as pipeline:
        with pytest.raises(BadInputError, match="the mask of 'xray' is empty"):
            pipeline.load(sample(tmp_path, np.zeros((60, 60), np.uint8)))
        with pytest.raises(BadInputError, match="160x120 and its image 60x40"):
            pipeline.load(sample(tmp_path, two_parts(), image_hw=(40, 60)))


@pytest.mark.full
def test_the_pytorch_baseline_answers_as_segment_anything_does(xray_folder: Path) -> None:
    from segment_anything import SamPredictor

    image = cv2.imread(str(xray_folder / "images" / "MCUCXR_0003_0.png"))
    boxes = np.array([[45.0, 55, 245, 368], [278, 56, 480, 353]])
    outcome = TorchSamPipeline(torch_candidate(WEIGHTS, threads=2)).run([BoxPrompts(image, boxes)])
    predictor = SamPredictor(load_tiny_sam())
    predictor.set_image(image)
    wanted = [predictor.predict(box=box, multimask_output=False)[0][0] for box in boxes]
    np.testing.assert_array_equal(outcome.masks[0], wanted[0] | wanted[1])
    spent = outcome.spent_ms
    assert spent["encode"] > spent["decode"] > spent["postprocess"] > 0


@pytest.mark.full
def test_the_official_decoder_is_exported_for_every_shape_of_image(tmp_path: Path) -> None:
    import onnxruntime as ort
    from segment_anything.utils.onnx import SamOnnxModel

    export_official_decoders(WEIGHTS, [(300, 400), (600, 800), (400, 300)], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "decoder_1024x768.onnx",
        "decoder_768x1024.onnx",
    ]
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "image_embeddings": torch.randn(1, 256, 64, 64, generator=generator),
        "point_coords": torch.tensor([[[200.0, 300], [600, 700]]]),
        "point_labels": torch.tensor([[2.0, 3.0]]),
        "mask_input": torch.zeros(1, 1, 256, 256),
        "has_mask_input": torch.zeros(1),
    }
    original = SamOnnxModel(load_tiny_sam(), return_single_mask=True)
    for size_hw in ((600, 800), (400, 300)):
        feed: dict[str, Any] = {**inputs, "orig_im_size": torch.tensor(size_hw, dtype=torch.float32)}
        graph = ort.InferenceSession(
            str(decoder_file(tmp_path, size_hw, 1024)), providers=["CPUExecutionProvider"]
        )
        (masks,) = graph.run(["masks"], {name: tensor.numpy() for name, tensor in feed.items()})
        wanted = original(*feed.values())[0].numpy()
        assert masks.shape == wanted.shape == (1, 1, *size_hw)
        np.testing.assert_allclose(masks, wanted, atol=1e-3)


def small_subject(seed: int) -> Subject:
    models = sam_models(random_checkpoint("sam", SMALL, seed), "small", (256, 256))
    return Subject("small", tuple(model.spec for model in models))


def test_random_weights_are_made_again_only_when_their_hash_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = small_subject(seed=0)
    assert remake_random_sam(subject, tmp_path) is None  # of no official size
    monkeypatch.setattr(sam_module, "VARIANTS", {"small": SMALL})
    path = remake_random_sam(subject, tmp_path)
    assert path is not None
    weights, made = load_checkpoint(path), random_checkpoint("sam", SMALL)
    assert weights.metadata["weights"] == "random"
    assert all(torch.equal(tensor, made.state_dict[name]) for name, tensor in weights.state_dict.items())
    assert remake_random_sam(small_subject(seed=1), tmp_path) is None
