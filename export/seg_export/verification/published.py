"""Verifies again what was published: the served version of a model against a checkpoint, module or graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from seg_export.checkpoints.claims import as_published, published_note
from seg_export.checkpoints.types import loaded
from seg_export.families import family_named, traceable_model
from seg_export.precision.calibration import verification_cases
from seg_export.tracing.exportable import ExportableModel
from seg_export.verification.cases import VerificationCase
from seg_export.verification.verify import VerificationReport, verify
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from seg_export.checkpoints.types import Checkpoint, WeightsFile

__all__ = ["load_published", "module_as_published", "verify_published"]


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
        images: a folder of real images to run, in addition to or instead of synthetic ones.
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
        checkpoint = loaded(checkpoint)
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
    output: str | int | None = None,
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
        model = traceable_model(as_published(loaded(checkpoint), spec), name, spec.input_size_hw, batch)
    _check_same_tensors(spec, model.spec)
    # What is made of an image is called so; a SAM2's mask prompt takes a mask and nothing else.
    if images is not None and not any(tensor.name.startswith("image") for tensor in spec.inputs):
        raise BadInputError(f"model '{name}' takes no images: leave --images out")
    model = replace(model, spec=spec)
    return model, graph_path, verification_cases(model, images)


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
