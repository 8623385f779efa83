"""Commands that fetch weights: their licence is shown first, and a failure says at once what to do."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import seg_export.families.maskrcnn.command
import seg_export.families.sam.command
import seg_export.families.sam2.command
from seg_export.checkpoints import download as downloads
from seg_export.checkpoints.download import download
from seg_export.checkpoints.licences import SAM, SAM2, TORCHVISION_COCO, Licence
from seg_export.cli.fetching import fetch
from seg_export.cli.main import app
from seg_export.export import ExportedModel, export_models
from seg_export.families.maskrcnn import checkpoints as maskrcnn_checkpoints
from seg_export.families.sam import checkpoints as sam_checkpoints
from seg_export.families.sam2 import checkpoints as sam2_checkpoints
from seg_export.families.semantic.random import random_unet
from seg_runtime.errors import BadInputError, ServerUnavailableError

CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FAMILIES = {
    "sam": (seg_export.families.sam.command, sam_checkpoints.OFFICIAL, "vit_b", SAM),
    "sam2": (seg_export.families.sam2.command, sam2_checkpoints.OFFICIAL, "sam2.1_tiny", SAM2),
    "maskrcnn": (
        seg_export.families.maskrcnn.command,
        maskrcnn_checkpoints.OFFICIAL,
        "maskrcnn_resnet50_fpn",
        TORCHVISION_COCO,
    ),
}


@pytest.fixture
def server() -> Iterator[str]:
    """The address of `weights.pth`; any other file is not there."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/weights.pth":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}/weights.pth"
        listener.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportedModel, ...]:
    return export_models(
        random_unet(features=(4, 8)), tmp_path_factory.mktemp("repo"), "unet", size_hw=(16, 16)
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_fetched_checkpoint_comes_with_one_line_about_its_licence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    server: str,
    exported: tuple[ExportedModel, ...],
    family: str,
    as_json: bool,
) -> None:
    command, official, name, licence = FAMILIES[family]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(official, name, (server, SHA256))
    loads = "command._weights" if family == "maskrcnn" else f"checkpoints.load_{family}_checkpoint"
    monkeypatch.setattr(
        f"seg_export.families.{family}.{loads}", lambda *arguments: random_unet(features=(4, 8))
    )
    monkeypatch.setattr(command, "export", lambda *arguments, **options: exported)
    arguments = [family, "--download", "--name", "fetched"] + ["--json"] * as_json
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stderr == f"{licence}\n"
    assert (tmp_path / "edgeseg" / "weights.pth").read_bytes() == CONTENT
    if as_json:
        assert json.loads(result.stdout)["licence"] == {
            "weights": licence.weights,
            "terms": licence.terms,
            "source": licence.source,
        }


def test_weights_that_were_not_fetched_have_no_licence_in_json(exported: tuple[ExportedModel, ...]) -> None:
    from seg_export.cli.exporting import _as_dict

    assert _as_dict(exported[0], None)["licence"] is None


def test_the_licence_is_shown_before_the_file_is_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def download_official(name: str, on_bytes: Any) -> Path:
        seen.append(capsys.readouterr().err)
        return Path(name)

    assert fetch("vit_b", download_official, SAM) == Path("vit_b")
    assert seen == [f"{SAM}\n"]
    assert "Apache-2.0" in seen[0] and "https://github.com/facebookresearch/segment-anything" in seen[0]


@pytest.mark.parametrize("licence", [SAM, SAM2, TORCHVISION_COCO])
def test_a_licence_is_one_line_that_names_its_source(licence: Licence) -> None:
    assert "\n" not in str(licence)
    assert str(licence).endswith(f"({licence.source})") and licence.source.startswith("https://")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_command_that_reaches_nobody_says_at_once_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family: str
) -> None:
    _, official, name, _ = FAMILIES[family]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(official, name, ("http://127.0.0.1:9/weights.pth", SHA256))
    started = time.monotonic()
    error = CliRunner().invoke(app, [family, "--download"]).exception
    assert time.monotonic() - started < 5
    assert isinstance(error, ServerUnavailableError)
    assert str(error) == (
        "nobody answers at http://127.0.0.1:9/weights.pth ([Errno 111] Connection refused): "
        f"check the network, or fetch weights.pth by hand (SHA-256 {SHA256}) and pass it with --checkpoint"
    )


@pytest.mark.parametrize("answers", [False, True])
def test_a_server_that_is_silent_is_given_up_after_one_attempt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answers: bool
) -> None:
    monkeypatch.setattr(downloads, "_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/set.zip"
        # A queue that is full leaves further connections without an answer, as a firewall does.
        waiting = [] if answers else [socket.create_connection(silent.getsockname())]
        started = time.monotonic()
        with pytest.raises(
            ServerUnavailableError, match=r"\(timed out\): check the network, or fetch set\.zip"
        ):
            download(url, tmp_path / "set.zip")
        assert time.monotonic() - started < 3
        for each in waiting:
            each.close()


def test_a_data_set_is_saved_where_the_command_looks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with pytest.raises(ServerUnavailableError) as caught:
        download("http://127.0.0.1:9/set.zip", path, sha256="bf2d0c1e")
    assert str(caught.value).endswith(
        "fetch set.zip by hand (SHA-256 begins with bf2d0c1e) "
        f"and save it as {path} and run the same command again"
    )
    path.write_bytes(CONTENT)
    assert download("http://127.0.0.1:9/set.zip", path).sha256 == SHA256


def test_a_file_that_is_gone_says_what_to_pass_instead(server: str, tmp_path: Path) -> None:
    with pytest.raises(
        BadInputError, match=r"answers 404 .*fetch gone\.pth by hand and pass it with --checkpoint"
    ):
        download(f"{server}.gone", tmp_path / "gone.pth", option="--checkpoint")
