"""`seg-run sam` and `seg-run everything`: Segment Anything with prompts, and without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from seg_runtime.console import stderr_console, working

if TYPE_CHECKING:
    from seg_runtime.session import Session

__all__ = ["everything", "sam"]

ImageArgument = Annotated[Path, typer.Argument(help="Image file: PNG, JPEG, TIFF, DICOM.", metavar="IMAGE")]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Folder for masks, the overlay and the annotations.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Name of the SAM: NAME_encoder and NAME_decoder are run.",
        show_default="the only one there is",
    ),
]
OverlayOption = Annotated[bool, typer.Option("--overlay/--no-overlay", help="Write an overlay too.")]


def sam(
    image: ImageArgument,
    out: OutOption,
    point: Annotated[
        list[str] | None,
        typer.Option(help="A pixel of the object, or with ,0 of the background.", metavar="X,Y[,0|1]"),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(help="A box around an object.", metavar="X0,Y0,X1,Y1")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="A rough mask: an image of the same size, or logits from --logits.", metavar="FILE"
        ),
    ] = None,
    multimask: Annotated[
        bool, typer.Option("--multimask", help="Write three candidates for each object, the best first.")
    ] = False,
    model: ModelOption = None,
    repo: RepoOption = None,
    url: UrlOption = None,
    api_key_file: ApiKeyFileOption = None,
    ca: CaOption = None,
    client_cert: ClientCertOption = None,
    engine: EngineOption = "auto",
    overlay: OverlayOption = True,
    logits: Annotated[
        bool, typer.Option("--logits", help="Write low-resolution logits too, to refine with --mask.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Segment the objects that points and boxes show, with Segment Anything.

    Each box is an object. Without boxes, or with one, all points show one
    object; with several boxes, a point refines those that it lies in.

    Examples:

        seg-run sam truck.jpg --point 500,375 -o out

        seg-run sam truck.jpg --box 425,600,700,875 --point 575,750,0 -o out

        seg-run sam chest.png --point 160,250 --multimask \\
          --url grpc://localhost:8001 -o out
    """
    from seg_runtime.files.images import read_image
    from seg_runtime.sam import SamPredictor
    from seg_runtime.sam.files import segment_prompts
    from seg_runtime.sam.objects import group_prompts, read_mask_input
    from seg_runtime.triton.access import ServerAccess

    access = ServerAccess(api_key_file, ca, client_cert)
    points = [_point(text) for text in point or ()]
    boxes = [_box(text) for text in box or ()]
    pixels = read_image(image, 3)
    size_hw = (pixels.shape[0], pixels.shape[1])
    with (
        open_session(repo, url, access, engine) as session,
        SamPredictor(session, _name(session, model)) as predictor,
    ):
        dense = None if mask is None else read_mask_input(mask, predictor.transform, size_hw)
        prompts = group_prompts(points, boxes, dense, predictor.transform, size_hw)
        predictor.set_image(pixels)
        written = segment_prompts(
            predictor, pixels, image, prompts, out, multimask=multimask, overlay=overlay, logits=logits
        )
    _report(written, out, as_json)


def everything(
    image: ImageArgument,
    out: OutOption,
    points_per_side: Annotated[int, typer.Option(help="Points along one side of the grid.", min=1)] = 32,
    points_per_batch: Annotated[int, typer.Option(help="Points that are run together.", min=1)] = 64,
    pred_iou_thresh: Annotated[
        float, typer.Option(help="Leave out masks whose predicted IoU is not above this.")
    ] = 0.88,
    stability_score_thresh: Annotated[
        float, typer.Option(help="Leave out masks that are less stable than this.")
    ] = 0.95,
    box_nms_thresh: Annotated[
        float, typer.Option(help="Of masks whose boxes overlap by more than this IoU, keep one.")
    ] = 0.7,
    crop_layers: Annotated[
        int, typer.Option(help="Also search crops of the image: 4 for 1, 20 for 2.", min=0, max=4)
    ] = 0,
    crop_downscale: Annotated[
        int, typer.Option(help="Divide the grid by this in each layer of crops.", min=1)
    ] = 1,
    min_area: Annotated[
        int, typer.Option(help="Fill holes and remove islands of fewer pixels than this.", min=0)
    ] = 0,
    model: ModelOption = None,
    repo: RepoOption = None,
    url: UrlOption = None,
    api_key_file: ApiKeyFileOption = None,
    ca: CaOption = None,
    client_cert: ClientCertOption = None,
    engine: EngineOption = "auto",
    overlay: OverlayOption = True,
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="Write a file for each mask.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Segment everything in an image, with Segment Anything and a grid of points.

    Examples:

        seg-run everything truck.jpg -o out

        seg-run everything cells.png --pred-iou-thresh 0.6 \\
          --stability-score-thresh 0.8 -o out

        seg-run everything street.jpg --crop-layers 1 --crop-downscale 2 \\
          --min-area 100 -o out
    """
    from seg_runtime.files.images import read_image
    from seg_runtime.sam import SamAutomaticMaskGenerator
    from seg_runtime.sam.files import segment_everything
    from seg_runtime.triton.access import ServerAccess

    access = ServerAccess(api_key_file, ca, client_cert)
    pixels = read_image(image, 3)
    with open_session(repo, url, access, engine) as session:
        generator = SamAutomaticMaskGenerator(
            session,
            _name(session, model),
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
            box_nms_thresh=box_nms_thresh,
            crop_n_layers=crop_layers,
            crop_n_points_downscale_factor=crop_downscale,
            min_mask_region_area=min_area,
            output_mode="coco_rle",
        )
        with working("segmenting everything"):
            written = segment_everything(generator, pixels, image, out, overlay=overlay, masks=masks)
    _report(written, out, as_json)


def _name(session: Session, model: str | None) -> str:
    from seg_runtime.sam.decoder import find_sam

    return model or find_sam(session)


def _point(text: str) -> tuple[float, float, int]:
    from seg_runtime.errors import BadInputError

    values = _numbers(text, "--point", "X,Y or X,Y,0 or X,Y,1", (2, 3))
    label = values[2] if len(values) == 3 else 1
    if label not in (0, 1):
        raise BadInputError(f"--point {text}: the label is 1 for the object or 0 for the background")
    return values[0], values[1], int(label)


def _box(text: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _numbers(text, "--box", "X0,Y0,X1,Y1", (4,))
    return x0, y0, x1, y1


def _numbers(text: str, option: str, form: str, counts: tuple[int, ...]) -> list[float]:
    from seg_runtime.errors import BadInputError

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise BadInputError(f"{option} wants {form} in pixels of the image, not '{text}'")
    return values


def _report(written: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(written, ensure_ascii=False))
    count = len(written["annotations"])
    text = f"{count} mask{'' if count == 1 else 's'} in '{out}' ({written['info']['engine']})"
    stderr_console().print(text, markup=False, highlight=False, soft_wrap=True)
