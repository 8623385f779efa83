"""The benchmark of engines runs on a tiny model, and its figures are those of sessions with these engines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openvino
import pytest
from typer.testing import CliRunner

from microbench.engines import WAYS, EngineTimes, app, graph_inputs, measure_engines
from seg_runtime import connect
from seg_runtime.errors import BadInputError, ModelNotFoundError
from seg_runtime.session import check_inputs


@pytest.fixture(scope="module")
def measured(tiny_repo: Path) -> EngineTimes:
    # No graph in int8: what is timed is the same, and only its name counts.
    return measure_engines(tiny_repo, {"unet_tiny": "unet_tiny"}, rounds=2, calls=3)


@pytest.mark.full
def test_figures_follow_from_the_samples(measured: EngineTimes) -> None:
    (graph,) = measured.graphs
    assert [row.way for row in graph.rows] == list(WAYS)
    base = graph.rows[0]
    for row in graph.rows:
        assert (len(row.load_s), len(row.samples_ms)) == (2, 6)
        assert row.median_ms == pytest.approx(sum(sorted(row.samples_ms)[2:4]) / 2)
        assert min(row.samples_ms) <= row.p10_ms <= row.median_ms <= row.p90_ms <= max(row.samples_ms)
        assert row.times_as_fast * row.median_ms == pytest.approx(base.median_ms)
    assert base.max_relative_difference == 0


@pytest.mark.full
def test_engines_and_differences_are_those_of_sessions(measured: EngineTimes, tiny_repo: Path) -> None:
    answers = {}
    engines = ("onnxruntime", "openvino", "openvino", "onnxruntime", "openvino")
    for row, engine in zip(measured.graphs[0].rows, engines, strict=True):
        with connect(tiny_repo, engine=engine, threads=2) as session:
            assert row.engine == session.engine("unet_tiny")
            inputs = graph_inputs(session.spec("unet_tiny"))
            answers[engine] = session.infer("unet_tiny", inputs)["probabilities"]
    expected = answers["onnxruntime"]
    difference = np.abs(answers["openvino"] - expected).max() / np.abs(expected).max()
    _, fp32, own, *_ = measured.graphs[0].rows
    assert fp32.max_relative_difference == pytest.approx(difference, rel=0.5, abs=1e-6)
    # In bfloat16 it rounds to 8 bits; where it chooses fp32, the two ways are one.
    rounds = measured.openvino_own_precision != "f32"
    assert (own.max_relative_difference > 1e-4) == rounds


def test_a_model_without_int8_is_timed_in_fp32_only(tiny_repo: Path) -> None:
    (graph,) = measure_engines(tiny_repo, {"unet_tiny": None}, rounds=1, calls=1).graphs
    assert [row.way for row in graph.rows] == list(WAYS)[:3]


def test_inputs_fit_both_models_of_a_sam(tiny_sam_repo: Path) -> None:
    with connect(tiny_sam_repo) as session:
        for model in ("sam_tiny_encoder", "sam_tiny_decoder"):
            check_inputs(session.spec(model), graph_inputs(session.spec(model)))


@pytest.mark.full
def test_the_commands_publish_and_record(tmp_path: Path, xray_folder: Path) -> None:
    out = tmp_path / "engines.json"
    common = [str(tmp_path / "repo"), "--models", "unet_lung"]
    short = ["--rounds", "1", "--calls", "1", "--out", str(out)]
    prepared = ["prepare", *common, "--calibrate", str(xray_folder / "images")]
    for arguments in (prepared, ["measure", *common, *short]):
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    assert record["schema"] == "edgeseg-engines/1"
    assert record["machine"]["packages"]["openvino"] in openvino.__version__
    (graph,) = record["graphs"]
    assert (graph["model"], graph["weights"]) == ("unet_lung", "trained")
    assert [len(row["samples_ms"]) for row in graph["rows"]] == [1] * len(WAYS)
    differences = {row["way"]: row["max_relative_difference"] for row in graph["rows"]}
    assert differences["onnxruntime-int8"] > 1e-3, "that graph is another"


def test_a_model_that_was_not_prepared_is_named(tiny_repo: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="unet_lung"):
        measure_engines(tiny_repo, {"unet_lung": None}, rounds=1, calls=1)
    with pytest.raises(ModelNotFoundError, match="unet_int8"):
        measure_engines(tiny_repo, {"unet_tiny": "unet_int8"}, rounds=1, calls=1)
    result = CliRunner().invoke(app, ["prepare", str(tiny_repo), "--calibrate", ".", "--models", "unet"])
    assert isinstance(result.exception, BadInputError)
    assert "unknown model 'unet': choose from unet_lung" in str(result.exception)
    result = CliRunner().invoke(app, ["prepare", str(tiny_repo), "--calibrate", ".", "--models", "unet_31m"])
    assert isinstance(result.exception, BadInputError)
    assert "pass it as --unet-31m" in str(result.exception)
