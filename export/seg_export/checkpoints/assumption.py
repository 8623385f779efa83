"""One value that the weights of a plain state dict leave open, and those that families have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from seg_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from seg_export.checkpoints.types import Checkpoint

__all__ = [
    "BUILT",
    "Assumption",
    "arguments_of",
    "channels",
    "classes",
    "fixed",
    "input_size",
    "size_text",
    "stated",
    "statistics",
    "text",
]

BUILT = "Checkpoint.arguments"


@dataclass(frozen=True)
class Assumption:
    """One value that an export used.

    Attributes:
        what: for example "mean".
        value: as text, for example "0.485".
        origin: "assumed" for a default, "file" for what names and shapes of the weights say, "option" for
            what the user said, "family" for what is the same for all of a family.
        set_by: the option that sets it, or the field of `Checkpoint`; "" where none does.
    """

    what: str
    value: str
    origin: Literal["assumed", "file", "option", "family"]
    set_by: str = ""


def stated(checkpoint: Checkpoint) -> Callable[[str, str, str, str], Assumption]:
    """Makes assumptions of what `Claims` can say: its name there, what it is, the value and the option."""

    def assumption(name: str, what: str, value: str, option: str) -> Assumption:
        return Assumption(what, value, "option" if name in checkpoint.stated else "assumed", option)

    return assumption


def statistics(checkpoint: Checkpoint) -> Iterable[Assumption]:
    """Mean and std."""
    claim = stated(checkpoint)
    yield claim("mean", "mean", text(checkpoint.preprocessing.mean), "--mean")
    yield claim("std", "std", text(checkpoint.preprocessing.std), "--std")


def fixed(what: str, value: str) -> Assumption:
    """What is the same for all of a family."""
    return Assumption(what, value, "family")


def channels(spec: ModelSpec) -> Assumption:
    """How many."""
    return Assumption("channels", f"{spec.channels}", "file")


def classes(checkpoint: Checkpoint, more: str = "") -> Iterable[Assumption]:
    """How many, as the weights say, and their names."""
    names = checkpoint.class_names
    yield Assumption("classes", f"{len(names)}{more}", "file")
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    yield stated(checkpoint)("class_names", "class names", shown, "--class-names")


def input_size(spec: ModelSpec, given: bool) -> Assumption:
    """Of a network that takes many sizes; whether one was asked for."""
    return Assumption("input size", size_text(spec), "option" if given else "assumed", "--size")


def arguments_of(builder: Callable[..., Any], checkpoint: Checkpoint) -> Callable[..., Assumption]:
    """Reads arguments that leave no trace in weights: where the checkpoint has one, an option said so."""
    defaults = inspect.signature(builder).parameters

    def argument(name: str, what: str, set_by: str, default: Any = None) -> Assumption:
        if name in checkpoint.arguments:
            return Assumption(what, text(checkpoint.arguments[name]), "option", set_by)
        value = defaults[name].default if default is None else default
        return Assumption(what, text(value), "assumed", set_by)

    return argument


def text(value: Any) -> str:
    """Numbers as people write them."""
    return ", ".join(f"{item:g}" for item in value) if isinstance(value, list | tuple) else f"{value:g}"


def size_text(spec: ModelSpec) -> str:
    """For example "512x512"."""
    return f"{spec.input_size_hw[0]}x{spec.input_size_hw[1]}"
