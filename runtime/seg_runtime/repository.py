"""Reads a Triton model repository on disk: which models, which version, what contract.

    triton_repo/unet_lung/config.pbtxt     serves version 2: replaced as a whole by rename
    triton_repo/unet_lung/1/model.onnx     an earlier version, kept for rollback
    triton_repo/unet_lung/1/config.pbtxt   the configuration that version was published with
    triton_repo/unet_lung/2/...

`config.pbtxt` names the one version that is served, so replacing it is the single step that makes
a version current, and everything before that step is invisible.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from seg_runtime.errors import ModelNotFoundError, RepositoryError
from seg_runtime.plain_files import check_whole, read_text
from seg_runtime.spec import ModelSpec

__all__ = ["CONFIG_FILE", "GRAPH_FILE", "Repository", "model_not_found", "version_file", "version_folders"]

CONFIG_FILE = "config.pbtxt"
GRAPH_FILE = "model.onnx"

_MOST_CONFIG = 2**19
"""Bytes of a `config.pbtxt`: one with a thousand class names has 30 thousand. Parsing is slow."""

_VERSION = re.compile("[1-9][0-9]{0,17}")


class Repository:
    """A model repository folder.

    Raises:
        RepositoryError: the folder is missing or not a folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise RepositoryError(
                f"model repository '{self.path}' is not a folder: publish a model with seg-export"
            )

    def models(self) -> tuple[str, ...]:
        """Names of all models that have a configuration, sorted; built or not."""
        return tuple(sorted(entry.parent.name for entry in self.path.glob(f"[!.]*/{CONFIG_FILE}")))

    def built_models(self) -> tuple[str, ...]:
        """Those of `models` that have a version on disk; no contract is read."""
        return tuple(filter(self.versions, self.models()))

    def readable_specs(self) -> tuple[ModelSpec, ...]:
        """The contracts of all models but the broken ones, which are in nobody's way until they are named."""
        specs = []
        for name in self.models():
            with suppress(RepositoryError):
                specs.append(self.spec(name))
        return tuple(specs)

    def versions(self, model: str) -> tuple[int, ...]:
        """Versions of a model that are on disk, ascending."""
        return tuple(sorted(version_folders(self._folder(model))))

    def spec(self, model: str) -> ModelSpec:
        """The contract of the served version. Raises ModelNotFoundError or RepositoryError."""
        # tritonclient's protobuf messages take 0.2 s to import.
        from seg_runtime.model_config import from_text

        path = self._folder(model) / CONFIG_FILE
        try:
            text = read_text(path, _MOST_CONFIG)
        except (OSError, UnicodeDecodeError) as error:
            raise RepositoryError(f"cannot read {path}: {error}") from error
        try:
            spec = from_text(text)
        except RepositoryError as error:
            raise RepositoryError(f"{path}: {error}") from error
        if spec.name != model:
            raise RepositoryError(
                f"{path} is named '{spec.name}' but its folder is '{model}': rename one of them"
            )
        return spec

    def graph_path(self, model: str) -> Path:
        """`model.onnx` of the served version. Raises RepositoryError when there is none."""
        spec = self.spec(model)
        if spec.steps:
            parts = " and ".join(f"'{step.model}'" for step in spec.steps)
            raise RepositoryError(f"model '{model}' is an ensemble of {parts}: it has no graph of its own")
        return version_file(spec, self.version_folder(spec), GRAPH_FILE)

    def version_folder(self, spec: ModelSpec) -> Path:
        """Where the files of this version lie, if it is built."""
        return self.path / spec.name / str(spec.version)

    def _folder(self, model: str) -> Path:
        if model not in self.models():
            raise model_not_found(model, self.models(), f"in '{self.path}'")
        return self.path / model


def version_folders(model: Path) -> list[int]:
    """Versions in a model's folder; Triton's names of them are ASCII digits without a leading zero."""
    return [
        int(entry.name)
        for entry in model.iterdir()
        if _VERSION.fullmatch(entry.name) is not None and entry.is_dir()
    ]


def version_file(spec: ModelSpec, folder: Path, name: str) -> Path:
    """A file of a version folder. Raises RepositoryError when it is not there, empty or full of holes."""
    path = folder / name
    if not path.is_file() or not path.stat().st_size:
        what = "empty" if path.is_file() else "missing"
        raise RepositoryError(
            f"version {spec.version} of model '{spec.name}' is not built: {path} is {what}; "
            "publish it with seg-export"
        )
    try:
        check_whole(path)
    except OSError as error:
        raise RepositoryError(f"cannot read {path}: {error}") from error
    return path


def model_not_found(model: str, known: Iterable[str], where: str) -> ModelNotFoundError:
    """The error for an unknown name, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(model, names, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(names) or 'no models at all'}"
    return ModelNotFoundError(f"no model '{model}' {where}; {hint}")
