"""Which models of a repository or server a run measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seg_bench.run.options import RunOptions
from seg_bench.run.subjects import Subject, matching_subjects, named_subject, readable_subjects
from seg_runtime.contracts import ListedContracts
from seg_runtime.errors import BadInputError, ModelNotFoundError, RepositoryError
from seg_runtime.repository import Repository

__all__ = ["choose_local", "choose_remote"]


def choose_local(options: RunOptions, repository: Repository) -> tuple[Subject, ...]:
    """The models of a repository folder that are asked for, all of them built.

    Raises:
        ModelNotFoundError: a name that is not there.
        RepositoryError: nothing is built, or a model that is named is not.
        BadInputError: nothing matches; the message lists what there is.
    """
    subjects = _choose(options, repository, repository.built_models())
    for subject in subjects:
        for spec in subject.specs:
            repository.graph_path(spec.name)  # raises when it is not built
    return subjects


def choose_remote(options: RunOptions) -> tuple[Subject, ...]:
    """The models of the server of `options.url` that are asked for. Raises as `choose_local`, ServerError."""
    from seg_runtime import connect

    access = options.access
    with connect(options.url or "", api_key=access.api_key(), tls=access.tls()) as session:
        return _choose(options, session, session.models())


def _choose(options: RunOptions, contracts: ListedContracts, ready: Sequence[str]) -> tuple[Subject, ...]:
    chosen: dict[str, Subject] = {}
    for name in options.models or ("*",):
        found = _matching(options, contracts, ready, name)
        chosen |= {subject.name: subject for subject in found}
    wanted = [
        subject
        for subject in chosen.values()
        if not options.precisions or subject.spec.precision in options.precisions
    ]
    if not wanted:
        raise BadInputError(
            f"--precisions {','.join(options.precisions)} matches no model; there are: "
            + _words(chosen.values())
        )
    return tuple(wanted)


def _matching(
    options: RunOptions, contracts: ListedContracts, ready: Sequence[str], name: str
) -> Iterable[Subject]:
    """The subject of a name, or those that a pattern matches; only those that fit the suite."""
    if not any(character in name for character in "*?["):
        try:
            return [named_subject(contracts, name)]
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"{error}; {_what_there_is(contracts, ready)}") from error
    if not ready:
        raise RepositoryError(f"repository '{options.repo}' has no built model: publish one with seg-export")
    matching = _fitting(options, matching_subjects(contracts, ready, name))
    if not matching:
        there = readable_subjects(contracts, ready)
        if not there:
            raise BadInputError("no model to measure: publish one with seg-export")
        what = f"--models '{name}' matches no model" if name != "*" else "no model fits the suite"
        raise BadInputError(f"{what}; there are: {_words(_fitting(options, there) or there)}")
    return matching


def _fitting(options: RunOptions, subjects: Iterable[Subject]) -> list[Subject]:
    return [subject for subject in subjects if options.suite is None or subject.kind in options.suite.kinds]


def _what_there_is(contracts: ListedContracts, ready: Sequence[str]) -> str:
    if there := readable_subjects(contracts, ready):
        return f"what can be measured there: {_words(there)}"
    return "nothing there can be measured: publish a model with seg-export"


def _words(subjects: Iterable[Subject]) -> str:
    return ", ".join(f"{subject.name} ({subject.kind}, {subject.spec.precision})" for subject in subjects)
