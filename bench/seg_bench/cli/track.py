"""`seg-bench track`: measure a SAM2 that tracks objects through videos."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_runtime.cli.options import ApiKeyFileOption, CaOption, ClientCertOption

if TYPE_CHECKING:
    from seg_bench.track_run import TrackRow, TrackRun

__all__ = ["TrackBaseline", "track"]


class TrackBaseline(str, Enum):
    """What to compare the published SAM2 with."""

    TORCH = "torch"


def track(
    *,
    data: Annotated[
        Path,
        typer.Option(
            help="Folder with JPEGImages/ and Annotations/, as DAVIS has, or with images/ and masks/."
        ),
    ],
    repo: Annotated[Path, typer.Option(help="Model repository.")] = Path("triton_repo"),
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Name of the SAM2.", show_default="the only one there is"),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Measure on this running server instead: grpc://HOST:PORT.")
    ] = None,
    api_key_file: ApiKeyFileOption = None,
    ca: CaOption = None,
    client_cert: ClientCertOption = None,
    engine: Annotated[str, typer.Option(help="What computes in process, as for seg-run.")] = "auto",
    sequence: Annotated[
        list[str] | None, typer.Option(help="Only this sequence; may be given several times.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only the sequences of this list, for example 2017/val.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Track at most this many frames of each sequence.", min=2)
    ] = None,
    baseline: Annotated[
        TrackBaseline | None,
        typer.Option(help="Also measure sam2's own predictor in PyTorch, on the same frames in turns."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="The baseline's weights; not needed for those of seg-export sam2 --random."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each runtime; they choose by default.", min=1)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the record to this file (.json).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Measure J, F and J&F of a SAM2 on videos, and its time per frame: encode, attend, decode, remember.

    Objects are given by the masks of the first frame, and measured on later
    frames that have masks, as in DAVIS without the last one. Without such frames,
    or with random weights, only times are given.

    \b
    Examples:
      seg-bench track --data DAVIS --split 2017/val --model sam2.1_tiny \\
        --out track.json
      seg-bench track --data DAVIS --sequence judo --limit 20 --baseline torch \\
        --threads 2
    """
    import json
    import sys

    from seg_bench.data.davis import load_davis
    from seg_bench.json_fields import to_json, write_json
    from seg_bench.machine import shown_command
    from seg_bench.sam2_trackers import OurTracker, Sam2Tracker, Tracker, check_jpegs, find_sam2_checkpoint
    from seg_bench.track_run import measure_trackers
    from seg_runtime.connection import connect
    from seg_runtime.console import progress_bar
    from seg_runtime.sam2.models import find_sam2
    from seg_runtime.triton.access import ServerAccess

    sequences = load_davis(data, sequence or None, split=split)
    access = ServerAccess(api_key_file, ca, client_cert)
    access.require_server(url)
    api_key, tls = (access.api_key(), access.tls()) if url else (None, None)
    with connect(url or repo, threads=threads, engine=engine, api_key=api_key, tls=tls) as session:
        name = model or find_sam2(session)
        trackers: list[Tracker] = [OurTracker(session, name)]
        spec = session.spec(f"{name}_image_encoder")
        if baseline is not None:
            check_jpegs(path for video in sequences for path in video.frames)
            weights = find_sam2_checkpoint(spec.checkpoint_sha256, spec.weights, checkpoint)
            trackers.append(Sam2Tracker(weights, threads))
        with progress_bar() as bar:
            task = bar.add_task("starting", total=None)
            measured = measure_trackers(
                trackers,
                sequences,
                model=name,
                weights=spec.weights,
                checkpoint_sha256=spec.checkpoint_sha256,
                threads=threads,
                limit=limit,
                command=shown_command(sys.argv),
                on_frame=lambda what, done, total: bar.update(
                    task, description=what, completed=done, total=total
                ),
            )
    if out is not None:
        write_json(out, measured)
        typer.echo(f"wrote {out}", err=True)
    typer.echo(json.dumps(to_json(measured), indent=1) if as_json else _table(measured))


def _table(measured: TrackRun) -> str:
    lines = [_line(["", "J", "F", "J&F", "encode", "attend", "decode", "remember", "total"])]
    lines += [_line(_cells(row)) for row in measured.rows]
    lines.append(f"medians in ms per frame of all its objects, {measured.rows[0].frames} frames each")
    return "\n".join(lines)


def _cells(row: TrackRow) -> list[str]:
    found = row.accuracy
    accuracy = (
        [found, "", ""]
        if isinstance(found, str)
        else [f"{value:.3f}" for value in (found.j, found.f, found.j_and_f)]
    )
    return [row.tracker, *accuracy, *(f"{value:.1f}" for value in row.median_ms.values())]


def _line(cells: list[str]) -> str:
    return f"{cells[0]:16}{cells[1]:>15}" + "".join(f"{cell:>9}" for cell in cells[2:])
