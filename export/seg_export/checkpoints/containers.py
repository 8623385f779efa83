"""Sets of weights in a file: one of those that are found is chosen, its names freed of prefixes.

Trainers save weights in many ways: alone, under a name next to an optimiser's state, twice (as trained and
averaged), with the prefixes of what wrapped the network. What is read here is not what a name is but where
tensors are, so that a container nobody thought of is unwrapped like those that are common.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from seg_export.checkpoints.nested import (
    DEPTH,
    Weights,
    first_three,
    is_weight,
    items_of,
    names_training,
    shortened,
    unnamed_in,
    weights_in,
)
from seg_runtime.errors import CheckpointError

__all__ = ["choose", "read_weights"]

T = TypeVar("T")

_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""What DataParallel, torch.compile, FSDP and checkpointing put into names, in front or in the middle."""

_COUNTED = ("total_ops", "total_params")
"""Buffers that the profiler thop leaves in every layer."""

_AVERAGED = {"ema", "swa", "shadow", "averaged", "average"}


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
        CheckpointError: no weights or none with names, several and no choice, or a choice without effect.
    """
    found, unnamed = weights_in(document), unnamed_in(document)
    asked_for = [] if wanted is None or _named(found, wanted) else _named(unnamed, wanted)
    if asked_for or (unnamed and not found):
        raise CheckpointError(_without_names(asked_for or unnamed, path))
    if not found:
        raise CheckpointError(_nothing(document, path))
    chosen = choose(found, wanted, path)
    steps = (f"left out '{each.name}': {len(each.tensors)} tensors without names" for each in unnamed)
    chosen = Weights(chosen.name, prepare(chosen.tensors), (*chosen.steps, *steps))
    results = _results(chosen, read)
    if not results:
        return None
    result, weights = results[0]
    if len(results) > 1:
        weights = choose([weights for _, weights in results], wanted, path)
        result = next(each for each, candidate in results if candidate is weights)
    elif weights.left_out and (wanted is None or not f".{weights.name}".endswith(f".{wanted}")):
        others = f"{len(weights.left_out)} tensors more ({shortened(weights.left_out[0])})"
        raise CheckpointError(
            f"checkpoint {path} has {others} than '{weights.title}': pass --weights {weights.name} to leave "
            "them out"
        )
    elif wanted is not None and len(found) == 1 and not weights.left_out:
        raise CheckpointError(
            f"--weights {wanted} has no effect: checkpoint {path} holds one set of weights; leave it out"
        )
    return result, weights


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
    return lone or name.endswith(_COUNTED) or any(names_training(part) for part in name.split("."))


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
        for depth in range(1, min(len(parts), DEPTH)):
            prefix = ".".join(parts[:depth])
            groups.setdefault(prefix, {})[".".join(parts[depth:])] = tensor
    for prefix, tensors in groups.items():
        others = {
            name: tensor for name, tensor in weights.tensors.items() if not name.startswith(f"{prefix}.")
        }
        steps = (*weights.steps, _stripped_text(prefix, len(tensors)))
        steps = (*steps, _left_out_text(list(others))) if others else steps
        left_out = tuple(name for name, tensor in others.items() if is_weight(tensor))
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


def _without_names(unnamed: Sequence[Weights], path: Path) -> str:
    name, count = unnamed[0].name, len(unnamed[0].tensors)
    where = f" in '{shortened(name)}'" if name else ""
    return (
        f"checkpoint {path} holds {count} tensors{where} without the names of their layers: copy them into "
        "the network (torch_ema: copy_to) and save its state_dict"
    )


def _nothing(document: Any, path: Path) -> str:
    items = items_of(document)
    if "param_groups" in items or any(names_training(name) for name in items):
        return (
            f"checkpoint {path} holds an optimiser's state and no weights: name the file with the model's "
            "state_dict"
        )
    if any("_packed_params" in name for name in items):
        return f"checkpoint {path} is quantised: name the weights in float"
    other = next((name for name, value in items.items() if not isinstance(value, torch.Tensor)), None)
    if not isinstance(document, Mapping):
        return f"checkpoint {path} holds a {type(document).__name__}, expected a dict of tensors"
    kinds = {str(value.dtype).removeprefix("torch.") for value in items.values() if other is None}
    if kinds and not any("float" in kind for kind in kinds):
        return (
            f"checkpoint {path} holds tensors of {', '.join(sorted(kinds))} and no weights: save those of "
            "the float model"
        )
    what = f"holds no weights: '{shortened(other)}' is no tensor" if other else "holds no weights"
    return f"checkpoint {path} {what}; expected a dict of tensors"
