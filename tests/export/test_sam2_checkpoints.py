"""SAM2's weights: which SAM2 a file is, variants described in JSON, official files, `seg-export sam2`."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from sam2_models import SMALL, weightless

from seg_export.checkpoints import file_limits
from seg_export.checkpoints.checkpoint import build_model, load_checkpoint, save_checkpoint
from seg_export.checkpoints.pretrained import pretrained_path
from seg_export.checkpoints.random_weights import random_checkpoint
from seg_export.cli.main import main
from seg_export.families.sam2 import checkpoints as sam2_checkpoints
from seg_export.families.sam2.checkpoints import (
    OFFICIAL,
    download_official,
    load_sam2_checkpoint,
    read_variant_config,
    variant_arguments,
)
from seg_export.families.sam2.network import VARIANTS, build_sam2, sam2_arguments, variant_name
from seg_runtime.errors import BadInputError, CheckpointError, EdgesegError, MissingExtraError
from seg_runtime.repository import Repository

Run = Callable[..., tuple[int, str, str]]

CONFIGURATIONS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `seg-export sam2` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seg-export", "sam2", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save({"model": random_checkpoint("sam2", SMALL).state_dict}, path)
    return path


def light_file(variant: str, path: Path) -> Path:
    """Weights with the shapes of a variant: one number stands for each tensor's many."""
    with weightless():
        tensors = build_sam2(**VARIANTS[variant]).state_dict()
    light = {name: torch.zeros(1).expand(tensor.shape) for name, tensor in tensors.items()}
    torch.save({"model": light}, path)
    return path


@pytest.mark.parametrize("name", list(VARIANTS))
def test_official_variants_are_sam2s_own(name: str) -> None:
    """Built from sam2's configuration files, which is what its own `build_sam2` does."""
    from hydra import compose
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from sam2.build_sam import build_sam2_hf  # noqa: F401 - sam2 tells hydra where its configurations are

    release, size = name.split("_", 1)
    configuration = compose(f"configs/{release}/{release}_hiera_{CONFIGURATIONS[size]}.yaml")
    OmegaConf.resolve(configuration)
    with weightless():
        ours: Any = build_sam2(**VARIANTS[name])
        theirs = instantiate(configuration.model, _recursive_=True)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    # What decides beside the weights; the video predictor's settings are checked by what the graphs compute.
    for mine, other in zip(ours.image_encoder.trunk.blocks, theirs.image_encoder.trunk.blocks, strict=True):
        assert (mine.window_size, mine.q_stride) == (other.window_size, other.q_stride)
        assert mine.attn.num_heads == other.attn.num_heads
    expected = {name: value for name, value in vars(theirs).items() if isinstance(value, bool | int | float)}
    expected |= {"binarize_mask_from_pts_for_mem_enc": True, "training": False}
    assert {name: vars(ours)[name] for name in expected} == expected
    arguments = sam2_arguments(ours.state_dict())
    assert arguments is not None and variant_name(arguments) == name


def test_official_file_says_by_itself_what_it_is(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(light_file("sam2_small", tmp_path / "any.pt"))
    assert checkpoint.family == "sam2" and variant_name(checkpoint.arguments) == "sam2_small"
    assert checkpoint.preprocessing.input_size_hw == (1024, 1024)


@pytest.mark.parametrize(
    ("given", "wanted", "difference"),
    [
        ("sam2.1_small", "sam2.1_tiny", r"stages \[1, 2, 11, 2\] instead of \[1, 2, 7, 2\]"),
        ("sam2.1_tiny", "sam2.1_large", "embed_dim 96 instead of 144"),
        ("sam2_tiny", "sam2.1_tiny", "first_release True instead of False"),
        ("sam2.1_base_plus", "sam2_base_plus", "first_release False instead of True"),
    ],
)
def test_checkpoint_of_another_variant_is_refused_and_named(
    given: str, wanted: str, difference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_limits, "_FREE_TENSORS", 2**40)
    path = light_file(given, tmp_path / "sam2.pt")
    message = f"is a {given}, not the {wanted} that was asked for: .*{difference}.*pass --variant {given}"
    with pytest.raises(CheckpointError, match=message):
        load_sam2_checkpoint(path, variant_arguments(wanted))


def test_checkpoint_of_no_official_size_wants_a_description(small_file: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a SAM2 of no official size.*--variant-config FILE\.json"):
        load_checkpoint(small_file)
    with pytest.raises(
        CheckpointError, match="is of another size, not the SAM2 that was described: memory_layers"
    ):
        load_sam2_checkpoint(small_file, {**SMALL, "memory_layers": 3})
    checkpoint = load_sam2_checkpoint(small_file, SMALL)
    assert checkpoint.arguments == SMALL and checkpoint.preprocessing.input_size_hw == (256, 256)
    assert checkpoint.sha256 == hashlib.sha256(small_file.read_bytes()).hexdigest()
    build_model(checkpoint)


def test_plain_state_dict_and_our_own_file_load_too(small_file: Path, tmp_path: Path) -> None:
    weights = load_sam2_checkpoint(small_file, SMALL)
    torch.save(weights.state_dict, tmp_path / "plain.pt")
    save_checkpoint(
        tmp_path / "ours.pth",
        family="sam2",
        arguments=SMALL,
        state_dict=weights.state_dict,
        preprocessing=weights.preprocessing,
        class_names=(),
    )
    for name, arguments in (("plain.pt", SMALL), ("ours.pth", SMALL), ("ours.pth", None)):
        again = load_sam2_checkpoint(tmp_path / name, arguments)
        assert again.arguments == SMALL
        assert all(torch.equal(again.state_dict[key], value) for key, value in weights.state_dict.items())


@pytest.mark.slow
def test_file_that_cannot_be_used_is_refused(small_file: Path, tmp_path: Path) -> None:
    content = small_file.read_bytes()
    (tmp_path / "short.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load_sam2_checkpoint(tmp_path / "short.pt", SMALL)
    weights = dict(random_checkpoint("sam2", SMALL).state_dict)
    weights["no_mem_embed"] = torch.full_like(weights["no_mem_embed"], float("nan"))
    torch.save({"model": weights}, tmp_path / "nan.pt")
    with pytest.raises(CheckpointError, match="'no_mem_embed' has NaN"):
        load_sam2_checkpoint(tmp_path / "nan.pt", SMALL)
    del weights["no_mem_embed"]
    torch.save({"model": weights}, tmp_path / "lacking.pt")
    with pytest.raises(CheckpointError, match="no_mem_embed is missing"):
        build_model(load_sam2_checkpoint(tmp_path / "lacking.pt", SMALL))
    for arguments in (None, SMALL):
        with pytest.raises(CheckpointError, match="is a sam, not a SAM2"):
            load_sam2_checkpoint(pretrained_path("sam_tiny"), arguments)


def test_random_weights_are_seeded_and_hide_nothing() -> None:
    first, second, other = (random_checkpoint("sam2", SMALL, seed) for seed in (3, 3, 4))
    assert first.sha256 == second.sha256 != other.sha256
    assert first.metadata["weights"] == "random"
    for name, tensor in first.state_dict.items():
        if name.endswith(("pos_embed", "pos_embed_window", "gamma", "maskmem_tpos_enc")):
            assert tensor.std() > 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 200}, "image_size 200 must be a multiple of 32"),
        ({"num_heads": 5}, "embed_dim 32 must be a multiple of num_heads"),
        ({"stages": [1, 2]}, "four stages"),
        ({"window_spec": [8, 4, 7, 7]}, "must be even"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        random_checkpoint("sam2", {**SMALL, **changes})


def test_missing_sam2_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sam2.modeling.sam2_base", None)
    with pytest.raises(MissingExtraError) as raised:
        random_checkpoint("sam2", SMALL)
    assert "SAM2_BUILD_CUDA=0 pip install --no-build-isolation --no-deps sam2==1.1.0" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(BadInputError, match=r"unknown SAM2 variant 'sam2\.1tiny': did you mean sam2\.1_tiny"):
        variant_arguments("sam2.1tiny")


def test_variant_configuration_names_the_arguments_it_may_have(tmp_path: Path) -> None:
    path = tmp_path / "variant.json"
    path.write_text('{"depth": 3}')
    with pytest.raises(BadInputError, match="a SAM2 does not know 'depth'; its arguments are embed_dim"):
        read_variant_config(path)
    path.write_text(json.dumps({"constructor": SMALL}))
    assert read_variant_config(path) == SMALL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "sam2.1_tiny"], "exactly one of --checkpoint FILE, --download and --random"),
        (["--download", "--random"], "exactly one of"),
        (["--variant", "tiny", "--random"], "unknown SAM2 variant 'tiny'"),
        (["--variant", "sam2_tiny", "--variant-config", "a.json", "--random"], "pass one of them"),
        (["--variant-config", "a.json", "--download"], "pass --variant"),
        (["--checkpoint", "none.pt"], "none.pt"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_export_of_a_described_variant_publishes_its_models_and_ensembles(run: Run, small_file: Path) -> None:
    Path("small.json").write_text(json.dumps(SMALL))
    code, out, err = run("--variant-config", "small.json", "--checkpoint", str(small_file), "--json")
    assert code == 0, err
    specs = [model["spec"] for model in json.loads(out)]
    assert {spec["checkpoint_sha256"] for spec in specs} == {
        hashlib.sha256(small_file.read_bytes()).hexdigest()
    }
    assert Repository("triton_repo").models() == tuple(sorted(spec["name"] for spec in specs))
    assert len(specs) == 8 and {spec["weights"] for spec in specs} == {"trained"}


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch, small_file: Path) -> Iterator[list[str | None]]:
    """Serves a small SAM2 in place of the tiny one, and breaks off once; gives the ranges asked for."""
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
        url = f"http://127.0.0.1:{listener.server_address[1]}/small_sam2.pt"
        monkeypatch.setitem(
            sam2_checkpoints.OFFICIAL, "sam2.1_tiny", (url, hashlib.sha256(content).hexdigest())
        )
        yield ranges
        listener.shutdown()
        thread.join()


def test_official_checkpoint_is_fetched_once_resumed_and_checked(
    file_server: list[str | None], tmp_path: Path, small_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = download_official("sam2.1_tiny")
    assert path == tmp_path / "cache" / "edgeseg" / "small_sam2.pt"
    assert path.read_bytes() == small_file.read_bytes()
    assert file_server == [None, "bytes=1000-"]
    assert download_official("sam2.1_tiny") == path and len(file_server) == 2


def test_download_of_another_file_is_refused_by_the_command(
    run: Run, file_server: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = sam2_checkpoints.OFFICIAL["sam2.1_tiny"][0]
    monkeypatch.setitem(sam2_checkpoints.OFFICIAL, "sam2.1_tiny", (url, "00" * 32))
    code, _, err = run("--variant", "sam2.1_tiny", "--download")
    assert code == 2 and "expected 0000" in err and not Path("triton_repo").exists()
    with pytest.raises(EdgesegError, match="expected 0000"):
        download_official("sam2.1_tiny")


def test_every_variant_has_an_address_and_a_hash() -> None:
    assert set(OFFICIAL) == set(VARIANTS)
    assert len({sha256 for _, sha256 in OFFICIAL.values()}) == 8
    for url, sha256 in OFFICIAL.values():
        assert url.startswith("https://dl.fbaipublicfiles.com/segment_anything_2/") and url.endswith(".pt")
        assert len(bytes.fromhex(sha256)) == 32
