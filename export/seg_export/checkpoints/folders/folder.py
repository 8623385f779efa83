"""What a folder of another library holds, and how its files are read."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from torch import nn

from seg_export.checkpoints.claims import Claims
from seg_runtime.errors import BadInputError, CheckpointError, MissingExtraError
from seg_runtime.plain_files import parse_json, read_text

Activation = Literal["sigmoid", "softmax", "none"]

_LONGEST = 110
"""Characters of an error of a library, some of which list all that it knows."""

__all__ = ["FolderModel", "in_short", "library", "part", "read_json"]


@dataclass(frozen=True, kw_only=True)
class FolderModel:
    """A network with its weights, and what its folder says of it.

    Attributes:
        kind: what it is, for people, for example "SegFormer of transformers".
        network: (N, C, H, W) float32, normalised as `claims` say, to (N, classes, h, w) logits.
        channels: of its input.
        claims: how images are prepared, as far as the folder says it.
        size_hw: (height, width) in pixels of the input; None where the folder does not say it.
        activation: "none" for a network that makes probabilities; None where the folder does not say it.
        output: index of the output that counts; None for a network that has one, or does not say it.
        weights: the file whose state dict is to be loaded into it; None where it has its weights.
        steps: what differs from how the library itself would do it, for people.
        unread: what is done to images and was not understood, for people.
    """

    kind: str
    network: nn.Module
    channels: int
    claims: Claims
    size_hw: tuple[int, int] | None = None
    activation: Activation | None = None
    output: int | None = None
    weights: Path | None = None
    steps: tuple[str, ...] = ()
    unread: str = ""

    def activation_with(self, wanted: Activation | None) -> Activation | None:
        """The folder's activation, or what was asked for. Raises BadInputError where it is both."""
        if wanted is not None and self.activation is not None:
            raise BadInputError(f"the folder says its activation, {self.activation}: leave --activation out")
        return self.activation or wanted

    def output_with(self, wanted: str | None) -> str | int | None:
        """The folder's output, or what was asked for. Raises BadInputError where it is both."""
        if wanted is not None and self.output is not None:
            raise BadInputError(f"the folder says its output, {self.output}: leave --output out")
        return wanted if self.output is None else self.output


def read_json(path: Path) -> Mapping[str, Any]:
    """The object of a JSON file. Raises CheckpointError."""
    try:
        document = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{path}' cannot be read as JSON: {in_short(error)}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"'{path}' holds a {type(document).__name__}, expected a JSON object")
    return document


def in_short(error: BaseException) -> str:
    """What an error of a library says, cut to what is read in one line.

    Example:
        >>> in_short(ValueError("no such\\n  encoder"))
        'no such encoder'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def part(document: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    """An object in the object of a file; empty where it is missing.

    Args:
        document: the object.
        key: its name in it.
        path: the file, for messages.

    Raises:
        CheckpointError: it is something else.

    Example:
        >>> part({"labels": {"road": 1}}, "labels", Path("dataset.json"))
        {'road': 1}
    """
    found = document.get(key)
    if found is not None and not isinstance(found, Mapping):
        raise CheckpointError(f"'{path}' has {found!r:.40} as {key}, expected an object")
    return found or {}


def library(name: str, package: str) -> ModuleType:
    """Import the library that a folder was made with.

    Args:
        name: of the module.
        package: what pip calls it.

    Raises:
        MissingExtraError: it is not installed; says how to install it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says to its developers
            return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(
            f"{package}, which made this folder,", "", f"pip install {package}"
        ) from error
