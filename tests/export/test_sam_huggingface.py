"""SAM and SAM2 of Hugging Face transformers: their names, their folders, and what they compute."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from sam2_models import weightless
from torch import nn

from seg_export.checkpoints import file_limits
from seg_export.checkpoints.checkpoint import build_model, load_checkpoint
from seg_export.cli.main import main
from seg_export.families.sam.checkpoints import load_sam_checkpoint, recognise_sam
from seg_export.families.sam.network import VARIANTS as SAM_VARIANTS
from seg_export.families.sam2.checkpoints import load_sam2_checkpoint, recognise_sam2
from seg_export.families.sam2.network import VARIANTS as SAM2_VARIANTS
from seg_export.families.sam2.network import build_sam2
from seg_runtime.errors import CheckpointError

pytestmark = pytest.mark.full

SIDE = 128
GRID = SIDE // 16
POINTS, LABELS = torch.tensor([[[[20.0, 30.0], [60.0, 50.0]]]]), torch.tensor([[[1, 0]]])
"""(image, prompt, point, 2) in x, y, and (image, prompt, point), as transformers takes them."""

SAM_SIZES: dict[str, Any] = {
    "vision_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "window_size": 3,
        "global_attn_indexes": [1],
        "output_channels": 32,
        "num_pos_feats": 16,
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": 64},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 32, "iou_head_hidden_dim": 32, "iou_head_depth": 4},
}
SAM2_SIZES: dict[str, Any] = {
    "vision_config": {
        "backbone_config": {
            "hidden_size": 16,
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [16, 32, 64, 128],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "global_attention_blocks": [3],
            "window_size_per_stage": [8, 4, 6, 3],
            "model_type": "sam2_hiera_det_model",
        },
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "model_type": "sam2_vision_model",
    },
    "prompt_encoder_config": {"image_size": SIDE},
    "mask_decoder_config": {},
    "image_size": SIDE,
    "memory_attention_num_layers": 2,
    "memory_attention_rope_feat_sizes": [GRID, GRID],
}
BACKBONES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    "base_plus": {
        "hidden_size": 112,
        "blocks_per_stage": [2, 3, 16, 3],
        "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [12, 16, 20],
        "window_positional_embedding_background_size": [14, 14],
    },
    "large": {
        "hidden_size": 144,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "global_attention_blocks": [23, 33, 43],
        "window_size_per_stage": [8, 4, 16, 8],
    },
}
"""What `convert_sam2_to_hf.py` of transformers writes into the configuration of each size."""


@pytest.fixture(scope="module")
def sam() -> Any:
    return _randomised(transformers.SamModel(transformers.SamConfig(**SAM_SIZES)))


@pytest.fixture(scope="module")
def sam2() -> Any:
    model = _randomised(transformers.Sam2VideoModel(transformers.Sam2VideoConfig(**SAM2_SIZES)))
    # One tensor of sam2's, of which transformers keeps two.
    own = model.prompt_encoder.shared_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.copy_(own)
    return model


@pytest.fixture(scope="module")
def sam_folder(sam: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(
        sam, tmp_path_factory.mktemp("sam"), transformers.SamImageProcessor(size={"longest_edge": 64})
    )


@pytest.fixture(scope="module")
def sam2_folder(sam2: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    size = {"height": SIDE, "width": SIDE}
    return _saved(sam2, tmp_path_factory.mktemp("sam2"), transformers.Sam2ImageProcessor(size=size))


@torch.no_grad()
def test_sam_of_transformers_computes_the_same_in_segment_anything(sam: Any, sam_folder: Path) -> None:
    checkpoint = load_sam_checkpoint(sam_folder)
    assert checkpoint.steps == ("renamed its tensors from transformers' names to segment_anything's",)
    ours: Any = build_model(checkpoint)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    embeddings = ours.image_encoder(image)
    _assert_same(sam.get_image_embeddings(image), embeddings)
    mask = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    box = torch.tensor([[[5.0, 6.0, 50.0, 40.0]]])
    prompts = ours.prompt_encoder(points=(POINTS[0] / 2, LABELS[0]), boxes=box[0], masks=mask)
    masks, scores = ours.mask_decoder(embeddings, ours.prompt_encoder.get_dense_pe(), *prompts, True)
    theirs = sam(
        image_embeddings=embeddings,
        input_points=POINTS / 2,
        input_labels=LABELS,
        input_boxes=box,
        input_masks=mask,
        multimask_output=True,
    )
    _assert_same(theirs.pred_masks[0], masks)
    _assert_same(theirs.iou_scores[0], scores)


@torch.no_grad()
def test_sam2_of_transformers_computes_the_same_images_in_sam2(sam2: Any, sam2_folder: Path) -> None:
    checkpoint = load_sam2_checkpoint(sam2_folder)
    assert checkpoint.steps == ("renamed its tensors from transformers' names to sam2's",)
    assert checkpoint.preprocessing.input_size_hw == (SIDE, SIDE) and checkpoint.carried == {"size_hw"}
    ours: Any = build_model(checkpoint)
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    finest, middle, coarse = ours.forward_image(image)["backbone_fpn"]
    for theirs, mine in zip(
        sam2.get_image_features(image).fpn_hidden_states, (finest, middle, coarse), strict=True
    ):
        _assert_same(theirs.permute(1, 2, 0).reshape(mine.shape), mine)

    # The video model gives no masks of an image alone; the image model is a part of it.
    parts = {"vision_config": sam2.config.vision_config, "prompt_encoder_config": {"image_size": SIDE}}
    image_model = transformers.Sam2Model(transformers.Sam2Config(**parts)).eval()
    assert not image_model.load_state_dict(sam2.state_dict(), strict=False).missing_keys
    theirs = image_model(pixel_values=image, input_points=POINTS, input_labels=LABELS, multimask_output=True)
    prompt = {"point_coords": POINTS[0], "point_labels": LABELS[0]}
    coarse = coarse + ours.no_mem_embed.reshape(1, -1, 1, 1)
    answer = ours._forward_sam_heads(coarse, prompt, None, [finest, middle], multimask_output=True)
    _assert_same(theirs.pred_masks[0], answer[0])
    _assert_same(theirs.iou_scores[0], answer[2])
    _assert_same(theirs.object_score_logits[0], answer[6])


@torch.no_grad()
def test_sam2_of_transformers_computes_the_same_memories_in_sam2(sam2: Any, sam2_folder: Path) -> None:
    ours: Any = build_model(load_checkpoint(sam2_folder))
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(1, 256, GRID, GRID, generator=generator)
    mask = torch.rand(1, 1, SIDE, SIDE, generator=generator)
    memory = ours.memory_encoder(features, mask, skip_mask_sigmoid=True)["vision_features"]
    _assert_same(sam2.memory_encoder(features, mask)[0], memory)

    current, positions = torch.randn(2, GRID * GRID, 1, 256, generator=generator)
    memories, memory_positions = torch.randn(2, 2 * GRID * GRID + 4, 1, 64, generator=generator)
    given = (current, memories, positions, memory_positions)
    attended = sam2.memory_attention(*given, num_object_pointer_tokens=4)
    _assert_same(attended[0], ours.memory_attention(*given, num_obj_ptr_tokens=4).transpose(0, 1))

    tokens = torch.randn(1, 256, generator=generator)
    _assert_same(sam2.object_pointer_proj(tokens), ours.obj_ptr_proj(tokens))
    _assert_same(sam2.temporal_positional_encoding_projection_layer(tokens), ours.obj_ptr_tpos_proj(tokens))
    _assert_same(sam2.mask_downsample(mask), ours.mask_downsample(mask))
    for theirs, mine in {
        "memory_temporal_positional_encoding": "maskmem_tpos_enc",
        "no_memory_embedding": "no_mem_embed",
        "no_memory_positional_encoding": "no_mem_pos_enc",
        "no_object_pointer": "no_obj_ptr",
        "occlusion_spatial_embedding_parameter": "no_obj_embed_spatial",
    }.items():
        assert torch.equal(sam2.state_dict()[theirs], ours.state_dict()[mine])


@pytest.mark.parametrize("name", list(SAM_VARIANTS))
def test_official_sams_have_segment_anythings_tensors(name: str, tmp_path: Path) -> None:
    from segment_anything.build_sam import sam_model_registry

    sizes = SAM_VARIANTS[name]
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": sizes["encoder_embed_dim"],
            "num_hidden_layers": sizes["encoder_depth"],
            "num_attention_heads": sizes["encoder_num_heads"],
            "global_attn_indexes": sizes["encoder_global_attn_indexes"],
        },
    )
    with torch.device("meta"):
        original = sam_model_registry[name]().state_dict()
        tensors = _light(transformers.SamModel(config).state_dict())
    checkpoint = recognise_sam(tensors, _with_config(tmp_path, config))
    assert checkpoint is not None and _shapes(checkpoint.state_dict) == _shapes(original)
    assert {key: checkpoint.arguments[key] for key in sizes} == sizes


@pytest.mark.parametrize("name", list(SAM2_VARIANTS))
def test_official_sam2s_have_sam2s_tensors(name: str, tmp_path: Path) -> None:
    release, size = name.split("_", 1)
    backbone = {"model_type": "sam2_hiera_det_model", **BACKBONES[size]}
    width = backbone.get("hidden_size", 96)
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [8 * width, 4 * width, 2 * width, width],
    }
    newer = release == "sam2.1"
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        enable_occlusion_spatial_embedding=newer,
        enable_temporal_pos_encoding_for_object_pointers=newer,
    )
    with weightless():
        original = build_sam2(**SAM2_VARIANTS[name]).state_dict()
        tensors = _light(transformers.Sam2VideoModel(config).state_dict())
    path = _with_config(tmp_path, config)
    checkpoint = recognise_sam2(tensors, path)
    assert checkpoint is not None and _shapes(checkpoint.state_dict) == _shapes(original)
    assert checkpoint.arguments == SAM2_VARIANTS[name]
    path.with_name("config.json").unlink()
    alone = recognise_sam2(tensors, path)
    assert alone is not None and alone.arguments == SAM2_VARIANTS[name]


def test_file_without_a_configuration_and_pickled_weights_load_too(
    sam: Any, sam_folder: Path, sam2_folder: Path, tmp_path: Path
) -> None:
    weights = load_checkpoint(sam_folder).state_dict
    alone = shutil.copy(sam_folder / "model.safetensors", tmp_path / "sam.safetensors")
    (tmp_path / "pickled").mkdir()
    shutil.copy(sam_folder / "config.json", tmp_path / "pickled")
    torch.save(sam.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    torch.save({"model": {f"net.sam.{n}": t for n, t in sam.state_dict().items()}}, tmp_path / "trained.pth")
    for path in (Path(alone), tmp_path / "pickled", tmp_path / "trained.pth"):
        again = load_checkpoint(path).state_dict
        assert again.keys() == weights.keys()
        assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())

    # Of SAM2's sizes the weights say too little.
    small = Path(shutil.copy(sam2_folder / "model.safetensors", tmp_path / "sam2.safetensors"))
    with pytest.raises(CheckpointError, match="a SAM2 of no official size"):
        load_checkpoint(small)
    arguments = load_checkpoint(sam2_folder).arguments
    assert load_sam2_checkpoint(small, arguments).arguments == arguments
    assert load_sam2_checkpoint(sam2_folder, arguments).arguments == arguments
    with pytest.raises(
        CheckpointError, match=r"not the SAM2 that was described: global_att_blocks \[3\] inst"
    ):
        load_sam2_checkpoint(sam2_folder, arguments | {"global_att_blocks": [2]})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vision_config.window_size", 2, "vision_config.window_size 2, and what would be exported has 3"),
        ("vision_config.num_attention_heads", 4, "num_attention_heads 4, and what would be exported has 2"),
        ("vision_config.global_attn_indexes", [0], r"global_attn_indexes \[0\], .* has \[1\]"),
        ("vision_config.image_size", 128, "image_size 128"),
        ("vision_config.num_hidden_layers", None, "num_hidden_layers 12"),
        ("vision_config.hidden_act", "relu", "hidden_act relu"),
        ("prompt_encoder_config.image_size", 128, "prompt_encoder_config.image_size 128"),
        ("mask_decoder_config.num_attention_heads", 4, "mask_decoder_config.num_attention_heads 4"),
        ("mask_decoder_config", 3, None),
        (
            "model_type",
            "sam_hq",
            "has the tensors of a sam, and its config.json is of the model_type 'sam_hq'",
        ),
        ("image_mean", [0.5, 0.5, 0.5], r"image_mean \[0.5, 0.5, 0.5\], .* has \[0.485"),
        ("size", {"longest_edge": 1024}, "size {'longest_edge': 1024}"),
    ],
)
def test_sam_whose_configuration_says_something_else_is_refused(
    name: str, value: Any, message: str | None, sam_folder: Path, tmp_path: Path
) -> None:
    folder = _changed(sam_folder, tmp_path / "sam", name, value)
    if message is None:
        assert load_checkpoint(folder).family == "sam"
        return
    for path in (folder, folder / "model.safetensors"):
        with pytest.raises(CheckpointError, match=message) as raised:
            load_checkpoint(path)
        assert "\n" not in str(raised.value)


_BACKBONE = "vision_config.backbone_config"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (f"{_BACKBONE}.num_attention_heads_per_stage", [1, 1, 1, 1], r"has \[1, 2, 4, 8\]"),
        (f"{_BACKBONE}.num_attention_heads_per_stage", 2, "has a size that is none"),
        (f"{_BACKBONE}.blocks_per_stage", [1, 2, 1, 1], r"a SAM2 with stages \[1, 1, 2, 1\], and its config"),
        (f"{_BACKBONE}.num_query_pool_stages", 2, "num_query_pool_stages 2"),
        ("vision_config.fpn_top_down_levels", [3], r"fpn_top_down_levels \[3\]"),
        (
            "prompt_encoder_config.image_size",
            256,
            r"backbone_feature_sizes \[\[32, 32\], .* has \[\[64, 64\]",
        ),
        ("prompt_encoder_config.image_size", "large", "has a size that is none"),
        ("image_size", 1024, "image_size 1024, and what would be exported has 128"),
        ("memory_attention_num_layers", 4, "a SAM2 with memory_layers 2, and its config.json says 4"),
        ("rope_parameters", {"rope_theta": 500.0}, "rope_theta 500.0"),
        (
            "enable_occlusion_spatial_embedding",
            False,
            "enable_temporal_pos_encoding_for_object_pointers True",
        ),
        ("model_type", "edgetam_video", "is of the model_type 'edgetam_video'"),
        ("do_normalize", False, "do_normalize False"),
    ],
)
def test_sam2_whose_configuration_says_something_else_is_refused(
    name: str, value: Any, message: str, sam2_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message) as raised:
        load_checkpoint(_changed(sam2_folder, tmp_path / "sam2", name, value))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("SamHQ", "is a SAM-HQ: seg-export module"),
        ("EdgeTam", "is an EdgeTAM: seg-export module"),
        ("Sam3Tracker", "is a SAM 3: seg-export module"),
        (
            "Sam2",
            "is a Sam2Model of transformers, a SAM2 without its memory: load its weights into the Sam2Vid",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.interface. is deprecated")  # what timm needs
def test_other_sams_of_transformers_are_refused_by_what_they_are(
    model: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_limits, "_FREE_TENSORS", 2**40)  # the tensors below take no place in the file
    with torch.device("meta"):
        network = getattr(transformers, f"{model}Model")(getattr(transformers, f"{model}Config")())
    torch.save(_light(network.state_dict()), tmp_path / "any.bin")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "any.bin")


def test_folder_that_cannot_be_used_is_refused(sam: Any, sam2: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder: name the file of weights in it"):
        load_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"are in several files: .*max_shard_size"):
        load_checkpoint(tmp_path)
    torch.save({"encoder.weight": torch.ones(2, 2)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "sam_pe"}')
    with pytest.raises(CheckpointError, match="is a 'sam_pe' of Hugging Face transformers"):
        load_checkpoint(tmp_path)
    twice = dict(sam2.state_dict())
    twice["shared_image_embedding.positional_embedding"] = torch.ones(2, 128)
    torch.save(twice, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=r"two different tensors for the one 'sam_prompt_encoder\.pe_layer"
    ):
        load_checkpoint(tmp_path)


def test_command_takes_a_folder(
    sam_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for family, variant in {"sam": "vit_b", "sam2": "sam2_tiny"}.items():
        arguments = [family, "--checkpoint", str(sam_folder), "--variant", variant]
        monkeypatch.setattr(sys, "argv", ["seg-export", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert "is of another size, not the vit_b that was asked for: image_size 64" in errors
    assert "is a sam, not a SAM2" in errors


@torch.no_grad()
def _randomised(model: nn.Module) -> nn.Module:
    """Seeded weights in place of those that begin with zeros, and would hide a tensor in a wrong place."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        nn.init.normal_(
            parameter, std=0.8 / fan_in**0.5 if name.endswith("weight") else 0.3, generator=generator
        )
    return model.eval()


def _saved(model: Any, folder: Path, processor: Any) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _with_config(folder: Path, config: Any) -> Path:
    """A file of no weights next to a configuration."""
    config.save_pretrained(folder)
    path = folder / "model.safetensors"
    path.write_bytes(b"weights")
    return path


def _changed(folder: Path, copy: Path, name: str, value: Any) -> Path:
    """A copy of a folder with another value in its configuration, or its processor's; None takes it out."""
    shutil.copytree(folder, copy)
    *way, last = name.split(".")
    for file in ("config.json", "preprocessor_config.json"):
        document = section = json.loads((copy / file).read_text())
        for part in way:
            section = section.get(part, {})
        if last in section:
            section[last] = value
            if value is None:
                del section[last]
            (copy / file).write_text(json.dumps(document))
            return copy
    raise KeyError(name)


def _light(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One number for each tensor's many."""
    return {name: torch.zeros((), device="cpu").expand(tensor.shape) for name, tensor in tensors.items()}


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _assert_same(theirs: torch.Tensor, ours: torch.Tensor) -> None:
    assert theirs.shape == ours.shape and ours.abs().max() > 0.01
    assert (theirs - ours).abs().max() <= 1e-4 * ours.abs().max()
