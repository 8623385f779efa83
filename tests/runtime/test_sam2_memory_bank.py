"""What a frame attends to, against the choices of `SAM2Base._prepare_memory_conditioned_features`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base

from seg_runtime.sam2.memory_bank import FrameOutput, MemoryBank, Selection, pointer_range

CHANNELS = 2


def output(frame: int, side: int = 1) -> FrameOutput:
    """Whose every value is the frame's index."""
    values = np.full((1, 1, side, side), frame, np.float32)
    return FrameOutput(values, np.full((1, 2), frame, np.float32), values[0, 0, :1, :1], False, values)


def bank_of(cond: list[int], non_cond: list[int]) -> MemoryBank:
    return MemoryBank({t: output(t) for t in cond}, {t: output(t) for t in non_cond})


def sam2s_choice(bank: MemoryBank, frame: int, reverse: bool, frame_count: int) -> Selection:
    """Run sam2's method with frames' indices as memories and pointers, and read off what it chose."""
    seen: dict[str, Any] = {}

    def attend(**kwargs: Any) -> torch.Tensor:
        seen.update(kwargs)
        return torch.zeros(1, 1, CHANNELS)

    slots = torch.arange(7.0).reshape(7, 1, 1, 1).expand(-1, -1, -1, CHANNELS)
    model = SimpleNamespace(
        hidden_dim=CHANNELS,
        mem_dim=CHANNELS,
        num_maskmem=7,
        max_cond_frames_in_attn=-1,
        memory_temporal_stride_for_eval=1,
        maskmem_tpos_enc=slots,
        use_obj_ptrs_in_encoder=True,
        max_obj_ptrs_in_encoder=16,
        only_obj_ptrs_in_the_past_for_eval=True,
        use_signed_tpos_enc_to_obj_ptrs=True,
        add_tpos_enc_to_obj_ptrs=True,
        proj_tpos_enc_in_obj_ptrs=True,
        obj_ptr_tpos_proj=torch.nn.Identity(),
        memory_attention=attend,
        training=False,
    )
    stored = {
        kind: {
            t: {
                "maskmem_features": torch.full((1, CHANNELS, 1, 1), float(t)),
                "maskmem_pos_enc": [torch.zeros(1, CHANNELS, 1, 1)],
                "obj_ptr": torch.full((1, CHANNELS), float(t)),
            }
            for t in outputs
        }
        for kind, outputs in (("cond_frame_outputs", bank.cond), ("non_cond_frame_outputs", bank.non_cond))
    }
    features = [torch.zeros(1, 1, CHANNELS)]
    SAM2Base._prepare_memory_conditioned_features(
        model, frame, False, features, features, [(1, 1)], stored, frame_count, reverse
    )
    count = len(seen["memory"]) - seen["num_obj_ptr_tokens"]
    frames, places = seen["memory"][:, 0, 0].int().tolist(), seen["memory_pos"][:, 0]
    # Of two channels the sine embedding is the sine and cosine of the distance over the range.
    angles = torch.atan2(places[count:, 0], places[count:, 1])
    distances = (angles * (min(frame_count, 16) - 1)).round().int().tolist()
    memories = zip(frames[:count], places[:count, 0].int().tolist(), strict=True)
    return Selection(tuple(memories), tuple(zip(frames[count:], distances, strict=True)))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_frames_attend_to_what_sam2_chooses(seed: int, reverse: bool) -> None:
    random = np.random.default_rng(seed)
    frame_count = int(random.integers(4, 40))
    marks = random.choice(3, size=frame_count, p=[0.25, 0.1, 0.65] if seed % 2 else [0.6, 0.3, 0.1])
    marks[random.integers(frame_count)] = 1
    bank = bank_of(np.flatnonzero(marks == 1).tolist(), np.flatnonzero(marks == 2).tolist())
    for frame in range(frame_count):
        wanted = sam2s_choice(bank, frame, reverse, frame_count)
        assert bank.select(frame, reverse, frame_count) == wanted


def test_pointers_reach_back_over_the_whole_of_a_short_video_and_15_frames_at_most() -> None:
    assert [pointer_range(count) for count in (2, 5, 16, 17, 900)] == [1, 4, 15, 15, 15]
    # A camera, and a video of one frame, in which sam2 would divide by 0.
    assert (pointer_range(None), pointer_range(1)) == (15, 1)


def test_a_video_without_a_known_end_is_tracked_as_a_long_one() -> None:
    bank = bank_of([0], list(range(1, 30)))
    assert bank.select(30, False, None) == sam2s_choice(bank, 30, False, 1000)


def test_memories_far_from_the_frame_at_work_are_dropped_and_none_that_it_attends_to() -> None:
    for frame, reverse in ((20, False), (5, True)):
        bank = bank_of([0, 25], list(range(1, 25)))
        bank.compact(frame)
        for near in range(frame - 1, frame + 2):
            assert all(bank.at(t).memory is not None for t, _ in bank.select(near, reverse, 26).memories)
        held = [t for t in bank.non_cond if bank.non_cond[t].memory is not None]
        assert len(held) <= 15
        assert all(bank.cond[t].memory is not None for t in bank.cond)
        assert {bank.non_cond[t].low_res.dtype.name for t in bank.non_cond if t not in held} == {"float16"}


def test_a_mask_far_above_what_half_precision_holds_stays_finite() -> None:
    bank = bank_of([0], [1])
    bank.non_cond[1].low_res = np.array([[[[9e4, -9e4]]]], np.float32)
    bank.compact(20)
    assert np.isfinite(bank.non_cond[1].low_res).all()


def test_the_frames_tracked_first_are_forgotten_first() -> None:
    bank = bank_of([0], [3, 2, 1])
    bank.add_tracked(3, output(3))
    assert bank.forget_oldest(5) == []
    assert bank.forget_oldest(1) == [2, 1]
    assert (list(bank.cond), list(bank.non_cond)) == ([0], [3])


def test_tracked_frames_around_a_prompt_are_forgotten() -> None:
    bank = bank_of([20], list(range(40)))
    bank.forget_around(20)
    assert list(bank.non_cond) == [*range(13), *range(28, 40)]
    assert list(bank.cond) == [20]
