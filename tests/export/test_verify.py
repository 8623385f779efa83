"""Verification: right graphs pass, wrong ones are named and never published."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import seg_export.export as export_steps
from seg_export.checkpoints.checkpoint import Checkpoint
from seg_export.export import export_model
from seg_export.families import traceable_model
from seg_export.families.semantic.random import random_unet
from seg_export.tracing.trace import optimise, save_graph, trace
from seg_export.tracing.traceable import TraceableModel
from seg_export.verification.cases import VerificationCase, image_cases, synthetic_cases
from seg_export.verification.comparison import (
    VerificationReport,
    _mask_iou,
    _power_of_ten_above,
    compare,
    shown_iou,
)
from seg_export.verification.published import verify_published
from seg_export.verification.tolerances import TOLERANCES
from seg_export.verification.verify import VerificationError, require_parity, verify
from seg_runtime.errors import CheckpointError, ModelNotFoundError, ParityError
from seg_runtime.files.images import list_images, read_image
from seg_runtime.preprocess import to_batch
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec

SIZE_HW = (32, 48)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return random_unet(features=(4, 8))


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint) -> TraceableModel:
    return traceable_model(checkpoint, "unet", SIZE_HW, 8)


@pytest.fixture(scope="module")
def graph(model: TraceableModel) -> onnx.ModelProto:
    return optimise(trace(model), model)


@pytest.fixture(scope="module")
def xrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four gray images of other sizes than the model's."""
    import cv2

    folder = tmp_path_factory.mktemp("xrays")
    generator = np.random.default_rng(0)
    for index in range(4):
        cv2.imwrite(str(folder / f"{index}.png"), generator.integers(0, 256, (60, 40 + index), np.uint8))
    return folder


def with_bias(graph: onnx.ModelProto, value: float) -> onnx.ModelProto:
    """A copy of the graph with something added to the last convolution's bias."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    (bias,) = (item for item in changed.graph.initializer if item.name.endswith("out.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(value), bias.name))
    return changed


def test_right_graph_passes_at_batch_1_2_and_3(
    model: TraceableModel, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    save_graph(graph, tmp_path / "model.onnx")
    report = verify(model, tmp_path / "model.onnx", synthetic_cases(model.spec))
    require_parity(report)
    assert [item.batch for item in report.comparisons] == [1, 2, 3]
    assert all(item.max_abs <= 1e-5 and item.mask_iou == 1 for item in report.comparisons)
    assert report.parity().max_abs in (0.0, 1e-7, 1e-6, 1e-5)


def test_figures_are_those_of_a_known_difference(
    model: TraceableModel, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    """Compared with the differences of the probabilities that PyTorch itself gives for both biases."""
    import torch

    save_graph(with_bias(graph, 0.25), tmp_path / "model.onnx")
    (case, *_) = synthetic_cases(model.spec)
    (item,) = verify(model, tmp_path / "model.onnx", [case]).comparisons
    with torch.inference_mode():
        reference = model.module(torch.from_numpy(case.inputs["image"])).double()
    shifted = torch.sigmoid(torch.logit(reference) + 0.25)
    assert item.max_abs == pytest.approx(float((shifted - reference).abs().max()), rel=1e-4)
    assert item.max_rel == pytest.approx(float(((shifted - reference) / reference).abs().max()), rel=1e-4)
    first, second = reference >= 0.5, shifted >= 0.5
    foreground = float((first & second).sum() / (first | second).sum())
    background = float((~first & ~second).sum() / (~first | ~second).sum())
    assert item.mask_iou == pytest.approx(min(foreground, background))
    assert not item.passed
    assert item.max_abs - 1e-5 <= item.tolerance_needed <= item.max_abs  # the table allows 1e-5 of the value


@pytest.mark.parametrize("value", [0.5, -1e-3])
def test_sabotaged_graph_is_named_and_not_published(
    value: float, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repo = tmp_path / "repo"
    export_model(checkpoint, repo, size_hw=SIZE_HW)
    right = optimise
    monkeypatch.setattr(export_steps, "optimise", lambda graph, spec: with_bias(right(graph, spec), value))
    with pytest.raises(
        VerificationError, match=r"'probabilities' of model 'unet' .*needs a tolerance of"
    ) as caught:
        export_model(checkpoint, repo, size_hw=SIZE_HW)
    assert caught.value.exit_code == 3
    assert f"{caught.value.report.worst.tolerance_needed:.1e}" in str(caught.value)
    assert Repository(repo).versions("unet") == (1,)
    assert [entry.name for entry in tmp_path.iterdir()] == ["repo"], "staging was left behind"


def test_graph_that_gives_nan_fails_though_its_masks_could_be_equal(
    model: TraceableModel, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    save_graph(with_bias(graph, float("nan")), tmp_path / "model.onnx")
    report = verify(model, tmp_path / "model.onnx", synthetic_cases(model.spec))
    with pytest.raises(ParityError, match="is not finite"):
        require_parity(report)
    text = json.dumps(report.as_dict(), allow_nan=False)
    assert json.loads(text)["comparisons"][0]["max_abs"] is None


def test_truncated_graph_is_one_clear_error(
    model: TraceableModel, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.SerializeToString()[:500])
    with pytest.raises(ParityError, match="cannot load the graph of model 'unet'"):
        verify(model, path, synthetic_cases(model.spec))


def test_graph_of_another_size_is_refused(
    model: TraceableModel, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    other = traceable_model(checkpoint, "unet", (32, 32), 8)
    save_graph(optimise(trace(other), other), tmp_path / "model.onnx")
    with pytest.raises(ParityError, match="cannot run the graph"):
        verify(model, tmp_path / "model.onnx", synthetic_cases(model.spec))


def test_images_pass_through_the_clients_own_preprocessing(model: TraceableModel, xrays: Path) -> None:
    cases = image_cases(model.spec, xrays)
    assert [case.batch for case in cases] == [1, 2, 3, 3]
    images = [read_image(file, 1) for file in list_images([xrays])]
    expected = to_batch([*images, *images][:6], SIZE_HW, 1, model.spec.clahe)
    given = np.concatenate([case.inputs["image"] for case in cases[:3]])
    np.testing.assert_array_equal(given, expected)


def test_synthetic_inputs_hold_the_extremes_and_are_the_same_every_time(model: TraceableModel) -> None:
    first, second = (synthetic_cases(model.spec) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.inputs["image"], two.inputs["image"])
    black, white, _ = first[-1].inputs["image"]
    assert black.max() == 0 and white.min() == 255


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_ties_of_two_classes_are_no_fault_of_a_mask_but_other_pixels_are(precision: str) -> None:
    case, tolerance = VerificationCase("ties", {}, 1), TOLERANCES[precision]

    def passes(change: float) -> bool:
        probabilities = np.full((1, 1, 8, 8), 0.5, np.float32)
        probabilities[..., 4:, :] = 0.1
        moved = {"probabilities": probabilities.copy()}
        moved["probabilities"][..., 0, 0] -= change
        (row,) = compare(
            case, {"probabilities": probabilities}, moved, lambda out: out["probabilities"] >= 0.5, tolerance
        )
        assert row.mask_iou == 31 / 32
        if not row.passed:
            message = f"masks of output 'probabilities'.* differ from PyTorch in {precision}: mask IoU 0.9687"
            with pytest.raises(VerificationError, match=message):
                require_parity(VerificationReport("tiny", precision, tolerance, (row,)))
        return row.passed

    assert passes(6e-8) and not passes(9e-6)


def test_an_iou_below_its_limit_never_reads_as_the_limit() -> None:
    assert [shown_iou(value) for value in (0.99989, 0.9999, 1.0, 0.0)] == [
        "0.9998",
        "0.9999",
        "1.0000",
        "0.0000",
    ]


def test_mask_iou_is_the_lowest_of_all_classes() -> None:
    reference = np.array([0, 0, 1, 1, 2, 2], np.uint8)
    labels = np.array([0, 0, 1, 1, 2, 1], np.uint8)
    assert _mask_iou(reference, labels) == pytest.approx(1 / 2)
    assert _mask_iou(reference, reference) == 1
    assert _mask_iou(np.zeros(4, np.uint8), np.ones(4, np.uint8)) == 0


@pytest.mark.parametrize(("value", "bound"), [(0.0, 0.0), (3e-7, 1e-6), (1e-6, 1e-6), (0.2, 1.0)])
def test_parity_is_rounded_up_to_a_power_of_ten(value: float, bound: float) -> None:
    assert _power_of_ten_above(value) == bound


def test_published_graph_is_verified_against_any_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    export_model(checkpoint, tmp_path / "repo", size_hw=SIZE_HW)
    assert verify_published(tmp_path / "repo", "unet", checkpoint).passed
    assert not verify_published(tmp_path / "repo", "unet", random_unet(features=(4, 8), seed=9)).passed
    with pytest.raises(CheckpointError, match="does not fit model 'unet': its probabilities"):
        verify_published(tmp_path / "repo", "unet", random_unet(features=(4, 8), num_classes=2))
    with pytest.raises(ModelNotFoundError, match="did you mean 'unet'"):
        verify_published(tmp_path / "repo", "unnet", checkpoint)


def test_same_checkpoint_gives_the_same_configuration(checkpoint: Checkpoint, tmp_path: Path) -> None:
    specs: list[ModelSpec] = []
    for name in ("first", "second"):
        published = export_model(checkpoint, tmp_path / name, "unet", size_hw=SIZE_HW).published
        specs.append(replace(published.spec))
    texts = [(tmp_path / name / "unet" / "config.pbtxt").read_text() for name in ("first", "second")]
    assert texts[0] == texts[1]
    assert specs[0].parity is not None and specs[0].parity.mask_iou == 1
