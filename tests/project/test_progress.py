"""Commands that take long show on a terminal what they do, how much of it is done and how long it took."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import seg_bench.cli
import seg_bench.data.acquire
import seg_bench.reproduce.driver
import seg_bench.run.runner
import seg_export.cli.main
import seg_export.cli.verify
import seg_export.engines.build
import seg_export.engines.check
import seg_export.export
import seg_export.verification.published
import seg_runtime.bundle
import seg_runtime.cli.run
import seg_runtime.cli.sam
import seg_runtime.sam
import seg_runtime.sam.files
from seg_export.families.semantic.random import random_unet
from seg_runtime import console
from seg_runtime.errors import BadInputError

ELAPSED = r"\d:\d\d:\d\d"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> StringIO:
    """What a terminal of 120 columns shows of stderr."""
    text = StringIO()
    terminal = Console(file=text, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(console, "stderr_console", lambda: terminal)
    return text


def stopped(*arguments: Any, **options: Any) -> Any:
    raise BadInputError("far enough")


def after(step: Callable[..., Any]) -> Callable[..., Any]:
    """Instead of the work: reports to the command once how far it is, then stops it."""

    def work(*arguments: Any, **options: Any) -> Any:
        step(*arguments, **options)
        stopped()

    return work


def reported(name: str, *values: Any) -> Callable[..., Any]:
    """Calls the function that the command passes as an option of this name."""
    return after(lambda *arguments, **options: options[name](*values))


def reported_last(*values: Any) -> Callable[..., Any]:
    """Calls the function that the command passes as its last argument."""
    return after(lambda *arguments, **options: arguments[-1](*values))


def load(*arguments: Any) -> Any:
    return random_unet(features=(4, 8))


def reproduction(options: Any) -> Any:
    device = SimpleNamespace(engines=(), pytorch=False, notes=())
    run = reported_last("U-Net: timing", 3, 8)
    return SimpleNamespace(plan=(), device=device, options=options, cut="", run=run)


BUILDER = ("unet: Tactics", 3, 8)
CASES: dict[str, tuple[Any, str, list[tuple[Any, str, Any]], str]] = {
    "export": (
        seg_export.cli.main.app,
        "unet --random --features 4,8",
        [(seg_export.export, "export_models", reported("on_step", "verify"))],
        r"verify .* 4/6",
    ),
    "verify": (
        seg_export.cli.main.app,
        "verify unet --pretrained lung",
        [
            (seg_export.cli.verify, "load", load),
            (seg_export.verification.published, "verify_published", stopped),
        ],
        "verify unet ",
    ),
    "check": (
        seg_export.cli.main.app,
        "check unet",
        [(seg_export.engines.check, "check_graphs", reported("on_progress", *BUILDER))],
        r"unet: Tactics .* 3/8",
    ),
    "build": (
        seg_export.cli.main.app,
        "build unet",
        [(seg_export.engines.build, "build_engines", reported("on_progress", *BUILDER))],
        r"unet: Tactics .* 3/8",
    ),
    "bundle": (
        seg_export.cli.main.app,
        "bundle -o models.tar",
        [(seg_runtime.bundle, "write_bundle", reported_last("unet", 3, 8))],
        r"unet .* 3/8",
    ),
    "data": (
        seg_bench.cli.app,
        "data montgomery --out data",
        [(seg_bench.data.acquire, "download", reported("on_bytes", 3 << 20, 8 << 20))],
        r"download, MiB .* 3/8",
    ),
    "run": (
        seg_bench.cli.app,
        "run --data xrays",
        [(seg_bench.run.runner, "measure", reported_last("timing", 3, 8))],
        r"timing .* 3/8",
    ),
    "reproduce": (
        seg_bench.cli.app,
        "reproduce",
        [(seg_bench.reproduce.driver, "Reproduction", reproduction)],
        r"asking this machine [\s\S]*U-Net: timing .* 3/8",
    ),
    "everything": (
        seg_runtime.cli.run.app,
        "everything {xray} -o out --model sam",
        [
            (seg_runtime.cli.sam, "open_session", lambda *arguments: nullcontext()),
            (seg_runtime.sam, "SamAutomaticMaskGenerator", lambda *arguments, **options: None),
            (seg_runtime.sam.files, "segment_everything", stopped),
        ],
        "segmenting everything ",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_long_command_shows_what_it_does_and_for_how_long(
    monkeypatch: pytest.MonkeyPatch, screen: StringIO, xray_folder: Path, tmp_path: Path, name: str
) -> None:
    app, command, replaced, expected = CASES[name]
    monkeypatch.chdir(tmp_path)
    for module, attribute, value in replaced:
        monkeypatch.setattr(module, attribute, value)
    xray = str(min((xray_folder / "images").iterdir()))
    result = CliRunner().invoke(app, [part.format(xray=xray) for part in command.split()])
    assert str(result.exception) == "far enough"
    assert re.search(f"{expected}.*{ELAPSED}", screen.getvalue()), screen.getvalue()


def test_training_shows_the_epoch(screen: StringIO, xray_folder: Path, tmp_path: Path) -> None:
    split = str(tmp_path / "split.json")
    options = f"--out {tmp_path / 'run'} --split {split} --size 16 --features 4,8 --epochs 1 --device cpu"
    for command in (
        f"data split {xray_folder} --out {split} --val 0.25",
        f"train unet {xray_folder} {options}",
    ):
        result = CliRunner().invoke(seg_bench.cli.app, command.split())
        assert result.exit_code == 0, result.output
    assert re.search(rf"epoch 1/1 .* \d+/\d+ {ELAPSED}", screen.getvalue())


def test_where_stderr_is_no_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with console.working("verify unet"):
        pass
    assert capsys.readouterr().err == ""
