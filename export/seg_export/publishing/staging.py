"""Work beside a model repository that becomes visible by one rename, or not at all.

The staging folder lies beside the repository (`.triton_repo.staging`): Triton takes every folder
inside a repository for a model, hidden ones too, and refuses to start over one without versions. Only where
no rename leads from there into the repository (it is a mount point of its own, or its parent is
read-only) does it lie inside, as `.staging`, and only while something is being published.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from seg_runtime.errors import RepositoryError
from seg_runtime.plain_files import real_path

__all__ = ["locked", "repository_errors", "staging_folder", "sync_tree"]


@contextlib.contextmanager
def repository_errors(repo: Path) -> Iterator[None]:
    """Turn the system's own errors into one RepositoryError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"no space left on the disk of model repository '{repo}': "
                "free some or choose another --repo; nothing was published"
            )
        else:
            message = (
                f"cannot write to model repository '{repo}' ({error.strerror or error}): "
                "choose a folder that you may write to with --repo"
            )
        raise RepositoryError(message) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's exclusive lock, waiting for it; the system frees it when the process dies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def staging_folder(repo: Path) -> Iterator[Path]:
    """A new, empty folder from which a rename leads into the repository; removed at the end.

    The repository itself is created when it is missing, and removed again when nothing came of it.
    What a killed process left behind is removed first; folders of live processes are not, so
    several may work at the same time.

    Raises:
        RepositoryError: the repository cannot be written to, or any system error inside the block.
    """
    with repository_errors(repo):
        created = not repo.exists()
        repo.mkdir(parents=True, exist_ok=True)
        with locked(repo):
            root = _staging_root(real_path(repo))
            _remove_stale(root)
            folder = root / uuid.uuid4().hex
            folder.mkdir()
            in_use = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(in_use, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            # Under the lock: nobody may look through the root while a folder in it is vanishing.
            with locked(repo), contextlib.suppress(OSError):
                os.close(in_use)
                shutil.rmtree(folder, ignore_errors=True)
                root.rmdir()
                if created:
                    # Fails, as it should, when something was published.
                    repo.rmdir()


def sync_tree(folder: Path) -> None:
    """Flush a folder with everything in it to the disk, so that a rename never outruns its contents."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def sync(path: Path) -> None:
    """Flush one file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _staging_root(repo: Path) -> Path:
    """The folder beside the repository, or the one inside when no rename leads in from there."""
    beside = repo.parent / f".{repo.name}.staging"
    try:
        beside.mkdir(exist_ok=True)
        _try_rename(beside, repo)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.rmdir()
        if error.errno not in (errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        inside = repo / ".staging"
        inside.mkdir(exist_ok=True)
        _try_rename(inside, repo)
        return inside
    return beside


def _try_rename(root: Path, repo: Path) -> None:
    """Move an empty file into the repository, where Triton ignores files, and remove it."""
    name = f".{uuid.uuid4().hex}"
    (root / name).touch()
    try:
        (root / name).rename(repo / name)
    except OSError:
        (root / name).unlink()
        raise
    (repo / name).unlink()


def _remove_stale(root: Path) -> None:
    """Remove staging folders whose process is gone: nobody holds their lock."""
    for entry in root.iterdir():
        if not entry.is_dir():
            entry.unlink()
            continue
        descriptor = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(entry, ignore_errors=True)
        finally:
            os.close(descriptor)
