"""How rows are called: where they ran, what computed, and by what they are told apart."""

from __future__ import annotations

from collections.abc import Iterable

from seg_bench.candidate import BASELINES, COMPILED, OFFICIAL_DECODER, OFFICIAL_EXPORT, PYTORCH
from seg_bench.records import Record
from seg_runtime.engines import AUTO

__all__ = [
    "PLACES",
    "baseline_name",
    "data_of",
    "engine_of",
    "engines_differ",
    "hd95_key",
    "hd95_of",
    "hd95_title",
    "is_baseline",
    "place_of",
    "ran_in",
    "row_key",
    "row_name",
]

PLACES = {"in-process": "in process", "grpc": "gRPC", "http": "HTTP", "shared-memory": "shared memory"}
_CALLED = {
    COMPILED: COMPILED,
    OFFICIAL_DECODER: "official decoder",
    OFFICIAL_EXPORT: "torchvision's export",
}


def is_baseline(record: Record) -> bool:
    """Whether a row is there to be compared with, and not to be deployed."""
    return record.runtime in BASELINES


def baseline_name(record: Record) -> str:
    return _CALLED.get(record.runtime, PYTORCH)


def place_of(record: Record) -> str:
    """Where a record was measured, in words; the baselines always run in process."""
    return baseline_name(record) if is_baseline(record) else PLACES.get(record.where, record.where)


def ran_in(record: Record) -> str:
    """The engine of a row in process, with its device unless that is the processor; else the place."""
    if not _runs_in_process(record):
        return place_of(record)
    device = (record.engine or "").partition(";")[0].partition(", ")[2]
    return f"{record.runtime}, {device}" if device not in ("", "CPU") else record.runtime


def engine_of(record: Record) -> str:
    """What computed, in words, with version and device where the record has them; says when "auto" chose."""
    chosen = " (auto)" if record.settings.engine == AUTO else ""
    return (record.engine or record.runtime) + chosen


def engines_differ(records: Iterable[Record]) -> bool:
    """Whether deployed models ran in more than one engine in process, so that rows must name theirs."""
    return len({engine_of(record) for record in records if _runs_in_process(record)}) > 1


def row_name(record: Record, engines_differ: bool) -> str:
    """Model and place, where engines differ the one that was asked for, and batches; for lines of text."""
    engine = record.settings.engine if engines_differ else None
    batch = f"batch {record.settings.batch}" if record.settings.batch > 1 else None
    return ", ".join(filter(None, (record.model.name, place_of(record), engine, batch)))


def data_of(record: Record) -> str:
    """The images that a row was measured on: figures of Dice can be compared within one such set only."""
    truth = f"truth: {record.data.truth}" if record.data.truth else None
    split = (record.data.split or "").removeprefix(f"{record.data.name}, ")
    about = "; ".join(filter(None, (split, truth)))
    return f"{record.data.name} ({about})" if about else record.data.name


def hd95_of(record: Record) -> tuple[str, str]:
    """Definition and unit of a record's HD95; those of earlier releases without accuracy."""
    found = record.accuracy
    return (found.hd95_definition, found.hd95_unit) if found else ("directed", "px")


def hd95_key(definition: str, unit: str) -> str:
    """Of the column.

    Example:
        >>> hd95_key("directed", "px"), hd95_key("pooled", "mm")
        ('hd95_px', 'hd95_pooled_mm')
    """
    return f"hd95_{unit}" if definition == "directed" else f"hd95_{definition}_{unit}"


def hd95_title(definition: str) -> str:
    """Of the column, without the unit."""
    return "HD95" if definition == "directed" else f"HD95 {definition}"


def row_key(record: Record) -> tuple[str, str, str, str, int, str]:
    """By what a row is found again: model, precision, place, engine asked for, batch and data set."""
    settings = record.settings
    # Records from before there were engines ran in what "auto" took then.
    engine = settings.engine or (AUTO if _runs_in_process(record) else "")
    return (
        record.model.name,
        record.model.precision,
        place_of(record),
        engine,
        settings.batch,
        record.data.name,
    )


def _runs_in_process(record: Record) -> bool:
    return record.where == "in-process" and not is_baseline(record)
