"""Downloads from a local server that supports ranges and breaks off when told to."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from seg_bench.data.archive import unpack_zip
from seg_export.checkpoints import http_transfer
from seg_export.checkpoints.download import download
from seg_export.checkpoints.http_transfer import stated_length
from seg_runtime.errors import BadInputError, EdgesegError, ServerUnavailableError

CONTENT = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class FileServer:
    """Serves one file; `break_after` bytes ends each transfer early while `breaks` lasts."""

    url: str = ""
    content: bytes = CONTENT
    etag: str = '"first"'
    break_after: int = 0
    breaks: int = 0
    status: int = 0
    supports_ranges: bool = True
    redirect: str = ""
    length: str = ""
    ranges: list[str | None] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if self.status:
            request.send_error(self.status)
            return
        if self.redirect:
            request.send_response(302)
            request.send_header("Location", self.redirect)
            request.end_headers()
            return
        fits = request.headers.get("If-Range") in (None, self.etag)
        start = int(asked[len("bytes=") : -1]) if asked and self.supports_ranges and fits else 0
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", self.length or str(len(self.content) - start))
        request.send_header("ETag", self.etag)
        request.end_headers()
        end = len(self.content)
        if self.breaks:
            self.breaks -= 1
            end = min(end, start + self.break_after)
        request.wfile.write(self.content[start:end])


@pytest.fixture
def server() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        state.url = f"http://127.0.0.1:{listener.server_address[1]}/set.zip"
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        listener.shutdown()
        thread.join()


def test_file_arrives_with_progress_and_a_recorded_hash(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = tmp_path / "new" / "set.zip"
    result = download(server.url, path, on_bytes=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert result.sha256 == SHA256
    assert result.changed_from is None
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert (path.parent / "set.zip.sha256").read_text() == f"{SHA256}  set.zip\n"
    assert sorted(file.name for file in path.parent.iterdir()) == ["set.zip", "set.zip.sha256"]


def test_broken_transfer_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.breaks = 300_000, 3
    download(server.url, tmp_path / "set.zip", pause_s=0.0, attempts=2)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_later_call_goes_on_with_what_an_earlier_one_left(server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.breaks = 500_000, 1
    with pytest.raises(ServerUnavailableError, match="run the same command again to go on"):
        download(server.url, tmp_path / "set.zip", attempts=1)
    assert (tmp_path / "set.zip.part").stat().st_size == 500_000
    assert not (tmp_path / "set.zip").exists()
    download(server.url, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=500000-"


def test_file_that_changed_between_two_transfers_starts_anew(server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.breaks = 500_000, 1
    with pytest.raises(ServerUnavailableError):
        download(server.url, tmp_path / "set.zip", attempts=1)
    server.content, server.etag = CONTENT[::-1], '"second"'
    download(server.url, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT[::-1]


def test_server_without_ranges_sends_the_whole_file_again(server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.breaks, server.supports_ranges = 500_000, 1, False
    download(server.url, tmp_path / "set.zip", pause_s=0.0)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_transfer_that_brings_nothing_new_is_given_up(server: FileServer, tmp_path: Path) -> None:
    server.break_after, server.breaks = 0, 99
    with pytest.raises(ServerUnavailableError, match="failed 3 times in a row at byte 0"):
        download(server.url, tmp_path / "set.zip", attempts=3, pause_s=0.0)
    assert len(server.ranges) == 3


def test_file_at_hand_is_checked_and_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    download(server.url, tmp_path / "set.zip")
    download(server.url, tmp_path / "set.zip", sha256=SHA256.upper())
    assert len(server.ranges) == 1


def test_other_hash_than_the_expected_one_is_refused(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(EdgesegError, match=f"has SHA-256 {SHA256}, expected 00ff"):
        download(server.url, tmp_path / "set.zip", sha256="00ff")


def test_change_since_the_first_download_is_reported(server: FileServer, tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    download(server.url, path)
    path.unlink()
    server.content = CONTENT[::-1]
    assert download(server.url, path).changed_from == SHA256
    assert download(server.url, path).changed_from == SHA256


def test_refusal_of_the_server_is_told_at_once(server: FileServer, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(BadInputError, match="answers 404 Not Found"):
        download(server.url, tmp_path / "set.zip", pause_s=0.0)
    assert len(server.ranges) == 1


def test_server_error_is_tried_again(server: FileServer, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(ServerUnavailableError, match="failed 2 times"):
        download(server.url, tmp_path / "set.zip", attempts=2, pause_s=0.0)


def test_address_with_nobody_listening_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServerUnavailableError, match="check the network"):
        download("http://127.0.0.1:9/set.zip", tmp_path / "set.zip", attempts=1)


def test_address_of_another_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="expected an http"):
        download("file:///etc/hosts", tmp_path / "set.zip")


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/set.zip", "file:///etc/hosts", "data:,x"])
def test_a_redirect_to_another_scheme_is_refused(server: FileServer, tmp_path: Path, target: str) -> None:
    server.redirect = target
    with pytest.raises(EdgesegError, match=r"redirect"):
        download(server.url, tmp_path / "set.zip", attempts=1, pause_s=0.0)
    assert not (tmp_path / "set.zip").exists()


@pytest.mark.parametrize("length", [str(10**15), str(10**19)])
def test_a_length_that_no_disk_holds_is_refused_before_it_is_fetched(
    server: FileServer, tmp_path: Path, length: str
) -> None:
    server.length = length
    with pytest.raises(EdgesegError, match=f"announces {length} bytes"):
        download(server.url, tmp_path / "set.zip", attempts=1)
    assert not (tmp_path / "set.zip.part").exists()


@pytest.mark.parametrize("text", ["lots", "-5", "²", "1e9", "", None, "9" * 5000])
def test_a_length_that_is_no_number_says_nothing(text: str | None, tmp_path: Path) -> None:
    assert stated_length(text, 0, tmp_path) is None


def test_without_a_network_it_ends_in_seconds_and_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*address: object, **options: object) -> None:
        time.sleep(2)

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    monkeypatch.setattr(http_transfer, "_REACH_S", 0.1)
    begin = time.monotonic()
    with pytest.raises(ServerUnavailableError, match=r"nobody answers.* and pass it with --checkpoint FILE"):
        download("https://example.org/sam.pth", tmp_path / "sam.pth", option="--checkpoint")
    assert time.monotonic() - begin < 1.5


def test_folder_that_cannot_be_written_is_told(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgesegError, match="cannot write"):
        download(server.url, tmp_path / "file" / "set.zip")


def archive_with(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in names:
            bundle.writestr(name, name * 100)
    return path


def test_archive_unpacks_whole(tmp_path: Path) -> None:
    archive = archive_with(tmp_path / "a.zip", "set/one.txt", "set/two/three.txt")
    unpack_zip(archive, tmp_path / "out")
    assert (tmp_path / "out" / "set" / "two" / "three.txt").read_text() == "set/two/three.txt" * 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


@pytest.mark.parametrize(
    "name", ["../evil.txt", "set/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:/evil"]
)
def test_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = archive_with(tmp_path / "a.zip", "good.txt", name)
    with pytest.raises(BadInputError, match="outside its folder"):
        unpack_zip(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr(link, "/etc/passwd")
    with pytest.raises(BadInputError, match="outside its folder"):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out")


def test_damaged_archive_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    archive = archive_with(tmp_path / "a.zip", "one.txt", "two.txt")
    damaged = bytearray(archive.read_bytes())
    damaged[45] ^= 0xFF
    archive.write_bytes(damaged)
    with pytest.raises(BadInputError, match="not a sound zip archive"):
        unpack_zip(archive, tmp_path / "out")
    archive.write_bytes(b"<html>")
    with pytest.raises(BadInputError, match="not a sound zip archive"):
        unpack_zip(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(BadInputError, match="cannot unpack"):
        unpack_zip(archive_with(tmp_path / "a.zip", "one.txt"), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").exists()
