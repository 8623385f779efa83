"""Where the faults of `faults_files` happen: a folder, forked commands and a repository that is in order."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from microbench.damage import MARKER
from microbench.faults import Outcome
from microbench.forked import Ended, Forked
from seg_runtime.errors import RepositoryError
from seg_runtime.repository import CONFIG_FILE, Repository

__all__ = ["NEIGHBOUR", "SUBJECT", "FileOutcome", "Workplace", "outcome_of"]

SUBJECT, NEIGHBOUR = "scale", "other"
"""The models of the repository that is in order; only the first is damaged."""


@dataclass(frozen=True)
class FileOutcome(Outcome):
    """How one command ended; also the most memory that it took beyond its start, in MiB."""

    memory_mb: float = 0.0


class Workplace:
    """A folder with a repository of two models, and commands that are forked.

    Args:
        folder: empty.
        repo: a repository whose one model is taken, so that none needs to be exported; or None.
    """

    def __init__(self, folder: Path, repo: Path | None = None) -> None:
        self.folder = folder
        self.forked = Forked(folder)
        self._given = repo
        self._repo: Path | None = None
        self._bands: Path | None = None

    @property
    def repo(self) -> Path:
        """The repository that is in order: copy it before you damage it."""
        if self._repo is None:
            made = self._given or self._exported("exported")
            self._repo = self.folder / "repo"
            for name in (SUBJECT, NEIGHBOUR):
                _copy_model(made, self._repo, name)
        return self._repo

    @property
    def bands_repo(self) -> Path:
        """A repository with one model, `SUBJECT`, of images of four bands."""
        if self._bands is None:
            self._bands = self._exported("bands", "--channels", "4")
        return self._bands

    def new_folder(self, name: str) -> Path:
        """An empty folder, in place of one of the same name."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _exported(self, folder: str, *options: str) -> Path:
        repo = self.folder / folder
        network = ("--random", "--features", "4,8", "--size", "32", *options)
        ended = self.forked.command(
            "seg-export", "unet", *network, "--name", SUBJECT, "--repo", repo, limit_s=120.0
        )
        if ended.code:
            raise RepositoryError(f"no model to try faults on: {ended.complaint or ended.said}")
        return repo


def outcome_of(ended: Ended, failure: str = "", left: tuple[str, ...] = ()) -> FileOutcome:
    """The outcome of a command; whatever else failed, code of a file must not have been run."""
    if Path(MARKER).exists():
        Path(MARKER).unlink()
        failure = "code of the file was run"
    return FileOutcome(failure, ended.seconds, left, ended.memory_mb)


def _copy_model(source: Path, repo: Path, name: str) -> None:
    (model,) = Repository(source).models()
    shutil.copytree(source / model, repo / name)
    for config in (repo / name).rglob(CONFIG_FILE):
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace(f'name: "{model}"', f'name: "{name}"', 1), encoding="utf-8")
