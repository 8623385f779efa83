"""`seg_bench.run.runner.measure` on the tiny SAM: ours beside PyTorch and the official decoder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from marks import full_size

from seg_bench.candidate import OFFICIAL_DECODER, PYTORCH
from seg_bench.record_files import read_run, write_run
from seg_bench.records import Record, Run
from seg_bench.run.options import RunOptions, places_of
from seg_bench.run.runner import measure
from seg_runtime.errors import BadInputError, EdgesegError, ModelNotFoundError, RepositoryError


@pytest.fixture(scope="module")
def options(tiny_sam_repo: Path, xray_folder: Path) -> RunOptions:
    return RunOptions(
        repo=tiny_sam_repo, data=xray_folder, models=("sam_tiny",), limit=2, repeats=1, warm_up=0, threads=2
    )


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory, xray_folder: Path) -> Path:
    """An X-ray in another shape than those of the run."""
    folder = tmp_path_factory.mktemp("sam_data") / "upright"
    name = "MCUCXR_0003_0.png"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        pixels = cv2.imread(str(xray_folder / kind / name), cv2.IMREAD_GRAYSCALE)
        assert cv2.imwrite(str(folder / kind / name), cv2.resize(pixels, (420, 512)))
    return folder


@pytest.fixture(scope="module")
@full_size
def measured(options: RunOptions, upright: Path) -> Run:
    return measure(
        replace(options, baseline=True, official=True, ood=upright, concurrency=(2,), duration_s=0.1)
    )


def row(run: Run, runtime: str) -> Record:
    return next(record for record in run.records if record.runtime == runtime)


def test_ours_and_both_baselines_are_rows_of_one_run(measured: Run) -> None:
    assert measured.complete
    rows = [(record.model.name, record.runtime) for record in measured.records]
    assert rows == [("sam_tiny", runtime) for runtime in (PYTORCH, OFFICIAL_DECODER, "ONNX Runtime")]
    for record in measured.records:
        assert record.model.parameters == 4_947_760
        assert record.settings.prompts and "each lung" in record.settings.prompts
        assert record.latency and record.latency.encode and record.latency.decode
        assert record.latency.infer[0] == record.latency.encode[0] + record.latency.decode[0]
    assert row(measured, "ONNX Runtime").engine == row(measured, OFFICIAL_DECODER).engine
    assert str(row(measured, PYTORCH).engine).startswith("PyTorch 2.")
    assert (
        row(measured, PYTORCH).settings.allocator and not row(measured, OFFICIAL_DECODER).settings.allocator
    )


def test_masks_are_lungs_and_those_of_segment_anything(measured: Run) -> None:
    ours, torch, official = (
        row(measured, runtime).accuracy for runtime in ("ONNX Runtime", PYTORCH, OFFICIAL_DECODER)
    )
    assert ours and torch and official
    assert min(ours.dice) > 0.93
    assert ours.dice == pytest.approx(torch.dice, abs=1e-4)
    assert official.dice == pytest.approx(torch.dice, abs=0.02)  # the best of its three candidates


def test_another_data_set_is_prompted_with_boxes_of_its_own_truth(measured: Run) -> None:
    (ours,), (torch,), (official,) = (
        row(measured, runtime).conditions or () for runtime in ("ONNX Runtime", PYTORCH, OFFICIAL_DECODER)
    )
    assert (ours.name, ours.kind, ours.images) == ("upright", "data set", ("MCUCXR_0003_0",))
    assert ours.dice[0] > 0.93
    assert ours.dice == pytest.approx(torch.dice, abs=1e-4)
    assert official.dice == pytest.approx(torch.dice, abs=0.02)


def test_callers_of_a_sam_have_an_image_of_their_own_each(measured: Run) -> None:
    (point,) = row(measured, "ONNX Runtime").loads or ()
    assert (point.concurrency, point.failures) == (2, 0)
    assert len(point.latency_ms) >= 2
    assert row(measured, PYTORCH).loads is row(measured, OFFICIAL_DECODER).loads is None


def test_the_graphs_of_both_models_identify_the_row(measured: Run, tiny_sam_repo: Path) -> None:
    from hashlib import sha256

    encoder, decoder = (
        sha256((tiny_sam_repo / f"sam_tiny_{part}" / "1" / "model.onnx").read_bytes()).hexdigest()
        for part in ("encoder", "decoder")
    )
    hashes = [
        (record.model.version, record.model.graph_sha256, record.model.decoder_graph_sha256)
        for record in measured.records
    ]
    assert hashes == [(None, None, None), (1, encoder, None), (1, encoder, decoder)]


def test_records_of_a_sam_survive_the_disk(measured: Run, tmp_path: Path) -> None:
    write_run(measured, tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == measured


@pytest.mark.full
def test_bad_requests_for_a_sam_are_refused_before_anything_starts(
    options: RunOptions, tmp_path: Path, tiny_repo: Path, tiny_checkpoint: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(options.repo, other)
    for config in other.glob("*/config.pbtxt"):
        text = config.read_text().replace("6984acc4b4eb", "000000000000")
        config.write_text(text)
    both = shutil.copytree(other, tmp_path / "both")
    shutil.copytree(tiny_repo / "unet_tiny", both / "unet_tiny")
    half = tmp_path / "half"
    shutil.copytree(options.repo / "sam_tiny_encoder", half / "sam_tiny_encoder")
    unbuilt = tmp_path / "unbuilt"
    for part in ("encoder", "decoder"):
        (unbuilt / f"sam_tiny_{part}").mkdir(parents=True)
        config = f"sam_tiny_{part}/config.pbtxt"
        shutil.copy(options.repo / config, unbuilt / config)
    maskless = tmp_path / "maskless"
    shutil.copytree(options.data / "images", maskless / "images")
    blank = shutil.copytree(options.data, tmp_path / "blank")
    assert cv2.imwrite(str(blank / "masks" / "MCUCXR_0003_0.png"), np.zeros((512, 512), np.uint8))
    cases: list[tuple[type[EdgesegError], str, dict[str, object]]] = [
        (BadInputError, "is a SAM, which takes one image per call", {"batches": (2,)}),
        (ModelNotFoundError, "the decoder is missing", {"repo": half}),
        (BadInputError, "one half of a SAM", {"models": ("sam_tiny_encoder",)}),
        (RepositoryError, "not built", {"repo": unbuilt}),
        (BadInputError, "no checkpoint of sam_tiny for the baseline", {"repo": other, "baseline": True}),
        (BadInputError, "no checkpoint of sam_tiny", {"repo": other, "official": True}),
        (
            BadInputError,
            "no checkpoint of sam_tiny for",  # the U-Net has one, which is of no use to its decoder
            {
                "repo": both,
                "models": (),
                "baseline": True,
                "official": True,
                "checkpoint": tiny_checkpoint,
            },
        ),
        (BadInputError, "has no mask", {"data": maskless}),
        (BadInputError, "the mask of 'MCUCXR_0003_0' is empty", {"data": blank}),
        (BadInputError, "the mask of 'MCUCXR_0003_0' is empty", {"ood": blank}),
        (
            BadInputError,
            "is the decoder of a SAM",
            {"repo": tiny_repo, "models": ("unet_tiny",), "official": True},
        ),
    ]
    for kind, message, changes in cases:
        with pytest.raises(kind, match=message):
            measure(replace(options, **changes))


@pytest.mark.server
def test_a_sam_on_a_server_scores_as_in_process(options: RunOptions, measured: Run) -> None:
    run = measure(replace(options, where=places_of("shared-memory")))
    accuracy, wanted = run.records[0].accuracy, row(measured, "ONNX Runtime").accuracy
    assert accuracy and wanted
    assert accuracy.dice == pytest.approx(wanted.dice, abs=1e-4)
    assert (run.records[0].where, run.records[0].peak_memory_of) == ("shared-memory", "server")
