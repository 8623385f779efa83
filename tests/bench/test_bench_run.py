"""`seg_bench.run.runner.measure` on a tiny model: in process, against PyTorch, and on a real server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from small_dicom import save_dicom
from typer.testing import CliRunner

from seg_bench.candidate import ENGINE, PYTORCH, Candidate
from seg_bench.cli import app
from seg_bench.data.annotators import weighted_samples
from seg_bench.data.find import find_samples
from seg_bench.metrics import hausdorff_95
from seg_bench.record_files import read_run, write_run
from seg_bench.records import Record, Run
from seg_bench.report.markdown import to_markdown
from seg_bench.run.options import RunOptions, engines_of, places_of
from seg_bench.run.runner import measure
from seg_bench.run.worker_process import WorkerProcess
from seg_runtime import SemanticSegmenter, connect
from seg_runtime.errors import (
    BadInputError,
    CheckpointError,
    EdgesegError,
    InferenceError,
    ModelNotFoundError,
    RepositoryError,
)
from seg_runtime.files.images import read_image


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny U-Net that counts as trained."""
    from seg_export.checkpoints.checkpoint import save_checkpoint
    from seg_export.families.semantic.random import random_unet

    path = tmp_path_factory.mktemp("bench_checkpoint") / "tiny.pth"
    tiny = random_unet(features=(4, 8))
    save_checkpoint(
        path,
        family=tiny.family,
        arguments=tiny.arguments,
        state_dict=tiny.state_dict,
        preprocessing=replace(tiny.preprocessing, input_size_hw=(64, 64)),
        class_names=("disc",),
    )
    return path


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """`unet_tiny`, and `unet_random` with weights marked as random."""
    from seg_export.export import export_model
    from seg_export.families.semantic.random import random_unet

    folder = tmp_path_factory.mktemp("bench_repo")
    export_model(checkpoint, folder, "unet_tiny")
    export_model(random_unet(features=(4, 8)), folder, "unet_random", size_hw=(64, 64))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five gray images, 80x72, with a disc each."""
    folder = tmp_path_factory.mktemp("bench_data") / "discs"
    generator = np.random.default_rng(0)
    for number in range(5):
        mask = np.zeros((80, 72), np.uint8)
        cv2.circle(mask, (36, 40), 12 + 2 * number, 255, -1)
        image = np.clip(mask * 0.5 + generator.integers(0, 100, mask.shape), 0, 255).astype(np.uint8)
        for name, pixels in (("images", image), ("masks", mask)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(folder / name / f"disc_{number}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def options(repo: Path, data: Path) -> RunOptions:
    return RunOptions(
        repo=repo, data=data, models=("unet_tiny",), repeats=4, warm_up=1, threads=1, energy=False
    )


@pytest.fixture(scope="module")
def measured(options: RunOptions, checkpoint: Path) -> Run:
    """Both models in process and the PyTorch baseline of the trained one."""
    return measure(replace(options, models=(), baseline=True, checkpoint=checkpoint), "seg-bench run")


def row(run: Run, model: str, runtime: str) -> Record:
    return next(record for record in run.records if (record.model.name, record.runtime) == (model, runtime))


@pytest.mark.slow
def test_every_model_gets_a_row_and_the_baseline_its_own(measured: Run) -> None:
    assert measured.complete
    rows = {(record.model.name, record.runtime) for record in measured.records}
    assert rows == {
        ("unet_tiny", PYTORCH),
        ("unet_tiny", "ONNX Runtime"),
        ("unet_random", "ONNX Runtime"),
    }


@pytest.mark.slow
def test_accuracy_is_what_a_user_of_the_segmenter_gets(measured: Run, repo: Path, data: Path) -> None:
    record = row(measured, "unet_tiny", "ONNX Runtime")
    assert record.accuracy is not None
    with connect(repo, threads=1) as session:
        segmenter = SemanticSegmenter(session, "unet_tiny")
        for number, dice in enumerate(record.accuracy.dice):
            image = cv2.imread(str(data / "images" / f"disc_{number}.png"), cv2.IMREAD_GRAYSCALE)
            target = cv2.imread(str(data / "masks" / f"disc_{number}.png"), cv2.IMREAD_GRAYSCALE) > 127
            found = segmenter.segment(image).mask > 0
            both = np.count_nonzero(found & target)
            wanted = (2 * both + 1) / (np.count_nonzero(found) + np.count_nonzero(target) + 1)
            assert dice == pytest.approx(wanted)
    assert record.data.images == len(record.accuracy.dice) == 5


def test_pooled_hd95_is_measured_and_recorded(repo: Path, data: Path, measured: Run, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    command = ["run", "--repo", str(repo), "--models", "unet_tiny", "--data", str(data), "--repeats", "1"]
    command += ["--warm-up", "0", "--no-energy", "--hd95", "pooled", "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    pooled = row(read_run(out), "unet_tiny", "ONNX Runtime").accuracy
    directed = row(measured, "unet_tiny", "ONNX Runtime").accuracy
    assert pooled and directed and pooled.dice == directed.dice and pooled.hd95 != directed.hd95
    assert (pooled.hd95_definition, pooled.hd95_unit) == ("pooled", "px")
    assert (directed.hd95_definition, directed.hd95_unit) == ("directed", "px")


def as_dicom(data: Path, folder: Path, spacings: list[tuple[str, list[float]] | None]) -> Path:
    """The images as DICOM with these elements, and the same masks."""
    shutil.copytree(data / "masks", folder / "masks")
    (folder / "images").mkdir()
    for path, spacing in zip(sorted((data / "images").iterdir()), spacings, strict=False):
        save_dicom(
            folder / "images" / f"{path.stem}.dcm", cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), spacing
        )
    return folder


def test_hd95_is_in_mm_where_all_images_have_a_spacing(
    options: RunOptions, data: Path, repo: Path, tmp_path: Path
) -> None:
    spacings = [("PixelSpacing", [0.2, 0.7]), ("ImagerPixelSpacing", [0.4, 0.4]), ("PixelSpacing", [3, 3])]
    folder = as_dicom(data, tmp_path / "scans", spacings)
    run = measure(replace(options, data=folder, repeats=1))
    (record,) = run.records
    accuracy = record.accuracy
    assert accuracy and (accuracy.hd95_unit, accuracy.hd95_definition) == ("mm", "directed")
    with connect(repo, threads=1) as session:
        segmenter = SemanticSegmenter(session, "unet_tiny")
        for number, (_, spacing_hw) in enumerate(spacings):
            found = segmenter.segment(read_image(folder / "images" / f"disc_{number}.dcm", 1)).mask
            target = cv2.imread(str(data / "masks" / f"disc_{number}.png"), cv2.IMREAD_GRAYSCALE)
            assert accuracy.hd95[number] == hausdorff_95(found, target, tuple(spacing_hw))
    assert "HD95 (mm)" in to_markdown([run]) and "HD95 (px)" not in to_markdown([run])


def test_stacks_of_nifti_are_measured_slice_by_slice_in_mm(
    options: RunOptions, data: Path, tmp_path: Path
) -> None:
    for name in ("images", "masks"):
        (tmp_path / "ct" / name).mkdir(parents=True)
        slices = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).T for path in sorted((data / name).iterdir())]
        affine = np.diag([0.5, 0.25, 3, 1])
        nibabel.save(nibabel.Nifti1Image(np.stack(slices, 2), affine), tmp_path / "ct" / name / "scan.nii.gz")
    pixels, mm = (
        measure(replace(options, data=folder, repeats=1)).records[0].accuracy
        for folder in (data, tmp_path / "ct")
    )
    assert pixels and mm and mm.images == tuple(f"scan_{number:04}" for number in range(5))
    assert mm.dice == pixels.dice and (pixels.hd95_unit, mm.hd95_unit) == ("px", "mm")
    for far_mm, far in zip(mm.hd95, pixels.hd95, strict=True):
        assert far_mm == far == np.inf or 0.25 * far <= far_mm <= 0.5 * far


def test_a_nifti_mask_must_lie_where_its_image_does(tmp_path: Path) -> None:
    image = np.zeros((20, 16, 2), np.uint8)
    mask = np.pad(np.ones((6, 5, 2), np.uint8), ((4, 10), (4, 7), (0, 0)))
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    nibabel.save(nibabel.Nifti1Image(image, np.diag([0.5, 2, 5, 1])), tmp_path / "images" / "a.nii.gz")
    for values, affine, message in (
        (mask, np.diag([-0.5, 2, 5, 1]), "lies elsewhere in space than its image"),
        (np.dstack([mask, mask]), np.diag([0.5, 2, 5, 1]), "has 4 slices and its image 2"),
        (mask[..., :1], np.diag([0.5, 2, 5, 1]), "has 1 slices and its image 2"),
    ):
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "masks" / "a.nii.gz")
        with pytest.raises(BadInputError, match=message):
            find_samples(tmp_path)
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([0.5, 2, 5, 1])), tmp_path / "masks" / "a.nii.gz")
    assert [sample.name for sample in find_samples(tmp_path)] == ["a_0000", "a_0001"]


def test_annotators_may_write_nifti(tmp_path: Path) -> None:
    mask = np.pad(np.ones((6, 5, 2), np.uint8), ((4, 10), (4, 7), (0, 0)))
    for name in ("images", "masks/anna", "masks/boris"):
        (tmp_path / name).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / name / "a.nii.gz")
    for samples in (find_samples(tmp_path, "union"), weighted_samples(tmp_path, {"anna": 1, "boris": 1})):
        assert [sample.name for sample in samples] == ["a_0000", "a_0001"]
        assert np.array_equal(samples[0].load_mask(), mask[..., 0].T > 0)


def test_hd95_is_in_pixels_where_an_image_has_no_spacing(
    options: RunOptions, data: Path, tmp_path: Path
) -> None:
    folder = as_dicom(data, tmp_path / "scans", [("PixelSpacing", [0.2, 0.7]), None])
    run = measure(replace(options, data=folder, repeats=1))
    assert run.records[0].accuracy and run.records[0].accuracy.hd95_unit == "px"
    note = "HD95 is in pixels: 1 of 2 images have no pixel spacing, 'disc_1' first"
    assert run.note.endswith(note) and note in to_markdown([run]) and "HD95 (px)" in to_markdown([run])


def test_the_baseline_scores_as_the_deployed_graph_does(measured: Run) -> None:
    baseline, deployed = (row(measured, "unet_tiny", runtime) for runtime in (PYTORCH, "ONNX Runtime"))
    assert baseline.accuracy and deployed.accuracy
    assert baseline.accuracy.dice == pytest.approx(deployed.accuracy.dice, abs=2e-3)
    assert baseline.settings.allocator and "MALLOC_MMAP_MAX_=0" in baseline.settings.allocator
    assert deployed.settings.allocator is None
    assert (deployed.settings.engine, baseline.settings.engine) == ("auto", None)
    assert baseline.engine and baseline.engine.startswith("PyTorch 2.")
    assert (baseline.model.version, baseline.model.graph_sha256) == (None, None)


def test_every_engine_gets_a_row_of_its_own_with_its_masks(options: RunOptions, tmp_path: Path) -> None:
    from seg_runtime import connect

    engines = engines_of("auto, openvino,onnxruntime")
    run = measure(replace(options, engines=engines, repeats=2))
    assert [record.settings.engine for record in run.records] == ["auto", "openvino", "onnxruntime"]
    for record, engine in zip(run.records, engines, strict=True):
        with connect(options.repo, engine=engine) as session:
            assert record.engine == session.engine("unet_tiny")
        assert record.latency and len(record.latency.total) == 2
    auto, openvino, onnx = run.records
    assert (openvino.runtime, onnx.runtime) == ("OpenVINO", "ONNX Runtime")
    assert (auto.runtime, auto.engine) == (onnx.runtime, onnx.engine)
    assert auto.accuracy and openvino.accuracy and auto.accuracy == onnx.accuracy
    assert openvino.accuracy.dice == pytest.approx(auto.accuracy.dice, abs=2e-3)
    write_run(run, tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == run


def test_a_row_whose_engine_cannot_run_the_model_says_so_and_the_others_go_on(options: RunOptions) -> None:
    run = measure(replace(options, engines=("tensorrt", "onnxruntime"), repeats=1, limit=1))
    failed, measured = run.records
    assert failed.failure and "has no model.plan: run seg-export build unet_tiny" in failed.failure
    assert str(options.repo.parent) not in failed.failure
    assert (failed.latency, failed.accuracy, failed.settings.engine) == (None, None, "tensorrt")
    assert measured.failure is None and measured.latency and measured.accuracy
    assert measured.accuracy.images == ("disc_0",)
    with pytest.raises(EdgesegError, match=r"has no model\.plan"):
        measure(replace(options, engines=("tensorrt",)))


def test_models_are_identified_by_their_hashes(measured: Run, checkpoint: Path, repo: Path) -> None:
    from hashlib import sha256

    model = row(measured, "unet_tiny", "ONNX Runtime").model
    assert model.checkpoint_sha256 == sha256(checkpoint.read_bytes()).hexdigest()
    assert model.graph_sha256 == sha256((repo / "unet_tiny" / "1" / "model.onnx").read_bytes()).hexdigest()
    assert model.parameters and model.parameters > 0


def test_random_weights_are_timed_but_not_scored(measured: Run) -> None:
    record = row(measured, "unet_random", "ONNX Runtime")
    assert (record.model.weights, record.accuracy) == ("random", None)
    assert record.latency is not None


def test_raw_samples_add_up_and_warm_up_is_not_among_them(measured: Run) -> None:
    for record in measured.records:
        assert record.latency is not None
        assert len(record.latency.total) == 4
        stages = zip(
            record.latency.preprocess,
            record.latency.infer,
            record.latency.postprocess,
            record.latency.total,
            strict=True,
        )
        for preprocess, infer, postprocess, total in stages:
            assert 0 < preprocess + infer + postprocess <= total
        assert record.images_per_s == pytest.approx(4000 / sum(record.latency.total))


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peaks are read from /proc")
def test_each_row_has_the_memory_of_its_own_process(measured: Run) -> None:
    onnx, torch = (
        row(measured, "unet_tiny", runtime).peak_memory_mib for runtime in ("ONNX Runtime", PYTORCH)
    )
    # This very process has imported PyTorch: an inherited peak would show.
    assert onnx and torch and 30 < onnx < torch


def test_a_batch_counts_all_its_images(options: RunOptions) -> None:
    run = measure(replace(options, batches=(2,), limit=3, repeats=2))
    record = run.records[0]
    assert record.latency is not None
    assert (record.settings.batch, record.data.images) == (2, 3)
    assert record.images_per_s == pytest.approx(4000 / sum(record.latency.total))


def test_progress_is_told(options: RunOptions) -> None:
    steps: list[tuple[str, int, int]] = []
    measure(replace(options, repeats=1, limit=1), on_step=lambda *step: steps.append(step))
    assert {what for what, _, _ in steps} == {"loading models", "timing", "scoring"}
    assert all(done <= total for _, done, total in steps)


def test_bad_requests_are_refused_before_anything_starts(
    options: RunOptions, tmp_path: Path, checkpoint: Path
) -> None:
    shutil.copytree(options.repo / "unet_tiny", tmp_path / "bare" / "unet_tiny")
    shutil.rmtree(tmp_path / "bare" / "unet_tiny" / "1")
    other = tmp_path / "other.pth"
    other.write_bytes(b"something else")
    cases: list[tuple[type[EdgesegError], str, dict[str, object]]] = [
        (ModelNotFoundError, "did you mean 'unet_tiny'", {"models": ("unet_tyni",)}),
        (RepositoryError, "not a folder", {"repo": tmp_path / "none"}),
        (RepositoryError, "no built model", {"repo": tmp_path / "bare", "models": ()}),
        (RepositoryError, "not built", {"repo": tmp_path / "bare"}),
        (BadInputError, "no data folder", {"data": tmp_path / "none"}),
        (BadInputError, "none of the split", {"part": "test"}),
        (BadInputError, "pass the file", {"baseline": True, "checkpoint": other}),
        (CheckpointError, "no checkpoint file", {"baseline": True, "checkpoint": tmp_path / "none.pth"}),
        (BadInputError, "takes batches of 1 to 8", {"batches": (9,)}),
    ]
    for kind, message, changes in cases:
        with pytest.raises(EdgesegError, match=message) as caught:
            measure(replace(options, **changes))
        assert isinstance(caught.value, kind) or "batches" in changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"repeats": 0}, "--repeats is 0; it must be 1 or more"),
        ({"threads": 0}, "--threads is 0"),
        ({"split_file": Path("x.json")}, "--split-file needs --part"),
        ({"checkpoint": Path("x.pth")}, "add --baseline torch"),
        ({"engines": ("tensorflow",)}, "there is no engine 'tensorflow': choose auto, tensorrt"),
        ({"engines": ("openvino",), "where": ("grpc",)}, "add in-process to --where, or leave them out"),
        ({"url": "ftp://host", "where": ("grpc",)}, "must begin with grpc:// or http://"),
        ({"url": "http://host:8000", "where": ("grpc",)}, "--where grpc cannot be measured over"),
    ],
)
def test_impossible_options_are_named(options: RunOptions, changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        replace(options, **changes)


def test_unknown_places_are_named() -> None:
    assert places_of("http, in-process") == ("in-process", "http")
    with pytest.raises(BadInputError, match="choose from in-process, grpc, http, shared-memory"):
        places_of("cloud")


def test_engines_run_in_process_and_servers_have_their_own(options: RunOptions) -> None:
    both = replace(options, where=places_of("grpc,in-process"), engines=engines_of("openvino,auto,openvino"))
    assert both.ways == (("in-process", "openvino"), ("in-process", "auto"), ("grpc", None))
    with pytest.raises(BadInputError, match="--engines is empty"):
        engines_of(" ,")


def test_a_worker_that_dies_is_one_clear_error(repo: Path, data: Path) -> None:
    candidate = Candidate("unet_tiny", "in-process", ENGINE, str(repo), str(data), ("disc_0",), "auto")
    with WorkerProcess(candidate) as worker:
        assert worker.where == "in-process"
        assert worker.time([0])["total"] > 0
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(InferenceError, match="ended early: SIGKILL"):
            worker.time([0])


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured_and_leaves_no_process(repo: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    code = "from seg_bench.cli import main; main()"
    command = [sys.executable, "-c", code, "run", "--repo", repo, "--data", data, "--repeats", "100000"]
    process = subprocess.Popen(
        [*map(str, command), "--models", "unet_tiny", "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    import psutil

    deadline = time.monotonic() + 60
    while not psutil.Process(process.pid).children() and time.monotonic() < deadline:
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    run = read_run(out)
    assert not run.complete
    assert run.records[0].latency and run.records[0].latency.total
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive


@pytest.mark.slow
@pytest.mark.server
def test_every_place_of_one_run_gives_the_same_masks(options: RunOptions) -> None:
    run = measure(replace(options, where=places_of("in-process,grpc,http,shared-memory"), repeats=2))
    assert [record.where for record in run.records] == ["in-process", "grpc", "http", "shared-memory"]
    accuracies = [record.accuracy for record in run.records]
    assert all(accuracy == accuracies[0] for accuracy in accuracies)
    assert [record.peak_memory_of for record in run.records] == ["process", "server", "server", "server"]
    assert [record.engine for record in run.records[1:]] == ["Triton, onnxruntime"] * 3
    assert all(record.peak_memory_mib for record in run.records)


@pytest.mark.slow
@pytest.mark.server
def test_a_running_server_is_measured_without_the_repository(options: RunOptions, tmp_path: Path) -> None:
    from seg_runtime.server import ServerOptions, TritonServer

    server = TritonServer(options.repo, ServerOptions(http_port=0, grpc_port=0, metrics_port=0))
    with server:
        run = measure(
            replace(options, repo=tmp_path / "none", url=server.grpc_url, where=("grpc",), repeats=2)
        )
    record = run.records[0]
    assert (record.where, record.peak_memory_mib, record.model.graph_sha256) == ("grpc", None, None)
    assert record.accuracy is not None
