"""Sets of weights in a file: found in what surrounds them, one chosen, names freed of prefixes.

Trainers save weights in many ways: alone, under a name next to an optimiser's state, twice (as trained and
averaged), with the prefixes of what wrapped the network. What is read here is not what a name is but where
tensors are, so that a container nobody thought of is unwrapped like those that are common.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from seg_runtime.errors import CheckpointError

__all__ = ["Weights", "choose", "first_three", "read_weights", "weights_in"]

T = TypeVar("T")

_DEPTH = 8
"""How deep containers are looked into, and prefixes are taken off."""

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What DataParallel, torch.compile, FSDP and checkpointing put into names, in front or in the middle."""

_OPTIMISERS = {"optim", "optims", "optimizer", "optimizers", "optimiser", "optimisers"}
_JUDGES = {"criterion", "criterions", "loss", "losses", "metric", "metrics", "lpips", "perceptual"}
"""Words in names of what trains or judges a network and is no part of it: "val_loss", "loss_fn", but not
"asymmetric" or "loss_model"."""

_COUNTED = ("total_ops", "total_params")
"""Buffers that the profiler thop leaves in every layer."""

_AVERAGED = {"ema", "swa", "shadow", "averaged", "average"}


@dataclass(frozen=True)
class Weights:
    """One set of weights in a file.

    Attributes:
        name: the way to it, for example "checkpoint.model"; "" for the file itself.
        tensors: by their names.
        steps: what was done to get at them, for people.
        left_out: other weights of the same mapping that may be part of the network.
    """

    name: str
    tensors: dict[str, torch.Tensor]
    steps: tuple[str, ...] = ()
    left_out: tuple[str, ...] = field(default=(), repr=False)

    @property
    def title(self) -> str:
        """How `--weights` calls it where no other set has a name like it."""
        return self.name.rpartition(".")[2] or "raw"


def weights_in(document: Any) -> list[Weights]:
    """Every set of weights in what a file holds, be it nested in mappings and lists.

    Example:
        >>> [each.name for each in weights_in({"epoch": 3, "model": {"conv.weight": torch.ones(2, 2)}})]
        ['model']
    """
    found = list(_walk(document, (), ()))
    # A matrix next to a state dict, such as a confusion matrix, has a name without a dot.
    return [each for each in found if any("." in name for name in each.tensors)] or found


def choose(found: Sequence[Weights], wanted: str | None, path: Path) -> Weights:
    """The one set of several that `--weights` names.

    Args:
        found: at least one.
        wanted: "ema" for averaged weights, "raw" for the others, or a name in the file; None for no choice.
        path: the file, for messages.

    Raises:
        CheckpointError: several and no choice, or a choice of none of them.
    """
    if len(found) == 1:
        return found[0]
    chosen = found if wanted is None else _named(found, wanted)
    if len(chosen) == 1:
        return chosen[0]
    titles = _titles(chosen or found)
    if wanted is not None and not chosen:
        raise CheckpointError(f"checkpoint {path} has no weights '{wanted}': it has {first_three(titles)}")
    raise CheckpointError(
        f"checkpoint {path} holds {len(titles)} sets of weights: choose one with "
        + " or ".join(f"--weights {title}" for title in titles[:3])
        + ("" if len(titles) <= 3 else " and so on")
    )


def read_weights(
    document: Any,
    path: Path,
    wanted: str | None,
    read: Callable[[Weights], T | None],
    prepare: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict,
) -> tuple[T, Weights] | None:
    """What `read` makes of the weights in a file, under the names that it knows.

    Args:
        document: what the file holds.
        path: the file, for messages.
        wanted: see `choose`.
        read: gives None for tensors that it does not know. It gets them as they are, then without the names
            of wrappers, then without each prefix.
        prepare: of the chosen tensors, before they are read.

    Returns:
        What it made and of which weights; None when it knows none of them.

    Raises:
        CheckpointError: no weights, several and no choice, or a choice that has no effect.
    """
    found = weights_in(document)
    if not found:
        raise CheckpointError(_nothing(document, path))
    chosen = choose(found, wanted, path)
    chosen = Weights(chosen.name, prepare(chosen.tensors), chosen.steps)
    results = _results(chosen, read)
    if not results:
        return None
    result, weights = results[0]
    if len(results) > 1:
        weights = choose([weights for _, weights in results], wanted, path)
        result = next(each for each, candidate in results if candidate is weights)
    elif weights.left_out and (wanted is None or not f".{weights.name}".endswith(f".{wanted}")):
        others = f"{len(weights.left_out)} tensors more ({_cut(weights.left_out[0])})"
        raise CheckpointError(
            f"checkpoint {path} has {others} than '{weights.title}': pass --weights {weights.name} to leave "
            "them out"
        )
    elif wanted is not None and len(found) == 1 and not weights.left_out:
        raise CheckpointError(
            f"--weights {wanted} has no effect: checkpoint {path} holds one set of weights; leave it out"
        )
    return result, weights


def first_three(items: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return ", ".join(items[:3]) + more


def _walk(value: Any, way: tuple[str, ...], passed: tuple[str, ...]) -> Iterator[Weights]:
    """Mappings that hold weights, with the keys that lead to them and those that were passed."""
    items = _items(value)
    if len(way) > _DEPTH or not items or "param_groups" in items:
        return
    tensors = {name: each for name, each in items.items() if isinstance(each, torch.Tensor)}
    if any(map(_is_weight, tensors.values())):
        others = (*passed, *(name for name in items if name not in tensors))
        yield Weights(".".join(way), tensors, _unwrapped(way, others))
    for name, each in items.items():
        if not _names_training(name):
            others = (*passed, *(other for other in items if other != name))
            yield from _walk(each, (*way, name), others)


def _items(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(name): each for name, each in value.items()}
    if isinstance(value, list | tuple):
        return {str(index): each for index, each in enumerate(value)}
    return {}


def _is_weight(tensor: torch.Tensor) -> bool:
    """Whether a tensor is more than a number or a list of them, such as the weights of classes."""
    return tensor.is_floating_point() and sum(size > 1 for size in tensor.shape) > 1


def _unwrapped(way: tuple[str, ...], left_out: tuple[str, ...]) -> tuple[str, ...]:
    steps = (f"unwrapped '{'.'.join(way)}'",) if way else ()
    return (*steps, f"left out {first_three(list(map(_cut, left_out)))}") if left_out else steps


def _results(weights: Weights, read: Callable[[Weights], T | None]) -> list[tuple[T, Weights]]:
    """What is known of the weights as they are, else without wrappers, else under each prefix."""
    network = _without_training(weights)
    freed = _without_wrappers(network)
    # A layer may be called as a loss is.
    whole = _without_wrappers(weights)
    readings = {id(each): each for each in (network, weights, freed, whole)}
    for reading in readings.values():
        if (result := read(reading)) is not None:
            return [(result, reading)]
    for base in {id(each): each for each in (freed, whole)}.values():
        under = ((read(reading), reading) for reading in _under_prefixes(base))
        if results := [(result, reading) for result, reading in under if result is not None]:
            return results
    return []


def _without_training(weights: Weights) -> Weights:
    """Weights less losses, metrics and what a profiler counted."""
    left_out = [name for name, tensor in weights.tensors.items() if _is_training(name, tensor)]
    if not left_out:
        return weights
    kept = {name: tensor for name, tensor in weights.tensors.items() if name not in left_out}
    return Weights(weights.name, kept, (*weights.steps, _left_out_text(left_out)))


def _is_training(name: str, tensor: torch.Tensor) -> bool:
    """Also a number that belongs to no layer, such as how many networks an average is of."""
    lone = "." not in name and tensor.ndim == 0
    return lone or name.endswith(_COUNTED) or any(_names_training(part) for part in name.split("."))


def _names_training(name: str) -> bool:
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    while words and words[-1] in ("state", "states", "dict", "dicts", "fn", "func", "function"):
        words.pop()
    return bool(words) and (not _OPTIMISERS.isdisjoint(words) or words[-1] in _JUDGES)


def _without_wrappers(weights: Weights) -> Weights:
    """Weights without the names of wrappers, wherever they are in a name."""
    freed, taken = {}, Counter[str]()
    for name, tensor in weights.tensors.items():
        parts = name.split(".")
        freed[".".join(part for part in parts if part not in _WRAPPERS)] = tensor
        if wrappers := [part for part in parts if part in _WRAPPERS]:
            taken[".".join(wrappers)] += 1
    if not taken or len(freed) < len(weights.tensors):
        return weights
    steps = tuple(_stripped_text(wrapper, count) for wrapper, count in taken.items())
    return Weights(weights.name, freed, (*weights.steps, *steps))


def _under_prefixes(weights: Weights) -> Iterator[Weights]:
    """The tensors below each dotted prefix, less it."""
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in weights.tensors.items():
        parts = name.split(".")
        for depth in range(1, min(len(parts), _DEPTH)):
            prefix = ".".join(parts[:depth])
            groups.setdefault(prefix, {})[".".join(parts[depth:])] = tensor
    for prefix, tensors in groups.items():
        others = {
            name: tensor for name, tensor in weights.tensors.items() if not name.startswith(f"{prefix}.")
        }
        steps = (*weights.steps, _stripped_text(prefix, len(tensors)))
        steps = (*steps, _left_out_text(list(others))) if others else steps
        left_out = tuple(name for name, tensor in others.items() if _is_weight(tensor))
        yield Weights(f"{weights.name}.{prefix}".lstrip("."), tensors, steps, left_out)


def _stripped_text(prefix: str, count: int) -> str:
    return f"stripped the prefix '{prefix}.' of {count} tensor{'s' if count > 1 else ''}"


def _left_out_text(names: list[str]) -> str:
    return f"left out {len(names)} tensor{'s' if len(names) > 1 else ''}: {first_three(names)}"


def _titles(found: Sequence[Weights]) -> list[str]:
    """Short names, or whole ones where short ones are alike."""
    short = [each.title for each in found]
    return short if len(set(short)) == len(short) else [each.name or "raw" for each in found]


def _named(found: Sequence[Weights], wanted: str) -> list[Weights]:
    """Those of that name or part of a name; of averaged weights or others for "ema" and "raw"."""
    exact = [each for each in found if wanted in (each.name, each.title)]
    partly = [
        each for each in found if f".{wanted}." in f".{each.name}." or wanted.startswith(f"{each.name}.")
    ]
    if exact or partly or wanted not in ("ema", "raw"):
        return exact or partly
    return [each for each in found if _is_averaged(each.name) == (wanted == "ema")]


def _is_averaged(name: str) -> bool:
    return not _AVERAGED.isdisjoint(re.split(r"[._]", name.lower()))


def _nothing(document: Any, path: Path) -> str:
    items = _items(document)
    if "param_groups" in items or any(_names_training(name) for name in items):
        return (
            f"checkpoint {path} holds an optimiser's state and no weights: name the file with the model's "
            "state_dict"
        )
    other = next((name for name, value in items.items() if not isinstance(value, torch.Tensor)), None)
    if not isinstance(document, Mapping):
        return f"checkpoint {path} holds a {type(document).__name__}, expected a dict of tensors"
    what = f"holds no weights: '{_cut(other)}' is no tensor" if other else "holds no weights"
    return f"checkpoint {path} {what}; expected a dict of tensors"


def _cut(name: str) -> str:
    return name if len(name) <= 32 else f"{name[:14]}...{name[-15:]}"
