"""What people do with a video, as scripts that run on sam2's predictor and on ours alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Step = tuple[int, list[Any], NDArray[np.float32]]
Flow = Callable[[Any, Any, int, tuple[int, int]], Iterable[Any]]
"""Takes a predictor, a state, the number of frames and (height, width); yields what the methods return."""


def one_point(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    yield predictor.add_new_points_or_box(state, 0, 1, points=[at(size_hw, 0.3, 0.5)], labels=[1])
    yield from predictor.propagate_in_video(state)


def box_and_points(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    box = [*at(size_hw, 0.1, 0.3), *at(size_hw, 0.5, 0.8)]
    yield predictor.add_new_points_or_box(state, 0, "a", box=box)
    points = [at(size_hw, 0.3, 0.5), at(size_hw, 0.45, 0.7)]
    yield predictor.add_new_points_or_box(state, 0, "a", points, [1, 0], box=box)
    more = [at(size_hw, 0.2, 0.4)]
    yield predictor.add_new_points_or_box(state, 0, "a", more, [1], clear_old_points=False)
    yield from predictor.propagate_in_video(state, max_frame_num_to_track=count // 2)


def mask(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    yield predictor.add_new_mask(state, 1, 7, disc(size_hw))
    yield predictor.add_new_points_or_box(state, 1, 8, [[0.5, 0.5]], [1], normalize_coords=False)
    yield from predictor.propagate_in_video(state)


def no_object_in_a_mask(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    yield predictor.add_new_mask(state, 0, 1, np.zeros((64, 80), bool))
    yield predictor.add_new_mask(state, 2, 1, disc((300, 200)))
    yield from predictor.propagate_in_video(state)


def three_objects(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    """Prompts on several frames; tracking begins before the first prompt of two of the objects."""
    yield predictor.add_new_points_or_box(state, 0, 1, [at(size_hw, 0.2, 0.5)], [1])
    box = [*at(size_hw, 0.5, 0.1), *at(size_hw, 0.9, 0.6)]
    yield predictor.add_new_points_or_box(state, count // 3, 2, box=box)
    yield predictor.add_new_mask(state, count // 2, 3, disc(size_hw))
    yield predictor.add_new_points_or_box(state, count // 2, 1, [at(size_hw, 0.6, 0.6)], [1])
    yield from predictor.propagate_in_video(state)


def correction(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    """Forward, a correction with two clicks far back, forward again from there, then from the beginning."""
    yield from one_point(predictor, state, count, size_hw)
    middle = count // 3
    yield predictor.add_new_points_or_box(state, middle, 1, [at(size_hw, 0.6, 0.3)], [0])
    more = [at(size_hw, 0.4, 0.5)]
    yield predictor.add_new_points_or_box(state, middle, 1, more, [1], clear_old_points=False)
    yield from predictor.propagate_in_video(state, start_frame_idx=middle + 1, max_frame_num_to_track=4)
    yield from predictor.propagate_in_video(state)
    yield predictor.add_new_mask(state, middle, 1, disc(size_hw))
    yield from predictor.propagate_in_video(state, middle)


def reverse(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    """Both ways from the middle, a correction on a frame tracked backwards, and backwards again."""
    middle = count // 2
    yield predictor.add_new_points_or_box(state, middle, 1, [at(size_hw, 0.5, 0.5)], [1])
    yield predictor.add_new_mask(state, middle, 2, disc(size_hw))
    yield from predictor.propagate_in_video(state)
    yield from predictor.propagate_in_video(state, reverse=True)
    yield predictor.add_new_points_or_box(state, 1, 1, [at(size_hw, 0.4, 0.4)], [1])
    yield from predictor.propagate_in_video(state, start_frame_idx=count - 2, reverse=True)
    yield from predictor.propagate_in_video(state, 0, reverse=True)


def removals(predictor: Any, state: Any, count: int, size_hw: tuple[int, int]) -> Iterable[Any]:
    """Prompts and objects that come and go."""
    yield from three_objects(predictor, state, count, size_hw)
    yield predictor.clear_all_prompts_in_frame(state, count // 2, 1)
    yield predictor.add_new_points_or_box(state, count // 2, 1, [at(size_hw, 0.7, 0.6)], [1])
    ids, frames = predictor.remove_object(state, 2)
    yield from ((frame, ids, masks) for frame, masks in frames)
    yield from predictor.propagate_in_video(state, 0, 5)
    predictor.remove_object(state, 9)
    predictor.remove_object(state, 1)
    assert predictor.remove_object(state, 3)[0] == []
    yield from one_point(predictor, state, count, size_hw)
    predictor.reset_state(state)
    yield predictor.add_new_points_or_box(state, 2, 5, [at(size_hw, 0.7, 0.2)], [1])
    yield from predictor.propagate_in_video(state)


FLOWS: dict[str, Flow] = {
    flow.__name__: flow
    for flow in (
        one_point,
        box_and_points,
        mask,
        no_object_in_a_mask,
        three_objects,
        correction,
        reverse,
        removals,
    )
}


def at(size_hw: tuple[int, int], x: float, y: float) -> list[float]:
    """(x, y) in pixels of shares of the sides."""
    return [x * size_hw[1], y * size_hw[0]]


def disc(size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (H, W) with a disc in the upper left."""
    y, x = np.mgrid[-1 : 1 : size_hw[0] * 1j, -1 : 1 : size_hw[1] * 1j]
    return np.asarray((x + 0.3) ** 2 + (y + 0.2) ** 2 < 0.2)


def steps(results: Iterable[Any]) -> list[Step]:
    """All answers of a flow as arrays."""
    return [(frame, list(ids), np.array(masks)) for frame, ids, masks in results]


def assert_steps_equal(
    got: list[Step], wanted: list[Step], relative: float, min_iou: float, ties: float = 0.0
) -> None:
    """Frames, ids and logits are those of sam2, and so are the masks of every object.

    Args:
        got: ours.
        wanted: sam2's.
        relative: largest difference of logits, in shares of the largest logit of the object.
        min_iou: of masks; one pixel on the threshold is more than that of a very small one.
        ties: share of pixels that may belong to another object, where two logits are about equal.
    """
    assert [step[:2] for step in got] == [step[:2] for step in wanted]
    for number, ((frame, ids, ours), (_, _, theirs)) in enumerate(zip(got, wanted, strict=True)):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype == np.float32
        for obj_id, mine, other in zip(ids, ours, theirs, strict=True):
            where = f"step {number}, frame {frame}, object {obj_id!r}"
            tolerance = relative * np.abs(other).max()
            if ties:
                assert np.mean(np.abs(mine - other) > tolerance) <= ties, where
            else:
                np.testing.assert_allclose(mine, other, rtol=0, atol=tolerance, err_msg=where)
            union, both = np.sum((mine > 0) | (other > 0)), np.sum((mine > 0) & (other > 0))
            assert both >= min_iou * union or union - both <= 1, f"{where}: IoU {both / union}"
