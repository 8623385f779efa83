"""What a run times of a SAM2: an image with boxes, and frames with 1 and 7 memories, against sam2's own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bench_records import torch_candidate
from sam2_small import GRID

from seg_bench.candidate import ENGINE, PYTORCH, Candidate
from seg_bench.data.samples import Sample
from seg_bench.metrics import iou_score
from seg_bench.pipelines import open_pipeline
from seg_bench.pipelines.sam2_torch import TorchSam2VideoPipeline
from seg_bench.pipelines.sam2_video import FRAMES, OBJECT, Sam2VideoPipeline
from seg_bench.records import Record, Run
from seg_bench.report.speed import times_as_fast
from seg_bench.run.options import RunOptions, places_of
from seg_bench.run.runner import measure
from seg_bench.tracked import MEMORIES, tracked_name
from seg_runtime import connect
from seg_runtime.session import Session

pytestmark = pytest.mark.slow  # Loads five graphs, and PyTorch.

NAMES = ("sam2", *(tracked_name("sam2", memories) for memories in MEMORIES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of two discs each, and their masks."""
    folder = tmp_path_factory.mktemp("sam2_rows") / "discs"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(2):
        mask = np.zeros((120, 160), np.uint8)
        cv2.circle(mask, (45 + 5 * number, 60), 28, 255, -1)
        cv2.circle(mask, (120, 50), 20, 255, -1)
        noise = np.random.default_rng(number).integers(0, 40, mask.shape, np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), mask // 2 + 60 + noise)
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    return folder


@pytest.fixture(scope="module")
def sample(folder: Path) -> Sample:
    return Sample("0", folder / "images" / "0.png", (folder / "masks" / "0.png",))


@pytest.fixture(scope="module")
def session(small_sam2_folder: Path) -> Iterator[Session]:
    with connect(small_sam2_folder / "repo", engine="onnxruntime", threads=1) as session:
        yield session


class Calls(Session):
    """Hands on to another session, and notes the models that run and how many memories each sees."""

    def __init__(self, session: Session) -> None:
        self._session, self.where = session, session.where
        self.models_run: list[str] = []
        self.memories: list[int] = []

    def models(self) -> tuple[str, ...]:
        return self._session.models()

    def spec(self, model: str) -> Any:
        return self._session.spec(model)

    def engine(self, model: str) -> str:
        return self._session.engine(model)

    def close(self) -> None:
        """The session stays open."""

    def _infer(self, spec: Any, inputs: Any, keep: frozenset[str]) -> dict[str, Any]:
        self.models_run.append(spec.name.removeprefix("sam2_"))
        if "memories" in inputs:
            self.memories.append(len(inputs["memories"]))
        return self._session._infer(spec, inputs, keep)


def candidate(name: str, repo: Path) -> Candidate:
    return Candidate(
        name, "in-process", ENGINE, str(repo), "", (), engine="onnxruntime", threads=1, kind="sam2"
    )


@pytest.mark.parametrize("memories", MEMORIES)
def test_every_timed_frame_is_encoded_and_attends_to_so_many_memories(
    memories: int, session: Session, sample: Sample
) -> None:
    calls = Calls(session)
    with Sam2VideoPipeline(calls, tracked_name("sam2", memories)) as pipeline:
        state = pipeline.load(sample)
        bank = state.objects[OBJECT].bank
        assert (list(bank.cond), list(bank.non_cond)) == ([0], list(range(1, memories)))
        masks = []
        for _ in range(3):
            calls.models_run.clear()
            calls.memories.clear()
            masks.append(pipeline.run([state]).masks[0])
            assert calls.models_run == ["image_encoder", "memory_attention", "mask_decoder", "memory_encoder"]
            assert calls.memories == [memories]
    assert masks[0].any()
    np.testing.assert_array_equal(masks[0], masks[1])
    np.testing.assert_array_equal(masks[0], masks[2])


def test_the_frames_before_are_not_in_the_time_of_a_call(
    session: Session, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1000))
    clock = lambda: float(next(ticks))  # noqa: E731
    with Sam2VideoPipeline(session, "sam2_track7") as pipeline:
        state = pipeline.load(sample)
        for module in ("sam", "sam2", "sam2_video"):
            monkeypatch.setattr(f"seg_bench.pipelines.{module}.time.perf_counter", clock)
        spent = pipeline.run([state]).spent_ms
    # A tick per reading: four models take one each, and one passes before, between and after them.
    assert (spent["encode"], spent["decode"], spent["infer"]) == (1000, 3000, 4000)
    assert (spent["preprocess"], spent["postprocess"], spent["total"]) == (1000, 4000, 9000)


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_those_of_sam2s_own_predictors(name: str, small_sam2_folder: Path, sample: Sample) -> None:
    ours = candidate(name, small_sam2_folder / "repo")
    theirs = replace(ours, runtime=PYTORCH, engine=None, checkpoint=str(small_sam2_folder / "weights.pth"))
    outcomes = []
    for each in (ours, theirs):
        with open_pipeline(each) as pipeline:
            loaded = pipeline.load(sample)
            outcomes.append(pipeline.run([loaded]))
            again = pipeline.run([loaded])
            np.testing.assert_array_equal(again.masks[0], outcomes[-1].masks[0])
            assert pipeline.engine.startswith("PyTorch" if each is theirs else "ONNX Runtime")
        spent = outcomes[-1].spent_ms
        assert min(spent.values()) > 0
        assert spent["infer"] == pytest.approx(spent["encode"] + spent["decode"])
        assert spent["preprocess"] + spent["infer"] + spent["postprocess"] == pytest.approx(spent["total"])
    mine, other = (outcome.masks[0] for outcome in outcomes)
    assert mine.shape == other.shape == (120, 160)
    assert 0 < np.count_nonzero(other) < other.size
    assert iou_score(mine, other) > 0.999


@pytest.mark.parametrize("memories", MEMORIES)
def test_the_baseline_encodes_every_timed_frame_and_attends_to_as_many_memories(
    memories: int, small_sam2_folder: Path, sample: Sample
) -> None:
    checkpoint = torch_candidate(small_sam2_folder / "weights.pth", threads=1)
    pipeline = TorchSam2VideoPipeline(replace(checkpoint, model=tracked_name("sam2", memories)))
    encoded, lengths = [], []
    model = pipeline._predictor
    model.image_encoder.register_forward_hook(lambda *_: encoded.append(1))
    model.memory_attention.register_forward_pre_hook(
        lambda _, __, given: lengths.append(len(given["memory"]) - given["num_obj_ptr_tokens"]),
        with_kwargs=True,
    )
    state = pipeline.load(sample)
    for _ in range(2):
        encoded.clear()
        lengths.clear()
        pipeline.run([state])
        assert (len(encoded), lengths) == (1, [memories * GRID * GRID])
    assert (state["num_frames"], len(state["images"])) == (FRAMES, FRAMES)


@pytest.fixture(scope="module")
def options(small_sam2_folder: Path, folder: Path) -> RunOptions:
    return RunOptions(
        small_sam2_folder / "repo",
        folder,
        engines=("onnxruntime",),
        models=("sam2*",),
        threads=1,
        repeats=2,
        warm_up=0,
        energy=False,
        gate=True,
    )


def by_row(run: Run) -> dict[tuple[str, str], Record]:
    return {(record.model.name, record.runtime): record for record in run.records}


@pytest.mark.full
def test_a_sam2_is_three_models_of_a_run_with_a_baseline_each(
    options: RunOptions, small_sam2_folder: Path
) -> None:
    weights = small_sam2_folder / "weights.pth"
    run = measure(replace(options, baseline=True, checkpoint=weights, concurrency=(1,), duration_s=0.1))
    rows = by_row(run)
    assert sorted(rows) == sorted((name, runtime) for name in NAMES for runtime in (PYTORCH, "ONNX Runtime"))
    for (name, runtime), record in rows.items():
        assert record.failure is None
        assert record.agreement and record.agreement.lowest > 0.999
        assert record.latency and record.latency.encode and record.latency.decode
        assert len(record.latency.total) == 2
        assert record.accuracy is None  # The weights are random.
        assert bool(record.settings.allocator) == (runtime == PYTORCH)
        assert ("a video whose frames" in str(record.settings.prompts)) == (name != "sam2")
        assert bool(record.loads) == ((name, runtime) == ("sam2", "ONNX Runtime"))
        if runtime == "ONNX Runtime":
            assert times_as_fast(run, record) == pytest.approx(
                rows[name, PYTORCH].latency.percentile(50) / record.latency.percentile(50)  # type: ignore[union-attr]
            )
    assert "'sam2_track7' is not put under load: a video is tracked frame after frame" in run.note


@pytest.mark.full
def test_trained_weights_are_scored(options: RunOptions, small_sam2_folder: Path, tmp_path: Path) -> None:
    repo = shutil.copytree(small_sam2_folder / "repo", tmp_path / "repo")
    for config in repo.glob("*/config.pbtxt"):
        config.write_text(
            re.sub('(key: "weights".*?string_value: ")random', r"\1trained", config.read_text(), flags=re.S)
        )
    run = measure(replace(options, repo=repo, models=("sam2_track1",)))
    (record,) = run.records
    assert record.accuracy and len(record.accuracy.dice) == 2


@pytest.mark.full
@pytest.mark.server
def test_a_server_computes_the_same_masks_and_says_how_long(options: RunOptions) -> None:
    run = measure(replace(options, where=places_of("grpc,shared-memory"), engines=("auto",)))
    assert {(record.model.name, record.where) for record in run.records} == {
        (name, where) for name in NAMES for where in ("grpc", "shared-memory")
    }
    for record in run.records:
        assert record.failure is None
        assert record.agreement and record.agreement.lowest > 0.999
        latency = record.latency
        assert latency and len(latency.transfer or ()) == len(latency.total)
        assert min(latency.transfer or ()) >= 0 and max(latency.transfer or ()) > 0
