"""Decides what a run measures: which images, which models, which checkpoints, in which places."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from seg_bench.candidate import COMPILED, ENGINE, OFFICIAL_DECODER, OFFICIAL_EXPORT, PYTORCH, Candidate
from seg_bench.data.check import check_class_names, check_classes, check_masks, check_sizes, check_truths
from seg_bench.data.classes import class_names, has_classes
from seg_bench.data.find import AnySample, find_samples, names_of_part
from seg_bench.data.nuclei import InstanceSample
from seg_bench.data.spacing import Spacings, find_spacings
from seg_bench.data.splits import select
from seg_bench.metrics import Hd95Definition
from seg_bench.run.cases import Case, make_cases
from seg_bench.run.choice import choose_local, choose_remote
from seg_bench.run.options import RunOptions
from seg_bench.run.originals import find_checkpoints, official_exports
from seg_bench.run.subjects import Subject, readable_subjects
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.hashing import file_sha256
from seg_runtime.model_config import to_text
from seg_runtime.repository import Repository

if TYPE_CHECKING:
    from seg_runtime.server import TritonServer

__all__ = ["LARGE_BYTES", "MOST_ROWS", "Plan", "make_plan"]

LARGE_BYTES = 256 * 2**20
"""Size of a model's files above which it is measured alone: it takes several times that in memory."""

MOST_ROWS = 24
"""Rows that are open at the same time, each in a process of 100 MiB and more; a model's own stay together."""


@dataclass(frozen=True)
class Plan:
    """What a run measures.

    Attributes:
        samples: names of the images, in order.
        split: name of the split and part they are from, or None for the whole folder.
        subjects: the models, by name.
        graph_sha256: of the graphs that are at hand, by model.
        model_bytes: size of their version folders, weights beside the graph included.
        checkpoints: files of the PyTorch baselines, by subject.
        official: folders of the original library's own exports, by subject.
        fp32_graphs: the fp32 model of the same checkpoint, by subject; empty when none is needed.
        cases: conditions that models were not trained for, under which they are scored too.
        left_out: a line for each model that matches what is asked for and cannot be used.
        hd95: as `RunOptions.hd95`.
        spacings: whether HD95 is in mm.
    """

    samples: tuple[str, ...]
    split: str | None
    subjects: Mapping[str, Subject]
    graph_sha256: Mapping[str, str]
    model_bytes: Mapping[str, int]
    checkpoints: Mapping[str, Path]
    official: Mapping[str, Path]
    fp32_graphs: Mapping[str, str] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()
    left_out: tuple[str, ...] = ()
    hd95: Hd95Definition = "directed"
    spacings: Spacings = field(default_factory=Spacings)

    def models_of(self, subjects: Collection[str]) -> tuple[str, ...]:
        """Names of the models that these subjects run."""
        return tuple(spec.name for name in subjects for spec in self.subjects[name].specs)

    def groups(self, options: RunOptions) -> tuple[tuple[str, ...], ...]:
        """Subjects that are in memory at the same time: up to `MOST_ROWS` rows, and each large one alone."""
        large = self._large()
        groups: list[list[str]] = []
        rows = MOST_ROWS
        for name in self.subjects:
            if name in large:
                continue
            added = len(self.candidates(options, None, [name]))
            if rows + added > MOST_ROWS:
                groups.append([])
                rows = 0
            groups[-1].append(name)
            rows += added
        return (*map(tuple, groups), *((name,) for name in large))

    def notes(self, options: RunOptions) -> Iterator[str]:
        """What a reader of the records must know of how the run was laid out."""
        yield from self.left_out
        if self.spacings.note:
            yield self.spacings.note
        groups = self.groups(options)
        if len(groups) > 1:
            names = " | ".join(", ".join(group) for group in groups)
            yield f"to save memory, one group after the other took its turns: {names}"
        for name, subject in self.subjects.items():
            largest = _largest_batch(subject)
            left_out = [str(batch) for batch in options.batches if batch > largest]
            if left_out:
                yield f"'{name}' takes batches of {largest} at most, not {', '.join(left_out)}"
            if options.load_levels and subject.memories:
                yield f"'{name}' is not put under load: a video is tracked frame after frame"

    def trained(self, candidate: Candidate) -> bool:
        return self.subjects[candidate.model].weights != "random"

    def candidates(
        self, options: RunOptions, server: TritonServer | None, subjects: Collection[str]
    ) -> list[Candidate]:
        """The rows of the table of these subjects, baselines first, one for each batch that they take."""
        whole = [*self._baselines(options), *self._deployed(options, server)]
        return [
            replace(candidate, batch=batch)
            for candidate in whole
            if candidate.model in subjects
            for batch in options.batches
            if batch <= self.largest_batch(candidate)
        ]

    def largest_batch(self, candidate: Candidate) -> int:
        """Images that one call of a candidate may take."""
        return _largest_batch(self.subjects[candidate.model], candidate.runtime)

    def _large(self) -> tuple[str, ...]:
        return tuple(
            name
            for name in self.subjects
            if sum(self.model_bytes.get(model, 0) for model in self.models_of([name])) > LARGE_BYTES
        )

    def precision_of(self, candidate: Candidate) -> str:
        """ "fp32", "fp16", "int8", or "bf16" of a compiled baseline."""
        if candidate.runtime == COMPILED:
            return "bf16"
        return "fp32" if candidate.runtime == PYTORCH else self.subjects[candidate.model].spec.precision

    def _baselines(self, options: RunOptions) -> Iterator[Candidate]:
        runtimes = [PYTORCH] * options.baseline + [COMPILED] * options.compiled
        for name, runtime in product(self.checkpoints, runtimes):
            subject = self.subjects[name]
            yield Candidate(
                model=name,
                where="in-process",
                runtime=runtime,
                target="",
                data=str(options.data),
                truth=options.truth,
                samples=self.samples,
                threads=options.threads,
                kind=subject.kind,
                checkpoint=str(self.checkpoints[name]),
                channels_last=options.channels_last,
                input_size_hw=subject.spec.input_size_hw,
                max_batch_size=max(1, subject.spec.max_batch_size),
                contract=to_text(subject.spec),
            )
        for name, folder in self.official.items():
            subject = self.subjects[name]
            yield Candidate(
                model=name,
                where="in-process",
                runtime=OFFICIAL_DECODER if subject.kind == "sam" else OFFICIAL_EXPORT,
                target=str(options.repo),
                data=str(options.data),
                truth=options.truth,
                samples=self.samples,
                threads=options.threads,
                kind=subject.kind,
                official=str(folder),
                contract=to_text(subject.spec),
            )

    def _deployed(self, options: RunOptions, server: TritonServer | None) -> Iterator[Candidate]:
        for name, subject in self.subjects.items():
            for place, engine in options.ways:
                if (subject.spec.precision, engine) in options.left_out:
                    continue
                yield Candidate(
                    model=name,
                    where=place,
                    runtime=ENGINE if engine else "Triton",
                    target=_target(place, options, server),
                    data=str(options.data),
                    truth=options.truth,
                    samples=self.samples,
                    engine=engine,
                    threads=options.threads if engine else None,
                    kind=subject.kind,
                    parts=() if engine else subject.called,
                    access=None if engine or server else options.access,
                )


def make_plan(options: RunOptions, folder: Path) -> Plan:
    """Look at the data, the models and the checkpoints, and refuse what cannot be measured.

    Args:
        options: what is asked for.
        folder: for files that the baselines need; it must last as long as the plan.

    Raises:
        RepositoryError: also without the fp32 graph of a model whose masks are to be compared with it.
        BadInputError: no images, a mask of another size than its image, an empty one for a SAM, a class that
            a model does not have, no models, no checkpoint for a baseline, batches for what takes one image,
            or images without objects for a model that finds them.
        RepositoryError: the repository is missing or a named model is not built.
        ServerError: the server of `options.url` cannot be reached.
    """
    samples, split = _samples(options)
    if options.url and "in-process" not in options.where:
        choice = choose_remote(options)
        graphs: dict[str, Path] = {}
    else:
        repository = Repository(options.repo)
        choice = choose_local(options, repository)
        models = [spec.name for subject in choice.subjects for spec in subject.specs]
        graphs = {name: repository.graph_path(name) for name in models}
    subjects = choice.subjects
    _check(options, samples, subjects)
    prompted = any(subject.prompted for subject in subjects)
    check_sizes(samples)
    names = class_names(options.data) if has_classes(options.data) else ()
    for subject in subjects:
        if subject.kind == "semantic" and subject.weights != "random":
            check_class_names(names, subject.spec.class_names, subject.name)
            if subject.class_names:
                check_classes(samples, len(subject.class_names), subject.name)
    if prompted:
        check_masks(samples)
    check_truths(samples)
    cases = make_cases(options, samples, boxes=prompted)
    every = [*samples, *(sample for case in cases for sample in case.samples)]
    checkpoints = find_checkpoints(options, subjects, folder)
    return Plan(
        samples=tuple(sample.name for sample in samples),
        split=split,
        subjects={subject.name: subject for subject in subjects},
        graph_sha256={name: file_sha256(path) for name, path in graphs.items()},
        model_bytes={name: _folder_bytes(path.parent) for name, path in graphs.items()},
        checkpoints=checkpoints if options.baseline or options.compiled else {},
        official=official_exports(options, every, subjects, checkpoints, folder),
        fp32_graphs=_fp32_graphs(options, subjects) if options.gate else {},
        cases=cases,
        left_out=choice.left_out,
        hd95=options.hd95,
        spacings=find_spacings(samples),
    )


def _fp32_graphs(options: RunOptions, subjects: Sequence[Subject]) -> dict[str, str]:
    """The fp32 model of the same checkpoint in the repository, by subject."""
    repository = Repository(options.repo)
    everything = readable_subjects(repository, repository.built_models())
    graphs = {subject.identity: subject.name for subject in everything if subject.spec.precision == "fp32"}
    missing = [subject.name for subject in subjects if subject.identity not in graphs]
    if missing:
        raise RepositoryError(
            f"'{options.repo}' has no fp32 graph of the checkpoint of '{missing[0]}' to compare masks with: "
            "publish one with  seg-export"
        )
    return {subject.name: graphs[subject.identity] for subject in subjects}


def _target(place: str, options: RunOptions, server: TritonServer | None) -> str:
    if place == "in-process":
        return str(options.repo)
    if server is None:
        return options.url or ""
    return server.http_url if place == "http" else server.grpc_url


def _samples(options: RunOptions) -> tuple[tuple[AnySample, ...], str | None]:
    samples = find_samples(options.data, options.truth)
    split_name = None
    if options.part:
        names, split_name = names_of_part(samples, options.part, options.split_file)
        if options.suite:
            wanted, names = names, _present(names, samples, split_name)
            split_name += f" ({len(names)} of {len(wanted)})" if len(names) < len(wanted) else ""
        samples = select(samples, names)
    return samples[: options.limit], split_name


def _present(names: Sequence[str], samples: Sequence[AnySample], split_name: str) -> tuple[str, ...]:
    """Those names that the folder has. Raises BadInputError when there are none."""
    there = {sample.name for sample in samples}
    present = tuple(name for name in names if name in there)
    if not present:
        raise BadInputError(
            f"the data folder has no image of the part '{split_name}': give one that has, "
            "or name another part with --part"
        )
    return present


def _largest_batch(subject: Subject, runtime: str = ENGINE) -> int:
    """Images that one call may take; SAMs and torchvision's export take one."""
    if subject.prompted or runtime == OFFICIAL_EXPORT:
        return 1
    return max(1, subject.spec.max_batch_size)


def _check(options: RunOptions, samples: Sequence[AnySample], subjects: Sequence[Subject]) -> None:
    least = min(options.batches)
    single = [each for each in subjects if each.prompted or (options.official and each.exported)]
    if single and least > 1:
        what = "is a SAM, which takes" if single[0].prompted else "has torchvision's export, which takes"
        raise BadInputError(
            f"--batch is {least} and '{single[0].name}' {what} one image per call: "
            "leave out --batch, or name other models with --models"
        )
    for subject in subjects:
        if least > _largest_batch(subject):
            raise BadInputError(
                f"--batch is {least} and '{subject.name}' takes batches of 1 to {_largest_batch(subject)}: "
                "give smaller ones, or name other models with --models"
            )
    if options.official and not any(subject.exported for subject in subjects):
        raise BadInputError(
            "--baseline official is the decoder of a SAM or a Mask R-CNN's export: name one with --models"
        )
    objects = [subject.name for subject in subjects if subject.kind == "instances"]
    if objects and not isinstance(samples[0], InstanceSample):
        raise BadInputError(
            f"'{objects[0]}' finds objects and {options.data} has one mask per image: give a folder with "
            "images/ and labels/ (maps of ids), or name other models with --models"
        )


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
