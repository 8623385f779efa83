"""Which TensorRT is taken, how a missing, old or broken one is told, and what version the library names."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seg_runtime.engines.tensorrt_api import Backend, installed_version, load_tensorrt, version_numbers
from seg_runtime.errors import EdgesegError, MissingExtraError

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)


def install(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__=version))


def test_full_tensorrt_goes_before_tensorrt_for_rtx_unless_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, "tensorrt_rtx_bindings", "1.7.1.116")
    assert load_tensorrt().name == "TensorRT for RTX 1.7.1.116"
    install(monkeypatch, "tensorrt", "10.3.0.26")
    assert (load_tensorrt().backend, load_tensorrt().name) == ("tensorrt", "TensorRT 10.3.0.26")
    assert load_tensorrt("tensorrt-rtx").version == "1.7.1.116"


@pytest.mark.parametrize(
    ("backend", "extra"), [(None, "tensorrt-rtx"), ("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt-rtx")]
)
def test_missing_tensorrt_names_its_extra(backend: Backend | None, extra: str) -> None:
    with pytest.raises(MissingExtraError, match=rf"is not installed: run  pip install 'edgeseg\[{extra}\]'"):
        load_tensorrt(backend)


@pytest.mark.parametrize("version", ["8.6.1", "10.0.1", "10.2.0.19"])
def test_tensorrt_before_10_3_is_too_old(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, "tensorrt", version)
    with pytest.raises(EdgesegError, match=rf"TensorRT {version} is too old: install 10\.3 or newer"):
        load_tensorrt("tensorrt")


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.1"])
def test_tensorrt_from_10_3_to_11_is_taken(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, "tensorrt", version)
    assert load_tensorrt().version == version


def test_empty_folder_of_the_name_is_no_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt")
    with pytest.raises(MissingExtraError):
        load_tensorrt("tensorrt")


@pytest.mark.parametrize(
    "code",
    [
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')",
        "import tensorrt_bindings_of_none",
    ],
)
def test_binding_without_its_libraries_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str
) -> None:
    (tmp_path / "tensorrt.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt")
    with pytest.raises(
        EdgesegError, match=r"TensorRT is installed but does not load .*install it again"
    ) as caught:
        load_tensorrt()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("number", "version"), [(101600, "10.16.0"), (100300, "10.3.0"), (110401, "11.4.1")])
def test_library_without_a_binding_tells_its_version(
    monkeypatch: pytest.MonkeyPatch, number: int, version: str
) -> None:
    """As in NVIDIA's Triton images."""
    library: Any = SimpleNamespace(getInferLibVersion=lambda: number)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: f"lib{name}.so.10")
    monkeypatch.setattr(ctypes, "CDLL", lambda path: library)
    assert installed_version("tensorrt") == version
    assert installed_version("tensorrt-rtx") is None


def test_nothing_installed_has_no_version() -> None:
    assert installed_version("tensorrt") is installed_version("tensorrt-rtx") is None


@pytest.mark.parametrize(
    ("text", "numbers"), [("10.3.0.26", (10, 3, 0, 26)), ("10.3.0.post1", (10, 3, 0)), ("dev", ()), ("", ())]
)
def test_version_is_the_numbers_that_it_begins_with(text: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(text) == numbers
