"""SAM's weights: which SAM a file is, variants described in JSON, official files, `seg-export sam`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from seg_export.checkpoints import file_limits
from seg_export.checkpoints.checkpoint import build_model, load_checkpoint
from seg_export.checkpoints.pretrained import pretrained_path
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import main
from seg_export.families.sam import checkpoints as sam_checkpoints
from seg_export.families.sam.checkpoints import (
    OFFICIAL,
    download_official,
    load_sam_checkpoint,
    read_variant_config,
    variant_arguments,
)
from seg_export.families.sam.network import VARIANTS, build_sam, sam_arguments, variant_name
from seg_runtime.errors import BadInputError, CheckpointError, EdgesegError
from seg_runtime.repository import Repository

Run = Callable[..., tuple[int, str, str]]

SMALL: dict[str, Any] = {
    "image_size": 64,
    "encoder_embed_dim": 32,
    "encoder_depth": 2,
    "encoder_num_heads": 2,
    "encoder_global_attn_indexes": [1],
    "window_size": 3,
    "prompt_embed_dim": 32,
    "decoder_mlp_dim": 32,
    "iou_head_hidden_dim": 32,
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `seg-export sam` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seg-export", "sam", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.pth"
    torch.save(random_checkpoint("sam", SMALL).state_dict, path)
    return path


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_official_sizes_are_segment_anythings_own(name: str) -> None:
    from segment_anything.build_sam import sam_model_registry

    with torch.device("meta"):
        ours = build_sam(**VARIANTS[name]).state_dict()
        original = sam_model_registry[name]().state_dict()
    assert {key: tensor.shape for key, tensor in ours.items()} == {
        key: tensor.shape for key, tensor in original.items()
    }
    arguments = sam_arguments(ours)
    assert arguments is not None and variant_name(arguments) == name


def test_arguments_are_read_off_the_weights(small_file: Path) -> None:
    checkpoint = load_checkpoint(small_file)
    assert checkpoint.family == "sam" and checkpoint.preprocessing.input_size_hw == (64, 64)
    assert {name: checkpoint.arguments[name] for name in SMALL} == SMALL
    build_model(checkpoint)
    assert variant_name(checkpoint.arguments) is None


def test_packaged_weights_are_the_described_ones() -> None:
    digest = hashlib.sha256(pretrained_path("sam_tiny").read_bytes()).hexdigest()
    card = pretrained_path("sam_tiny").with_suffix(".md").read_text(encoding="utf-8")
    assert digest in card and pretrained_path("sam_tiny").stat().st_size < 10_000_000


def test_random_weights_are_seeded_and_hide_no_positions() -> None:
    first, second, other = (random_checkpoint("sam", SMALL, seed) for seed in (3, 3, 4))
    assert first.sha256 == second.sha256 != other.sha256
    assert first.metadata["weights"] == "random"
    for name, tensor in first.state_dict.items():
        if name.endswith(("pos_embed", "rel_pos_h")):
            assert tensor.std() > 0.05


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "wanted"), [(one, other) for one in VARIANTS for other in VARIANTS if one != other]
)
def test_checkpoint_of_another_variant_is_refused_and_named(
    given: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One tensor stands for many, as no file of users may have it: only shapes are read before the refusal.
    monkeypatch.setattr(file_limits, "_FREE_TENSORS", 2**40)
    shapes = {name: tensor.shape for name, tensor in _meta_state_dict(given).items()}
    path = tmp_path / "sam.pth"
    torch.save({name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}, path)
    width = VARIANTS[given]["encoder_embed_dim"]
    message = (
        f"is a {given}, not the {wanted} .*encoder_embed_dim {width} instead of .*pass --variant {given}"
    )
    with pytest.raises(CheckpointError, match=message):
        load_sam_checkpoint(path, variant_arguments(wanted))


def test_checkpoint_of_no_official_size_says_what_differs(small_file: Path) -> None:
    with pytest.raises(
        CheckpointError, match="is of another size, not the vit_b that was asked for: image_size 64"
    ):
        load_sam_checkpoint(small_file, variant_arguments("vit_b"))
    with pytest.raises(CheckpointError, match="not the SAM that was described: window_size 3 instead of 4"):
        load_sam_checkpoint(small_file, {**SMALL, "window_size": 4})
    assert load_sam_checkpoint(small_file, SMALL).arguments == SMALL


def test_checkpoint_of_another_family_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="is a unet, not a SAM"):
        load_sam_checkpoint(tiny_checkpoint)


def test_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(BadInputError, match="unknown SAM variant 'vitb': did you mean vit_b"):
        variant_arguments("vitb")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read the variant configuration"),
        ("[]", "expected a JSON object"),
        ('{"constructor": {"depth": 3}}', "does not know 'depth'; its arguments are encoder_embed_dim"),
        ('{"image_size": 64}', "needs 'encoder_embed_dim'"),
    ],
)
def test_variant_configuration_that_cannot_be_used_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "variant.json").write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_variant_config(tmp_path / "variant.json")
    with pytest.raises(BadInputError, match="cannot read"):
        read_variant_config(tmp_path / "none.json")


def test_variant_configuration_is_read_alone_or_with_other_facts(tmp_path: Path) -> None:
    for document in (SMALL, {"name": "small", "constructor": SMALL}):
        (tmp_path / "variant.json").write_text(json.dumps(document))
        assert read_variant_config(tmp_path / "variant.json") == SMALL


@pytest.mark.slow
def test_export_of_a_described_variant_publishes_its_three_models(run: Run, small_file: Path) -> None:
    Path("small.json").write_text(json.dumps(SMALL))
    arguments = ("--variant-config", "small.json", "--checkpoint", str(small_file))
    code, out, err = run(*arguments, "--embeddings", "fp16", "--json")
    assert code == 0, err
    specs = [model["spec"] for model in json.loads(out)]
    assert [spec["name"] for spec in specs] == ["small_encoder", "small_decoder", "small"]
    assert {spec["checkpoint_sha256"] for spec in specs} == {
        hashlib.sha256(small_file.read_bytes()).hexdigest()
    }
    assert Repository("triton_repo").models() == ("small", "small_decoder", "small_encoder")
    assert specs[0]["outputs"][0]["dtype"] == specs[1]["inputs"][0]["dtype"] == "float16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "vit_b"], "exactly one of --checkpoint FILE, --download, --tiny and --random"),
        (["--tiny", "--random"], "exactly one of"),
        (["--variant", "vit_x", "--random"], "unknown SAM variant 'vit_x'"),
        (["--variant", "vit_b", "--variant-config", "a.json", "--random"], "pass one of them"),
        (["--variant-config", "a.json", "--download"], "pass --variant vit_b, vit_l or vit_h"),
        (["--variant", "vit_b", "--tiny"], "is of another size, not the vit_b"),
        (["--checkpoint", "none.pth"], "none.pth"),
        (["--tiny", "--name", "../sam"], "cannot be a model's name"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch, small_file: Path) -> Iterator[list[str | None]]:
    """Serves a small SAM in place of vit_b, and breaks off once; gives the ranges that were asked for."""
    content, ranges = small_file.read_bytes(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            start = int(asked[len("bytes=") : -1]) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start:] if ranges else content[:1000])
            ranges.append(asked)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{listener.server_address[1]}/small_sam.pth"
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(sam_checkpoints.OFFICIAL, "vit_b", (url, digest))
        yield ranges
        listener.shutdown()
        thread.join()


def test_official_checkpoint_is_fetched_once_resumed_and_checked(
    file_server: list[str | None], tmp_path: Path, small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen: list[tuple[int, int | None]] = []
    path = download_official("vit_b", on_bytes=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "cache" / "edgeseg" / "small_sam.pth"
    assert path.read_bytes() == small_file.read_bytes()
    assert file_server == [None, "bytes=1000-"]
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    assert download_official("vit_b") == path and len(file_server) == 2


def test_download_with_another_hash_is_refused(
    file_server: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sam_checkpoints.OFFICIAL, "vit_b", (OFFICIAL["vit_b"][0], "00" * 32))
    with pytest.raises(EdgesegError, match="expected 0000"):
        download_official("vit_b", folder=tmp_path / "cache")


def _meta_state_dict(variant: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return dict(build_sam(**VARIANTS[variant]).state_dict())


# VmHWM and not ru_maxrss: that one starts at the size of the process that started this one.
_ENCODE = """
import re, sys
from pathlib import Path
import numpy as np, onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = np.zeros((1, 1024, 1024, 3), np.uint8)
session.run(None, {"image": image, "valid_hw": np.array([[1024, 683]], np.int32)})
sys.stdout.write(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.full
def test_vit_b_is_verified_and_encodes_in_bounded_memory(vit_b_folder: Path) -> None:
    graph = Repository(vit_b_folder / "triton_repo").graph_path("sam_encoder")
    answer = subprocess.run([sys.executable, "-c", _ENCODE, str(graph)], check=True, stdout=subprocess.PIPE)
    assert int(answer.stdout) <= 3_500_000, "kB at the peak; the plain export takes 7.2 million"
