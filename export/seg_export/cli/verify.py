"""`seg-export verify`: a published graph against a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seg_export.cli.options import (
    CheckpointOption,
    ImagesOption,
    JsonOption,
    PretrainedOption,
    RepoOption,
    load,
)
from seg_export.cli.output import echo_json, report_table
from seg_export.cli.preprocessing import parse_numbers
from seg_runtime.console import progress_bar, stderr_console, stdout_console, working

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint
    from seg_export.precision.divergence import Divergence
    from seg_export.verification.bisect import BisectReport

__all__ = ["verify"]


def verify(
    model: Annotated[str, typer.Argument(help="Name of the published model.")],
    *,
    checkpoint: CheckpointOption = None,
    pretrained: PretrainedOption = None,
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
    """Compare the served version of a model with a checkpoint; exit code 3 when they differ.

    Examples:

      seg-export verify unet_lung --pretrained lung

      seg-export verify unet --checkpoint best_unet.pth --images xrays/ --json

      seg-export verify sam_tiny_decoder --pretrained sam_tiny --bisect

      seg-export verify unet_lung --pretrained lung --engine openvino

      seg-export verify unetpp_lung_d2 --pretrained unetpp_lung --depth 2
    """
    weights = load(checkpoint, pretrained)
    if depth is not None:
        from seg_export.families.semantic.pruning import pruned

        weights = pruned(weights, depth)

    if anchors is not None:
        from seg_export.checkpoints.claims import Claims, with_claims

        weights = with_claims(weights, Claims(anchor_sizes=parse_numbers("--anchors", anchors, int)))

    from seg_export.export import verify_published
    from seg_export.verification.verify import require_parity

    with working(f"verify {model}"):
        report = verify_published(repo, model, weights, images=images, engine=engine)
    found = _bisect(repo, model, weights, images) if bisect else None
    if report.note:
        stderr_console().print(report.note, soft_wrap=True, markup=False, highlight=False)
    if as_json:
        echo_json(report.as_dict() | ({"bisect": found.as_dict()} if found else {}))
    else:
        stdout_console().print(report_table(report))
        if found:
            _show(found)
    require_parity(report)


def _bisect(repo: Path, model: str, weights: Checkpoint, images: Path | None) -> BisectReport:
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
