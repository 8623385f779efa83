"""Where weights are in what a file holds: mappings and lists are searched until tensors appear."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch

from seg_runtime.errors import CheckpointError

__all__ = [
    "DEPTH",
    "Weights",
    "first_three",
    "is_weight",
    "items_of",
    "names_training",
    "shortened",
    "unnamed_in",
    "weights_in",
]

_MOST_SETS = 1000
"""Of weights in one file; containers that hold each other many times have any number."""

DEPTH = 8
"""How deep containers are looked into, and prefixes are taken off."""

_LINE = 120
"""Characters of a list in a message, unless its first item is longer."""

_OPTIMISERS = {"optim", "optims", "optimizer", "optimizers", "optimiser", "optimisers"}
_JUDGES = {"criterion", "criterions", "loss", "losses", "metric", "metrics", "lpips", "perceptual"}
"""Words in names of what trains or judges a network and is no part of it: "val_loss", "loss_fn", but not
"asymmetric" or "loss_model"."""


@dataclass(frozen=True)
class Weights:
    """One set of weights in a file.

    Attributes:
        name: the way to it, for example "checkpoint.model"; "" for the file itself.
        tensors: by their names.
        steps: what was done to get at them, for people.
        left_out: other weights of the same mapping that may be part of the network.
        unnamed: whether they are a list, and their names only the places in it.
    """

    name: str
    tensors: dict[str, torch.Tensor]
    steps: tuple[str, ...] = ()
    left_out: tuple[str, ...] = field(default=(), repr=False)
    unnamed: bool = False

    @property
    def title(self) -> str:
        """How `--weights` calls it where no other set has a name like it."""
        return self.name.rpartition(".")[2] or "raw"


def weights_in(document: Any) -> list[Weights]:
    """Every set of weights in what a file holds, be it nested in mappings and lists.

    Raises:
        CheckpointError: there are over a thousand.

    Example:
        >>> [each.name for each in weights_in({"epoch": 3, "model": {"conv.weight": torch.ones(2, 2)}})]
        ['model']
    """
    found = [each for each in _sets(document) if not each.unnamed]
    # A matrix next to a state dict, such as a confusion matrix, has a name without a dot.
    return [each for each in found if any("." in name for name in each.tensors)] or found


def unnamed_in(document: Any) -> list[Weights]:
    """Every list of tensors, such as torch_ema's: without names nobody knows which layer each is of.

    Example:
        >>> [each.name for each in unnamed_in({"ema": {"shadow_params": [torch.ones(2, 2)]}})]
        ['ema.shadow_params']
    """
    return [each for each in _sets(document) if each.unnamed]


def first_three(items: Sequence[str]) -> str:
    """The first three, or those of them that fit a line, and how many more there are.

    Example:
        >>> first_three(["a", "b", "c", "d"]), first_three(["a" * 100, "b" * 100])[98:]
        ('a, b, c and 1 more', 'aa and 1 more')
    """
    shown = list(items[:3])
    while len(shown) > 1 and len(", ".join(shown)) > _LINE:
        shown.pop()
    more = f" and {len(items) - len(shown)} more" if len(items) > len(shown) else ""
    return ", ".join(shown) + more


def _sets(document: Any) -> list[Weights]:
    found = list(islice(_walk(document, (), (), {}), _MOST_SETS + 1))
    if len(found) > _MOST_SETS:
        raise CheckpointError(
            f"the file holds over {_MOST_SETS} sets of weights: save one state_dict() alone"
        )
    return found


def _walk(
    value: Any, way: tuple[str, ...], passed: tuple[str, ...], barren: dict[int, int]
) -> Iterator[Weights]:
    """Mappings that hold weights, with the keys that lead to them and those that were passed.

    `barren` has the containers in which nothing was found, and how deep they lay: containers may hold one
    another many times, and are not searched again where they lie as deep.
    """
    if len(way) > DEPTH or barren.get(id(value), DEPTH + 1) <= len(way):
        return
    items = items_of(value)
    if not items or "param_groups" in items:
        return
    nothing = True
    for weights in _within(items, way, passed, barren):
        nothing = False
        yield weights
    if nothing:
        barren[id(value)] = len(way)


def _within(
    items: dict[str, Any], way: tuple[str, ...], passed: tuple[str, ...], barren: dict[int, int]
) -> Iterator[Weights]:
    """What `_walk` finds in what a container holds."""
    tensors = {name: each for name, each in items.items() if isinstance(each, torch.Tensor)}
    if any(map(is_weight, tensors.values())):
        others = (*passed, *(name for name in items if name not in tensors))
        unnamed = all(name.isdecimal() for name in tensors)
        yield Weights(".".join(way), tensors, _unwrapped(way, others), unnamed=unnamed)
    for name, each in items.items():
        if isinstance(each, Mapping | list | tuple) and not names_training(name):
            others = (*passed, *(other for other in items if other != name))
            yield from _walk(each, (*way, name), others, barren)


def items_of(value: Any) -> dict[str, Any]:
    """What a mapping holds by name, or a list by place; nothing for all else."""
    if isinstance(value, Mapping):
        return {str(name): each for name, each in value.items()}
    if isinstance(value, list | tuple):
        return {str(index): each for index, each in enumerate(value)}
    return {}


def is_weight(tensor: torch.Tensor) -> bool:
    """Whether a tensor is more than a number or a list of them, such as the weights of classes."""
    return tensor.is_floating_point() and sum(size > 1 for size in tensor.shape) > 1


def _unwrapped(way: tuple[str, ...], left_out: tuple[str, ...]) -> tuple[str, ...]:
    steps = (f"unwrapped '{'.'.join(way)}'",) if way else ()
    return (*steps, f"left out {first_three(list(map(shortened, left_out)))}") if left_out else steps


def names_training(name: str) -> bool:
    """Whether a name is that of an optimiser, a loss or a metric."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    while words and words[-1] in ("state", "states", "dict", "dicts", "fn", "func", "function"):
        words.pop()
    return bool(words) and (not _OPTIMISERS.isdisjoint(words) or words[-1] in _JUDGES)


def shortened(name: str) -> str:
    """A name that leaves room for others in a line."""
    return name if len(name) <= 32 else f"{name[:14]}...{name[-15:]}"
