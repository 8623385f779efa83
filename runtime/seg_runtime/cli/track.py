"""`seg-run track`: objects through a video, with SAM2."""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seg_runtime.cli.options import (
    ApiKeyFileOption,
    CaOption,
    ClientCertOption,
    EngineOption,
    JsonOption,
    RepoOption,
    UrlOption,
    open_session,
)
from seg_runtime.console import progress_bar, stderr_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seg_runtime.files.track_prompts import ObjectPrompt
    from seg_runtime.files.tracks import TrackedFrame, TrackResult
    from seg_runtime.sam2 import Sam2VideoPredictor
    from seg_runtime.session import Session
    from seg_runtime.video import FrameSource

__all__ = ["track"]


class MaskFormat(str, Enum):
    """How masks are written."""

    PNG = "png"
    RLE = "rle"


def track(
    video: Annotated[
        str,
        typer.Argument(
            help="Video file, folder of frames, index of a camera, rtsp:// or http:// address.",
            metavar="VIDEO",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Overlay video to write, an .mp4.")],
    point: Annotated[
        list[str] | None,
        typer.Option(
            help="A pixel of the object, or with ,0 of the background.", metavar="X,Y[,0|1][@FRAME][#OBJECT]"
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(help="A box around the object.", metavar="X0,Y0,X1,Y1[@FRAME][#OBJECT]"),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            help="The object as an image of the video's size that is not black there. An indexed PNG, as "
            "DAVIS has them, holds an object for each id.",
            metavar="FILE[@FRAME][#OBJECT]",
        ),
    ] = None,
    object_id: Annotated[
        int, typer.Option("--object", help="Object of the prompts that have no #OBJECT.", min=1)
    ] = 1,
    masks: Annotated[
        MaskFormat | None,
        typer.Option(help="Write masks too: an indexed PNG per frame, or one JSON file of run lengths."),
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Print a line per frame as it is tracked; of a camera take the newest frame, skip others.",
        ),
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Constant frames per second of the written video.",
            show_default="each frame at its time in the video; 24 for folders",
        ),
    ] = None,
    allow_truncated: Annotated[
        bool, typer.Option("--allow-truncated", help="Track what is left of a video that was cut off.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Name of the SAM2: NAME_image_encoder and its other graphs are run.",
            show_default="the only one there is",
        ),
    ] = None,
    repo: RepoOption = None,
    url: UrlOption = None,
    api_key_file: ApiKeyFileOption = None,
    ca: CaOption = None,
    client_cert: ClientCertOption = None,
    engine: EngineOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Track objects through a video: an overlay video, and masks of every frame.

    Prompts without @FRAME belong to frame 0, those without #OBJECT to object
    1 or the one of --object. Points and a box of one object in one frame work
    together; prompts in later frames correct. Ctrl-C, or a camera that goes
    away, ends the run; what was tracked is saved.

    Examples:

        seg-run track street.mp4 --point 210,350 --point 250,220,0 -o out.mp4

        seg-run track street.mp4 --box 300,0,500,400#1 --point 640,300@25#2 \\
          --masks png -o out.mp4

        seg-run track frames/ --mask first.png --masks rle \\
          --url grpc://localhost:8001 -o out.mp4

        seg-run track 0 --box 300,0,500,400 --live -o out.mp4
    """
    from seg_runtime.files.tracks import track_video
    from seg_runtime.sam2.models import find_sam2
    from seg_runtime.triton.access import ServerAccess
    from seg_runtime.video import open_video
    from seg_runtime.video.writer import check_video_path

    access = ServerAccess(api_key_file, ca, client_cert)
    check_video_path(out)
    texts = point or [], box or [], mask or []
    with open_video(video, latest=live, allow_truncated=allow_truncated, fps=fps) as source:
        prompts = _prompts(*texts, object_id, source)
        with open_session(repo, url, access, engine) as session:
            name = model or find_sam2(session)
            predictor = _predictor(session, name)
            with _Shown(source, live, as_json) as shown:
                result = track_video(
                    predictor,
                    source,
                    prompts,
                    out,
                    masks=masks.value if masks else None,
                    info={"model": name, "engine": predictor.engine},
                    on_frame=shown.add,
                )
    _report(result, source, as_json)


def _predictor(session: Session, name: str) -> Sam2VideoPredictor:
    from seg_runtime.sam2 import Sam2VideoPredictor

    return Sam2VideoPredictor(session, name)


class _Shown:
    """Shows frames as they are tracked: a bar on stderr, or with --live lines on stdout."""

    def __init__(self, source: FrameSource, live: bool, as_json: bool) -> None:
        self._live, self._as_json = live, as_json
        self._progress = progress_bar()
        self._task = self._progress.add_task("tracking", total=source.frame_count)

    def add(self, frame: TrackedFrame) -> None:
        speed = f"{frame.frames_per_second:.1f} frames/s"
        self._progress.update(self._task, completed=frame.index + 1, description=f"tracking, {speed}")
        if self._live and self._as_json:
            typer.echo(json.dumps(frame.to_json()))
        elif self._live:
            areas = ", ".join(f"object {number} {area} px" for number, area in frame.areas_px.items())
            typer.echo(f"frame {frame.index}: {areas} ({speed})")

    def __enter__(self) -> _Shown:
        if not self._live:
            self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


def _report(result: TrackResult, source: FrameSource, as_json: bool) -> None:
    """What was written; then an error for a file that broke off, and Ctrl-C's own exit code."""
    from seg_runtime.errors import VideoEndedError
    from seg_runtime.files.results import to_json_text

    if as_json:
        typer.echo(to_json_text(result.to_json()))
    objects, frames = (
        f"{count} {kind}{'' if count == 1 else 's'}"
        for count, kind in ((len(result.object_ids), "object"), (result.tracked, "frame"))
    )
    text = f"{objects} in {frames}, {result.frames_per_second:.2f} frames/s, in '{result.out}'"
    shown = [
        text + (f" and '{result.masks}'" if result.masks else ""),
        *([result.note] if result.note else []),
    ]
    for line in shown:
        stderr_console().print(line, markup=False, highlight=False, soft_wrap=True)
    # A stream has no other end than being stopped or going away.
    if source.frame_count is not None and result.ended == "interrupted":
        raise KeyboardInterrupt
    if source.frame_count is not None and result.ended == "broke off":
        raise VideoEndedError(f"{result.note}; what was tracked is in '{result.out}'", result.frames)


def _prompts(
    points: Sequence[str], boxes: Sequence[str], masks: Sequence[str], object_id: int, source: FrameSource
) -> list[ObjectPrompt]:
    from seg_runtime.files.track_prompts import (
        BoxPrompt,
        PointPrompt,
        group_track_prompts,
        read_mask_prompts,
    )

    found_points = []
    for text in points:
        values, frame, number = _numbers(text, "--point", "X,Y or X,Y,0 or X,Y,1", (2, 3), object_id)
        label = _label(text, values[2] if len(values) == 3 else 1)
        found_points.append(PointPrompt(values[0], values[1], label, frame, number))
    found_boxes = []
    for text in boxes:
        (x0, y0, x1, y1), frame, number = _numbers(text, "--box", "X0,Y0,X1,Y1", (4,), object_id)
        found_boxes.append(BoxPrompt((x0, y0, x1, y1), frame, number))
    found_masks = []
    for text in masks:
        path, frame, own_id = _place(text)
        found_masks += read_mask_prompts(Path(path), frame, own_id, source.size_hw, object_id)
    return group_track_prompts(found_points, found_boxes, found_masks, source)


def _place(text: str) -> tuple[str, int, int | None]:
    """A prompt without its ending, the frame and the object of its ending."""
    ending = re.search(r"(?:@(\d+)|#(\d+)|@(\d+)#(\d+)|#(\d+)@(\d+))$", text)
    if ending is None:
        return text, 0, None
    groups = ending.groups()
    frame = next((group for group in (groups[0], groups[2], groups[5]) if group), "0")
    number = next((group for group in (groups[1], groups[3], groups[4]) if group), None)
    return text[: ending.start()], int(frame), None if number is None else int(number)


def _label(text: str, label: float) -> Literal[0, 1]:
    from seg_runtime.errors import BadInputError

    if label not in (0, 1):
        raise BadInputError(f"--point {text}: the label is 1 for the object or 0 for the background")
    return 1 if label else 0


def _numbers(
    text: str, option: str, form: str, counts: tuple[int, ...], object_id: int
) -> tuple[list[float], int, int]:
    """The numbers of a prompt, its frame and its object, or the `object_id` when it names none."""
    from seg_runtime.errors import BadInputError

    given, frame, number = _place(text)
    try:
        values = [float(part) for part in given.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise BadInputError(
            f"{option} wants {form} in pixels of the video, then @FRAME and #OBJECT if need be, not '{text}'"
        )
    return values, frame, object_id if number is None else number
