"""Objects through a video: sam2's `SAM2VideoPredictor` on a session."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Iterator, Sequence
from types import TracebackType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seg_runtime.errors import BadInputError
from seg_runtime.sam2.frames import FrameReader, Video
from seg_runtime.sam2.graphs import Sam2Graphs
from seg_runtime.sam2.masks import NO_OBJECT, mask_to_model, resize_logits, without_overlap
from seg_runtime.sam2.memory_bank import FrameOutput
from seg_runtime.sam2.models import VIDEO_PARTS
from seg_runtime.sam2.prompts import join, object_points
from seg_runtime.sam2.state import InferenceState, TrackedObject
from seg_runtime.sam2.tracker import ObjectTracker
from seg_runtime.session import Session

__all__ = ["FrameMasks", "Sam2VideoPredictor"]

FrameMasks = tuple[int, list[Hashable], NDArray[np.float32]]
"""A frame's index, the ids of all objects, and their logits (num_objects, 1, H, W) in the video's frame."""


class Sam2VideoPredictor:
    """Masks of objects through a video, with the methods of `sam2.SAM2VideoPredictor` (1.1.0).

    All that belongs to one video is in the `InferenceState` that `init_state` gives: any number of
    videos may be tracked at once, in turns or from several threads, one thread for each state.

    Frames are read one at a time and only the features of the frame at work are kept. Of tracked frames the
    object pointer and the low-resolution mask stay, in half precision once the frame is more than 7
    away; a spatial memory that is needed again later, for a correction or a pass that starts in the
    middle, is made anew from the mask. So results are sam2's, which keeps everything. When the masks of past
    frames take more than `history_mb`, the oldest are forgotten: a prompt on such a frame counts as on one
    that was never tracked.

    Args:
        session: from `seg_runtime.connect`.
        model: the published SAM2; its models are `<model>_image_encoder` and so on.
        fill_hole_area: fill holes of at most so many pixels in the low-resolution masks. sam2's own
            builder says 8, which takes effect on a GPU only.
        non_overlap_masks: give every pixel to one object at most.
        clear_non_cond_mem_around_input: forget the tracked frames around one with a prompt.
        add_all_frames_to_correct_as_cond: let a prompt on a frame that was tracked already count as much
            as a first one. Without it, as in sam2, the next pass over that frame tracks it again and the
            correction is lost.
        history_mb: memory in MiB for the masks of past frames, per video.

    Raises:
        ModelNotFoundError: one of the five models is missing.
        BadInputError: they are of different checkpoints, or no SAM2.
    """

    def __init__(
        self,
        session: Session,
        model: str = "sam2.1_tiny",
        *,
        fill_hole_area: int = 0,
        non_overlap_masks: bool = False,
        clear_non_cond_mem_around_input: bool = False,
        add_all_frames_to_correct_as_cond: bool = False,
        history_mb: int = 1024,
    ) -> None:
        if history_mb < 0 or fill_hole_area < 0:
            raise BadInputError("history_mb and fill_hole_area are 0 or more")
        self.session = session
        self.fill_hole_area = fill_hole_area
        self.non_overlap_masks = non_overlap_masks
        self.clear_non_cond_mem_around_input = clear_non_cond_mem_around_input
        self.add_all_frames_to_correct_as_cond = add_all_frames_to_correct_as_cond
        self._history_bytes = history_mb * 2**20
        self._graphs = Sam2Graphs(session, model, VIDEO_PARTS)
        self._tracker = ObjectTracker(self._graphs, fill_hole_area, clear_non_cond_mem_around_input)
        self._states: weakref.WeakSet[InferenceState] = weakref.WeakSet()
        self._lock = threading.Lock()

    @property
    def image_size(self) -> int:
        """S, pixels of a side of the model's input."""
        return self._graphs.side

    @property
    def engine(self) -> str:
        """What computes the five models, as `Session.engine`."""
        return self._graphs.engine

    def init_state(
        self,
        video_path: Video,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> InferenceState:
        """Open a video and encode its first frame.

        Args:
            video_path: a file, folder of images, camera or address for `seg_runtime.video.open_video`, or
                a source of frames.
            offload_video_to_cpu, offload_state_to_cpu, async_loading_frames: taken and not used; frames are
                always read as a stream, and the state is always in the client's memory.

        Returns:
            the state, to be closed when the video is done (it is a context manager).

        Raises:
            BadInputError, BadImageError: a video that cannot be opened, is empty or has frames of several
                sizes.
            InferenceError, ServerError: as from `Session.infer`.
        """
        state = InferenceState(self._graphs, FrameReader(video_path))
        try:
            state.features(0)
        except BaseException:
            state.close()
            raise
        with self._lock:
            self._states.add(state)
        return state

    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: Hashable,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: ArrayLike | None = None,
    ) -> FrameMasks:
        """Prompt an object on a frame; an id that is not known starts a new object.

        Args:
            inference_state: of the video.
            frame_idx: the frame.
            obj_id: the object's id, of any hashable type.
            points: (P, 2), (x, y) in pixels of the video.
            labels: (P,), 1 for foreground and 0 for background.
            clear_old_points: forget earlier points of this object on this frame.
            normalize_coords: False for coordinates that are shares (0 to 1) of the video's sides.
            box: (4,), x0 y0 x1 y1 in pixels of the video.

        Returns:
            the frame, all ids, and logits (num_objects, 1, H, W) float32 of all objects on it.

        Raises:
            BadInputError: no such frame, no prompt, points without labels, a point or box outside the
                frame, a box with `clear_old_points=False`, too many objects.
            InferenceError, ServerError: as from `Session.infer`.
        """
        state = inference_state
        state.check_frame(frame_idx)
        if box is not None and not clear_old_points:
            raise BadInputError(
                "a box comes before any points: give it with clear_old_points=True, points along with it"
            )
        new = object_points(points, labels, box, state.video_size_hw, normalize_coords, self.image_size)
        with state.prompting(obj_id) as tracked:
            if not clear_old_points:
                new = join(tracked.points.get(frame_idx), new) or new
            cond = self._is_cond(tracked, frame_idx)
            if frame_idx in tracked.tracked:
                state.check_prompted(obj_id)
            previous = tracked.output(frame_idx, cond)
            output = self._tracker.prompt(state, tracked, frame_idx, new, previous)
        tracked.points[frame_idx] = new
        tracked.mask_frames.discard(frame_idx)
        return self._prompted(state, tracked, frame_idx, output)

    add_new_points = add_new_points_or_box
    """sam2's older name of `add_new_points_or_box`."""

    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, mask: ArrayLike
    ) -> FrameMasks:
        """Give an object's mask (H, W) bool on a frame, of any size; else as `add_new_points_or_box`."""
        state = inference_state
        state.check_frame(frame_idx)
        given = np.asarray(mask).astype(np.bool_)
        if given.ndim != 2 or not given.size:
            raise BadInputError(f"mask has the shape {given.shape}; the mask of one object is (H, W)")
        with state.prompting(obj_id) as tracked:
            output = self._tracker.take_mask(state, frame_idx, mask_to_model(given, self.image_size))
        tracked.mask_frames.add(frame_idx)
        tracked.points.pop(frame_idx, None)
        return self._prompted(state, tracked, frame_idx, output)

    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[FrameMasks]:
        """Track all objects through the video, frame by frame.

        Args:
            inference_state: of the video.
            start_frame_idx: where to begin; the earliest frame with a prompt by default, and the newest
                frame of a video without a known end.
            max_frame_num_to_track: how many frames to track after the first; all by default.
            reverse: backwards; nothing happens from frame 0, as in sam2.

        Yields:
            the frame, all ids, and logits (num_objects, 1, H, W) float32.

        Raises:
            BadInputError: no object, an object without prompts, no such frame, backwards through a video
                without a known end.
            InferenceError, ServerError: as from `Session.infer`; what was tracked stays.
        """
        state = inference_state
        self.propagate_in_video_preflight(state)
        objects = dict(state.objects)
        for frame in state.order(start_frame_idx, max_frame_num_to_track, reverse):
            if not state.frames.has(frame):
                return  # a stream ended
            outputs = [self._tracker.track(state, tracked, frame, reverse) for tracked in objects.values()]
            state.forget_beyond(self._history_bytes)
            yield frame, list(objects), self._to_video(state, outputs)

    def propagate_in_video_preflight(self, inference_state: InferenceState) -> None:
        """Make the memories of new prompts; `propagate_in_video` does it by itself.

        Raises:
            BadInputError: there is no object, or one without prompts.
        """
        state = inference_state
        state.check_open()
        if not state.objects:
            raise BadInputError("there is nothing to track: add points, a box or a mask for an object first")
        # By frame, so that each is encoded once for all objects.
        for frame in sorted(set().union(*(tracked.new_frames() for tracked in state.objects.values()))):
            for tracked in state.objects.values():
                self._tracker.settle(state, tracked, frame)
        for obj_id in state.objects:
            state.check_prompted(obj_id)

    def clear_all_prompts_in_frame(
        self, inference_state: InferenceState, frame_idx: int, obj_id: Hashable, need_output: bool = True
    ) -> FrameMasks | None:
        """Remove the prompts of an object on a frame, whose mask then counts as a tracked one.

        Returns:
            the frame, all ids and logits of all objects on it, or None without `need_output`.

        Raises:
            BadInputError: no such frame or object.
        """
        state = inference_state
        state.check_frame(frame_idx)
        state.known(obj_id).clear_prompts(frame_idx)
        return self._frame_masks(state, frame_idx) if need_output else None

    def remove_object(
        self,
        inference_state: InferenceState,
        obj_id: Hashable,
        strict: bool = False,
        need_output: bool = True,
    ) -> tuple[list[Hashable], list[tuple[int, NDArray[np.float32]]]]:
        """Forget an object.

        Args:
            inference_state: of the video.
            obj_id: its id.
            strict: refuse an id that is not known, instead of doing nothing.
            need_output: give the logits of the other objects on the frames where this one had prompts.

        Returns:
            the ids that are left, and (frame, logits (num_objects, 1, H, W) float32) for those frames.
        """
        state = inference_state
        if obj_id not in state.objects and not strict:
            return state.obj_ids, []
        removed = state.known(obj_id)
        del state.objects[obj_id]
        frames = sorted(removed.prompt_frames()) if need_output and state.objects else []
        return state.obj_ids, [(frame, self._frame_masks(state, frame)[2]) for frame in frames]

    def reset_state(self, inference_state: InferenceState) -> None:
        """Forget all objects, prompts and masks; the video stays open."""
        inference_state.objects.clear()

    def close(self) -> None:
        """Close the states of all videos; the session stays open."""
        with self._lock:
            states = list(self._states)
            self._states.clear()
        for state in states:
            state.close()

    def __enter__(self) -> Sam2VideoPredictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_cond(self, tracked: TrackedObject, frame: int) -> bool:
        return frame not in tracked.tracked or self.add_all_frames_to_correct_as_cond

    def _prompted(
        self, state: InferenceState, tracked: TrackedObject, frame: int, output: FrameOutput
    ) -> FrameMasks:
        """Keep what a prompt found until the next propagation, and show it."""
        cond = self._is_cond(tracked, frame)
        (tracked.new_cond if cond else tracked.new_non_cond)[frame] = output
        return self._frame_masks(state, frame, cond)

    def _frame_masks(self, state: InferenceState, frame: int, cond: bool | None = None) -> FrameMasks:
        """All objects on a frame as they are known now."""
        objects = state.objects.values()
        if cond is None:
            cond = any(frame in tracked.new_cond for tracked in objects)
        outputs = [tracked.output(frame, cond) for tracked in objects]
        return frame, state.obj_ids, self._to_video(state, outputs)

    def _to_video(self, state: InferenceState, outputs: Sequence[FrameOutput | None]) -> NDArray[np.float32]:
        """(num_objects, 1, H, W) float32 logits; objects that are not known have -1024."""
        logits = np.full((len(outputs), 1, *state.video_size_hw), NO_OBJECT, np.float32)
        for target, output in zip(logits, outputs, strict=True):
            if output is not None:
                target[:] = resize_logits(self._tracker.shown(output)[0], state.video_size_hw)
        return without_overlap(logits) if self.non_overlap_masks else logits
