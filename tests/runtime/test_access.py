"""Keys of a server: where they are found, what is refused, and what is said of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Certificates, make_certificates
from typer.testing import CliRunner

from seg_bench.cli import app as bench_app
from seg_bench.run.options import RunOptions
from seg_runtime.cli.run import app as run_app
from seg_runtime.connection import connect
from seg_runtime.errors import BadInputError, ServerError
from seg_runtime.server import ServerOptions, ServerTls
from seg_runtime.server.access import Locks
from seg_runtime.server.concealment import close_memory, hide_arguments
from seg_runtime.server.exposure import describe_exposure
from seg_runtime.server.secret_files import SecretFiles
from seg_runtime.triton import access
from seg_runtime.triton.access import ServerAccess, find_secret, read_api_key
from seg_runtime.triton.address import parse_address

KEY = "0123456789abcdef"
PORTS = (8000, 8001, 8002)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this user's servers leave their secrets."""
    folder = tmp_path / "secrets"
    monkeypatch.setattr(access, "secret_folder", lambda: folder)
    monkeypatch.setattr("seg_runtime.server.secret_files.secret_folder", lambda: folder)
    return folder


@pytest.fixture
def files(folder: Path) -> Iterator[SecretFiles]:
    files = SecretFiles("the secret", PORTS)
    yield files
    files.remove()


def secret_at(url: str) -> str | None:
    address = parse_address(url)
    assert address is not None
    return find_secret(address)


def write_key(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("grpc://localhost:8001", True),
        ("grpcs://127.0.0.1:8001", True),
        ("http://localhost:8000", True),
        ("grpc://localhost:8000", False),
        ("http://localhost:8001", False),
        ("grpc://192.0.2.1:8001", False),
        ("grpc://no-such-host.invalid:8001", False),
    ],
)
def test_a_secret_is_found_for_this_machine_by_protocol_and_port(
    files: SecretFiles, url: str, found: bool
) -> None:
    assert secret_at(url) == ("the secret" if found else None)


@pytest.mark.parametrize("fault", ["mode", "link", "file"])
def test_a_folder_that_others_may_have_made_is_not_trusted(folder: Path, tmp_path: Path, fault: str) -> None:
    if fault == "file":
        folder.touch()
    else:
        other = folder if fault == "mode" else tmp_path / "other"
        other.mkdir()
        other.chmod(0o755 if fault == "mode" else 0o700)
        if fault == "link":
            folder.symlink_to(other)
        write_key(other / "grpc-8001", "planted")
    assert secret_at("grpc://localhost:8001") is None
    with pytest.raises(ServerError, match="secrets"):
        SecretFiles("the secret", PORTS)


def test_the_files_are_private_and_end_with_the_server(folder: Path, files: SecretFiles) -> None:
    assert {path.stat().st_mode & 0o777 for path in files.paths} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    files.remove()
    assert list(folder.iterdir()) == []


def test_a_later_server_on_the_same_ports_keeps_its_secret(folder: Path, files: SecretFiles) -> None:
    later = SecretFiles("later", PORTS)
    files.remove()
    assert secret_at("grpc://localhost:8001") == "later"
    later.remove()
    assert secret_at("grpc://localhost:8001") is None


def test_what_a_killed_process_left_is_removed_by_the_next(folder: Path, files: SecretFiles) -> None:
    (folder / "grpc-9001").write_text("left")
    later = SecretFiles("later", (9100, 9101, 9102))
    assert {path.name for path in folder.iterdir()} == {"grpc-8001", "http-8000", "grpc-9101", "http-9100"}
    later.remove()


@pytest.mark.parametrize(
    "key", ["short", "x" * 257, "with a blank in it", "with\nlines in it", "naïve-key-0123456"]
)
def test_a_key_that_cannot_be_carried_is_refused_without_being_repeated(tmp_path: Path, key: str) -> None:
    with pytest.raises(BadInputError, match="16 to 256 visible ASCII") as error:
        read_api_key(write_key(tmp_path / "key", key))
    assert key not in str(error.value)
    with pytest.raises(BadInputError, match="16 to 256 visible ASCII"):
        ServerOptions(api_key=key)


def test_a_key_file_that_every_user_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="chmod 600"):
        read_api_key(write_key(tmp_path / "key", KEY, 0o644))
    with pytest.raises(BadInputError, match="cannot be read"):
        read_api_key(tmp_path / "none")
    # As Kubernetes and Docker mount them: for a group.
    assert read_api_key(write_key(tmp_path / "key", f"{KEY}\n", 0o640)) == KEY


def test_a_key_comes_from_the_file_first_and_else_from_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ServerAccess().api_key() is None
    monkeypatch.setenv("EDGESEG_API_KEY", KEY)
    assert ServerAccess().api_key() == KEY
    other = write_key(tmp_path / "key", "another-key-0123456")
    assert ServerAccess(str(other)).api_key() == "another-key-0123456"
    monkeypatch.setenv("EDGESEG_API_KEY", "short")
    with pytest.raises(BadInputError, match="EDGESEG_API_KEY"):
        ServerAccess().api_key()


@pytest.mark.parametrize("option", ["--api-key-file", "--ca", "--client-cert"])
@pytest.mark.parametrize(
    "command",
    [
        ["segment", "x.png", "--model", "m", "-o", "out"],
        ["instances", "x.png", "-o", "out"],
        ["models"],
    ],
)
def test_a_key_or_certificate_without_a_server_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xray_folder: Path, command: list[str], option: str
) -> None:
    image = str(next((xray_folder / "images").iterdir()))
    arguments = [image if word == "x.png" else word for word in command]
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(run_app, [*arguments, option, "file"])
    assert f"{option} is for a server" in str(answer.exception)


@pytest.mark.parametrize("option", ["--api-key-file", "--ca", "--client-cert"])
def test_a_benchmark_in_process_refuses_a_key_or_certificate(tmp_path: Path, option: str) -> None:
    arguments = ["run", "--data", str(tmp_path), option, "file"]
    assert f"{option} is for a server" in str(CliRunner().invoke(bench_app, arguments).exception)
    with pytest.raises(BadInputError, match="for a server"):
        RunOptions(repo=tmp_path, data=tmp_path, access=ServerAccess(api_key_file="file"))


def test_a_folder_wants_no_key(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="for a server, not for the folder"):
        connect(tmp_path, api_key=KEY)
    with pytest.raises(BadInputError, match="16 to 256"):
        connect("grpc://localhost:1", api_key="short")


def test_a_server_that_cannot_refuse_is_not_started() -> None:
    locks = Locks(ServerOptions())
    with pytest.raises(
        ServerError, match="has no --http-restricted-api: anyone who reaches it could change it"
    ):
        locks.arguments("--http-port --grpc-port")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def test_certificate_and_key_must_belong_together(made: Certificates, tmp_path: Path) -> None:
    ServerTls(made.server, made.server_key, made.ca)
    for files in (
        (made.server, made.client, None),
        (made.server, tmp_path / "none", None),
        (made.server, made.server_key, made.server_key),
    ):
        with pytest.raises(BadInputError, match="no TLS with"):
            ServerTls(*files)


def test_what_triton_can_neither_encrypt_nor_close_stays_on_localhost(
    made: Certificates, tmp_path: Path
) -> None:
    tls = ServerTls(made.server, made.server_key)
    anywhere = "0.0.0.0"
    assert ServerOptions(host=anywhere).hosts == (anywhere, anywhere, anywhere)
    assert ServerOptions(host=anywhere, api_key=KEY).hosts == (anywhere, anywhere, "127.0.0.1")
    assert ServerOptions(host=anywhere, tls=tls).hosts == ("127.0.0.1", anywhere, "127.0.0.1")
    flags = ServerOptions(host=anywhere, tls=tls).arguments(tmp_path, PORTS)
    assert {"--http-address=127.0.0.1", "--grpc-address=0.0.0.0", "--grpc-use-ssl=true"} <= set(flags)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("control", ["none", "explicit"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_one_screen_says_what_a_stranger_can_reach(
    made: Certificates, key: str | None, control: str, encrypted: bool
) -> None:
    tls = ServerTls(made.server, made.server_key) if encrypted else None
    shown = describe_exposure(
        ServerOptions(host="0.0.0.0", api_key=key, tls=tls, model_control=control)  # type: ignore[arg-type]
    )
    lines = shown.splitlines()
    assert 5 < len(lines) <= 24
    assert max(map(len, lines)) <= 80
    rights = dict(re.split(" {2,}", line.strip(), maxsplit=1) for line in lines[1:9])
    assert rights["run models"] == ("clients with the API key" if key else "ANYONE")
    assert rights["read metrics"] == ("this machine only" if key or encrypted else "ANYONE")
    assert (rights["load and unload models"] == "nobody") == (control == "none")
    assert (rights["encryption"] == "TLS") == encrypted
    assert ("--api-key-file FILE" in shown) == (key is None)
    assert ("--tls-cert FILE" in shown) == (not encrypted)
    assert describe_exposure(ServerOptions(api_key=key, tls=tls)) == ""


def test_an_argument_is_hidden_from_the_process_list_and_still_known_to_the_process() -> None:
    code = "import sys; print('begun', flush=True); input(); print(sys.argv[1])"
    command = [sys.executable, "-c", code, f"--key={KEY}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        listed = Path(f"/proc/{process.pid}/cmdline")
        assert KEY in listed.read_text()
        hide_arguments(process.pid, [KEY])
        assert KEY not in listed.read_text()
        assert len(listed.read_text().split("\0")[3]) == len(f"--key={KEY}")
        assert process.communicate("\n")[0] == f"--key={KEY}\n"


def test_memory_is_closed_and_links_are_not_followed(tmp_path: Path) -> None:
    region = Path("/dev/shm") / f"edgeseg-test-{os.getpid()}-a"
    link = region.with_name(f"{region.name}-link")
    target = write_key(tmp_path / "target", "", 0o644)
    try:
        write_key(region, "", 0o644)
        link.symlink_to(target)
        close_memory(region.name)
        assert region.stat().st_mode & 0o777 == 0o600
        assert target.stat().st_mode & 0o777 == 0o644
    finally:
        link.unlink(missing_ok=True)
        region.unlink(missing_ok=True)
