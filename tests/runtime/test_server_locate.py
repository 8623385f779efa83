"""A server is found on PATH or in nvidia-pytriton, with the backends it needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from pathlib import Path

import pytest

from seg_runtime.errors import MissingExtraError, ServerError
from seg_runtime.server import locate


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed server with a python backend, on PATH."""
    root = tmp_path / "tritonserver"
    for folder in ("bin", "backends/python", "backends/tensorrt", "caches"):
        (root / folder).mkdir(parents=True)
    (root / "backends" / "python" / "libtriton_python.so").touch()
    (root / "bin" / "tritonserver").write_text("#!/bin/sh\n")
    (root / "bin" / "tritonserver").chmod(0o755)
    monkeypatch.setenv("PATH", str(root / "bin"))
    return root


@pytest.fixture
def no_server_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def hide_packages(monkeypatch: pytest.MonkeyPatch, *hidden: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else find(name))


def test_a_server_on_path_with_an_onnxruntime_backend_is_used_as_it_is(
    installation: Path, tmp_path: Path
) -> None:
    (installation / "backends" / "onnxruntime").mkdir()
    program = locate.find_server()
    assert program.executable == installation / "bin" / "tritonserver"
    assert not program.bundled
    assert locate.prepare_backends(program, tmp_path) == [f"--cache-directory={installation / 'caches'}"]
    assert locate.server_environment(program, tmp_path, {"PATH": "/bin"}) == {"PATH": "/bin"}


def test_a_server_on_path_without_one_gets_ours_beside_its_own(installation: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    arguments = locate.prepare_backends(locate.find_server(), folder)
    assert f"--backend-directory={folder / 'backends'}" in arguments
    assert (folder / "backends" / "onnxruntime" / "model.py").read_bytes() == (
        locate.OWN_BACKEND / "model.py"
    ).read_bytes()
    assert (folder / "backends" / "tensorrt").resolve() == installation / "backends" / "tensorrt"
    assert (folder / "backends" / "python" / "libtriton_python.so").is_file()


@pytest.mark.usefixtures("no_server_on_path")
def test_no_server_at_all_names_both_ways_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_packages(monkeypatch, "pytriton")
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    with pytest.raises(MissingExtraError, match=r"`tritonserver` is not on PATH .* 'edgeseg\[server\]'"):
        locate.find_server()
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(ServerError, match=r"use Python 3\.10 to 3\.12 or NVIDIA's Triton container"):
        locate.find_server()


class TestBundledServer:
    """The server inside nvidia-pytriton."""

    pytestmark = pytest.mark.usefixtures("no_server_on_path")

    @pytest.fixture(autouse=True)
    def _needs_pytriton(self) -> None:
        pytest.importorskip("pytriton")

    def test_finding_it_imports_nothing_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "pytriton"]:
            monkeypatch.delitem(sys.modules, name)
        program = locate.find_server()
        assert program.bundled
        assert program.executable.is_file()
        assert "pytriton" not in sys.modules

    def test_the_backends_folder_has_the_stub_of_this_python(self, tmp_path: Path) -> None:
        program = locate.find_server()
        locate.prepare_backends(program, tmp_path)
        stub = tmp_path / "backends" / "python" / "triton_python_backend_stub"
        assert stub.stat().st_mode & 0o111
        environment = locate.server_environment(program, tmp_path, {"LD_LIBRARY_PATH": "/x", "PATH": "/bin"})
        own, wheel, given = environment["LD_LIBRARY_PATH"].split(":")
        assert [path.name for path in Path(own).iterdir()] == [
            f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
        ]
        assert Path(wheel).is_dir()
        assert given == "/x"
        assert environment["PATH"] == f"{Path(sys.executable).parent}:/bin"

    def test_numpy_2_is_refused_because_tensors_would_be_corrupted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.3.1")
        with pytest.raises(ServerError, match=r"corrupts tensors of NumPy 2\.3\.1.*numpy<2"):
            locate.find_server()

    def test_missing_onnxruntime_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hide_packages(monkeypatch, "onnxruntime")
        with pytest.raises(MissingExtraError, match="onnxruntime is not installed"):
            locate.find_server()

    def test_a_python_without_a_stub_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locate, "_python_version", lambda: "3.99")
        with pytest.raises(ServerError, match=r"no python backend for Python 3\.99"):
            locate.find_server()


def test_libpython_is_looked_for_beside_this_python_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    (tmp_path / name).touch()
    monkeypatch.setattr(sysconfig, "get_config_var", lambda key: str(tmp_path) if key == "LIBDIR" else None)
    assert locate.libpython_folder() == tmp_path


def test_a_library_known_to_the_system_loader_is_found() -> None:
    found = locate._loader_path("libc.so.6")
    assert found is None or found.name == "libc.so.6"


def test_a_missing_libpython_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "_python_version", lambda: "3.99")
    with pytest.raises(
        ServerError,
        match=r"needs libpython3\.99\.so\.1\.0, .* apt-get install libpython3\.99 .*--enable-shared",
    ):
        locate.libpython_folder()
