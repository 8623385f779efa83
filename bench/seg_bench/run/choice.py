"""Which models of a repository or server a run measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seg_bench.run.options import RunOptions
from seg_bench.run.subjects import Matching, Subject, matching_subjects, named_subject, readable_subjects
from seg_runtime.boundary import one_line
from seg_runtime.contracts import ListedContracts
from seg_runtime.errors import BadInputError, EdgesegError, ModelNotFoundError, RepositoryError
from seg_runtime.repository import Repository

__all__ = ["Choice", "choose_local", "choose_remote"]


@dataclass(frozen=True)
class Choice:
    """What is asked for.

    Attributes:
        subjects: what is measured.
        left_out: a line for each model that a pattern matches and that cannot be used.
    """

    subjects: tuple[Subject, ...]
    left_out: tuple[str, ...]


def choose_local(options: RunOptions, repository: Repository) -> Choice:
    """The models of a repository folder that are asked for, all of them built.

    Raises:
        ModelNotFoundError: a name that is not there.
        RepositoryError: nothing is built, or a model that is named is not.
        BadInputError: nothing matches; the message lists what there is.
    """
    choice = _choose(options, repository, repository.built_models())
    for subject in choice.subjects:
        for spec in subject.specs:
            repository.graph_path(spec.name)  # raises when it is not built
    return choice


def choose_remote(options: RunOptions) -> Choice:
    """The models of the server of `options.url` that are asked for. Raises as `choose_local`, ServerError."""
    from seg_runtime import connect

    access = options.access
    with connect(options.url or "", api_key=access.api_key(), tls=access.tls()) as session:
        return _choose(options, session, session.models())


def _choose(options: RunOptions, contracts: ListedContracts, ready: Sequence[str]) -> Choice:
    chosen: dict[str, Subject] = {}
    left_out: dict[str, EdgesegError] = {}
    for name in options.models or ("*",):
        found = _matching(options, contracts, ready, name)
        chosen |= {subject.name: subject for subject in found.subjects}
        left_out |= found.left_out
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
    lines = (f"left out '{name}': {one_line(error)}" for name, error in sorted(left_out.items()))
    return Choice(tuple(wanted), tuple(lines))


def _matching(options: RunOptions, contracts: ListedContracts, ready: Sequence[str], name: str) -> Matching:
    """The subject of a name, or those that a pattern matches; only those that fit the suite."""
    if not any(character in name for character in "*?["):
        try:
            return Matching((named_subject(contracts, name),), {})
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"{error}; {_what_there_is(contracts, ready)}") from error
    if not ready:
        raise RepositoryError(f"repository '{options.repo}' has no built model: publish one with seg-export")
    found = matching_subjects(contracts, ready, name)
    matching = _fitting(options, found.subjects)
    if not matching:
        if found.left_out and not found.subjects:
            raise next(iter(found.left_out.values()))
        there = readable_subjects(contracts, ready)
        if not there:
            raise BadInputError("no model to measure: publish one with seg-export")
        what = f"--models '{name}' matches no model" if name != "*" else "no model fits the suite"
        raise BadInputError(f"{what}; there are: {_words(_fitting(options, there) or there)}")
    return Matching(tuple(matching), found.left_out)


def _fitting(options: RunOptions, subjects: Iterable[Subject]) -> list[Subject]:
    return [subject for subject in subjects if options.suite is None or subject.kind in options.suite.kinds]


def _what_there_is(contracts: ListedContracts, ready: Sequence[str]) -> str:
    if there := readable_subjects(contracts, ready):
        return f"what can be measured there: {_words(there)}"
    return "nothing there can be measured: publish a model with seg-export"


def _words(subjects: Iterable[Subject]) -> str:
    return ", ".join(f"{subject.name} ({subject.kind}, {subject.spec.precision})" for subject in subjects)
