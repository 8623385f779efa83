"""The command `seg-run`: runs published models on images, in process or on a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seg_runtime.cli import instances, sam, track
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
from seg_runtime.console import progress_bar, run_app, stderr_console, stdout_console

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seg_runtime.files.listing import ImageListing
    from seg_runtime.files.results import FileResult
    from seg_runtime.spec import ClaheSpec, ModelSpec

__all__ = ["app", "main"]

app = typer.Typer(
    name="seg-run",
    help="Run published segmentation models on images, in process or on a Triton server.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def seg_run(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Run published segmentation models on images, in process or on a Triton server."""
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"edgeseg {installed_version('edgeseg')}")
        raise typer.Exit


@app.command()
def segment(
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, or folders of images: PNG, JPEG, TIFF, DICOM, NIfTI, .npy.",
            metavar="IMAGE|FOLDER...",
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name of the model in the repository or server.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for masks, overlays and results.jsonl.")],
    repo: RepoOption = None,
    url: UrlOption = None,
    api_key_file: ApiKeyFileOption = None,
    ca: CaOption = None,
    client_cert: ClientCertOption = None,
    engine: EngineOption = "auto",
    threshold: Annotated[
        float | None, typer.Option(help="Foreground probability instead of the model's own, 0 to 1.")
    ] = None,
    clahe: Annotated[
        bool | None,
        typer.Option(
            "--clahe/--no-clahe", help="Equalise contrast first.", show_default="as the model was trained"
        ),
    ] = None,
    closing: Annotated[
        int, typer.Option(help="Fill gaps in the mask: radius of the disc in pixels.", min=0)
    ] = 0,
    opening: Annotated[int, typer.Option(help="Remove thin parts: radius of the disc in pixels.", min=0)] = 0,
    remove_small: Annotated[int, typer.Option(help="Remove regions of fewer pixels than this.", min=0)] = 0,
    keep_largest: Annotated[
        int | None, typer.Option(help="Keep only this many largest regions per class.", min=1)
    ] = None,
    crf: Annotated[
        bool, typer.Option("--crf", help="Refine the mask along image edges with a dense CRF.")
    ] = False,
    tile: Annotated[
        bool,
        typer.Option("--tile", help="Slide over large images at full resolution instead of shrinking them."),
    ] = False,
    tile_overlap: Annotated[
        float | None,
        typer.Option(help="Share of a tile that neighbours have in common.", show_default="0.25"),
    ] = None,
    gray: Annotated[
        bool, typer.Option("--gray", help="Convert colour images for a model of one channel.")
    ] = False,
    bit_depth: BitDepthOption = None,
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="Write overlays too.")] = True,
    dicom_seg: Annotated[
        bool,
        typer.Option("--dicom-seg", help="Write masks of DICOM images as DICOM SEG too: <image>_seg.dcm."),
    ] = False,
    batch: Annotated[int, typer.Option(help="Images to run together.", min=1)] = 1,
    as_json: JsonOption = False,
) -> None:
    """Segment images: a mask, an overlay and a line in results.jsonl for each.

    A mask is 0 and 255 for a model of one class and class ids otherwise. Of a
    NIfTI file, a slice or a stack of slices, it is a NIfTI file of class ids.
    An image that cannot be read or used is reported and left out; the others
    are done, and the exit code is 2.

    Examples:

        seg-run segment chest.png --model unet_lung -o out

        seg-run segment xrays/ --model unet_lung --url grpc://localhost:8001 \\
          -o out

        seg-run segment scan.tif --model unet_lung -o out --tile --keep-largest 2
    """
    from seg_runtime.crf import CrfSpec
    from seg_runtime.files.listing import find_images
    from seg_runtime.files.segment import segment_files
    from seg_runtime.postprocess import PostProcess
    from seg_runtime.semantic import SemanticSegmenter
    from seg_runtime.triton.access import ServerAccess

    access = ServerAccess(api_key_file, ca, client_cert)
    listing = find_images(images)
    with open_session(repo, url, access, engine) as session:
        segmenter = SemanticSegmenter(
            session,
            model,
            threshold=threshold,
            clahe=_clahe(session.spec(model), clahe),
            postprocess=PostProcess(CrfSpec() if crf else None, closing, opening, remove_small, keep_largest),
            tile_overlap=_overlap(tile, tile_overlap),
        )
        results = segment_files(
            segmenter,
            listing.files,
            out,
            gray=gray,
            bit_depth=bit_depth,
            overlay=overlay,
            batch_size=batch,
            dicom_seg=dicom_seg,
        )
        _report(results, listing, out, segmenter.engine, as_json)


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="Show the contract of this model alone.", metavar="[NAME]")
    ] = None,
    repo: RepoOption = None,
    url: UrlOption = None,
    api_key_file: ApiKeyFileOption = None,
    ca: CaOption = None,
    client_cert: ClientCertOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the models that a repository or server offers, or show what the contract of one says.

    A broken model of a repository is left out with the reason, and the exit
    code is then 2.

    Examples:

        seg-run models

        seg-run models unet_lung

        seg-run models --url grpc://localhost:8001 --json
    """
    from seg_runtime.cli.contract_table import contract_row, contract_table, models_table
    from seg_runtime.errors import RepositoryError
    from seg_runtime.triton.access import ServerAccess

    access = ServerAccess(api_key_file, ca, client_cert)
    specs, left_out = [], []
    with open_session(repo, url, access) as session:
        if name is not None:
            spec = session.spec(name)
            if as_json:
                typer.echo(json.dumps(contract_row(spec), indent=2))
            else:
                stdout_console().print(contract_table(spec), highlight=False)
            return
        for each in session.models():
            try:
                specs.append(session.spec(each))
            except RepositoryError as error:
                left_out.append(each)
                _note(f"left out: {error}")
    if as_json:
        typer.echo(json.dumps([contract_row(spec) for spec in specs], indent=2))
    elif specs:
        stdout_console().print(models_table(specs))
    else:
        _note("there are no models: publish one with seg-export")
    # A server may hold models that were not published by seg-export.
    if left_out and url is None:
        raise RepositoryError(
            f"{len(left_out)} of {len(specs) + len(left_out)} models cannot be used: {', '.join(left_out)}"
        )


app.command()(instances.instances)
app.command()(sam.sam)
app.command()(sam.everything)
app.command()(track.track)


def main() -> None:
    """Entry point of `seg-run`."""
    run_app(app)


def _clahe(spec: ModelSpec, wanted: bool | None) -> ClaheSpec | Literal["model"] | None:
    from seg_runtime.errors import BadInputError
    from seg_runtime.spec import ClaheSpec

    if wanted is None:
        return "model"
    if not wanted and spec.channels not in (1, 3):
        raise BadInputError(
            f"--no-clahe has no effect: model '{spec.name}' takes {spec.channels} bands, whose contrast is "
            "never equalised; leave it out"
        )
    return (spec.clahe or ClaheSpec()) if wanted else None


def _overlap(tile: bool, share: float | None) -> float | None:
    from seg_runtime.errors import BadInputError

    if share is not None and not tile:
        raise BadInputError("--tile-overlap has no effect without --tile: leave it out, or pass --tile")
    return (0.25 if share is None else share) if tile else None


def _report(
    results: Iterable[FileResult], listing: ImageListing, out: Path, engine: str, as_json: bool
) -> None:
    """Show results as they come; raise at the end when some images were left out."""
    from seg_runtime.errors import BadImageError
    from seg_runtime.files.results import to_json_text

    errors, warnings, count = [], FileWarnings(), len(listing.files)
    with progress_bar() as progress:
        task = progress.add_task("segmenting", total=count)
        for result in results:
            if as_json:
                typer.echo(to_json_text(result.to_json()))
            if result.error is not None:
                errors.append(result.error)
                if count > 1:
                    progress.console.print(
                        f"left out: {result.error}", markup=False, highlight=False, soft_wrap=True
                    )
            warnings.add(result.path, result.warnings)
            progress.advance(task)
    for note in warnings.notes(listing):
        _note(note)
    if count == 1 and errors:
        raise BadImageError(errors[0])
    if errors:
        raise BadImageError(
            f"{len(errors)} of {count} images were left out; {count - len(errors)} masks are in '{out}'"
        )
    _note(f"{count} image{'' if count == 1 else 's'} segmented into '{out}' ({engine})")


def _note(text: str) -> None:
    stderr_console().print(text, markup=False, highlight=False, soft_wrap=True)
