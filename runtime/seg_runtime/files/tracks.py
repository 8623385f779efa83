"""Tracks prompted objects through a video into an overlay video and masks, frame by frame as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from seg_runtime.errors import BadInputError, FrameNotFoundError, VideoEndedError
from seg_runtime.files.track_prompts import ObjectPrompt
from seg_runtime.files.track_results import Ended, TrackedFrame, TrackResult
from seg_runtime.plain_files import real_path
from seg_runtime.video import FrameSource, MaskSink, PngMasks, RleMasks, VideoWriter, draw_objects
from seg_runtime.video.writer import check_video_path

__all__ = ["MaskFormat", "TrackResult", "TrackedFrame", "VideoPredictor", "masks_path", "track_video"]

MaskFormat = Literal["png", "rle"]


class VideoPredictor(Protocol):
    """What is used of a `Sam2VideoPredictor`; arguments are given by position, but for the box."""

    def init_state(self, source: FrameSource, /) -> AbstractContextManager[Any]:
        """A state for one video, closed by its `with` block."""

    def add_new_points_or_box(
        self,
        state: Any,
        frame: int,
        object_id: int,
        points: NDArray[np.float32] | None,
        labels: NDArray[np.int32] | None,
        /,
        *,
        box: NDArray[np.float32] | None,
    ) -> object:
        """Points (P, 2) with labels (P,), and a box (4,), in pixels of the video."""

    def add_new_mask(self, state: Any, frame: int, object_id: int, mask: NDArray[np.bool_], /) -> object:
        """A mask (H, W) in the size of the video."""

    def propagate_in_video(self, state: Any, /) -> Iterator[tuple[int, Sequence[Any], NDArray[np.float32]]]:
        """(frame index, K ids, (K, 1, H, W) float32 logits), forward from the first prompted frame."""


def track_video(
    predictor: VideoPredictor,
    source: FrameSource,
    prompts: Sequence[ObjectPrompt],
    out: str | Path,
    *,
    masks: MaskFormat | None = None,
    info: Mapping[str, Any] | None = None,
    on_frame: Callable[[TrackedFrame], None] | None = None,
) -> TrackResult:
    """Track objects from their first prompt to the end, writing each frame as it is done.

    Frames before the first prompt are written without objects. When the source breaks off or Ctrl-C is
    pressed, what was tracked is complete and saved; on any other error nothing is written.

    Args:
        predictor: what tracks.
        source: from `open_video`; stays open.
        prompts: from `seg_runtime.files.track_prompts.group_track_prompts`.
        out: the mp4 to write; its folder is made when missing.
        masks: also write `<out>_masks/` with an indexed PNG per frame, or `<out>_masks.json`.
        info: plain values for the head of `<out>_masks.json`.
        on_frame: called after each tracked frame.

    Raises:
        BadInputError: `out` cannot be written to or is the video itself; an id that PNG masks cannot hold.
        VideoEndedError: the source broke off before anything was tracked.
        InferenceError, ServerError: as from `Session.infer`.
    """
    out = Path(out)
    _check_out(out, source)
    with ExitStack() as stack:
        state = stack.enter_context(predictor.init_state(source))
        for prompt in prompts:
            _add(predictor, state, prompt)
        sink = _mask_sink(out, masks, source, info or {})
        writer = stack.enter_context(VideoWriter(out, source.fps, source.size_hw, times_s=source.times_s))
        run = _Run(source, writer, stack.enter_context(sink) if sink else None, on_frame)
        ended, note = _run_through(predictor, state, run)
    ids = tuple(sorted({prompt.object_id for prompt in prompts}))
    path = sink.path if sink else None
    return TrackResult(
        source.name, out, path, run.frames, run.tracked, ids, run.speed(), ended, note or source.note
    )


@dataclass
class _Run:
    """Where a run has come to, and what it writes into."""

    source: FrameSource
    writer: VideoWriter
    sink: MaskSink | None
    on_frame: Callable[[TrackedFrame], None] | None
    frames: int = 0
    tracked: int = 0
    started: float = field(default_factory=time.perf_counter)
    last: float = field(default_factory=time.perf_counter)

    def speed(self) -> float:
        return self.tracked / max(self.last - self.started, 1e-9)

    def add(self, index: int, logits: dict[int, NDArray[np.float32]]) -> None:
        """Write a frame, and those before it that nothing was tracked in."""
        while self.frames < index:
            self._write(self.frames, {})
        self._write(index, logits)
        now = time.perf_counter()
        seconds, self.last = now - self.last, now
        self.tracked += 1
        areas = {number: int(np.count_nonzero(values > 0)) for number, values in sorted(logits.items())}
        if self.on_frame is not None:
            time_s = self.source.time_s(index)
            self.on_frame(TrackedFrame(index, time_s, areas, seconds, self.speed()))

    def _write(self, index: int, logits: dict[int, NDArray[np.float32]]) -> None:
        drawn = draw_objects(self.source.frame(index), logits)
        if self.sink is not None:
            self.sink.write(index, logits)
        self.writer.write(drawn)
        self.frames += 1


def _run_through(predictor: VideoPredictor, state: Any, run: _Run) -> tuple[Ended, str | None]:
    """Track until the source ends, breaks off, or Ctrl-C; how it ended, and why."""
    try:
        for index, ids, logits in predictor.propagate_in_video(state):
            run.add(index, {int(number): values[0] for number, values in zip(ids, logits, strict=True)})
    except FrameNotFoundError:
        # The end of a stream is found by asking for one frame too many.
        if run.source.frame_count is not None or not run.tracked:
            raise
    except VideoEndedError as error:
        if not run.tracked:
            raise
        return "broke off", str(error)
    except KeyboardInterrupt:
        if not run.tracked:
            raise
        return "interrupted", f"stopped after frame {run.frames - 1}"
    return "complete", None


def _add(predictor: VideoPredictor, state: Any, prompt: ObjectPrompt) -> None:
    if prompt.mask is not None:
        predictor.add_new_mask(state, prompt.frame, prompt.object_id, prompt.mask)
        return
    given = len(prompt.labels) > 0
    predictor.add_new_points_or_box(
        state,
        prompt.frame,
        prompt.object_id,
        prompt.points_xy if given else None,
        prompt.labels if given else None,
        box=prompt.box_xyxy,
    )


def masks_path(out: Path, masks: MaskFormat) -> Path:
    """Where the masks of a video go."""
    return out.with_name(f"{out.stem}_masks" + (".json" if masks == "rle" else ""))


def _mask_sink(
    out: Path, masks: MaskFormat | None, source: FrameSource, info: Mapping[str, Any]
) -> MaskSink | None:
    if masks is None:
        return None
    path = masks_path(out, masks)
    if masks == "png":
        return PngMasks(path, source.size_hw, source.names)
    height, width = source.size_hw
    head = {"video": source.name, "height": height, "width": width, "fps": source.fps}
    return RleMasks(path, {**head, **info}, source.time_s)


def _check_out(out: Path, source: FrameSource) -> None:
    check_video_path(out)
    if real_path(out) == real_path(Path(source.name)):
        raise BadInputError(f"'{out}' is the video that is tracked: write to another file")
