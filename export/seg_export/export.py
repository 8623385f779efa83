"""The five steps from a checkpoint to a served model: load, trace, optimise, verify, publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from seg_export.cases import VerificationCase, image_cases, synthetic_cases
from seg_export.checkpoint import Checkpoint, load_checkpoint
from seg_export.families import traceable_model
from seg_export.publish import GRAPH_FILE, PublishedModel, check_model_name, publish
from seg_export.staging import staging_folder
from seg_export.trace import DEFAULT_OPSET, optimise, save_graph, trace
from seg_export.verify import VerificationReport, require_parity, verify
from seg_runtime.errors import CheckpointError
from seg_runtime.repository import Repository
from seg_runtime.spec import ModelSpec, ServingSpec

__all__ = ["STEPS", "ExportedModel", "export_model", "verify_published"]

STEPS = ("load", "trace", "optimise", "verify", "publish")


@dataclass(frozen=True)
class ExportedModel:
    """A published version and the proof that it computes what its checkpoint computes."""

    published: PublishedModel
    report: VerificationReport


def export_model(
    checkpoint: Checkpoint | Path,
    repo: Path,
    name: str | None = None,
    *,
    size_hw: tuple[int, int] | None = None,
    images: Path | None = None,
    opset: int = DEFAULT_OPSET,
    max_batch_size: int = 8,
    serving: ServingSpec | None = None,
    on_step: Callable[[str], None] | None = None,
) -> ExportedModel:
    """Publish a checkpoint as the next version of a model, if its graph proves right.

    Args:
        checkpoint: a loaded checkpoint or its file.
        repo: the model repository; created when missing.
        name: the model's name; None for its family's.
        size_hw: (height, width) in pixels of the input; None for the checkpoint's.
        images: a folder of real images to verify with, beside synthetic ones.
        opset: of the ONNX graph, 18 to 20.
        max_batch_size: largest batch that is served.
        serving: how Triton runs it.
        on_step: called with the name of each of `STEPS` as it begins.

    Raises:
        CheckpointError: a file or weights that cannot be used.
        BadInputError: a name, size, opset or image that cannot be used.
        ParityError: the graph strays from PyTorch; nothing was published.
        RepositoryError: the repository cannot be written to; what it served is served still.
        MissingExtraError: a package of the `export` extra is not installed.
    """
    begin = on_step or (lambda step: None)
    begin("load")
    if isinstance(checkpoint, Path):
        checkpoint = load_checkpoint(checkpoint)
    name = check_model_name(name or checkpoint.family)
    size_hw = size_hw or checkpoint.preprocessing.input_size_hw
    model = traceable_model(checkpoint, name, size_hw, max_batch_size)
    cases = _cases(model.spec, images)
    with staging_folder(repo) as staging:
        version_folder = staging / "version"
        version_folder.mkdir()
        begin("trace")
        graph = trace(model, opset)
        begin("optimise")
        save_graph(optimise(graph, model.spec), version_folder / GRAPH_FILE)
        begin("verify")
        report = verify(model, version_folder / GRAPH_FILE, cases)
        require_parity(report)
        begin("publish")
        spec = replace(model.spec, parity=report.parity())
        published = publish(repo, spec, serving or ServingSpec(), version_folder)
    return ExportedModel(published, report)


def verify_published(
    repo: Path, name: str, checkpoint: Checkpoint | Path, *, images: Path | None = None
) -> VerificationReport:
    """Compare the served version of a model with a checkpoint, which need not be the one it was made of.

    Returns:
        The report, passed or not.

    Raises:
        ModelNotFoundError: no such model; names the nearest.
        RepositoryError: its served version was never built.
        CheckpointError: a file or weights that cannot be used, or of another architecture.
        ParityError: the graph cannot be run.
        BadInputError: the folder of images cannot be used.
    """
    repository = Repository(repo)
    spec, graph_path = repository.spec(name), repository.graph_path(name)
    if isinstance(checkpoint, Path):
        checkpoint = load_checkpoint(checkpoint)
    model = traceable_model(checkpoint, name, spec.input_size_hw, max(spec.max_batch_size, 1))
    _check_same_tensors(spec, model.spec)
    return verify(replace(model, spec=spec), graph_path, _cases(spec, images))


def _cases(spec: ModelSpec, images: Path | None) -> tuple[VerificationCase, ...]:
    return image_cases(spec, images) if images else synthetic_cases(spec)


def _check_same_tensors(published: ModelSpec, loaded: ModelSpec) -> None:
    for have, want in zip(
        (*published.inputs, *published.outputs), (*loaded.inputs, *loaded.outputs), strict=False
    ):
        if have != want:
            raise CheckpointError(
                f"the checkpoint does not fit model '{published.name}': its {want.name} is {want.dtype} "
                f"{list(want.shape)}, the model's {have.name} is {have.dtype} {list(have.shape)}"
            )
