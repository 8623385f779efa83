"""`seg-run instances`: objects with boxes, classes and masks, by a published Mask R-CNN."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_runtime.cli.file_warnings import FileWarnings
from seg_runtime.cli.options import (
    ApiKeyFileOption,
    BitDepthOption,
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
    from seg_runtime.files.instances import InstanceFileResult
    from seg_runtime.files.results import FileResult
    from seg_runtime.session import Session

__all__ = ["instances"]


def instances(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, or folders of images: PNG, JPEG, TIFF, DICOM.", metavar="IMAGE|FOLDER..."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for overlays and instances.json.")],
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Name of the model.", show_default="the only one for instances there is"
        ),
    ] = None,
    score: Annotated[
        float | None,
        typer.Option(
            "--score",
            help="Leave out objects whose score is below this, 0 to 1.",
            show_default="the model's own, usually 0.5",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Keep objects of this class; repeat for several.")
    ] = None,
    shortest_side: Annotated[
        int | None,
        typer.Option(help="Scale images no further than to this shorter side, as torchvision's min_size."),
    ] = None,
    repo: RepoOption = None,
    url: UrlOption = None,
    api_key_file: ApiKeyFileOption = None,
    ca: CaOption = None,
    client_cert: ClientCertOption = None,
    engine: EngineOption = "auto",
    bit_depth: BitDepthOption = None,
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="Write overlays too.")] = True,
    batch: Annotated[int, typer.Option(help="Images to run together.", min=1)] = 1,
    as_json: JsonOption = False,
) -> None:
    """Find objects: an overlay for each image, and all of them in COCO's format.

    An image that cannot be read or used is reported and left out; the others
    are done, and the exit code is 2.

    Examples:

        seg-run instances street.jpg -o out

        seg-run instances photographs/ --model maskrcnn_resnet50_fpn --score 0.7 \\
          --class person -o out

        seg-run instances cells/ --url grpc://localhost:8001 -o out --json
    """
    from seg_runtime.errors import BadImageError
    from seg_runtime.files.instances import segment_instance_files
    from seg_runtime.files.listing import find_images
    from seg_runtime.files.results import to_json_text
    from seg_runtime.instances import InstanceSegmenter
    from seg_runtime.triton.access import ServerAccess

    access = ServerAccess(api_key_file, ca, client_cert)
    listing = find_images(images)
    files, warnings = listing.files, FileWarnings()
    with open_session(repo, url, access, engine) as session, progress_bar() as progress:
        segmenter = InstanceSegmenter(
            session,
            model or _only_model(session),
            score_threshold=score,
            classes=classes,
            shortest_side=shortest_side,
        )
        task = progress.add_task("finding objects", total=len(files))
        errors, objects, computed_by = [], 0, segmenter.engine
        results = segment_instance_files(
            segmenter, files, out, bit_depth=bit_depth, overlay=overlay, batch_size=batch
        )
        for result in results:
            if as_json:
                typer.echo(to_json_text(result.to_json()))
            note, count = _outcome(result)
            objects += count
            if result.error is not None:
                errors.append(result.error)
            if note:
                progress.console.print(note, markup=False, highlight=False, soft_wrap=True)
            warnings.add(result.path, result.warnings)
            progress.advance(task)
    for note in warnings.notes(listing):
        stderr_console().print(note, markup=False, highlight=False, soft_wrap=True)
    if errors:
        raise BadImageError(
            errors[0]
            if len(files) == 1
            else f"{len(errors)} of {len(files)} images were left out; the others are in '{out}'"
        )
    stderr_console().print(
        f"{objects} object{'' if objects == 1 else 's'} in {len(files)} "
        f"image{'' if len(files) == 1 else 's'}, into '{out}' ({computed_by})",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _only_model(session: Session) -> str:
    from seg_runtime.errors import RepositoryError
    from seg_runtime.files.instances import find_instances_model

    tasks = {}
    for name in session.models():
        try:
            tasks[name] = session.spec(name).task
        except RepositoryError:
            # A server may hold models that were not published by seg-export.
            continue
    return find_instances_model(tasks)


def _outcome(result: InstanceFileResult | FileResult) -> tuple[str, int]:
    """What to tell about a file, if anything, and how many objects it has."""
    from seg_runtime.files.results import FileResult

    if isinstance(result, FileResult):
        return f"left out: {result.error}", 0
    found = result.result
    if found.truncated:
        return f"{result.path}: {found.found} objects found, the model keeps the best of them", len(found)
    return "", len(found)
