"""The benchmarks of SAM2: all forms give one answer, and the memory of tracking is told."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from microbench import sam2_forms
from microbench.sam2_forms import EAGER, ENGINES, answer_file, time_form, tracked_frame
from microbench.sam2_memory import measure_memory
from microbench.sam2_models import CHECKPOINT, MovingShapes
from microbench.sam2_speed import FORMS, compare_answers, measure_sam2
from seg_runtime.errors import BadInputError, EdgesegError

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def published(small_sam2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `publish_random` leaves it; answers are written beside."""
    folder = tmp_path_factory.mktemp("sam2_speed")
    for name in ("repo", CHECKPOINT):
        (folder / name).symlink_to(small_sam2_folder / name)
    return folder


def answers(folder: Path, part: str, count: int) -> list[dict[str, Any]]:
    for form in FORMS:
        timed = time_form(folder, form, part, count, 1, 1)
        assert len(timed["samples_ms"]) == 1
        assert timed["samples_ms"][0] > 0
    return [dict(np.load(answer_file(folder, form, part, count))) for form in FORMS]


@pytest.mark.parametrize(("part", "count"), [("encode", 1), ("decode", 1), ("decode", 8)])
def test_images_are_encoded_and_decoded_to_one_answer(published: Path, part: str, count: int) -> None:
    theirs, *ours = answers(published, part, count)
    for form, answer in zip(ENGINES, ours, strict=True):
        equality = compare_answers(form, part, count, theirs, answer)
        assert max(equality.max_relative_difference.values()) < 1e-3
        if part == "decode":
            assert answer["low_res_masks"].shape == theirs["low_res_masks"].shape == (count, 3, 64, 64)


@pytest.mark.parametrize("memories", [1, 7])
def test_a_frame_is_tracked_to_one_answer(published: Path, memories: int) -> None:
    theirs, *ours = answers(published, "track", memories)
    for form, answer in zip(ENGINES, ours, strict=True):
        equality = compare_answers(form, "track", memories, theirs, answer)
        assert set(equality.max_relative_difference) == {"low_res_masks", "memory", "object_pointer"}
        assert equality.max_relative_difference["low_res_masks"] < 1e-3
    assert np.ptp(theirs["low_res_masks"]) > 0


def test_a_frame_with_all_memories_has_all_pointers() -> None:
    assert [tracked_frame(memories) for memories in (1, 2, 4, 7)] == [1, 2, 4, 16]
    assert [len(sam2_forms._past(memories, 64)) for memories in (1, 2, 4, 7)] == [1, 2, 4, 16]


def test_other_masks_are_not_compared() -> None:
    theirs = {"low_res_masks": np.full((1, 1, 8, 8), 1.0, np.float32)}
    ours = {"low_res_masks": theirs["low_res_masks"].copy()}
    ours["low_res_masks"][..., :2] = -1
    with pytest.raises(EdgesegError, match=r"the masks differ from sam2's, IoU 0\.75"):
        compare_answers("edgeseg", "decode", 1, theirs, ours)


@pytest.mark.full
def test_forms_take_turns_in_processes_of_their_own() -> None:
    told: list[str] = []
    result = measure_sam2(
        "small",
        prompts=(1,),
        memories=(),
        threads=1,
        turns=2,
        repeats=1,
        on_turn=lambda what, done, total: told.append(what),
    )
    rows = [f"{form}, {part} 1" for part in ("encode", "decode") for form in FORMS]
    assert told == ["export", *rows, *rows]
    assert all(len(form.samples_ms) == 2 and form.peak_memory_mib > 0 for form in result.forms)
    times = {(form.form, form.part): median(form.samples_ms) for form in result.forms}
    for form, ratios in result.times_as_fast_as_sam2.items():
        assert ratios["decode 1"] == times[EAGER, "decode"] / times[form, "decode"]
    assert list(result.times_as_fast_as_sam2) == list(ENGINES)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(BadInputError, match="unknown SAM2 variant 'tiniest'"):
        measure_sam2("tiniest")
    with pytest.raises(BadInputError, match="unknown SAM2 variant 'tiniest'"):
        measure_memory("tiniest", 10)


def test_the_shapes_move() -> None:
    source = MovingShapes(3, (96, 128))
    frames = list(source)
    assert [frame.shape for frame in frames] == [(96, 128, 3)] * 3
    assert not np.array_equal(MovingShapes(60, (96, 128)).frame(50), frames[0])
    x, y, _ = source.disc(2)
    assert tuple(frames[2][y, x]) == (220, 40, 30)


@pytest.mark.full
def test_memory_is_told_while_30_frames_are_tracked() -> None:
    told: list[int] = []
    curve = measure_memory("small", 30, every=10, frame_size_hw=(96, 128), on_frames=told.append)
    assert told == [0, 1, 10, 20, 30]
    assert [point.frames for point in curve.points] == told[1:]
    assert all(point.resident_mib > 50 for point in curve.points)
    highest = max(point.resident_mib for point in curve.points)
    assert curve.growth_mib == highest - curve.loaded_mib
