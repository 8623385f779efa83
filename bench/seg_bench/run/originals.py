"""Where a run takes its baselines from: checkpoints, and the original libraries' own exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from seg_bench.data.find import AnySample
from seg_bench.run.options import RunOptions
from seg_bench.run.subjects import Subject
from seg_runtime.errors import BadInputError

__all__ = ["find_checkpoints", "official_exports"]


def find_checkpoints(options: RunOptions, subjects: Sequence[Subject], folder: Path) -> dict[str, Path]:
    """The files that baselines need; of subjects that differ by precision only, for the first."""
    if not (options.baseline or options.compiled or options.official):
        return {}
    firsts: dict[tuple[str, int], Subject] = {}
    for subject in subjects:
        if options.baseline or options.compiled or subject.exported:
            firsts.setdefault(subject.identity, subject)
    firsts = {identity: subject for identity, subject in firsts.items() if _can_be_rebuilt(subject)}
    if not firsts:
        names = ", ".join(subject.name for subject in subjects)
        raise BadInputError(
            f"no PyTorch baseline of {names}: no checkpoint holds a user's module or what an ONNX file was "
            "made of; leave --baseline out"
        )
    named = {subject.name: subject for subject in firsts.values()}
    files: dict[str, Path | None] = {}
    for subject in firsts.values():
        if subject.checkpoint_sha256 not in files:
            files[subject.checkpoint_sha256] = _checkpoint(subject, options, folder)
    found = {name: files[subject.checkpoint_sha256] for name, subject in named.items()}
    checkpoints = {name: path for name, path in found.items() if path is not None}
    needed = [name for name, subject in named.items() if subject.exported or not options.official]
    if not checkpoints.keys() & needed:
        raise BadInputError(
            f"no checkpoint of {', '.join(needed)} for the baseline: "
            "pass the file that it was exported from as --checkpoint"
        )
    return checkpoints


def _can_be_rebuilt(subject: Subject) -> bool:
    """Whether a checkpoint alone makes the PyTorch model again: not of a user's module, nor of a graph."""
    from seg_export.families import FAMILIES

    family = FAMILIES.get(subject.spec.family)
    return family is None or (family.of_module is None and family.made_of is None)


def _checkpoint(subject: Subject, options: RunOptions, folder: Path) -> Path | None:
    from seg_bench.run.checkpoints import REMADE, find_checkpoint

    path = find_checkpoint(subject.checkpoint_sha256, options.checkpoint)
    if path is None and subject.kind in REMADE and subject.weights == "random":
        path = REMADE[subject.kind](subject, folder)
    return path


def official_exports(
    options: RunOptions,
    samples: Sequence[AnySample],
    subjects: Sequence[Subject],
    checkpoints: Mapping[str, Path],
    folder: Path,
) -> dict[str, Path]:
    if not options.official:
        return {}
    exports = {}
    for subject in subjects:
        checkpoint, path = checkpoints.get(subject.name), folder / subject.name
        if checkpoint is None or not subject.exported:
            continue
        if subject.kind == "sam":
            from seg_bench.official_decoder import export_official_decoders

            export_official_decoders(checkpoint, {sample.size_hw() for sample in samples}, path)
        else:
            from seg_bench.official_maskrcnn import export_official_maskrcnn

            export_official_maskrcnn(checkpoint, path, contract=subject.spec)
        exports[subject.name] = path
    return exports
