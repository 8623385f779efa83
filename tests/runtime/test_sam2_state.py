"""What a video's state holds and frees, streams, many videos at once, and what users get wrong."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2_clips import FolderSource, moving_shapes, write_jpegs
from sam2_flows import FLOWS, assert_steps_equal, steps
from sam2_small import SIDE, small_sam2
from sam2_torch_session import TorchSam2Session

from seg_runtime.errors import BadImageError, BadInputError, InferenceError, ModelNotFoundError
from seg_runtime.sam2 import Sam2VideoPredictor
from seg_runtime.sam2.models import VIDEO_PARTS, find_sam2
from seg_runtime.sam2.state import MAX_OBJECTS

POINT: dict[str, Any] = {"points": [[60, 60]], "labels": [1]}


@pytest.fixture(scope="module")
def model() -> Iterator[SAM2VideoPredictor]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield small_sam2()
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jpegs(moving_shapes(8), tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def session(model: SAM2VideoPredictor) -> TorchSam2Session:
    return TorchSam2Session(model)


@pytest.fixture
def predictor(session: TorchSam2Session) -> Iterator[Sam2VideoPredictor]:
    with Sam2VideoPredictor(session, "sam2") as predictor:
        yield predictor


def blind(session: TorchSam2Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the models by quick ones: a mask that is above 0 everywhere, and memories of zeros."""
    grid = SIDE // 16
    levels = {
        "image_embeddings": torch.zeros(1, 256, grid, grid),
        "high_res_features_0": torch.zeros(1, 32, 4 * grid, 4 * grid),
        "high_res_features_1": torch.zeros(1, 64, 2 * grid, 2 * grid),
    }
    decoded = {
        "low_res_masks": torch.ones(1, 4, 4 * grid, 4 * grid),
        "iou_predictions": torch.ones(1, 4),
        "object_score_logits": torch.ones(1, 1),
        "object_pointers": torch.zeros(1, 4, 256),
    }
    attended = {"image_embeddings_with_memory": levels["image_embeddings"]}
    monkeypatch.setattr(session, "_image_encoder", lambda **_: levels)
    monkeypatch.setattr(session, "_mask_decoder", lambda **_: decoded)
    monkeypatch.setattr(session, "_memory_attention", lambda **_: attended)
    monkeypatch.setattr(session, "_memory_encoder", lambda **_: {"memory": torch.zeros(1, 64, grid, grid)})


class Blank:
    """Gray frames of which none is stored."""

    size_hw = (48, 64)

    def __init__(self, count: int | None, length: int | None = None) -> None:
        self.frame_count = count
        self._length = count if length is None else length

    def frame(self, index: int) -> NDArray[np.uint8]:
        return np.full((*self.size_hw, 3), 128, np.uint8)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        assert self._length is not None
        return (self.frame(index) for index in range(self._length))

    def close(self) -> None:
        pass


class TestHandles:
    """Features of one frame at a time, and nothing after the end."""

    def test_only_the_features_of_the_frame_at_work_are_kept(
        self, session: TorchSam2Session, predictor: Sam2VideoPredictor, folder: Path
    ) -> None:
        state = predictor.init_state(FolderSource(folder))
        predictor.add_new_points_or_box(state, 0, 1, **POINT)
        predictor.add_new_points_or_box(state, 0, 2, box=[10, 10, 90, 90])
        for frame, _, _ in predictor.propagate_in_video(state):
            assert sum(not handle.released for handle in session.handles) == 3
            assert session.calls["image_encoder"] == frame + 1
        state.close()
        assert all(handle.released for handle in session.handles)

    def test_close_closes_the_states_of_all_videos(
        self, session: TorchSam2Session, predictor: Sam2VideoPredictor, folder: Path
    ) -> None:
        source = FolderSource(folder)
        states = [predictor.init_state(source) for _ in range(2)]
        predictor.close()
        assert all(handle.released for handle in session.handles)
        assert not source.closed, "it is the caller's"
        for call in (
            lambda: predictor.add_new_points_or_box(states[0], 0, 1, **POINT),
            lambda: list(predictor.propagate_in_video(states[1])),
        ):
            with pytest.raises(BadInputError, match="closed: call init_state again"):
                call()

    def test_a_failed_call_leaves_the_state_as_it_was(
        self,
        session: TorchSam2Session,
        predictor: Sam2VideoPredictor,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        state = predictor.init_state(FolderSource(folder))
        wanted = predictor.add_new_points_or_box(state, 0, 1, **POINT)
        tracked = steps(predictor.propagate_in_video(state))
        with monkeypatch.context() as patch:

            def fail(**_: Any) -> None:
                raise InferenceError("out of memory")

            patch.setattr(session, "_mask_decoder", fail)
            for call in (
                lambda: predictor.add_new_points_or_box(state, 0, 2, **POINT),
                lambda: predictor.add_new_mask(state, 0, 3, np.ones((9, 9))),
                lambda: predictor.add_new_points_or_box(state, 2, 1, **POINT),
                lambda: list(predictor.propagate_in_video(state)),
            ):
                with pytest.raises(InferenceError):
                    call()
        assert state.obj_ids == [1]
        assert sum(not handle.released for handle in session.handles) == 3
        again = steps(predictor.propagate_in_video(state))
        assert_steps_equal(again, tracked, 0, 1)
        np.testing.assert_array_equal(again[0][2], wanted[2])


class TestManyVideos:
    """State is in the state alone."""

    @pytest.mark.full
    def test_videos_tracked_in_turns_and_from_threads_never_mix(
        self, session: TorchSam2Session, predictor: Sam2VideoPredictor, folder: Path, tmp_path: Path
    ) -> None:
        other = write_jpegs((frame[:, ::-1] // 2 for frame in moving_shapes(8, (100, 90))), tmp_path)
        jobs = [(folder, "one_point"), (other, "three_objects"), (other, "one_point"), (folder, "reverse")]

        def results(job: tuple[Path, str]) -> Iterator[Any]:
            source = FolderSource(job[0])
            return iter(
                FLOWS[job[1]](predictor, predictor.init_state(source), source.frame_count, source.size_hw)
            )

        alone = [steps(results(job)) for job in jobs]
        running, turns = [results(job) for job in jobs], [[] for _ in jobs]
        while any(len(mine) < len(all_) for mine, all_ in zip(turns, alone, strict=True)):
            for flow, mine in zip(running, turns, strict=True):
                mine.extend(steps([step] if (step := next(flow, None)) else []))
        with ThreadPoolExecutor(4) as pool:
            threads = list(pool.map(lambda job: steps(results(job)), jobs))
        for expected, in_turns, in_threads in zip(alone, turns, threads, strict=True):
            assert_steps_equal(in_turns, expected, 0, 1)
            assert_steps_equal(in_threads, expected, 0, 1)


class TestStreams:
    """Videos without a known end."""

    @pytest.mark.slow
    def test_a_stream_is_tracked_forwards_as_a_file_is(
        self, predictor: Sam2VideoPredictor, tmp_path: Path
    ) -> None:
        # Of a file with fewer than 16 frames sam2 scales distances by its length.
        folder = write_jpegs(moving_shapes(20), tmp_path)
        answers = []
        for known in (True, False):
            state = predictor.init_state(FolderSource(folder, known))
            predictor.add_new_points_or_box(state, 0, 1, **POINT)
            answers.append(steps(predictor.propagate_in_video(state)))
        assert len(answers[0]) == 20
        assert_steps_equal(answers[1], answers[0], 0, 1)

    def test_prompts_go_on_the_newest_frame_and_tracking_goes_on_from_it(
        self, predictor: Sam2VideoPredictor, folder: Path
    ) -> None:
        state = predictor.init_state(FolderSource(folder, count_is_known=False))
        assert state.num_frames is None
        predictor.add_new_points_or_box(state, 0, 1, **POINT)
        assert [step[0] for step in predictor.propagate_in_video(state, max_frame_num_to_track=3)] == [
            0,
            1,
            2,
            3,
        ]
        predictor.add_new_points_or_box(state, 3, 2, **POINT)
        assert [(step[0], step[1]) for step in predictor.propagate_in_video(state)] == [
            (frame, [1, 2]) for frame in range(3, 8)
        ]
        with pytest.raises(BadInputError, match="frame 2 has passed by, the newest is 7"):
            predictor.add_new_points_or_box(state, 2, 3, **POINT)
        with pytest.raises(BadInputError, match="there is no frame 8: the video ended after frame 7"):
            predictor.add_new_points_or_box(state, 8, 1, **POINT)
        with pytest.raises(BadInputError, match="cannot be tracked backwards"):
            list(predictor.propagate_in_video(state, reverse=True))

    def test_nothing_grows_over_a_long_stream(
        self, session: TorchSam2Session, predictor: Sam2VideoPredictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blind(session, monkeypatch)
        state = predictor.init_state(Blank(None, 300))
        predictor.add_new_points_or_box(state, 0, 1, [[9, 9]], [1])
        assert sum(1 for _ in predictor.propagate_in_video(state)) == 300
        tracked = state.objects[1]
        assert len(tracked.bank.non_cond) == 32
        assert len(tracked.tracked) <= 33


class TestLongVideos:
    """Memory stays within what was asked for."""

    @pytest.mark.full
    @pytest.mark.slow
    @pytest.mark.parametrize("history_mb", [0, 1024])
    def test_a_tracked_frame_costs_a_mask_in_half_precision_at_most(
        self, session: TorchSam2Session, history_mb: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blind(session, monkeypatch)
        predictor = Sam2VideoPredictor(session, "sam2", history_mb=history_mb)
        state = predictor.init_state(Blank(700))
        predictor.add_new_points_or_box(state, 0, 1, [[9, 9]], [1])
        sizes = []
        tracemalloc.start()
        try:
            for frame, _, _ in predictor.propagate_in_video(state):
                if frame in (100, 600):
                    session.handles.clear()
                    gc.collect()
                    sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        per_frame = (sizes[1] - sizes[0]) / 500
        mask_bytes = 2 * (SIDE // 4) ** 2
        assert per_frame < (1.5 * mask_bytes if history_mb else 200)

    def test_a_prompt_on_a_forgotten_frame_starts_anew(
        self, session: TorchSam2Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blind(session, monkeypatch)
        predictor = Sam2VideoPredictor(session, "sam2", history_mb=0)
        state = predictor.init_state(Blank(60))
        predictor.add_new_points_or_box(state, 0, 1, [[9, 9]], [1])
        list(predictor.propagate_in_video(state))
        for frame in (59, 10):
            predictor.add_new_points_or_box(state, frame, 1, [[9, 9]], [1])
        assert list(state.objects[1].new_non_cond) == [59]
        assert list(state.objects[1].new_cond) == [10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame_idx": 8, **POINT}, "there is no frame 8: the video has 8 frames, 0 to 7"),
        ({"frame_idx": -1, **POINT}, "there is no frame -1"),
        ({}, "there is no prompt: give points with labels, or a box"),
        ({"points": np.zeros((0, 2)), "labels": []}, "there is no prompt"),
        ({"points": [[1, 2]]}, "points were given without labels"),
        ({"labels": [1]}, "labels were given without points"),
        ({"points": [[1, 2]], "labels": [5]}, "5 is no point label"),
        ({"points": [[1, 500]], "labels": [1]}, "outside the image of 200x120 pixels"),
        ({"box": [1, 1, 9, 9], "clear_old_points": False}, "clear_old_points=True"),
        ({"box": [[1, 1, 9, 9], [1, 1, 8, 8]]}, "prompts are for 2 objects"),
        ({"box": [9, 1, 1, 9]}, "has no area"),
    ],
)
def test_bad_prompts_are_refused_and_make_no_object(
    predictor: Sam2VideoPredictor, folder: Path, arguments: dict[str, Any], message: str
) -> None:
    state = predictor.init_state(FolderSource(folder))
    with pytest.raises(BadInputError, match=message):
        predictor.add_new_points_or_box(state, **{"frame_idx": 0, "obj_id": 1, **arguments})
    assert state.obj_ids == []


def test_tracking_without_prompts_says_what_is_missing(predictor: Sam2VideoPredictor, folder: Path) -> None:
    state = predictor.init_state(FolderSource(folder))
    with pytest.raises(BadInputError, match="nothing to track: add points, a box or a mask"):
        next(iter(predictor.propagate_in_video(state)))
    predictor.add_new_points_or_box(state, 0, "cup", **POINT)
    list(predictor.propagate_in_video(state))
    predictor.clear_all_prompts_in_frame(state, 0, "cup")
    with pytest.raises(BadInputError, match="object 'cup' has no prompt"):
        next(iter(predictor.propagate_in_video(state)))
    # sam2 fails an assertion here.
    with pytest.raises(BadInputError, match="object 'cup' has no prompt"):
        predictor.add_new_points_or_box(state, 3, "cup", **POINT)
    with pytest.raises(BadInputError, match="there is no frame 99"):
        predictor.add_new_points_or_box(state, 0, "cup", **POINT)
        list(predictor.propagate_in_video(state, start_frame_idx=99))


def test_unknown_objects_and_bad_masks_are_refused(predictor: Sam2VideoPredictor, folder: Path) -> None:
    state = predictor.init_state(FolderSource(folder))
    predictor.add_new_points_or_box(state, 0, "cup", **POINT)
    with pytest.raises(BadInputError, match="there is no object 2: the objects are 'cup'"):
        predictor.clear_all_prompts_in_frame(state, 0, 2)
    with pytest.raises(BadInputError, match="there is no object 2"):
        predictor.remove_object(state, 2, strict=True)
    with pytest.raises(BadInputError, match=r"mask has the shape \(1, 4, 4\)"):
        predictor.add_new_mask(state, 0, 2, np.ones((1, 4, 4)))


def test_more_objects_than_the_limit_are_refused_and_the_limit_is_said(
    session: TorchSam2Session, predictor: Sam2VideoPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind(session, monkeypatch)
    state = predictor.init_state(Blank(3))
    for number in range(MAX_OBJECTS):
        predictor.add_new_points_or_box(state, 0, number, [[9, 9]], [1])
    with pytest.raises(BadInputError, match=f"one more than the {MAX_OBJECTS} that a video can have"):
        predictor.add_new_points_or_box(state, 0, "last", [[9, 9]], [1])


class TestVideosThatCannotBeTracked:
    @pytest.mark.parametrize("count", [0, None])
    def test_an_empty_video_is_refused(
        self, session: TorchSam2Session, predictor: Sam2VideoPredictor, count: int | None
    ) -> None:
        with pytest.raises(BadInputError, match="the video has no frames"):
            predictor.init_state(Blank(count, 0))
        assert session.handles == []

    def test_a_frame_of_another_size_is_refused_when_it_comes(
        self, session: TorchSam2Session, predictor: Sam2VideoPredictor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        blind(session, monkeypatch)
        source = Blank(9)
        state = predictor.init_state(source)
        predictor.add_new_points_or_box(state, 0, 1, [[9, 9]], [1])
        passes = predictor.propagate_in_video(state)
        assert next(passes)[0] == 0
        monkeypatch.setattr(source, "frame", lambda index: np.zeros((9, 9, 3), np.uint8))
        with pytest.raises(BadImageError, match=r"frame 1 has the shape \(9, 9, 3\).* 64x48 pixels"):
            next(passes)


class TestModels:
    @pytest.mark.parametrize("part", VIDEO_PARTS)
    def test_a_missing_part_is_named(self, session: TorchSam2Session, part: str) -> None:
        del session.specs[f"sam2_{part}"]
        with pytest.raises(ModelNotFoundError, match=f"'sam2_{part}', which is missing .* seg-export sam2"):
            Sam2VideoPredictor(session, "sam2")

    @pytest.mark.parametrize("part", VIDEO_PARTS[1:])
    def test_a_part_of_another_checkpoint_is_refused(self, session: TorchSam2Session, part: str) -> None:
        session.replace_spec(f"sam2_{part}", checkpoint_sha256="cd" * 32)
        with pytest.raises(BadInputError, match="chain models that were published from one checkpoint"):
            Sam2VideoPredictor(session, "sam2")

    def test_the_one_sam2_of_a_session_is_found(self, session: TorchSam2Session) -> None:
        assert find_sam2(session) == "sam2"
        session.specs |= {name.replace("sam2", "other"): spec for name, spec in session.specs.items()}
        with pytest.raises(BadInputError, match=r"several SAM2 models \(other, sam2\): choose one"):
            find_sam2(session)
        session.specs.clear()
        with pytest.raises(ModelNotFoundError, match="seg-export sam2"):
            find_sam2(session)
