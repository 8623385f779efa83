"""`seg-export module`: a PyTorch module of the user's into the model repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_export.cli.exporting import dice_of, export, show
from seg_export.cli.given import refuse_without
from seg_export.cli.module_options import ModuleOptions, names_folder, refuse_with_folder
from seg_export.cli.options import (
    CheckpointOption,
    RepoOption,
    WeightsNameOption,
    parse_size_hw,
    require_torch,
)
from seg_export.cli.preprocessing import PreprocessingOptions, claimed
from seg_export.families.semantic.command import PublishOptions, check_batching
from seg_runtime.errors import BadInputError
from seg_runtime.option_groups import expand_option_groups

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = ["module"]


@expand_option_groups
def module(
    context: typer.Context,
    factory: Annotated[
        str,
        typer.Argument(
            help="What makes the module, in the current directory or installed; or a folder of a library.",
            metavar="PACKAGE.MODULE:FACTORY|FOLDER",
        ),
    ],
    *,
    source: ModuleOptions,
    checkpoint: CheckpointOption = None,
    weights_name: WeightsNameOption = None,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None, typer.Option(help="Model name.", show_default="the factory's or the folder's name")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Input size in pixels: 512, or HEIGHTxWIDTH.", show_default="the folder's, or 512"),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Refuse a module that has another number of classes.")
    ] = None,
    preprocessing: PreprocessingOptions,
    publish: PublishOptions,
) -> None:
    """Export any PyTorch module that maps images to logits per class.

    The factory is imported and called, which runs its code. A folder is one that
    segmentation_models_pytorch, transformers, nnU-Net v2 or MONAI saved; nothing
    in it is run. The graph is verified against the module itself; one that strays
    from it is not published, and the exit code is 3.

    Examples:

      seg-export module my_project.models:make_unet --checkpoint best.pth \\
        --mean 0.5 --std 0.25 --assume-defaults

      seg-export module torchvision.models.segmentation:fcn_resnet50 \\
        --args '{"num_classes": 2}' --checkpoint fcn.pth \\
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --scale 255 \\
        --channel-order rgb --no-clahe --class-names background,road \\
        --output out --size 512

      seg-export module segformer-b0-finetuned/ --name roads
    """
    check_batching(context, publish.max_batch)
    refuse_without(context, "images", "masks")
    refuse_without(context, "checkpoint", "weights_name")
    require_torch()
    size_hw = parse_size_hw(size) if size else None
    claims, given = preprocessing.claims(), size_hw is not None
    if names_folder(factory):
        refuse_with_folder(context)
        weights, own_name = _of_folder(Path(factory), source, size_hw), Path(factory).resolve().name
    else:
        file = (checkpoint, weights_name) if checkpoint else None
        weights = _of_factory(factory, source, file, size_hw, len(claims.mean or ()))
        own_name = factory.rpartition(":")[2].rpartition(".")[2]
    weights = claimed(weights, claims, assume_defaults=preprocessing.assume_defaults, size_given=given)
    found = weights.arguments["num_classes"]
    if classes is not None and classes != found:
        raise BadInputError(f"--classes {classes}: the module has {found}")
    labelled = publish.labelled(weights.arguments["in_channels"], found)
    name = own_name if name is None else name
    exported = export(
        weights,
        repo,
        name,
        size_hw=size_hw,
        assume_defaults=preprocessing.assume_defaults,
        images=publish.images,
        opset=publish.opset,
        precision=publish.precision,
        calibrate=publish.calibrate,
        max_batch_size=publish.max_batch,
        serving=publish.serving(),
    )
    show(exported, publish.as_json, dice=dice_of(repo, name, labelled))


def _of_factory(
    factory: str,
    source: ModuleOptions,
    file: tuple[Path, str | None] | None,
    size_hw: tuple[int, int] | None,
    channels: int,
) -> Checkpoint:
    """The module that a factory makes, of so many channels; 0 for those of it. Raises BadInputError."""
    from seg_export.checkpoints.factory import make_module, parse_arguments
    from seg_export.checkpoints.types import WeightsFile, usual_preprocessing
    from seg_export.families.module.network import input_channels, module_checkpoint

    network = make_module(factory, parse_arguments(source.args))
    preprocessing = usual_preprocessing(channels or input_channels(network))
    if size_hw is not None:
        preprocessing = replace(preprocessing, input_size_hw=size_hw)
    return module_checkpoint(
        network,
        preprocessing,
        weights=WeightsFile(*file) if file else None,
        activation=source.activation,
        output=source.output,
        made="as the factory made them",
        described=False,
    )


def _of_folder(folder: Path, source: ModuleOptions, size_hw: tuple[int, int] | None) -> Checkpoint:
    """The network of a folder. Raises BadInputError."""
    from seg_export.families.module.folder import folder_checkpoint

    return folder_checkpoint(folder, size_hw, source.activation, source.output)
