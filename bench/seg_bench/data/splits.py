"""Fixed train / validation / test splits as JSON files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import numpy as np

from seg_bench.data.classes import ClassSample
from seg_bench.data.nuclei import InstanceSample
from seg_bench.data.samples import Sample
from seg_runtime.errors import BadInputError
from seg_runtime.plain_files import parse_json, read_text

__all__ = ["Split", "load_split", "make_split", "montgomery_split", "nuclei_split", "save_split", "select"]

Named = TypeVar("Named", bound=Sample | InstanceSample | ClassSample)


@dataclass(frozen=True)
class Split:
    """Sample names per part, each sorted; no name is in two parts."""

    data_set: str
    seed: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [*self.train, *self.val, *self.test]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadInputError(
                f"split '{self.data_set}' lists {twice[0]} more than once: a sample has one part"
            )


def make_split(
    names: Iterable[str],
    *,
    data_set: str,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    stratum: Callable[[str], str] = lambda name: "",
) -> Split:
    """Split names at random, each stratum in the same proportions.

    The result depends on the set of names and the seed, never on the order or the file system.

    Args:
        stratum: the group of a name, for example its finding.
    """
    if not 0 <= val_fraction + test_fraction < 1:
        raise BadInputError(
            f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing to train on: "
            "their sum must be below 1"
        )
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[stratum(name)].append(name)
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    generator = np.random.default_rng(seed)
    for _, group in sorted(groups.items()):
        order = [group[position] for position in generator.permutation(len(group))]
        test_end = round(test_fraction * len(group))
        val_end = test_end + round(val_fraction * len(group))
        parts["test"] += order[:test_end]
        parts["val"] += order[test_end:val_end]
        parts["train"] += order[val_end:]
    return Split(data_set, seed, **{part: tuple(sorted(members)) for part, members in parts.items()})


def save_split(split: Split, path: Path) -> None:
    """Write the split as indented JSON, one name per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(split), indent=1) + "\n", encoding="utf-8")


def load_split(path: Path) -> Split:
    """Read a split file.

    Raises:
        BadInputError: the file is missing, not JSON, lacks a key or lists a name twice.
    """
    try:
        document = parse_json(read_text(path))
    except FileNotFoundError:
        raise BadInputError(f"no split file {path}: make one with  seg-bench data split") from None
    except OSError as error:
        raise BadInputError(f"cannot read split file {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise BadInputError(f"split file {path} is not JSON ({error}): make it again") from error
    wanted = [field.name for field in fields(Split)]
    missing = [key for key in wanted if key not in document] if isinstance(document, dict) else wanted
    if missing:
        raise BadInputError(
            f"split file {path} lacks {', '.join(missing)}: expected the keys {', '.join(wanted)}"
        )
    parts = {part: tuple(document[part]) for part in ("train", "val", "test")}
    return Split(str(document["data_set"]), int(document["seed"]), **parts)


def nuclei_split() -> Split:
    """The split that the shipped Mask R-CNN was trained with, of 222 of the Data Science Bowl's images."""
    return load_split(Path(str(files("seg_bench.data") / "splits" / "nuclei.json")))


def montgomery_split() -> Split:
    """The split that the shipped lung U-Net was trained with: 78 train, 11 validation, 22 test."""
    return load_split(Path(str(files("seg_bench.data") / "splits" / "montgomery.json")))


def select(samples: Iterable[Named], names: Iterable[str]) -> tuple[Named, ...]:
    """Pick samples by name, in the order of `names`.

    Raises:
        BadInputError: the data folder lacks a name of the split.
    """
    by_name = {sample.name: sample for sample in samples}
    wanted = list(names)
    missing = [name for name in wanted if name not in by_name]
    if missing and len(missing) == len(wanted) > 1:
        raise BadInputError(
            f"the data folder has none of the split's {len(wanted)} samples, such as {missing[0]}: it has "
            "another split, which --split-file names (seg-bench train writes split.json)"
        )
    if missing:
        raise BadInputError(
            f"the data folder lacks {len(missing)} of the split's {len(wanted)} samples, first "
            f"{missing[0]}: give the folder that the split was made for"
        )
    return tuple(by_name[name] for name in wanted)
