"""One file with the models of a repository and labelled images, for a machine that has neither.

A bundle is a tar archive without compression. Its first member, `bundle.json`, names every other one with its
SHA-256; nothing else is taken from it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any

from seg_runtime.engines.engine_file import ENGINE_FILE
from seg_runtime.errors import BadInputError, RepositoryError
from seg_runtime.hashing import file_sha256
from seg_runtime.repository import CONFIG_FILE, Repository
from seg_runtime.spec import ModelSpec

__all__ = ["Bundle", "open_bundle", "write_bundle"]

SCHEMA = "edgeseg-bundle/1"
_MANIFEST = "bundle.json"
_REPO, _DATA = "triton_repo", "data"
_PIECE = 1 << 20
_MOST_MANIFEST = 16 * 2**20

OnFile = Callable[[str, int, int], object]
"""Called with (name of a file, files done, files in all)."""


@dataclass(frozen=True)
class Bundle:
    """What `open_bundle` unpacked.

    Attributes:
        repo: the model repository.
        data: folders of labelled images.
        edgeseg: version of the package that wrote the bundle.
    """

    repo: Path
    data: tuple[Path, ...]
    edgeseg: str


def write_bundle(
    path: Path,
    repo: Path,
    models: Sequence[str] = (),
    data: Sequence[Path] = (),
    on_file: OnFile = lambda name, done, total: None,
) -> int:
    """Pack the served versions of models, and folders of images, into one file.

    Args:
        path: the bundle; replaced as a whole.
        repo: the model repository.
        models: names; empty for all that are built. An ensemble brings the models that it runs.
        data: folders of labelled images.
        on_file: called as each file is packed.

    Returns:
        Size of the bundle in bytes.

    Raises:
        RepositoryError: a model is not there or not built, or serves an engine, which is of one machine.
        BadInputError: no images in a folder, two folders of one name, or the file cannot be written.

    Example:
        >>> write_bundle(Path("jetson.tar"), Path("triton_repo"), ["unet_lung"])  # doctest: +SKIP
        7842304
    """
    files = dict(_model_files(Repository(repo), models)) | dict(_data_files(data))
    hashes = {name: file_sha256(source) for name, source in files.items()}
    manifest = json.dumps(
        {"schema": SCHEMA, "edgeseg": version("edgeseg"), "files": hashes}, indent=1
    ).encode()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(part, "w") as archive:
            _add(archive, _MANIFEST, len(manifest), io.BytesIO(manifest))
            for done, (name, source) in enumerate(files.items()):
                on_file(name, done, len(files))
                with source.open("rb") as content:
                    _add(archive, name, source.stat().st_size, content)
        part.replace(path)
    except OSError as error:
        raise BadInputError(f"cannot write the bundle to '{path}': {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return path.stat().st_size


def open_bundle(path: Path, folder: Path, on_file: OnFile = lambda name, done, total: None) -> Bundle:
    """Unpack a bundle and check every file of it.

    Args:
        path: what `write_bundle` wrote.
        folder: where its content goes; replaced, and only if all of it is right.
        on_file: called as each file is unpacked.

    Raises:
        BadInputError: no bundle, one of another version, or a file that is damaged, missing or not listed.
    """
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        with _archive(path) as archive:
            manifest = _manifest(path, archive)
            _unpack(path, archive, manifest["files"], part, on_file)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    except OSError as error:
        raise BadInputError(f"cannot unpack '{path}' to '{folder}': {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    data = folder / _DATA
    return Bundle(
        folder / _REPO, tuple(sorted(data.iterdir())) if data.is_dir() else (), str(manifest["edgeseg"])
    )


def _model_files(repository: Repository, models: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Name in the archive and source of each file of the served versions."""
    for spec in _with_steps(repository, models):
        folder = repository.version_folder(spec)
        if (folder / ENGINE_FILE).exists():
            raise RepositoryError(
                f"model '{spec.name}' serves an engine, which runs on this machine only: return to its graph "
                f"with  seg-export rollback {spec.name}  or name other models with --models"
            )
        yield f"{_REPO}/{spec.name}/{CONFIG_FILE}", repository.path / spec.name / CONFIG_FILE
        for source in sorted(folder.rglob("*")):
            if source.is_file():
                yield f"{_REPO}/{source.relative_to(repository.path).as_posix()}", source


def _with_steps(repository: Repository, models: Sequence[str]) -> list[ModelSpec]:
    """Contracts of the models and of those that they run, each once."""
    names = list(models or repository.built_models())
    if not names:
        raise RepositoryError(
            f"repository '{repository.path}' has no built model: publish one with seg-export"
        )
    specs: dict[str, ModelSpec] = {}
    while names:
        spec = repository.spec(names.pop(0))
        if not spec.steps:
            repository.graph_path(spec.name)  # Raises when it is not built.
        specs.setdefault(spec.name, spec)
        names += [step.model for step in spec.steps if step.model not in specs]
    return list(specs.values())


def _data_files(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    seen: set[str] = set()
    for folder in folders:
        name = folder.resolve().name
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            raise BadInputError(f"no files in '{folder}': give a folder of labelled images")
        if name in seen:
            raise BadInputError(f"two folders of images are called '{name}': rename one of them")
        seen.add(name)
        for path in files:
            yield f"{_DATA}/{name}/{path.relative_to(folder).as_posix()}", path


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    """Without owner and time, so that the same models give the same bundle."""
    member = tarfile.TarInfo(name)
    member.size = size
    archive.addfile(member, content)


@contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:") as archive:
            yield archive
    except tarfile.TarError as error:
        raise BadInputError(
            f"'{path}' is no bundle or is cut short ({error}): write it with  seg-export bundle"
        ) from error


def _manifest(path: Path, archive: tarfile.TarFile) -> dict[str, Any]:
    first = archive.next()
    content = archive.extractfile(first) if first and first.name == _MANIFEST and first.isreg() else None
    if first is None or content is None or first.size > _MOST_MANIFEST:
        raise BadInputError(f"'{path}' is no bundle: write one with  seg-export bundle")
    try:
        manifest = json.loads(content.read())
        schema = manifest["schema"]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInputError(f"'{path}' has a damaged {_MANIFEST}: copy the bundle again") from error
    if schema != SCHEMA:
        raise BadInputError(
            f"'{path}' is a bundle of the form '{schema}', and this edgeseg reads '{SCHEMA}': write it with "
            "the version of edgeseg that is installed here"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(map(_is_plain, files)):
        raise BadInputError(f"'{path}' has a damaged {_MANIFEST}: copy the bundle again")
    return {"edgeseg": manifest.get("edgeseg", "?"), "files": files}


def _is_plain(name: str) -> bool:
    """Whether a name stays inside the folder."""
    parts = PurePosixPath(name).parts
    return bool(parts) and parts[0] in (_REPO, _DATA) and ".." not in parts and "\\" not in name


def _unpack(
    path: Path, archive: tarfile.TarFile, files: dict[str, str], folder: Path, on_file: OnFile
) -> None:
    missing = dict(files)
    folder.mkdir(parents=True)
    while member := archive.next():
        wanted = missing.pop(member.name, None)
        content = archive.extractfile(member) if member.isreg() else None
        if wanted is None or content is None:
            raise BadInputError(f"'{path}' has a file that it does not list, '{member.name}': copy it again")
        on_file(member.name, len(files) - len(missing) - 1, len(files))
        target = folder / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if _copy(content, target) != wanted:
            raise BadInputError(f"'{member.name}' in '{path}' is damaged: copy the bundle again")
    if missing:
        raise BadInputError(f"'{path}' lacks '{next(iter(missing))}': copy the bundle again")


def _copy(content: IO[bytes], target: Path) -> str:
    """SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while piece := content.read(_PIECE):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()
