"""Half precision where it hurts: SAMs whose activations overflow, and an error that `--bisect` must find."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from typer.testing import CliRunner

from seg_export.checkpoints.checkpoint import Checkpoint
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import app
from seg_export.export import ExportedModel, export_models
from seg_export.families import traceable_models
from seg_export.precision.half import rounded, to_half
from seg_export.tracing.trace import optimise, trace
from seg_export.verification.bisect import bisect_published
from seg_export.verification.graph_runner import GraphRunner
from seg_export.verification.tolerances import TOLERANCES
from seg_runtime.repository import Repository

SIDE = 64
SMALL = {
    "image_size": SIDE,
    "encoder_embed_dim": 32,
    "encoder_depth": 2,
    "encoder_num_heads": 2,
    "encoder_global_attn_indexes": [1],
    "window_size": 3,
    "prompt_embed_dim": 32,
    "decoder_mlp_dim": 32,
    "iou_head_hidden_dim": 32,
}
Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def hot_sam() -> Checkpoint:
    """The same function as without the factors: attention is linear in its values, which reach millions."""
    checkpoint = random_checkpoint("sam", SMALL)
    weights = {name: tensor.clone() for name, tensor in checkpoint.state_dict.items()}
    attention = "image_encoder.blocks.0.attn"
    for kind in ("weight", "bias"):
        weights[f"{attention}.qkv.{kind}"][2 * SMALL["encoder_embed_dim"] :] *= 1e7  # type: ignore[operator]
        weights[f"mask_decoder.transformer.layers.0.self_attn.v_proj.{kind}"] *= 1e7
    weights[f"{attention}.proj.weight"] *= 1e-7
    weights["mask_decoder.transformer.layers.0.self_attn.out_proj.weight"] *= 1e-7
    return replace(checkpoint, state_dict=weights)


@pytest.fixture(scope="module")
def in_fp32(hot_sam: Checkpoint) -> dict[str, onnx.ModelProto]:
    models = traceable_models(hot_sam, "hot", (SIDE, SIDE), 1)
    return {model.spec.name: optimise(trace(model), model) for model in models}


@pytest.fixture(scope="module")
def published(
    hot_sam: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[ExportedModel, ...]]:
    repo = tmp_path_factory.mktemp("hot_sam")
    return repo, export_models(hot_sam, repo, "hot", precision="fp16")


def adversarial_images() -> dict[str, Tensors]:
    """All black, all white, noise, and black next to white everywhere; a part of the last is no image."""
    shape = (1, SIDE, SIDE, 3)
    checks = np.indices(shape).sum(axis=0) % 2 * 255
    noise = np.random.default_rng(1).integers(0, 256, shape)
    kinds = {"black": np.zeros(shape), "white": np.full(shape, 255), "noise": noise, "checks": checks}
    return {
        name: {"image": image.astype(np.uint8), "valid_hw": np.array([[side, SIDE]], np.int32)}
        for (name, image), side in zip(kinds.items(), (SIDE, SIDE, SIDE, SIDE // 3), strict=True)
    }


def prompts(embedding: NDArray[Any]) -> Tensors:
    """Points at the corners and far outside of the image, and a box around everything."""
    return {
        "image_embeddings": embedding,
        "point_coords": np.array(
            [[[0, 0], [SIDE, SIDE]], [[-5000, 9000], [0, 0]], [[0, 0], [SIDE, SIDE]]], "f4"
        ),
        "point_labels": np.array([[1, 0], [1, -1], [2, 3]], np.int32),
        "mask_input": np.full((1, 1, SIDE // 4, SIDE // 4), 1e4, np.float32),
        "has_mask_input": np.array([0, 1, 1], np.float32),
    }


def chain(encoder: onnx.ModelProto, decoder: onnx.ModelProto, images: Tensors) -> Tensors:
    """All outputs of both, the decoder's on the encoder's embedding."""
    embedding = GraphRunner(encoder, "encoder")(images)
    return embedding | GraphRunner(decoder, "decoder")(prompts(embedding["image_embeddings"]))


@pytest.mark.full
def test_naive_conversion_of_a_sam_overflows_and_the_published_one_does_not(
    in_fp32: dict[str, onnx.ModelProto], published: tuple[Path, tuple[ExportedModel, ...]]
) -> None:
    full = [in_fp32[f"hot_{half}"] for half in ("encoder", "decoder")]
    repository = Repository(published[0])
    ours = [rounded(onnx.load(repository.graph_path(f"hot_{half}"))) for half in ("encoder", "decoder")]
    naive = [rounded(to_half(graph, ())) for graph in full]
    tolerance = TOLERANCES["fp16"]
    for name, images in adversarial_images().items():
        wanted = chain(full[0], full[1], images)
        got = chain(ours[0], ours[1], images)
        for output, values in got.items():
            assert np.isfinite(values).all(), (name, output)
            scale = max(1.0, float(np.abs(wanted[output]).max()))
            np.testing.assert_allclose(
                values,
                wanted[output],
                rtol=tolerance.rtol,
                atol=tolerance.atol * scale,
                err_msg=f"{name}, {output}",
            )
        embedding = GraphRunner(naive[0], "encoder")(images)["image_embeddings"]
        assert not np.isfinite(embedding).all(), name
        logits = GraphRunner(naive[1], "decoder")(prompts(wanted["image_embeddings"]))["low_res_masks"]
        assert not np.isfinite(logits).all(), name


@pytest.mark.full
def test_what_overflows_in_both_halves_is_told(published: tuple[Path, tuple[ExportedModel, ...]]) -> None:
    for exported in published[1][:2]:
        assert exported.precision
        assert any(reason.startswith("values up to") for reason in exported.precision.kept.values())
        assert len(exported.precision.kept) < exported.precision.nodes


@pytest.mark.full
def test_bisect_names_the_product_that_overflows_in_a_sam(
    hot_sam: Checkpoint, published: tuple[Path, tuple[ExportedModel, ...]]
) -> None:
    found = bisect_published(published[0], "hot_encoder", hot_sam)
    assert found.first is None
    assert found.first_all_half is not None
    assert found.first_all_half.difference == math.inf
    assert found.first_all_half.magnitude > 65504


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("place", [0, 3, -1])
def test_bisect_command_names_the_node_whose_weights_were_changed(
    tiny_checkpoint: Path, tmp_path: Path, precision: str, place: int
) -> None:
    repo = ["--repo", str(tmp_path)]
    verify = ["verify", "unet_tiny", "--checkpoint", str(tiny_checkpoint), *repo, "--bisect", "--json"]
    run = CliRunner()
    made = run.invoke(
        app,
        [
            "unet",
            "--checkpoint",
            str(tiny_checkpoint),
            "--name",
            "unet_tiny",
            *repo,
            "--precision",
            precision,
        ],
    )
    assert made.exit_code == 0, made.output
    untouched = run.invoke(app, verify)
    assert untouched.exit_code == 0, untouched.output
    assert json.loads(untouched.stdout)["bisect"]["first"] is None

    path = tmp_path / "unet_tiny" / "1" / "model.onnx"
    graph = onnx.load(path)
    layer = [node for node in graph.graph.node if node.op_type == "Conv"][place]
    weights = next(tensor for tensor in graph.graph.initializer if tensor.name == layer.input[1])
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] += 1
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(graph, path)

    told = run.invoke(app, verify)
    found = json.loads(told.stdout)["bisect"]["first"]
    assert (found["node"], found["op"]) == (layer.name, "Conv")
    assert getattr(told.exception, "exit_code", None) == 3
