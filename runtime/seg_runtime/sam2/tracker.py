"""One object on one frame: attend to memories, decode, remember (sam2's `track_step`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seg_runtime.sam2.graphs import Attention, Decoded, Sam2Graphs
from seg_runtime.sam2.masks import NO_OBJECT, fill_holes
from seg_runtime.sam2.memory_bank import FrameOutput, MemoryBank, pointer_range
from seg_runtime.sam2.prompts import NOT_A_POINT, Points
from seg_runtime.sam2.state import InferenceState, TrackedObject

__all__ = ["ObjectTracker"]

_MOST_AMBIGUOUS_POINTS = 1
"""With at most one point the best of three candidates is taken; a box counts as two."""

_PREVIOUS_LIMIT = 32.0
_APPEARS, _APPEARS_NOT = 10.0, -10.0


class ObjectTracker:
    """What a `Sam2VideoPredictor` does with one object on one frame; has no state.

    Args:
        graphs: all five.
        fill_hole_area: holes of at most so many low-resolution pixels are filled.
        clear_around_input: forget the tracked frames around one with a prompt.
    """

    def __init__(self, graphs: Sam2Graphs, fill_hole_area: int, clear_around_input: bool) -> None:
        self._graphs = graphs
        self._fill_hole_area = fill_hole_area
        self._clear_around_input = clear_around_input

    def track(self, state: InferenceState, tracked: TrackedObject, frame: int, reverse: bool) -> FrameOutput:
        """The object on the next frame of a propagation: with its prompts, or found and remembered."""
        bank = tracked.bank
        output = bank.cond.get(frame)
        if output is None:
            output = _best(self._decode(state, bank, frame, reverse, NOT_A_POINT), True, from_prompt=False)
            self.remember(state, frame, output)
            bank.add_tracked(frame, output)
        elif self._clear_around_input:
            bank.forget_around(frame)
        tracked.tracked[frame] = reverse
        bank.compact(frame)
        return output

    def prompt(
        self,
        state: InferenceState,
        tracked: TrackedObject,
        frame: int,
        points: Points,
        previous: FrameOutput | None,
    ) -> FrameOutput:
        """Find the object with points; with a look at memories if the frame was tracked already."""
        masks = None
        if previous is not None:
            masks = np.clip(self.shown(previous), -_PREVIOUS_LIMIT, _PREVIOUS_LIMIT)
        if frame in tracked.tracked:
            decoded = self._decode(state, tracked.bank, frame, tracked.tracked[frame], points, masks)
        else:
            features = state.features(frame)
            decoded = self._graphs.decode(features, points.coords, points.labels, masks, add_no_memory=True)
        ambiguous = points.labels.shape[1] <= _MOST_AMBIGUOUS_POINTS
        return self._filled(_best(decoded, ambiguous, from_prompt=True))

    def take_mask(self, state: InferenceState, frame: int, mask: NDArray[np.uint8]) -> FrameOutput:
        """Take the user's mask (S, S) as the object's; only its pointer comes from the decoder."""
        mask_input, low_res, pointer = self._graphs.mask_prompt(mask)
        appears = bool(mask.any())
        if appears:
            points, features = NOT_A_POINT, state.features(frame)
            pointer = self._graphs.decode(features, points.coords, points.labels, mask_input).pointers[:, 0]
        score = np.full((1, 1), _APPEARS if appears else _APPEARS_NOT, np.float32)
        return self._filled(FrameOutput(low_res, pointer, score, from_prompt=True))

    def settle(self, state: InferenceState, tracked: TrackedObject, frame: int) -> None:
        """Remember what new prompts on a frame found, so that other frames attend to it."""
        bank = tracked.bank
        for new in (tracked.new_non_cond, tracked.new_cond):
            if frame not in new:
                continue
            self.remember(state, frame, new[frame])
            output = new.pop(frame)
            if self._clear_around_input:
                bank.forget_around(frame)
            if new is tracked.new_non_cond:
                bank.add_tracked(frame, output)
            else:
                bank.cond[frame] = output
                bank.non_cond.pop(frame, None)

    def remember(self, state: InferenceState, frame: int, output: FrameOutput) -> NDArray[np.float32]:
        """The spatial memory of an output on a frame; made when it has none."""
        if output.memory is None:
            output.memory = self._graphs.remember(
                state.features(frame), output.low_res, output.score, output.from_prompt
            )
        return output.memory

    def shown(self, output: FrameOutput) -> NDArray[np.float32]:
        """(1, 1, 4G, 4G) float32 logits as the user sees them. Memories of tracked frames keep holes."""
        return fill_holes(output.low_res.astype(np.float32), self._fill_hole_area)

    def _decode(
        self,
        state: InferenceState,
        bank: MemoryBank,
        frame: int,
        reverse: bool,
        points: Points,
        masks: NDArray[np.float32] | None = None,
    ) -> Decoded:
        """Decode a frame that attends to memories."""
        # First of all, since the memory of a frame long ago is made anew from that frame's features.
        attention = self._attention(state, bank, frame, reverse)
        features = state.features(frame)
        return self._graphs.decode(features, points.coords, points.labels, masks, attention=attention)

    def _attention(self, state: InferenceState, bank: MemoryBank, frame: int, reverse: bool) -> Attention:
        selection = bank.select(frame, reverse, state.num_frames)
        memories = [(self._memory(state, t, bank), slot) for t, slot in selection.memories]
        pointers = [(bank.at(t).pointer, distance) for t, distance in selection.pointers]
        return Attention(memories, pointers, pointer_range(state.num_frames))

    def _memory(self, state: InferenceState, frame: int, bank: MemoryBank) -> NDArray[np.float32]:
        return self.remember(state, frame, bank.at(frame))

    def _filled(self, output: FrameOutput) -> FrameOutput:
        output.low_res = self.shown(output)
        return output


def _best(decoded: Decoded, ambiguous: bool, from_prompt: bool) -> FrameOutput:
    """The candidate with the highest score, or the single mask of an unambiguous prompt."""
    index = 1 + int(np.argmax(decoded.scores[0, 1:])) if ambiguous else 0
    low_res = decoded.low_res[:, index : index + 1]
    if decoded.object_scores[0, 0] <= 0:
        low_res = np.full_like(low_res, NO_OBJECT)
    # Copies, so that the arrays of all four candidates can go.
    pointer = decoded.pointers[:, index].copy()
    return FrameOutput(low_res.copy(), pointer, decoded.object_scores.copy(), from_prompt)
