"""Results of no use are warned of: on stderr, and in the JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from brightness import BrightnessSession, brightness_spec
from numpy.typing import NDArray
from sam_models import DiscSamSession

from seg_runtime.cli import run, sam
from seg_runtime.files.doubts import input_doubts
from seg_runtime.files.images import write_png
from seg_runtime.spec import ClaheSpec

SHADES = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["seg-run", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    return int(ended.value.code or 0)


def segmented(
    folder: Path, image: NDArray[np.uint8], classes: int, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> list[str]:
    """Warnings in `results.jsonl`, after looking that stdout has them too."""
    session = BrightnessSession(replace(brightness_spec(classes=classes), **changes))
    monkeypatch.setattr(run, "open_session", lambda *target: session)
    write_png(folder / "a.png", image)
    assert call(monkeypatch, "segment", folder / "a.png", "-m", "brightness", "-o", folder / "out") == 0
    (line,) = (folder / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return list(json.loads(line)["warnings"])


@pytest.mark.parametrize(
    ("image", "classes", "warnings"),
    [
        (SHADES, 1, []),
        (SHADES // 4, 1, ["the mask is empty"]),
        (SHADES // 4 + 160, 1, ["the mask covers the whole image"]),
        (SHADES, 3, []),
        (SHADES // 8, 3, ["the whole image is 'class 0'"]),
        (SHADES // 8 + 220, 3, ["the whole image is 'class 2'"]),
    ],
)
def test_masks_that_are_empty_or_full_are_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    image: NDArray[np.uint8],
    classes: int,
    warnings: list[str],
) -> None:
    assert segmented(tmp_path, image, classes, monkeypatch) == warnings
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert shown == [f"warning: {tmp_path / 'a.png'}: {warning}" for warning in warnings]


def test_an_image_unlike_those_of_the_training_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dark = SHADES // 4
    dark[:4] = 255  # not empty
    (warning,) = segmented(tmp_path, dark, 1, monkeypatch, mean=(0.8,), std=(0.1,))
    assert warning.startswith("the image is far darker than those that 'brightness' was trained on")
    assert warning in capsys.readouterr().err


def scaled(
    mean: tuple[float, ...], std: tuple[float, ...], generator: np.random.Generator
) -> NDArray[np.uint8]:
    noise = generator.normal(mean, std, (40, 48, len(mean)))
    return np.asarray((255 * noise).clip(0, 255).round(), np.uint8)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_the_rule_is_three_deviations_or_a_tenth_of_the_contrast_in_every_channel(
    channels: int, order: str
) -> None:
    generator = np.random.default_rng(channels)
    mean = tuple(generator.uniform(0.3, 0.6, channels))
    std = tuple(generator.uniform(0.05, 0.08, channels))
    stored = (mean[::-1], std[::-1]) if order == "bgr" else (mean, std)
    spec = replace(
        brightness_spec(channels=channels),
        mean=stored[0],
        std=stored[1],
        channel_order=order,  # type: ignore[arg-type]
    )

    def doubts(shift: float, contrast: float, first: float | None = None) -> list[str]:
        shifts = [shift if index or first is None else first for index in range(channels)]
        moved = tuple(m + d * s for m, d, s in zip(mean, shifts, std, strict=True))
        image = scaled(moved, tuple(contrast * s for s in std), np.random.default_rng(0))
        return input_doubts(spec, image[..., 0] if channels == 1 else image)

    assert doubts(0, 1) == [] and doubts(2.8, 1) == [] and doubts(-2.8, 0.5) == []
    assert "far brighter" in doubts(3.3, 1)[0] and "far darker" in doubts(-3.3, 1)[0]
    assert "nearly uniform" in doubts(0, 0.02)[0]
    if channels > 1:
        assert doubts(3.3, 1, first=0.0) == []


def test_a_contract_without_statistics_doubts_no_image_and_clahe_comes_before_the_rule() -> None:
    flat = np.full((64, 64), 7, np.uint8)
    assert input_doubts(brightness_spec(), flat) == []
    faint = np.tile(np.linspace(100, 112, 64).astype(np.uint8), (64, 1))
    spec = replace(brightness_spec((64, 64)), mean=(0.42,), std=(0.2,))
    assert input_doubts(spec, faint) and not input_doubts(spec, faint, ClaheSpec(clip_limit=40))


def test_an_empty_and_a_full_mask_of_sam_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from seg_runtime.sam.files import _Writer
    from seg_runtime.sam.rle import coco_annotation

    masks = [np.zeros((6, 8), bool), np.ones((6, 8), bool), np.eye(6, 8) > 0]
    writer = _Writer(tmp_path / "a.png", (6, 8), tmp_path / "out", {})
    written = writer.annotations("m.json", [coco_annotation(mask) for mask in masks], "test")
    assert written["warnings"] == ["mask 1 is empty", "mask 2 covers the whole image"]
    assert json.loads((tmp_path / "out" / "a_m.json").read_text())["warnings"] == written["warnings"]
    assert writer.annotations("m.json", [], "test")["warnings"] == ["no object was found"]
    sam._report(written, tmp_path, as_json=False)
    assert "warning: mask 1 is empty\nwarning: mask 2 covers" in capsys.readouterr().err


def test_a_mask_prompt_that_shows_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = DiscSamSession()
    monkeypatch.setattr(sam, "open_session", lambda *target: session)
    write_png(tmp_path / "a.png", SHADES)
    write_png(tmp_path / "empty.png", SHADES * 0)
    arguments = (tmp_path / "a.png", "--mask", tmp_path / "empty.png", "-o", tmp_path / "out")
    assert call(monkeypatch, "sam", *arguments) == 2
    assert "empty.png' is empty: it shows no object" in capsys.readouterr().err


def test_no_object_and_objects_as_large_as_the_image_are_warned_of() -> None:
    from seg_runtime.files.instances import _doubts

    class Found(list[Any]):
        size_hw = (6, 8)

        @property
        def crops(self) -> Found:
            return self

    def found(*masks: NDArray[np.bool_]) -> Any:
        return Found(SimpleNamespace(mask=mask) for mask in masks)

    assert _doubts(found()) == ["no object was found"]
    assert _doubts(found(np.eye(6, 8) > 0)) == []
    assert _doubts(found(np.eye(6, 8) > 0, np.ones((6, 8), bool))) == [
        "the masks of 1 objects cover the whole image"
    ]
