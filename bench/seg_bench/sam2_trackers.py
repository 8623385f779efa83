"""Two trackers to be measured alike: a published SAM2, and sam2's own predictor in PyTorch."""

from __future__ import annotations

import ctypes
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg_bench.pipelines.sam import TimedSession
from seg_bench.sam2_stages import StageClock, stages_ms
from seg_runtime.errors import BadInputError, CheckpointError, MissingExtraError
from seg_runtime.session import Session

__all__ = [
    "OurTracker",
    "Sam2Tracker",
    "Tracker",
    "as_image_predictor",
    "as_video_predictor",
    "check_jpegs",
    "find_sam2_checkpoint",
]

Frames = Iterator[tuple[int, list[Any], NDArray[np.float32]]]
"""Frame, K ids, and logits (K, 1, H, W) float32."""

# glibc's mallopt: M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD as in `seg_bench.baseline.TUNED_ALLOCATOR`.
_MALLOPT = ((-4, 0), (-1, 2**31 - 1), (-2, 268435456))


class Tracker(Protocol):
    """What is measured.

    Attributes:
        name: of the row.
        engine: what computes.
        spent_ms: milliseconds by stage since it was last cleared.
    """

    name: str
    engine: str

    @property
    def spent_ms(self) -> dict[str, float]: ...

    def clear(self) -> None: ...

    def track(self, folder: Path, masks: Mapping[int, NDArray[np.bool_]]) -> Frames:
        """Track objects, each given as a mask (H, W) by id on the first frame of a folder of frames."""


class OurTracker:
    """`Sam2VideoPredictor` on a session.

    Raises:
        ModelNotFoundError, BadInputError: as from `Sam2VideoPredictor`.
    """

    name = "edgeseg"

    def __init__(self, session: Session, model: str) -> None:
        from seg_runtime.sam2 import Sam2VideoPredictor

        self._session = TimedSession(session)
        self._predictor = Sam2VideoPredictor(self._session, model)
        self.engine = self._predictor.engine

    @property
    def spent_ms(self) -> dict[str, float]:
        return stages_ms(self._session.spent_ms)

    def clear(self) -> None:
        self._session.clear()

    def track(self, folder: Path, masks: Mapping[int, NDArray[np.bool_]]) -> Frames:
        with self._predictor.init_state(folder) as state:
            for number, mask in masks.items():
                self._predictor.add_new_mask(state, 0, number, mask)
            yield from self._predictor.propagate_in_video(state)


class Sam2Tracker:
    """sam2's own `SAM2VideoPredictor` on the CPU, with the allocator tuned. It holds all frames in memory.

    Args:
        checkpoint: file with the weights, or a `Checkpoint`.
        threads: of PyTorch; None for its own choice.

    Raises:
        CheckpointError: it cannot be loaded or is no SAM2's.
        MissingExtraError: PyTorch or sam2 is not installed.
    """

    name = "sam2 in PyTorch"

    def __init__(self, checkpoint: Any, threads: int | None = None) -> None:
        import torch

        from seg_export.checkpoints.checkpoint import build_model

        _tune_allocator()
        if threads is not None:
            torch.set_num_threads(threads)
        self._predictor = as_video_predictor(build_model(checkpoint))
        self._clock = StageClock()
        self._clock.watch_tracker(self._predictor)
        self.engine = f"PyTorch {torch.__version__}, CPU"

    @property
    def spent_ms(self) -> dict[str, float]:
        return self._clock.spent_ms

    def clear(self) -> None:
        self._clock.clear()

    def track(self, folder: Path, masks: Mapping[int, NDArray[np.bool_]]) -> Frames:
        """The frames are JPEG files: see `check_jpegs`."""
        # Its own progress bars would break through ours.
        with redirect_stderr(io.StringIO()):
            state = self._predictor.init_state(str(folder))
            for number, mask in masks.items():
                self._predictor.add_new_mask(state, 0, number, mask)
            frames = self._predictor.propagate_in_video(state)
            first = next(frames)
        yield first[0], list(first[1]), first[2].numpy()
        for index, ids, logits in frames:
            yield index, list(ids), logits.numpy()


def as_image_predictor(model: Any) -> Any:
    """sam2's `SAM2ImagePredictor` of a `SAM2Base` of any size."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    with warnings.catch_warnings():
        # sam2 scripts its transforms, which torch advises against.
        warnings.simplefilter("ignore", FutureWarning)
        predictor: Any = SAM2ImagePredictor(model)
    grid = model.image_size // 16
    predictor._bb_feat_sizes = [(4 * grid, 4 * grid), (2 * grid, 2 * grid), (grid, grid)]
    return predictor


def as_video_predictor(model: Any) -> Any:
    """sam2's `SAM2Base` made its `SAM2VideoPredictor`: it has methods and settings more."""
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    # Its builder gives these by default.
    model.__class__ = SAM2VideoPredictor
    model.fill_hole_area, model.non_overlap_masks = 0, False
    model.clear_non_cond_mem_around_input = model.add_all_frames_to_correct_as_cond = False
    return model


def check_jpegs(frames: Iterable[Path]) -> None:
    """Raises BadInputError when a frame is no JPEG file, as sam2 reads no others from a folder."""
    other = next((path for path in frames if path.suffix.lower() not in (".jpg", ".jpeg")), None)
    if other is not None:
        raise BadInputError(
            f"sam2 reads JPEG frames only, not '{other}': leave out --baseline or convert the frames"
        )


def find_sam2_checkpoint(sha256: str, weights: str, given: Path | None) -> Any:
    """The checkpoint that a published SAM2 was made of: the given file, or random weights made again.

    Args:
        sha256: as its contract states it.
        weights: "trained" or "random".
        given: the file; None for weights of `seg-export sam2 --random` with its default seed.

    Returns:
        A `seg_export.checkpoints.checkpoint.Checkpoint`.

    Raises:
        CheckpointError: it is another one's, or none was given and it cannot be made again.
        MissingExtraError: PyTorch or sam2 is not installed.
    """
    try:
        from seg_export.checkpoints.random_weights import random_checkpoint
        from seg_export.families.sam2.checkpoints import load_sam2_checkpoint
        from seg_export.families.sam2.network import VARIANTS
    except ImportError as error:
        raise MissingExtraError("PyTorch", "export") from error
    if given is not None:
        checkpoint = load_sam2_checkpoint(given)
        if checkpoint.sha256 != sha256:
            raise CheckpointError(
                f"checkpoint {given} is not the one that the published model was made of: "
                f"its SHA-256 begins with {checkpoint.sha256[:12]}, the model's with {sha256[:12]}"
            )
        return checkpoint
    possible = VARIANTS.values() if weights == "random" else ()
    remade = (random_checkpoint("sam2", arguments) for arguments in possible)
    found = next((checkpoint for checkpoint in remade if checkpoint.sha256 == sha256), None)
    if found is None:
        raise CheckpointError("the baseline needs the weights of the published model: pass --checkpoint FILE")
    return found


def _tune_allocator() -> None:
    """As `TUNED_ALLOCATOR`, for the process that runs already; elsewhere than on glibc nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _MALLOPT:
            mallopt(option, value)
