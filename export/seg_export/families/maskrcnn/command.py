"""`seg-export maskrcnn`: a Mask R-CNN checkpoint into the model repository, as one graph of fixed shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seg_export.checkpoints.licences import TORCHVISION_COCO
from seg_export.cli.exporting import export, show
from seg_export.cli.fetching import fetch
from seg_export.cli.given import refuse_without
from seg_export.cli.options import (
    CheckpointOption,
    ImagesOption,
    JsonOption,
    OpsetOption,
    PretrainedOption,
    RandomOption,
    RepoOption,
    SeedOption,
    WeightsNameOption,
    parse_size_hw,
    require_torch,
)
from seg_export.cli.preprocessing import (
    AssumeDefaultsOption,
    ClassNamesOption,
    MeanOption,
    StdOption,
    claimed,
    parse_names,
    parse_numbers,
)
from seg_runtime.errors import BadInputError
from seg_runtime.option_groups import expand_option_groups
from seg_runtime.spec import ServingSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint
    from seg_export.checkpoints.claims import Claims

__all__ = ["maskrcnn"]

_DEFAULT_ARCH = "maskrcnn_resnet50_fpn"


@dataclass(frozen=True, kw_only=True)
class DetectorOptions:
    """How the images and anchors of a network were when it was trained; None for what is not said."""

    mean: MeanOption = None
    std: StdOption = None
    class_names: ClassNamesOption = None
    anchors: Annotated[
        str | None,
        typer.Option(
            help="Of a checkpoint that holds weights alone: side in pixels of the anchors of each level, as "
            "32,64,128,256,512, torchvision's."
        ),
    ] = None
    resize: Annotated[
        Literal["longest-side", "stretch"] | None,
        typer.Option(
            help="Of a checkpoint that holds weights alone: whether images are scaled to fit --size, as "
            "torchvision does, or stretched to it.",
            show_default="longest-side",
        ),
    ] = None
    assume_defaults: AssumeDefaultsOption = False

    def claims(self) -> Claims:
        """What was said. Raises BadInputError for text that is no numbers."""
        from seg_export.checkpoints.claims import Claims

        return Claims(
            mean=parse_numbers("--mean", self.mean, float),
            std=parse_numbers("--std", self.std, float),
            class_names=parse_names(self.class_names),
            anchor_sizes=parse_numbers("--anchors", self.anchors, int),
            resize=self.resize,
        )


@expand_option_groups
def maskrcnn(
    context: typer.Context,
    *,
    arch: Annotated[
        str | None,
        typer.Option(
            help="maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2, maskrcnn_resnet18_fpn and so on. Default: "
            "what the checkpoint is, or maskrcnn_resnet50_fpn without one."
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    weights_name: WeightsNameOption = None,
    pretrained: PretrainedOption = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch torchvision's COCO weights; their SHA-256 is checked.")
    ] = False,
    random: RandomOption = False,
    seed: SeedOption = 0,
    classes: Annotated[int, typer.Option(min=1, help="Classes of --random, without the background.")] = 90,
    repo: RepoOption = Path("triton_repo"),
    name: Annotated[
        str | None,
        typer.Option(
            help="Model name; by default the architecture's, or maskrcnn_nuclei for --pretrained nuclei."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Input size in pixels: 800, or HEIGHTxWIDTH. Default: the checkpoint's, or 800x1333."
        ),
    ] = None,
    max_detections: Annotated[
        int | None, typer.Option(min=1, max=1000, help="The most objects in an image. Default: 100.")
    ] = None,
    norm_eps: Annotated[
        float | None,
        typer.Option(
            min=0, help="Epsilon of the backbone's norms: 0 for weights that were fine-tuned from --download."
        ),
    ] = None,
    preprocessing: DetectorOptions,
    images: ImagesOption = None,
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="What the graph computes in; boxes and scores stay in fp32."),
    ] = "fp32",
    opset: OpsetOption = 18,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest batch that is served.")] = 4,
    instances: Annotated[int, typer.Option(min=1, help="Copies of the model that run at once.")] = 1,
    no_warm_up: Annotated[
        bool, typer.Option("--no-warm-up", help="Do not run a first batch before the model is ready.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Export torchvision's Mask R-CNN: one graph, fixed shapes, no plugin, verified against torchvision.

    Images are scaled to fit --size and padded; the graph pads further to
    multiples of 32. With the default size that is torchvision's own scaling
    for images that are wider than high; for others swap the sides.

    Examples:

      seg-export maskrcnn --download

      seg-export maskrcnn --pretrained nuclei

      seg-export maskrcnn --checkpoint finetuned.pth --norm-eps 0 --size 800 \\
        --name cells --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 \\
        --class-names cell --anchors 32,64,128,256,512

      seg-export maskrcnn --arch maskrcnn_resnet18_fpn --random --size 512 --json
    """
    if [checkpoint is not None, pretrained is not None, download, random].count(True) != 1:
        raise BadInputError(
            "name the weights with exactly one of --checkpoint FILE, --pretrained nuclei, --download "
            "and --random"
        )
    refuse_without(context, "checkpoint", "weights_name")
    refuse_without(context, "random", "seed", "classes")
    size_hw = parse_size_hw(size) if size else None
    require_torch()
    changes = {"max_detections": max_detections, "norm_eps": norm_eps}
    weights = _weights(
        arch,
        _download(arch or _DEFAULT_ARCH) if download else _given(checkpoint, pretrained),
        weights_name,
        {key: value for key, value in changes.items() if value is not None},
        classes,
        seed,
    )
    assume = preprocessing.assume_defaults
    weights = claimed(weights, preprocessing.claims(), assume_defaults=assume, size_given=size_hw is not None)
    exported = export(
        weights,
        repo,
        name or (f"maskrcnn_{pretrained}" if pretrained else weights.arguments["arch"]),
        size_hw=size_hw,
        images=images,
        opset=opset,
        precision=precision,
        max_batch_size=max_batch,
        serving=ServingSpec(instances=instances, warm_up=not no_warm_up),
        assume_defaults=assume,
    )
    show(exported, as_json, TORCHVISION_COCO if download else None)


def _weights(
    arch: str | None,
    path: Path | None,
    weights_name: str | None,
    changes: dict[str, Any],
    classes: int,
    seed: int,
) -> Checkpoint:
    """The weights of a file, or random ones where there is none."""
    from seg_export.checkpoints.random_weights import random_checkpoint
    from seg_export.families.maskrcnn.checkpoints import check_architecture, load_maskrcnn_checkpoint

    if path is not None:
        weights = load_maskrcnn_checkpoint(path, arch, weights=weights_name, **changes)
    else:
        arguments = {"arch": check_architecture(arch or _DEFAULT_ARCH), "num_classes": classes + 1}
        weights = random_checkpoint("maskrcnn", {**arguments, **changes}, seed)
    built = weights.arguments["arch"]
    if "norm_eps" in changes and built == "maskrcnn_resnet50_fpn_v2":
        raise BadInputError(f"--norm-eps has no effect on {built}, which has torchvision's own: leave it out")
    return weights


def _given(checkpoint: Path | None, pretrained: str | None) -> Path | None:
    from seg_export.checkpoints.pretrained import pretrained_path

    return pretrained_path(pretrained) if pretrained else checkpoint


def _download(arch: str) -> Path:
    from seg_export.families.maskrcnn.checkpoints import download_official

    return fetch(arch, download_official, TORCHVISION_COCO)
