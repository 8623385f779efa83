"""From PACKAGE.MODULE:FACTORY to the module that it makes."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from seg_runtime.errors import BadInputError
from seg_runtime.plain_files import parse_json

__all__ = ["make_module", "parse_arguments"]

_EXAMPLE = "for example my_project.models:make_unet"


def make_module(factory: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Import a factory, from the current directory as well as from installed packages, and call it.

    Args:
        factory: "PACKAGE.MODULE:FACTORY", of a function or class that returns a module, or of a module.
        arguments: its keyword arguments.

    Raises:
        BadInputError: no such module or name (with the nearest one), or it cannot be imported or called, or
            makes something else.

    Example:
        >>> make_module("torch.nn:Conv2d", {"in_channels": 3, "out_channels": 2, "kernel_size": 1})
        Conv2d(3, 2, kernel_size=(1, 1), stride=(1, 1))
    """
    if not re.fullmatch(r"[^\W\d]\w*(\.\w+)*:[^\W\d]\w*(\.\w+)*", factory):
        raise BadInputError(f"'{factory}' names no factory: expected PACKAGE.MODULE:FACTORY, {_EXAMPLE}")
    module, _, name = factory.partition(":")
    made = _attribute(_import(module), module, name)
    if isinstance(made, nn.Module):
        if arguments:
            raise BadInputError(f"'{factory}' is a module already, which takes no --args: leave them out")
        return made
    if not callable(made):
        raise BadInputError(f"'{factory}' is a {type(made).__name__}: expected a function or class to call")
    try:
        with _quiet():
            network = made(**(arguments or {}))
    except (Exception, SystemExit) as error:
        shown = ", ".join(f"{key}={value!r}" for key, value in (arguments or {}).items())
        raise BadInputError(f"{factory}({shown}) raised {_reason(error)}") from error
    if not isinstance(network, nn.Module):
        raise BadInputError(f"'{factory}' returned a {type(network).__name__}, expected a torch.nn.Module")
    return network


def parse_arguments(text: str | None) -> dict[str, Any]:
    """Keyword arguments from a JSON object. Raises BadInputError."""
    try:
        arguments = parse_json(text or "{}")
    except ValueError as error:
        raise BadInputError(
            f"--args '{text:.80}' is not JSON ({error}): expected an object such as '{{\"classes\": 3}}'"
        ) from error
    if not isinstance(arguments, dict):
        raise BadInputError(f"--args '{text}': expected a JSON object such as '{{\"classes\": 3}}'")
    return arguments


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off stdout what a user's code prints, and drop what libraries warn their developers of."""
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield


def _import(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        # As `python -m` does.
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        with _quiet():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise BadInputError(f"'{name}' cannot be imported: {_reason(error)}") from error
        raise BadInputError(
            f"there is no module '{error.name}' in '{here}' or among the installed packages"
            + _near(error.name, (path.stem for path in Path(here).iterdir()))
        ) from error
    except (Exception, SystemExit) as error:
        raise BadInputError(f"'{name}' cannot be imported: {_reason(error)}") from error


def _attribute(module: ModuleType, name: str, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise BadInputError(f"'{name}' has no '{path}'" + _near(part, dir(found)))
        found = getattr(found, part)
    return found


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ": check its name"


def _reason(error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
