"""Decides what a run measures: which images, which models, which checkpoints, in which places."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seg_bench.candidate import ENGINE, OFFICIAL_DECODER, OFFICIAL_EXPORT, PYTORCH, Candidate
from seg_bench.cases import Case, make_cases
from seg_bench.data.check import check_masks, check_sizes
from seg_bench.data.find import AnySample, find_samples, shipped_split
from seg_bench.data.nuclei import InstanceSample
from seg_bench.data.splits import load_split, select
from seg_bench.options import RunOptions
from seg_bench.subjects import Subject, all_subjects, named_subject
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.repository import Repository

if TYPE_CHECKING:
    from seg_runtime.server import TritonServer

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    Attributes:
        samples: names of the images, in order.
        split: name of the split and part they are from, or None for the whole folder.
        subjects: the models, by name.
        graph_sha256: of the graphs that are at hand, by model.
        checkpoints: files of the PyTorch baselines, by subject.
        official: folders of the original library's own exports, by subject.
        cases: conditions that models were not trained for, under which they are scored too.
    """

    samples: tuple[str, ...]
    split: str | None
    subjects: Mapping[str, Subject]
    graph_sha256: Mapping[str, str]
    checkpoints: Mapping[str, Path]
    official: Mapping[str, Path]
    cases: tuple[Case, ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that run."""
        return tuple(spec.name for subject in self.subjects.values() for spec in subject.specs)

    def trained(self, candidate: Candidate) -> bool:
        return self.subjects[candidate.model].weights != "random"

    def candidates(self, options: RunOptions, server: TritonServer | None) -> list[Candidate]:
        """The rows of the table, baselines first."""
        return [*self._baselines(options), *self._deployed(options, server)]

    def _baselines(self, options: RunOptions) -> Iterator[Candidate]:
        for name, path in self.checkpoints.items():
            subject = self.subjects[name]
            yield Candidate(
                model=name,
                where="in-process",
                runtime=PYTORCH,
                target="",
                data=str(options.data),
                samples=self.samples,
                threads=options.threads,
                kind=subject.kind,
                checkpoint=str(path),
                channels_last=options.channels_last,
                input_size_hw=subject.spec.input_size_hw,
                max_batch_size=max(1, subject.spec.max_batch_size),
            )
        for name, folder in self.official.items():
            subject = self.subjects[name]
            yield Candidate(
                model=name,
                where="in-process",
                runtime=OFFICIAL_DECODER if subject.sam else OFFICIAL_EXPORT,
                target=str(options.repo),
                data=str(options.data),
                samples=self.samples,
                threads=options.threads,
                kind=subject.kind,
                official=str(folder),
            )

    def _deployed(self, options: RunOptions, server: TritonServer | None) -> Iterator[Candidate]:
        for name, subject in self.subjects.items():
            for place, engine in options.ways:
                yield Candidate(
                    model=name,
                    where=place,
                    runtime=ENGINE if engine else "Triton",
                    target=_target(place, options, server),
                    data=str(options.data),
                    samples=self.samples,
                    engine=engine,
                    threads=options.threads if engine else None,
                    kind=subject.kind,
                )


def make_plan(options: RunOptions, folder: Path) -> Plan:
    """Look at the data, the models and the checkpoints, and refuse what cannot be measured.

    Args:
        options: what is asked for.
        folder: for files that the baselines need; it must last as long as the plan.

    Raises:
        BadInputError: no images, a mask of another size than its image, an empty one for a SAM, no models,
            no checkpoint for a baseline, batches for what takes one image, or images without objects for a
            model that finds them.
        RepositoryError: the repository is missing or a named model is not built.
        ServerError: the server of `options.url` cannot be reached.
    """
    samples, split = _samples(options)
    if options.url and "in-process" not in options.where:
        subjects = _remote_subjects(options)
        graphs: dict[str, str] = {}
    else:
        subjects = _local_subjects(options)
        repository = Repository(options.repo)
        models = [spec.name for subject in subjects for spec in subject.specs]
        graphs = {name: _sha256(repository.graph_path(name)) for name in models}
    _check(options, samples, subjects)
    boxes = any(subject.sam for subject in subjects)
    check_sizes(samples)
    if boxes:
        check_masks(samples)
    cases = make_cases(options, samples, boxes)
    every = [*samples, *(sample for case in cases for sample in case.samples)]
    checkpoints = _checkpoints(options, subjects, folder)
    return Plan(
        samples=tuple(sample.name for sample in samples),
        split=split,
        subjects={subject.name: subject for subject in subjects},
        graph_sha256=graphs,
        checkpoints=checkpoints if options.baseline else {},
        official=_official_exports(options, every, subjects, checkpoints, folder),
        cases=cases,
    )


def _target(place: str, options: RunOptions, server: TritonServer | None) -> str:
    if place == "in-process":
        return str(options.repo)
    if server is None:
        return options.url or ""
    return server.http_url if place == "http" else server.grpc_url


def _samples(options: RunOptions) -> tuple[tuple[AnySample, ...], str | None]:
    samples = find_samples(options.data)
    split_name = None
    if options.part:
        split = load_split(options.split_file) if options.split_file else shipped_split(samples)
        samples = select(samples, getattr(split, options.part))
        split_name = f"{split.data_set}, {options.part}"
    return samples[: options.limit], split_name


def _local_subjects(options: RunOptions) -> tuple[Subject, ...]:
    repository = Repository(options.repo)
    if options.models:
        return _named_subjects(repository, options.models)
    built = [name for name in repository.models() if _is_built(repository, name)]
    if not built:
        raise RepositoryError(f"repository '{options.repo}' has no built model: publish one with seg-export")
    return all_subjects(repository, built)


def _named_subjects(repository: Repository, names: Iterable[str]) -> tuple[Subject, ...]:
    subjects = tuple(named_subject(repository, name) for name in names)
    for subject in subjects:
        for spec in subject.specs:
            repository.graph_path(spec.name)  # raises when it is not built
    return subjects


def _is_built(repository: Repository, name: str) -> bool:
    return repository.spec(name).version in repository.versions(name)


def _remote_subjects(options: RunOptions) -> tuple[Subject, ...]:
    from seg_runtime import connect

    with connect(options.url or "") as session:
        if options.models:
            return tuple(named_subject(session, name) for name in options.models)
        return all_subjects(session, session.models())


def _check(options: RunOptions, samples: Sequence[AnySample], subjects: Sequence[Subject]) -> None:
    exported = ("sam", "instances") if options.official else ("sam",)
    single = [subject for subject in subjects if subject.kind in exported]
    if single and options.batch > 1:
        what = "is a SAM, which takes" if single[0].sam else "has torchvision's export beside it, which takes"
        raise BadInputError(
            f"--batch is {options.batch} and '{single[0].name}' {what} one image per call: "
            "leave out --batch, or name other models with --models"
        )
    if options.official and all(subject.kind == "semantic" for subject in subjects):
        raise BadInputError(
            "--baseline official is the decoder of a SAM or a Mask R-CNN's export: name one with --models"
        )
    objects = [subject.name for subject in subjects if subject.kind == "instances"]
    if objects and not isinstance(samples[0], InstanceSample):
        raise BadInputError(
            f"'{objects[0]}' finds objects and {options.data} has one mask per image: give a folder with "
            "images/ and labels/ (maps of ids), or name other models with --models"
        )


def _checkpoints(options: RunOptions, subjects: Sequence[Subject], folder: Path) -> dict[str, Path]:
    """The files that baselines need; of models of one checkpoint (other precisions), for the first."""
    if not (options.baseline or options.official):
        return {}
    firsts: dict[str, Subject] = {}
    for subject in subjects:
        if options.baseline or subject.kind != "semantic":
            firsts.setdefault(subject.checkpoint_sha256, subject)
    named = {subject.name: subject for subject in firsts.values()}
    found = {name: _checkpoint(subject, options, folder) for name, subject in named.items()}
    checkpoints = {name: path for name, path in found.items() if path is not None}
    needed = [name for name, subject in named.items() if subject.kind != "semantic" or not options.official]
    if not checkpoints.keys() & needed:
        raise BadInputError(
            f"no checkpoint of {', '.join(needed)} for the baseline: "
            "pass the file that it was exported from as --checkpoint"
        )
    return checkpoints


def _checkpoint(subject: Subject, options: RunOptions, folder: Path) -> Path | None:
    from seg_bench.checkpoints import find_checkpoint, remake_random_sam

    path = find_checkpoint(subject.checkpoint_sha256, options.checkpoint)
    if path is None and subject.sam and subject.weights == "random":
        path = remake_random_sam(subject, folder)
    return path


def _official_exports(
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
        if checkpoint is None or subject.kind == "semantic":
            continue
        if subject.sam:
            from seg_bench.official_decoder import export_official_decoders

            export_official_decoders(checkpoint, {sample.size_hw() for sample in samples}, path)
        else:
            from seg_bench.official_maskrcnn import export_official_maskrcnn

            export_official_maskrcnn(checkpoint, path)
        exports[subject.name] = path
    return exports


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
