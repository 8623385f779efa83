"""The steps from a checkpoint to a served model: load, trace, optimise, precision, verify, publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seg_export.checkpoints.assumptions import Assumption, assumed_values, assumptions
from seg_export.checkpoints.claims import check_statistics, require_claims
from seg_export.checkpoints.types import loaded
from seg_export.families import family_named, traceable_models
from seg_export.precision.calibration import CalibrationImages, calibration_images, verification_cases
from seg_export.precision.tensor_types import with_half_embeddings
from seg_export.precision.write import PrecisionReport, in_precision
from seg_export.publishing.publish import (
    PublishedModel,
    StagedModel,
    check_model_name,
    publish_together,
)
from seg_export.publishing.staging import staging_folder
from seg_export.tracing.exportable import ExportableModel
from seg_export.tracing.trace import DEFAULT_OPSET, optimise, save_graph, trace
from seg_export.verification.cases import VerificationCase
from seg_export.verification.verify import VerificationReport, require_parity, verify
from seg_runtime.errors import BadInputError
from seg_runtime.repository import GRAPH_FILE
from seg_runtime.spec import ServingSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.checkpoint import Checkpoint

__all__ = [
    "STEPS",
    "ExportedModel",
    "Precision",
    "check_calibration",
    "export_model",
    "export_models",
    "publish_models",
]

Precision = Literal["fp32", "fp16", "int8"]

STEPS = ("load", "trace", "optimise", "precision", "verify", "publish")


@dataclass(frozen=True)
class ExportedModel:
    """A published version and the proof that it computes what its checkpoint computes.

    `report` and `precision` are None for an ensemble, which only runs models that have theirs. `assumptions`
    and `steps` are of the checkpoint and the same for all its models; none unless it is a plain state dict.
    """

    published: PublishedModel
    report: VerificationReport | None
    precision: PrecisionReport | None
    assumptions: tuple[Assumption, ...] = ()
    steps: tuple[str, ...] = ()


def export_model(
    checkpoint: Checkpoint | Path, repo: Path, name: str | None = None, **options: Any
) -> ExportedModel:
    """`export_models` for the families that publish one model per checkpoint, such as the U-Net.

    Raises:
        BadInputError: a checkpoint that publishes several; also all that `export_models` raises.
    """
    checkpoint = loaded(checkpoint)
    family = family_named(checkpoint.family)
    if family.parts:
        raise BadInputError(f"a {family.title} checkpoint becomes several models: call export_models")
    (exported,) = export_models(checkpoint, repo, name, **options)
    return exported


def export_models(
    checkpoint: Checkpoint | Path,
    repo: Path,
    name: str | None = None,
    *,
    size_hw: tuple[int, int] | None = None,
    images: Path | None = None,
    opset: int = DEFAULT_OPSET,
    precision: Precision = "fp32",
    calibrate: Path | None = None,
    max_batch_size: int = 8,
    embeddings: Literal["fp32", "fp16"] = "fp32",
    serving: ServingSpec | None = None,
    assume_defaults: bool = False,
    on_step: Callable[[str], None] | None = None,
) -> tuple[ExportedModel, ...]:
    """Publish a checkpoint as the next version of its models, if all their graphs prove right.

    Args:
        checkpoint: a loaded checkpoint or its file.
        repo: the model repository; created when missing.
        name: the model's name, or what the names of several begin with; None for its family's.
        size_hw: (height, width) in pixels of the input; None for the checkpoint's.
        images: a folder of real images to verify with, in addition to synthetic ones.
        opset: of the ONNX graph, 18 to 20.
        precision: what the graphs compute in, written into them. With "int8" a graph that takes no images,
            such as SAM's decoder, stays in fp32.
        calibrate: a folder of images like those of use, for int8 and only for it.
        max_batch_size: largest batch that is served, where the family leaves the choice.
        embeddings: type in which an image embedding travels from encoder to decoder, whatever they
            compute in.
        serving: how Triton runs it.
        assume_defaults: take defaults for what neither the checkpoint nor
            `seg_export.checkpoints.claims.with_claims` says; `ExportedModel.assumptions` names them.
        on_step: called with the name of each of `STEPS` as it begins; what it tries may follow a colon.

    Returns:
        One entry per model: a U-Net's, a SAM's encoder, decoder and the ensemble of both, or a SAM2's five
        and their three ensembles.

    Raises:
        CheckpointError: a file or weights that cannot be used.
        BadInputError: a name, size, opset, image or folder of images that cannot be used; a checkpoint that
            does not say how its images are prepared, unless `assume_defaults`.
        ParityError: a graph strays from PyTorch, or cannot be in int8; nothing was published.
        RepositoryError: the repository cannot be written to; what it served is served still.
        MissingExtraError: a package of the `export` extra is not installed.
    """
    check_calibration(precision, calibrate)
    begin = on_step or (lambda step: None)
    begin("load")
    checkpoint = loaded(checkpoint)
    if not assume_defaults:
        require_claims(checkpoint, size_given=size_hw is not None)
    if not checkpoint.described:
        check_statistics(checkpoint.preprocessing)
    name = check_model_name(checkpoint.family if name is None else name)
    models = traceable_models(
        checkpoint, name, size_hw or checkpoint.preprocessing.input_size_hw, max_batch_size
    )
    assumed = assumptions(checkpoint, models[0].spec, size_given=size_hw is not None)
    if embeddings == "fp16":
        models = with_half_embeddings(models)
    return publish_models(
        models,
        repo,
        images=images,
        opset=opset,
        precision=precision,
        calibrate=calibrate,
        serving=serving,
        assumed=assumed,
        steps=checkpoint.steps,
        together=partial(family_named(checkpoint.family).ensembles, name),
        on_step=begin,
    )


def check_calibration(precision: Precision, calibrate: Path | None) -> None:
    """Refuse int8 without images, and images without int8. Raises BadInputError."""
    if (precision == "int8") != (calibrate is not None):
        raise BadInputError(
            "int8 needs a folder of images to calibrate with: --calibrate FOLDER"
            if calibrate is None
            else f"--calibrate is for int8: {precision} takes no calibration"
        )


def publish_models(
    models: Sequence[ExportableModel],
    repo: Path,
    *,
    images: Path | None = None,
    opset: int = DEFAULT_OPSET,
    precision: Precision = "fp32",
    calibrate: Path | None = None,
    serving: ServingSpec | None = None,
    assumed: tuple[Assumption, ...] = (),
    steps: tuple[str, ...] = (),
    together: Callable[[Sequence[StagedModel]], Sequence[StagedModel]] = tuple,
    on_step: Callable[[str], None] = lambda step: None,
) -> tuple[ExportedModel, ...]:
    """The steps of `export_models` after the first; all models get the next version, or none.

    Args:
        models: what is to be published; contracts name them.
        assumed: what nobody stated, for the contracts.
        steps: what was done to a file to get at its weights, for people.
        together: adds ensembles to the staged models.
        repo, images, opset, precision, calibrate, serving, on_step: as for `export_models`.

    Raises:
        EdgesegError: as `export_models`.
    """
    calibrations = [calibration_images(model, calibrate) if calibrate else None for model in models]
    models = tuple(
        replace(
            model,
            spec=replace(
                model.spec, precision=_precision_of(model, precision), assumed=assumed_values(assumed)
            ),
        )
        for model in models
    )
    with staging_folder(repo) as staging:
        reports, precisions, staged = {}, {}, []
        for model, calibration in zip(models, calibrations, strict=True):
            folder, name_of = staging / model.spec.name, model.spec.name
            cases = verification_cases(model, images, calibration)
            precisions[name_of], report = _build(model, cases, calibration, folder, opset, on_step)
            reports[name_of] = report
            spec = replace(model.spec, parity=report.parity())
            staged.append(StagedModel(spec, serving or ServingSpec(), folder))
        on_step("publish")
        return tuple(
            ExportedModel(
                published,
                reports.get(published.spec.name),
                precisions.get(published.spec.name),
                assumed,
                steps,
            )
            for published in publish_together(repo, together(staged))
        )


def _precision_of(model: ExportableModel, wanted: Precision) -> Precision:
    if model.in_half:
        return "fp16"
    return "fp32" if wanted == "int8" and model.image_case is None else wanted


def _build(
    model: ExportableModel,
    cases: tuple[VerificationCase, ...],
    calibration: CalibrationImages | None,
    folder: Path,
    opset: int,
    begin: Callable[[str], None],
) -> tuple[PrecisionReport, VerificationReport]:
    """Write a model's graph into a new folder and verify it there. Raises ParityError."""
    folder.mkdir()
    begin("trace")
    weights_file = folder / f"{GRAPH_FILE}.data"
    graph = trace(model, opset, weights_file)
    begin("optimise")
    graph = optimise(graph, model)
    begin("precision")
    graph, precision = in_precision(
        graph, model, cases, weights_file, calibration, lambda what: begin(f"precision: {what}")
    )
    save_graph(graph, folder / GRAPH_FILE)
    begin("verify")
    report = verify(model, folder / GRAPH_FILE, cases)
    require_parity(report)
    return precision, report
