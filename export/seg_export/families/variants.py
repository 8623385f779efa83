"""Official sizes of a network, and others that constructor arguments in JSON describe: of SAM and of SAM2."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_export.checkpoints.download import OnBytes, cache_folder, download
from seg_runtime.errors import BadInputError, CheckpointError
from seg_runtime.plain_files import parse_json, read_text

__all__ = ["Variants"]


@dataclass(frozen=True)
class Variants:
    """The sizes of a family.

    Attributes:
        title: of the family in messages, for example "SAM2".
        sizes: constructor arguments of the official sizes by their names; the rest is the default.
        official: address and SHA-256 of their weights, by the same names.
        build: the constructor.
    """

    title: str
    sizes: Mapping[str, Mapping[str, Any]]
    official: Mapping[str, tuple[str, str]]
    build: Callable[..., Any]

    def arguments(self, name: str) -> dict[str, Any]:
        """Constructor arguments of an official size. Raises BadInputError."""
        if name not in self.sizes:
            near = difflib.get_close_matches(name, self.sizes, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadInputError(
                f"unknown {self.title} variant '{name}': {hint}known are {', '.join(self.sizes)}; "
                "describe another one with --variant-config FILE.json"
            )
        return dict(self.sizes[name])

    def read(self, path: Path) -> dict[str, Any]:
        """Constructor arguments from a JSON file, alone or under the key "constructor".

        Raises:
            BadInputError: the file is missing, is no JSON, or names other arguments than the constructor's.
        """
        try:
            document = parse_json(read_text(path))
        except (OSError, ValueError) as error:
            raise BadInputError(f"cannot read the variant configuration {path}: {error}") from error
        arguments = document.get("constructor", document) if isinstance(document, dict) else None
        if not isinstance(arguments, dict):
            raise BadInputError(f"{path}: expected a JSON object of constructor arguments")
        parameters = inspect.signature(self.build).parameters
        unknown = [name for name in arguments if name not in parameters]
        required = (name for name, parameter in parameters.items() if parameter.default is parameter.empty)
        missing = [name for name in required if name not in arguments]
        if unknown or missing:
            problem = f"does not know '{unknown[0]}'" if unknown else f"needs '{missing[0]}'"
            raise BadInputError(
                f"{path}: a {self.title} {problem}; its arguments are {', '.join(parameters)}"
            )
        return arguments

    def download(self, name: str, *, folder: Path | None = None, on_bytes: OnBytes | None = None) -> Path:
        """Fetch an official checkpoint, or go on with a download that broke off, and check its hash.

        Args:
            name: of the size.
            folder: where it goes; None for edgeseg's cache folder. One that is there is not fetched again.
            on_bytes: called with the bytes at hand and the total.

        Raises:
            BadInputError: an unknown size, or the server refuses the address.
            ServerUnavailableError: nobody answers.
            EdgesegError: the file cannot be written or has another hash.
        """
        self.arguments(name)
        url, sha256 = self.official[name]
        path = (folder or cache_folder()) / url.rpartition("/")[2]
        return download(url, path, sha256=sha256, on_bytes=on_bytes, option="--checkpoint").path

    def complete(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments with the constructor's defaults, and lists for tuples."""
        parameters = inspect.signature(self.build).parameters
        defaults = {name: item.default for name, item in parameters.items()}
        return {name: _plain(value) for name, value in (defaults | dict(arguments)).items()}

    def named(self, arguments: Mapping[str, Any]) -> str | None:
        """The official size that agrees with arguments, of which some may be missing; None for another."""
        for name, sizes in self.sizes.items():
            complete = self.complete(sizes)
            if all(complete.get(each) == _plain(value) for each, value in arguments.items()):
                return name
        return None

    def check(self, path: Path, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another size, and say which it is.

        Args:
            path: of the checkpoint.
            wanted: the arguments that were asked for.
            found: those that the checkpoint has, as far as it shows them.

        Raises:
            CheckpointError: they differ.
        """
        asked = self.complete(wanted)
        different = [name for name, value in found.items() if asked.get(name) != _plain(value)]
        if not different:
            return
        name, given = self.named(asked), self.named(found)
        which = f"the {name} that was asked for" if name else f"the {self.title} that was described"
        what = f"is a {given}" if given else "is of another size"
        advice = f"pass --variant {given}" if given else "leave out --variant, or correct --variant-config"
        details = ", ".join(
            f"{each} {_plain(found[each])} instead of {asked.get(each)}" for each in different[:3]
        )
        raise CheckpointError(f"checkpoint {path} {what}, not {which}: {details}; {advice}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
