"""`seg-export verify`: a published graph against a checkpoint."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_export.cli.exporting import show_steps
from seg_export.cli.given import refuse_without
from seg_export.cli.module_options import ModuleOptions, names_folder, refuse_with_folder
from seg_export.cli.options import (
    CheckpointOption,
    ImagesOption,
    JsonOption,
    PretrainedOption,
    RepoOption,
    WeightsNameOption,
    load,
    require_torch,
)
from seg_export.cli.output import echo_json, report_table
from seg_export.cli.preprocessing import parse_numbers
from seg_export.families import FAMILIES
from seg_runtime.console import progress_bar, stderr_console, stdout_console, working
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.option_groups import expand_option_groups

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint
    from seg_export.precision.divergence import Divergence
    from seg_export.verification.bisect import BisectReport

__all__ = ["verify"]


@expand_option_groups
def verify(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of the published model.")],
    *,
    checkpoint: CheckpointOption = None,
    weights_name: WeightsNameOption = None,
    pretrained: PretrainedOption = None,
    factory: Annotated[
        str | None,
        typer.Option(
            "--module", help="PACKAGE.MODULE:FACTORY, or a folder, for a model of  seg-export module."
        ),
    ] = None,
    source: ModuleOptions,
    repo: RepoOption = Path("triton_repo"),
    images: ImagesOption = None,
    bisect: Annotated[
        bool,
        typer.Option(
            "--bisect",
            help="Also name the first node that strays and, for fp16, the operators that must stay in fp32.",
        ),
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            help="Verify what this engine computes instead of the graph: auto, onnxruntime, openvino, "
            "onnxruntime-cuda, onnxruntime-tensorrt or tensorrt.",
        ),
    ] = None,
    anchors: Annotated[
        str | None,
        typer.Option(
            help="Sides of the anchors that a Mask R-CNN was published with, where its checkpoint holds "
            "weights alone."
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", min=1, help="The depth that a U-Net++ was pruned to.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the served version of a model with what it was made of; exit code 3 when they differ.

    Examples:

      seg-export verify unet_lung --pretrained lung

      seg-export verify unet --checkpoint best_unet.pth --images xrays/ --json

      seg-export verify sam_tiny_decoder --pretrained sam_tiny --bisect

      seg-export verify unet_lung --pretrained lung --engine openvino

      seg-export verify unetpp_lung_d2 --pretrained unetpp_lung --depth 2

      seg-export verify my_unet --module my_project.models:make_unet \\
        --checkpoint best.pth

      seg-export verify organs --checkpoint organs.onnx
    """
    refuse_without(context, "checkpoint", "weights_name")
    refuse_without(context, "factory", *(field.name for field in fields(source)))
    if factory is not None:
        if pretrained is not None:
            raise BadInputError("--pretrained has no effect with --module: leave it out")
        if names_folder(factory):
            refuse_with_folder(context)
        weights: Checkpoint | Path = _module_weights(repo, model, factory, source, checkpoint, weights_name)
    else:
        _refuse_module(repo, model)
        weights = _weights(checkpoint, pretrained, weights_name)
    if depth is not None:
        weights = _cut(weights, depth)
    steps = () if isinstance(weights, Path) else weights.steps
    show_steps(steps)

    if anchors is not None:
        if isinstance(weights, Path):
            raise BadInputError("--anchors has no effect on an ONNX file: leave it out")
        from seg_export.checkpoints.claims import Claims, with_claims

        weights = with_claims(weights, Claims(anchor_sizes=parse_numbers("--anchors", anchors, int)))

    from seg_export.verification.published import verify_published
    from seg_export.verification.verify import require_parity

    with working(f"verify {model}"):
        report = verify_published(repo, model, weights, images=images, engine=engine)
    found = _bisect(repo, model, weights, images) if bisect else None
    if report.note:
        stderr_console().print(report.note, soft_wrap=True, markup=False, highlight=False)
    if as_json:
        more = {"bisect": found.as_dict()} if found else {}
        echo_json(report.as_dict() | {"steps": list(steps)} | more)
    else:
        stdout_console().print(report_table(report))
        if found:
            _show(found)
    require_parity(report)


def _refuse_module(repo: Path, model: str) -> None:
    """Say what a model of a user's module needs, whose weights alone are not enough."""
    from seg_runtime.repository import Repository

    with suppress(RepositoryError):
        family = FAMILIES.get(Repository(repo).spec(model).family)
        if family is not None and family.of_module is not None:
            raise BadInputError(
                f"model '{model}' was made of a PyTorch module, which its repository does not hold: "
                "name it with --module PACKAGE.MODULE:FACTORY"
            )


def _module_weights(
    repo: Path,
    model: str,
    factory: str,
    source: ModuleOptions,
    checkpoint: Path | None,
    weights_name: str | None,
) -> Checkpoint:
    require_torch()
    from seg_export.checkpoints.claims import check_published
    from seg_export.checkpoints.factory import make_module, parse_arguments
    from seg_export.checkpoints.folders import read_folder
    from seg_export.checkpoints.types import WeightsFile
    from seg_export.verification.published import module_as_published
    from seg_runtime.repository import Repository

    activation = source.activation
    output: str | int | None = source.output
    if names_folder(factory):
        folder = read_folder(Path(factory))
        check_published(folder.claims, Repository(repo).spec(model), Path(factory))
        network, checkpoint = folder.network, folder.weights
        activation, output = folder.activation_with(activation), folder.output_with(source.output)
    else:
        network = make_module(factory, parse_arguments(source.args))
    return module_as_published(
        repo,
        model,
        network,
        weights=WeightsFile(checkpoint, weights_name) if checkpoint else None,
        activation=activation,
        output=output,
    )


def _bisect(repo: Path, model: str, weights: Checkpoint | Path, images: Path | None) -> BisectReport:
    from seg_export.verification.bisect import bisect_published

    with progress_bar() as bar:
        task = bar.add_task("bisect", total=None)
        return bisect_published(
            repo, model, weights, images=images, on_step=lambda what: bar.update(task, description=what)
        )


def _show(found: BisectReport) -> None:
    console = stdout_console()
    console.print(f"first node that strays from a fresh trace: {_node(found.first)}", soft_wrap=True)
    if found.precision == "fp16":
        console.print(f"with no node kept in fp32: {_node(found.first_all_half)}", soft_wrap=True)
        console.print(f"must stay in fp32: {', '.join(found.ops_to_keep) or 'nothing'}", soft_wrap=True)


def _node(found: Divergence | None) -> str:
    if found is None:
        return "none"
    return f"{found.node} ({found.op}), by {found.difference:.1e} at values up to {found.magnitude:.1e}"


def _weights(checkpoint: Path | None, pretrained: str | None, name: str | None) -> Checkpoint | Path:
    """What a model was made of: a checkpoint, or the file of a graph."""
    if checkpoint is None or checkpoint.suffix != ".onnx" or pretrained is not None:
        return load(checkpoint, pretrained, name)
    if name is not None:
        raise BadInputError("--weights has no effect on an ONNX file: leave it out")
    return checkpoint


def _cut(weights: Checkpoint | Path, depth: int) -> Checkpoint:
    """The checkpoint of a network that was published at a smaller depth."""
    from seg_export.families import family_named

    if isinstance(weights, Path):
        raise BadInputError("--depth has no effect on an ONNX file: leave it out")
    family = family_named(weights.family)
    if family.prune is None:
        raise BadInputError(f"a {family.title} cannot be pruned: leave --depth out")
    return family.prune(weights, depth)
