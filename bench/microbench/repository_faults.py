"""Malformed model repositories through every command that reads one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import cv2

from microbench.forked import LIMIT_S, Ended
from microbench.repository_damage import REPOSITORY_DAMAGES
from microbench.workplace import NEIGHBOUR, SUBJECT, FileOutcome, Workplace, outcome_of

__all__ = ["try_repositories"]

_DATA = Path("tests/data/montgomery")


def try_repositories(kind: str, place: Workplace, tries: int) -> Iterator[FileOutcome]:
    """Damage a model, and run four commands on its repository: each is a try.

    Args:
        kind: a key of `REPOSITORY_DAMAGES`.
        place: where.
        tries: how many repositories.
    """
    for seed in range(tries):
        folder = place.new_folder("work")
        shutil.copytree(place.repo, folder / "repo")
        _, damage = REPOSITORY_DAMAGES[kind]
        damage(folder / "repo" / SUBJECT, Random(f"{kind} {seed}"), seed)
        for name, command in _COMMANDS.items():
            outcome = command(place, folder)
            yield outcome if not outcome.failure else _named(outcome, f"repository {seed}, {name}")


def _named(outcome: FileOutcome, where: str) -> FileOutcome:
    return FileOutcome(f"{where}: {outcome.failure}", outcome.seconds, outcome.left, outcome.memory_mb)


def _segment(place: Workplace, folder: Path) -> FileOutcome:
    """A mask, or a refusal that leaves nothing."""
    out = place.new_folder("out")
    image = next((_DATA / "images").glob("*_0003_*.png"))
    ended = _run(place, "seg-run", "segment", image, "--repo", folder / "repo", "-m", SUBJECT, "-o", out)
    mask = out / f"{image.stem}_mask.png"
    if ended.code:
        failure = "wrote results of a model that it refused" if list(out.iterdir()) else ""
    else:
        failure = "" if cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) is not None else "no mask"
    return outcome_of(ended, ended.complaint or failure)


def _models(place: Workplace, folder: Path) -> FileOutcome:
    """The model that is in order is listed, whatever lies next to it."""
    ended = _run(place, "seg-run", "models", "--repo", folder / "repo", "--json")
    names = [row.get("name") or row.get("model") for row in json.loads(ended.printed or "[]")]
    failure = "" if NEIGHBOUR in names else f"model '{NEIGHBOUR}' is not listed"
    return outcome_of(ended, ended.complaint or failure)


def _check(place: Workplace, folder: Path) -> FileOutcome:
    options = ("--repo", folder / "repo", "--compute-capability", "86")
    ended = _run(place, "seg-export", "check", SUBJECT, *options)
    return outcome_of(ended, ended.complaint)


def _bench(place: Workplace, folder: Path) -> FileOutcome:
    """No record, or one of a model that runs."""
    options = (
        "--repeats",
        "1",
        "--warm-up",
        "1",
        "--limit",
        "1",
        "--no-energy",
        "--out",
        folder / "run.json",
    )
    ended = _run(
        place, "seg-bench", "run", "--data", _DATA, "--repo", folder / "repo", "--models", SUBJECT, *options
    )
    left = tuple(entry.name for entry in folder.iterdir() if entry.name not in ("repo", "run.json"))
    return outcome_of(ended, ended.complaint, left)


def _run(place: Workplace, program: str, *arguments: object) -> Ended:
    return place.forked.command(program, *arguments, limit_s=LIMIT_S)


_COMMANDS: dict[str, Callable[[Workplace, Path], FileOutcome]] = {
    "seg-run segment": _segment,
    "seg-run models": _models,
    "seg-export check": _check,
    "seg-bench run": _bench,
}
