"""`seg-run`: what it writes, what it prints, and one clear line for every bad input."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from brightness import BrightnessSession, brightness_spec
from numpy.typing import NDArray
from tiny_graph import publish, semantic_graph, semantic_spec

from seg_runtime import connection
from seg_runtime.cli import run
from seg_runtime.cli.options import EngineOption
from seg_runtime.engines import AUTO, ENGINES
from seg_runtime.files.images import read_image, write_png


def xray(height: int = 48, width: int = 40) -> NDArray[np.uint8]:
    image = np.full((height, width), 30, np.uint8)
    cv2.circle(image, (width // 2, height // 2), 12, 220, -1)
    return image


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> BrightnessSession:
    """The commands find this session wherever they are told to connect to."""
    session = BrightnessSession()
    monkeypatch.setattr(run, "open_session", lambda *target: session)
    return session


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `seg-run` in this process as its entry point does; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["seg-run", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run.main()
    return int(ended.value.code or 0)


def segment(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    return call(monkeypatch, "segment", *arguments, "--model", "brightness")


def rows(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.usefixtures("session")
class TestSegment:
    """With a session in place of a repository."""

    def test_a_mask_an_overlay_and_a_line_are_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_png(tmp_path / "chest.png", xray())
        out = tmp_path / "deep" / "out"
        assert segment(monkeypatch, tmp_path / "chest.png", "-o", out) == 0
        assert sorted(entry.name for entry in out.iterdir()) == [
            "chest_mask.png", "chest_overlay.png", "results.jsonl",
        ]  # fmt: skip
        mask = read_image(out / "chest_mask.png", 1)
        assert set(np.unique(mask)) == {0, 255}
        assert np.mean((mask > 0) == (xray() > 128)) > 0.95
        assert read_image(out / "chest_overlay.png", 3).shape == (48, 40, 3)
        (row,) = rows(out)
        assert row["path"] == str(tmp_path / "chest.png")
        assert (row["height"], row["width"]) == (48, 40)
        assert row["mask"] == str(out / "chest_mask.png")
        assert row["area_px"] == {"class 0": int((mask > 0).sum())}
        assert set(row["timings_ms"]) == {"preprocess", "infer", "postprocess"}
        captured = capsys.readouterr()
        assert row["engine"] == "brightness"
        assert captured.out == ""
        assert captured.err.replace("\n", "") == f"1 image segmented into '{out}' (brightness)"

    def test_json_lines_go_to_stdout_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("b", "a"):
            write_png(tmp_path / f"{name}.png", xray())
        out = tmp_path / "out"
        assert segment(monkeypatch, tmp_path, "-o", out, "--json", "--no-overlay") == 0
        printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert printed == rows(out)
        assert [Path(row["path"]).name for row in printed] == ["a.png", "b.png"]
        assert printed[0]["overlay"] is None
        assert not list(out.glob("*_overlay.png"))

    def test_bad_images_in_a_folder_are_reported_and_the_others_done(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("a", "c", "e"):
            write_png(tmp_path / f"{name}.png", xray())
        (tmp_path / "b.png").write_text("text")
        (tmp_path / "d.png").touch()
        (tmp_path / "f.png").write_bytes((tmp_path / "a.png").read_bytes()[:-20])
        out = tmp_path / "out"
        assert segment(monkeypatch, tmp_path, "-o", out, "--batch", 2) == 2
        found = rows(out)
        assert [Path(str(row["path"])).stem for row in found] == list("abcdef")
        assert ["error" in row for row in found] == [False, True, False, True, False, True]
        lines = capsys.readouterr().err.splitlines()
        assert [line.startswith("left out: cannot read image") for line in lines] == [True] * 3 + [False]
        assert lines[3] == f"error: 3 of 6 images were left out; 3 masks are in '{out}'"

    def test_files_of_the_same_name_do_not_overwrite_each_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            write_png(tmp_path / folder / "chest.png", xray())
        write_png(tmp_path / "two" / "chest_2.png", xray())
        (tmp_path / "two" / "CHEST.PNG").write_bytes((tmp_path / "two" / "chest.png").read_bytes())
        out = tmp_path / "out"
        assert segment(monkeypatch, tmp_path / "one", tmp_path / "two", "-o", out) == 0
        masks = [Path(str(row["mask"])) for row in rows(out)]
        assert len(masks) == len({mask.name.lower() for mask in masks}) == 4
        assert all(mask.is_file() for mask in masks)

    def test_results_of_another_run_are_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_png(tmp_path / "chest.png", xray())
        out = tmp_path / "out"
        for _ in range(2):
            assert segment(monkeypatch, tmp_path / "chest.png", "-o", out) == 0
        assert len(rows(out)) == 1

    def test_settings_reach_the_segmenter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        image = xray(96, 96)
        image[2:6, 2:6] = 220
        write_png(tmp_path / "a.png", image)
        source = tmp_path / "a.png"

        def area(*options: object) -> int:
            out = tmp_path / "out"
            assert segment(monkeypatch, source, "-o", out, "--tile", *options) == 0
            return int((read_image(out / "a_mask.png", 1) > 0).sum())

        plain = area()
        assert plain == int((image > 128).sum())
        assert area("--threshold", 0.05) == image.size
        assert area("--keep-largest", 1) == plain - 16
        assert area("--remove-small", 17) == plain - 16
        assert area("--opening", 4) < plain - 15
        assert area("--closing", 2, "--tile-overlap", 0.5) >= plain
        assert area("--crf") > 0
        assert area("--no-clahe", "--threshold", 0.87) == 0 < area("--clahe", "--threshold", 0.87)

    def test_a_colour_image_needs_gray(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_png(tmp_path / "a.png", np.dstack([xray(), xray() // 2, xray() // 3]))
        out = tmp_path / "out"
        assert segment(monkeypatch, tmp_path / "a.png", "-o", out) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "a.png" in error
        assert "pass --gray" in error
        assert not out.exists()
        assert segment(monkeypatch, tmp_path / "a.png", "-o", out, "--gray", "--threshold", 0.3) == 0

    @pytest.mark.parametrize(
        ("channels", "options", "message"),
        [
            (5, ["--gray"], "--gray (gray=True) has no effect: model 'brightness' takes 5 channels"),
            (3, ["--gray"], "--gray (gray=True) has no effect: model 'brightness' takes 3 channels"),
            (5, ["--no-clahe"], "--no-clahe has no effect: model 'brightness' takes 5 bands"),
            (5, ["--clahe"], "CLAHE is for gray and RGB images, and the model takes 5 bands"),
            (5, ["--crf"], "the CRF follows edges of gray and RGB images, and model 'brightness' takes 5"),
            (5, ["--tile-overlap", "0.25"], "--tile-overlap has no effect without --tile"),
        ],
    )
    def test_an_option_without_effect_is_refused_and_nothing_is_written(
        self,
        channels: int,
        options: list[str],
        message: str,
        session: BrightnessSession,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        session.replace_spec(channels=channels)
        np.save(tmp_path / "a.npy", np.repeat(xray()[..., None], channels, axis=2))
        out = tmp_path / "out"
        assert segment(monkeypatch, tmp_path / "a.npy", "-o", out, *options) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error
        assert not out.exists()

    @pytest.mark.parametrize(
        "options",
        [
            ["--threshold", "0.05"],
            ["--closing", "5"],
            ["--opening", "5"],
            ["--remove-small", "200"],
            ["--keep-largest", "1"],
            ["--tile"],
        ],
    )
    def test_all_others_change_the_mask_of_many_bands(
        self, options: list[str], session: BrightnessSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session.replace_spec(channels=5, inputs=brightness_spec(channels=5).inputs)
        image = xray(96, 96)
        cv2.circle(image, (15, 15), 5, 220, -1)
        image[48, 48], image[44:52, 68:96] = 30, 220
        np.save(tmp_path / "a.npy", np.repeat(image[..., None], 5, axis=2))
        masks = []
        for given in ([], options):
            assert segment(monkeypatch, tmp_path / "a.npy", "-o", tmp_path / "out", *given) == 0
            masks.append(read_image(tmp_path / "out" / "a_mask.png", 1))
        assert not np.array_equal(*masks)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "there is no such file"),
            (b"", "the file is empty"),
            (b"some text", "not a PNG, JPEG, TIFF, DICOM or NIfTI image"),
            ("truncated", "cut off or damaged"),
            ("1x1", "has 1x1 pixels; each side must have at least 8"),
            ("huge", "20000x20000 pixels; the limit is 268435456"),
        ],
    )
    def test_one_bad_image_is_one_line_and_writes_nothing(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        content: bytes | str | None,
        message: str,
    ) -> None:
        path = tmp_path / "bad.png"
        write_png(path, xray(1, 1) if content == "1x1" else xray())
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "truncated":
            path.write_bytes(path.read_bytes()[:100])
        elif content == "huge":
            encoded = bytearray(cv2.imencode(".png", np.zeros((20_000, 1), np.uint8))[1].tobytes())
            encoded[16:20] = (20_000).to_bytes(4, "big")
            path.write_bytes(_with_header_checksum(encoded))
        assert segment(monkeypatch, path, "-o", tmp_path / "out") == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: cannot read image")
        assert captured.err.count("\n") == 1
        assert message in captured.err
        assert captured.out == ""
        assert not (tmp_path / "out").exists()

    def test_rgba_is_segmented_without_its_alpha(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rgba = np.dstack([xray()] * 3 + [np.zeros_like(xray())])
        (tmp_path / "a.png").write_bytes(cv2.imencode(".png", rgba)[1].tobytes())
        write_png(tmp_path / "b.png", xray())
        out = tmp_path / "out"
        assert segment(monkeypatch, tmp_path, "-o", out) == 0
        assert (out / "a_mask.png").read_bytes() == (out / "b_mask.png").read_bytes()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--threshold", 2], "threshold must lie between 0 and 1"),
            (["--batch", 9], "takes batches of 1 to 4, not 9"),
            (["--tile", "--tile-overlap", 1], "overlap of tiles must lie between 0 and 0.9"),
        ],
    )
    def test_settings_that_do_not_fit_are_one_line_and_write_nothing(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        options: list[object],
        message: str,
    ) -> None:
        write_png(tmp_path / "a.png", xray())
        assert segment(monkeypatch, tmp_path / "a.png", "-o", tmp_path / "out", *options) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_an_output_that_is_a_file_or_the_input_folder_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_png(tmp_path / "a.png", xray())
        (tmp_path / "file").touch()
        assert segment(monkeypatch, tmp_path / "a.png", "-o", tmp_path / "file") == 2
        assert "is a file: give a folder to write to" in capsys.readouterr().err
        assert segment(monkeypatch, tmp_path, "-o", tmp_path) == 2
        assert "holds images to segment: write to another folder" in capsys.readouterr().err
        assert segment(monkeypatch, tmp_path / "a.png", "-o", tmp_path / "file" / "out") == 2
        assert "error: cannot write" in capsys.readouterr().err

    def test_an_unknown_model_is_refused_with_the_nearest_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_png(tmp_path / "a.png", xray())
        code = call(monkeypatch, "segment", tmp_path / "a.png", "-m", "brightnes", "-o", tmp_path / "out")
        assert code == 2
        assert "did you mean 'brightness'" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def _with_header_checksum(png: bytearray) -> bytes:
    import zlib

    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    return bytes(png)


def test_several_classes_are_written_as_ids_with_an_area_each(
    tmp_path: Path, session: BrightnessSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = BrightnessSession(brightness_spec(classes=3))
    monkeypatch.setattr(run, "open_session", lambda *target: several)
    image = np.repeat(np.array([0, 128, 255], np.uint8), [8, 16, 8])[None].repeat(32, axis=0)
    write_png(tmp_path / "a.png", image)
    assert segment(monkeypatch, tmp_path / "a.png", "-o", tmp_path / "out") == 0
    mask = read_image(tmp_path / "out" / "a_mask.png", 1)
    assert mask[0].tolist() == [0] * 8 + [1] * 16 + [2] * 8
    assert rows(tmp_path / "out")[0]["area_px"] == {"class 0": 256, "class 1": 512, "class 2": 256}


def test_an_interrupted_run_keeps_whole_files_only(
    tmp_path: Path, session: BrightnessSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seg_runtime.files.segment import segment_files
    from seg_runtime.semantic import SemanticSegmenter

    paths = []
    for index in range(5):
        paths.append(tmp_path / f"{index}.png")
        write_png(paths[-1], xray())
    out = tmp_path / "out"
    results = segment_files(SemanticSegmenter(session, "brightness"), paths, out, overlay=False)
    for _ in range(2):
        next(results)
    results.close()
    assert sorted(entry.name for entry in out.iterdir()) == ["0_mask.png", "1_mask.png", "results.jsonl"]
    assert len(rows(out)) == 2


def test_many_files_need_no_more_memory_than_few(tmp_path: Path, session: BrightnessSession) -> None:
    from seg_runtime.files.segment import segment_files
    from seg_runtime.semantic import SemanticSegmenter

    write_png(tmp_path / "a.png", xray(256, 256))
    paths = [tmp_path / "a.png"] * 200
    segmenter = SemanticSegmenter(session, "brightness")

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            for _ in segment_files(segmenter, paths[:count], tmp_path / "out", overlay=False):
                session.batches.clear()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(200) < peak(10) + 250_000


def test_a_results_file_that_cannot_be_replaced_is_one_line(
    tmp_path: Path,
    session: BrightnessSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_png(tmp_path / "a.png", xray())
    (tmp_path / "out" / "results.jsonl").mkdir(parents=True)
    assert segment(monkeypatch, tmp_path / "a.png", "-o", tmp_path / "out") == 2
    assert "results.jsonl': Is a directory" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.partial"))


def test_models_are_listed_as_a_table_and_as_json(
    session: BrightnessSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "models") == 0
    assert "brightness" in capsys.readouterr().out
    assert call(monkeypatch, "models", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["model"] == "brightness"
    assert row["input"] == "32x32x1"
    assert row["classes"] == ["class 0"]


def test_broken_models_of_a_repository_are_left_out_and_exit_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path, semantic_spec(), semantic_graph())
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.pbtxt").write_text("platform: ")
    assert call(monkeypatch, "models", "--repo", tmp_path) == 2
    out, err = capsys.readouterr()
    assert "tiny" in out
    first, last = err.splitlines()
    assert first.startswith("left out: ") and "broken/config.pbtxt" in first
    assert last == "error: 1 of 2 models cannot be used: broken"
    # A server may hold models that were not published by seg-export.
    local = connection.connect(tmp_path)
    monkeypatch.setattr(run, "open_session", lambda *target: local)
    assert call(monkeypatch, "models", "--url", "grpc://localhost:1") == 0


def test_a_model_shows_how_its_images_are_prepared_within_80_columns(
    session: BrightnessSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(f"organ number {index}" for index in range(20))
    session.replace_spec(channels=3, channel_order="bgr", class_names=names)
    session.replace_spec(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), scale=1.0)
    assert call(monkeypatch, "models", "brightness") == 0
    out = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in out.splitlines()}
    assert (rows["mean"], rows["std"]) == ("0.1, 0.2, 0.3", "1, 2, 4")
    assert (rows["scale"], rows["channel order"]) == ("pixels / 1", "bgr")
    assert rows["contract version"] == "2"
    assert max(map(len, out.splitlines())) <= 80

    assert call(monkeypatch, "models", "brightness", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["mean"], row["std"], row["scale"]) == ([0.1, 0.2, 0.3], [1, 2, 4], 1)
    assert (row["channel_order"], row["contract_version"]) == ("bgr", 2)

    assert call(monkeypatch, "models", "brihgtness") == 2
    assert "did you mean" in capsys.readouterr().err


@pytest.mark.parametrize(("channels", "lacking"), [(1, 3), (3, 4)])
def test_what_a_contract_of_version_1_does_not_hold_is_no_fact(
    channels: int,
    lacking: int,
    session: BrightnessSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    session.replace_spec(channels=channels, contract_version=1)
    assert call(monkeypatch, "models", "brightness") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("not in the contract" in line for line in lines) == lacking
    assert not any("rgb" in line or "255" in line for line in lines)
    assert lines[-1].split("  ")[1].strip() == "1 (of an older release)"
    assert call(monkeypatch, "models", "brightness", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["mean"], row["scale"], row["channel_order"]) == ([], None, None)


def test_of_many_classes_the_first_are_shown_and_json_has_all(
    session: BrightnessSession, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(f"organ number {index}" for index in range(150))
    session.replace_spec(class_names=names)
    for arguments, shown, most_lines in ((["brightness"], 20, 20), ([], 3, 12)):
        assert call(monkeypatch, "models", *arguments) == 0
        out = capsys.readouterr().out
        assert len(out.splitlines()) <= most_lines and out.count("organ") == shown
        assert f"and {150 - shown} more" in " ".join(out.replace("│", " ").split())
    assert call(monkeypatch, "models", "brightness", "--json") == 0
    assert json.loads(capsys.readouterr().out)["classes"] == list(names)
    session.replace_spec(class_names=names[:20])
    assert call(monkeypatch, "models", "brightness") == 0
    out = capsys.readouterr().out
    assert out.count("organ") == 20 and " more" not in out


def test_a_repository_and_a_url_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "models", "--repo", tmp_path, "--url", "grpc://localhost:1") == 2
    assert "give one of them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8001", "--url wants grpc://HOST:PORT or http://HOST:PORT, not 'localhost:8001'"),
        ("grpc://127.0.0.1:9", "127.0.0.1:9"),
    ],
)
def test_a_url_that_leads_nowhere_is_one_line_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    message: str,
) -> None:
    impatient = functools.partial(connection.connect, timeout_s=1, retry_budget_s=0)
    monkeypatch.setattr(connection, "connect", impatient)
    write_png(tmp_path / "a.png", xray())
    out = tmp_path / "out"
    assert segment(monkeypatch, tmp_path / "a.png", "--url", url, "-o", out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists()


@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "openvino"])
def test_the_engine_is_the_one_asked_for_and_is_said_once(
    tmp_path: Path,
    tiny_repo: Path,
    xray_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    engine: str,
) -> None:
    with connection.connect(tiny_repo, engine=engine) as session:
        expected = session.engine("unet_tiny")
    assert expected.startswith("OpenVINO" if engine == "openvino" else "ONNX Runtime")
    image = sorted((xray_folder / "images").glob("*.png"))[0]
    arguments = ["--repo", tiny_repo, "-m", "unet_tiny", "--engine", engine, "-o", tmp_path, "--json"]
    assert call(monkeypatch, "segment", image, *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err.count(f"({expected})") == 1
    assert json.loads(captured.out)["engine"] == rows(tmp_path)[0]["engine"] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "tensorflow"], "there is no engine 'tensorflow': choose auto, tensorrt, onnxruntime-"),
        (["--engine", "openvino"], "OpenVINO is not installed: run  pip install 'edgeseg[openvino]'"),
        (["--engine", "tensorrt"], "has no model.plan: run  seg-export build unet_tiny --repo"),
    ],
)
def test_an_engine_that_cannot_be_used_is_one_line_and_writes_nothing(
    tmp_path: Path,
    tiny_repo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    write_png(tmp_path / "a.png", xray())
    options = ["--repo", tiny_repo, "-m", "unet_tiny", "-o", tmp_path / "out", *arguments]
    assert call(monkeypatch, "segment", tmp_path / "a.png", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert " ".join(message.split()) in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command", [["segment", "-m", "unet"], ["sam", "--point", "9,9"], ["everything"]], ids=lambda it: it[0]
)
def test_an_engine_for_a_server_is_refused_before_it_is_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    write_png(tmp_path / "a.png", xray())
    options = ["--url", "grpc://127.0.0.1:9", "--engine", "openvino", "-o", tmp_path / "out"]
    assert call(monkeypatch, *command, tmp_path / "a.png", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: engine 'openvino' is for a repository folder: the server at grpc://127.0."
    )
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_names_every_engine() -> None:
    (option,) = EngineOption.__metadata__  # type: ignore[attr-defined]
    named = set(re.findall(r"[a-z]+(?:-[a-z]+)?", option.help))
    assert {AUTO, *ENGINES} <= named


def test_a_missing_repository_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "models", "--repo", tmp_path / "none") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("edgeseg ")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from seg_runtime.cli.run import app\n"
        "try: app(['segment', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'tritonclient', 'grpc', 'torch'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_published_model_segments_real_xrays(
    tmp_path: Path, tiny_repo: Path, xray_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    images = sorted((xray_folder / "images").glob("*.png"))[:3]
    code = call(
        monkeypatch, "segment", *images, "--repo", tiny_repo, "--model", "unet_tiny", "-o", out, "--batch", 2
    )
    assert code == 0
    assert [Path(str(row["path"])) for row in rows(out)] == images
    for row in rows(out):
        assert read_image(str(row["mask"]), 1).shape == (512, 512)


def test_a_guessed_depth_and_what_was_skipped_are_said(
    tmp_path: Path, tiny_repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(cv2.imencode(".png", ramp)[1].tobytes())
    (folder / "notes.txt").write_text("text")
    arguments = ("segment", folder, "--repo", tiny_repo, "--model", "unet_tiny", "-o", tmp_path / "out")
    assert call(monkeypatch, *arguments) == 0
    shown = capsys.readouterr().err
    assert shown.count("bit depth") == 1
    assert "a.png and 1 more: the file does not say its bit depth: read as 12-bit" in shown
    assert "skipped 1: not an image (notes.txt)" in shown
    assert all((row["bit_depth"], row["bit_depth_from"]) == (12, "guess") for row in rows(tmp_path / "out"))
    assert call(monkeypatch, *arguments, "--bit-depth", 14) == 0
    assert "bit depth" not in capsys.readouterr().err
    assert all((row["bit_depth"], row["bit_depth_from"]) == (14, "option") for row in rows(tmp_path / "out"))
