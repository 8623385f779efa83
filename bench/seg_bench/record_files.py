"""Files of records: written whole, and read with every field checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from seg_bench.json_fields import from_json, to_json
from seg_bench.records import SAM_STAGES, SCHEMA, STAGES, Record, Run
from seg_runtime.boundary import attempt
from seg_runtime.errors import BadInputError, EdgesegError
from seg_runtime.plain_files import parse_json, read_text

__all__ = ["READABLE", "is_record", "read_run", "read_runs", "readable_runs", "write_run"]

READABLE = ("edgeseg-bench/1", SCHEMA)
"""Schemas that `read_run` takes: what the first has is a part of the second."""


def write_run(run: Run, path: Path) -> None:
    """Write a run, replacing an earlier file as a whole. Raises BadInputError when it cannot."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(to_json(run), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise BadInputError(f"cannot write the records to '{path}': {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # it was renamed, or its folder could not even be made
            part.unlink()


def read_run(path: Path) -> Run:
    """Read and check one file. Raises BadInputError naming the file and the field."""
    try:
        value = parse_json(read_text(path))
    except OSError as error:
        raise BadInputError(f"cannot read '{path}': {error.strerror or error}") from error
    except ValueError as error:
        raise BadInputError(f"'{path}' is not JSON ({error}): give files that seg-bench run wrote") from error
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema not in READABLE:
        raise BadInputError(
            f"'{path}': the field 'schema' is {schema!r}, expected {' or '.join(map(repr, READABLE))}: "
            "give files that seg-bench run wrote"
        )
    try:
        run = from_json(Run, value)
        for number, record in enumerate(run.records):
            _check(record, f"records[{number}]")
    except BadInputError as error:
        raise BadInputError(f"'{path}': {error}") from error
    return run


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """Read files, and every record file (*.json with our schema) inside folders, oldest run first.

    Other JSON files inside a folder are left alone. Raises BadInputError as `read_run`, and when
    there is nothing to read.
    """
    return sorted(map(read_run, _record_files(paths)), key=lambda run: run.started_utc)


def readable_runs(paths: Iterable[Path]) -> tuple[list[Run], list[EdgesegError]]:
    """As `read_runs`, and the errors of the files that cannot be read, which do not stop the others.

    Raises:
        BadInputError: there is nothing to read, or none of it can be.
    """
    read = [attempt(partial(read_run, file)) for file in _record_files(paths)]
    errors = [each for each in read if isinstance(each, EdgesegError)]
    runs = [each for each in read if isinstance(each, Run)]
    if not runs:
        raise errors[0]
    return sorted(runs, key=lambda run: run.started_utc), errors


def _record_files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        files += (
            [entry for entry in sorted(path.glob("*.json")) if is_record(entry)] if path.is_dir() else [path]
        )
    if not files:
        raise BadInputError("no record files found: make one with  seg-bench run --out results/run.json")
    return files


def is_record(path: Path) -> bool:
    """Whether a file begins as a record of ours does."""
    try:
        head = read_text(path)[:200]
    except (OSError, UnicodeDecodeError):
        return False
    return any(f'"{schema}"' in head for schema in READABLE)


def _check(record: Record, where: str) -> None:
    accuracy, latency = record.accuracy, record.latency
    if accuracy and accuracy.images is not None and len(accuracy.images) != len(accuracy.dice):
        raise BadInputError(f"'{where}.accuracy.images' must have one name per value")
    for number, condition in enumerate(record.conditions or ()):
        if not len(condition.images) == len(condition.dice) > 0:
            raise BadInputError(f"'{where}.conditions[{number}]' must have one value per image")
    if accuracy and not len(accuracy.dice) == len(accuracy.iou) == len(accuracy.hd95) > 0:
        raise BadInputError(f"the lists of '{where}.accuracy' must have one value per image")
    if record.agreement and not len(record.agreement.images) == len(record.agreement.mask_iou) > 0:
        raise BadInputError(f"'{where}.agreement' must have one value per image")
    stages = [getattr(latency, stage) for stage in (*STAGES, *SAM_STAGES, "transfer")] if latency else []
    if latency and len({len(samples) for samples in stages if samples is not None} | {0}) != 2:
        raise BadInputError(f"the lists of '{where}.latency' must have one value per call")
