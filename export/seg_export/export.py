"""The steps from a checkpoint to a served model: load, trace, optimise, precision, verify, publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seg_export.checkpoints.assumptions import Assumption, assumed_values, assumptions
from seg_export.checkpoints.claims import as_published, check_statistics, published_note, require_claims
from seg_export.families import family_named, traceable_model, traceable_models
from seg_export.precision.calibration import CalibrationImages, calibration_images, real_cases
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
from seg_export.verification.cases import VerificationCase, extreme_cases
from seg_export.verification.verify import VerificationReport, require_parity, verify
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.repository import GRAPH_FILE, Repository
from seg_runtime.spec import ModelSpec, ServingSpec

if TYPE_CHECKING:
    from torch import nn

    from seg_export.checkpoints.checkpoint import Checkpoint
    from seg_export.checkpoints.types import WeightsFile

__all__ = [
    "STEPS",
    "ExportedModel",
    "Precision",
    "check_calibration",
    "export_model",
    "export_models",
    "load_published",
    "module_as_published",
    "publish_models",
    "verify_published",
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
    checkpoint = _loaded(checkpoint)
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
        images: a folder of real images to verify with, beside synthetic ones.
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
    checkpoint = _loaded(checkpoint)
    if not assume_defaults:
        require_claims(checkpoint, size_given=size_hw is not None)
    if not checkpoint.described:
        check_statistics(checkpoint.preprocessing)
    name = check_model_name(name or checkpoint.family)
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
            cases = _cases(model, images, calibration)
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


def _loaded(checkpoint: Checkpoint | Path) -> Checkpoint:
    if not isinstance(checkpoint, Path):
        return checkpoint
    from seg_export.checkpoints.checkpoint import load_checkpoint

    return load_checkpoint(checkpoint)


def _precision_of(model: ExportableModel, wanted: Precision) -> Precision:
    if model.in_half:
        return "fp16"
    return "fp32" if wanted == "int8" and model.image_case is None else wanted


def _cases(
    model: ExportableModel, images: Path | None, calibration: CalibrationImages | None = None
) -> tuple[VerificationCase, ...]:
    """What a precision is verified with.

    Half precision is tried on extreme images as well, which drive values to their ends; not for a detector,
    whose boxes are all equally good there, so that any order is as right as another. Int8 is made for
    images like those it was calibrated with, and noise is none of them.
    """
    if model.spec.precision == "int8":
        judged_on = calibration.judged_on if calibration else ()
        if not judged_on and images is None:
            raise BadInputError(
                f"model '{model.spec.name}' is in int8, which holds for images like those it was made for: "
                "name a folder of some with --images"
            )
        return (*judged_on, *(real_cases(model, images) if images else ()))
    cases = model.cases(model.spec, images)
    return cases if model.spec.precision == "fp32" or model.align else (*cases, *extreme_cases(cases[0]))


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


def verify_published(
    repo: Path,
    name: str,
    checkpoint: Checkpoint | Path,
    *,
    images: Path | None = None,
    engine: str | None = None,
) -> VerificationReport:
    """Compare the served version of a model with a checkpoint, which need not be the one it was made of.

    A checkpoint that holds weights alone is given images as the published model is.

    Args:
        repo: the model repository.
        name: of the model.
        checkpoint: a loaded checkpoint or its file.
        images: a folder of real images to run, beside or instead of synthetic ones.
        engine: verify what this engine computes in process, one of `seg_runtime.engines.ENGINES`; None for
            the graph itself.

    Returns:
        The report, passed or not.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        RepositoryError: its served version was never built.
        CheckpointError: a file or weights that cannot be used, or of another architecture.
        ParityError: the graph cannot be run.
        BadInputError: the folder of images cannot be used.
        EdgesegError: the engine cannot be used; as `seg_runtime.engines.load_model`.
    """
    if family_named(Repository(repo).spec(name).family).made_of is None:
        checkpoint = _loaded(checkpoint)
    model, graph_path, cases = load_published(repo, name, checkpoint, images)
    report = verify(model, graph_path, cases, engine=engine)
    note = "" if isinstance(checkpoint, Path) else published_note(checkpoint, model.spec)
    return replace(report, note=note)


def module_as_published(
    repo: Path,
    name: str,
    module: nn.Module,
    *,
    weights: WeightsFile | None = None,
    activation: str | None = None,
    output: str | None = None,
) -> Checkpoint:
    """A module as a published model has it, for `verify_published`.

    Args:
        repo: the model repository.
        name: of the model, whose contract says how images are prepared.
        module: that it was made of.
        weights: a file with a state dict for it; None for the weights that it has.
        activation: as for `seg_export.export_module`.
        output: as for `seg_export.export_module`.

    Raises:
        ModelNotFoundError: no such model.
        BadInputError: a model that was made of a checkpoint, or a module that does not fit.
        CheckpointError: weights that cannot be read or do not fit.
    """
    spec = Repository(repo).spec(name)
    of_module = family_named(spec.family).of_module
    if of_module is None:
        raise BadInputError(f"model '{name}' is a {spec.family}, made of a checkpoint: leave --module out")
    return of_module(spec, module, weights, activation, output)


def load_published(
    repo: Path, name: str, checkpoint: Checkpoint | Path, images: Path | None
) -> tuple[ExportableModel, Path, tuple[VerificationCase, ...]]:
    """A checkpoint as the served version of a model has it, that version's graph, and what to run.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        RepositoryError: its served version was never built.
        CheckpointError: a file or weights that cannot be used, or of another architecture.
        BadInputError: the folder of images cannot be used.
    """
    repository = Repository(repo)
    spec, graph_path = repository.spec(name), repository.graph_path(name)
    made_of = family_named(spec.family).made_of
    model: ExportableModel
    if made_of is not None:
        model = made_of(spec, graph_path, checkpoint)
    else:
        batch = max(spec.max_batch_size, 1)
        model = traceable_model(as_published(_loaded(checkpoint), spec), name, spec.input_size_hw, batch)
    _check_same_tensors(spec, model.spec)
    # What is made of an image is called so; a SAM2's mask prompt takes a mask and nothing else.
    if images is not None and not any(tensor.name.startswith("image") for tensor in spec.inputs):
        raise BadInputError(f"model '{name}' takes no images: leave --images out")
    model = replace(model, spec=spec)
    return model, graph_path, _cases(model, images)


def _check_same_tensors(published: ModelSpec, loaded: ModelSpec) -> None:
    for have, want in zip(
        (*published.inputs, *published.outputs), (*loaded.inputs, *loaded.outputs), strict=False
    ):
        # A tensor may have been published to travel in half precision.
        same_type = have.dtype == want.dtype or (have.dtype, want.dtype) == ("float16", "float32")
        if (have.name, have.shape) != (want.name, want.shape) or not same_type:
            raise CheckpointError(
                f"the checkpoint does not fit model '{published.name}': its {want.name} is {want.dtype} "
                f"{list(want.shape)}, the model's {have.name} is {have.dtype} {list(have.shape)}"
            )
