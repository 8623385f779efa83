"""Runs by device and by data set, and one table for several devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from seg_bench.records import Machine, Record, Run
from seg_bench.report.cells import ABSENT, Cell, Column, Table
from seg_bench.report.names import data_of, is_baseline, ran_in
from seg_bench.report.speed import times_as_fast
from seg_bench.tracked import split_name, tracked_name

__all__ = ["by_data", "by_device", "deployed", "device_of", "device_table", "fastest", "network_of"]


def device_of(machine: Machine) -> str:
    """What a device is called: its GPU, where it has one, and its processor.

    Example:
        >>> device_of(Machine("AMD EPYC 9554", 16, 128.0, "Linux", "3.11.2", {}, "NVIDIA H200, 580.65"))
        'NVIDIA H200, AMD EPYC 9554, 16 cores'
    """
    gpus = [gpu.split(",")[0] for gpu in (machine.gpu or "").split("; ") if gpu]
    return ", ".join(dict.fromkeys([*gpus, machine.cpu, f"{machine.cores} cores"]))


def by_device(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """The runs of each device, in the order in which devices come."""
    devices: dict[str, list[Run]] = {}
    for run in runs:
        devices.setdefault(device_of(run.machine), []).append(run)
    return devices


def by_data(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs with the records of each data set, in the order in which data sets come."""
    names = dict.fromkeys(data_of(record) for run in runs for record in run.records)
    return {name: [run for run in (_of_data(each, name) for each in runs) if run.records] for name in names}


def _of_data(run: Run, name: str) -> Run:
    return replace(run, records=tuple(record for record in run.records if data_of(record) == name))


def network_of(record: Record) -> str:
    """The name of a model without its precision, which ends it or stands before that of a tracked frame."""
    name, memories = split_name(record.model.name)
    network = name.removesuffix(f"_{record.model.precision}")
    return tracked_name(network, memories) if memories else network


def deployed(runs: Iterable[Run]) -> list[tuple[Run, Record]]:
    """The rows that were timed, have not failed, and are no baselines."""
    pairs = ((run, record) for run in runs for record in run.records)
    return [(run, it) for run, it in pairs if it.latency and not it.failure and not is_baseline(it)]


def fastest(pairs: Iterable[tuple[Run, Record]]) -> tuple[Run, Record]:
    """Of rows that were timed the one with the lowest p50."""
    return min(pairs, key=lambda pair: _p50_ms(pair[1]))


def device_table(runs: Sequence[Run]) -> Table | None:
    """One row per network and data set, one column per device: p50 of its fastest row, and that ratio.

    Returns:
        None where there is only one device.
    """
    devices = {device: deployed(its) for device, its in by_device(runs).items()}
    if len(devices) < 2:
        return None
    keys = dict.fromkeys(_key(record) for pairs in devices.values() for _, record in pairs)
    several = len({data for data, _ in keys}) > 1
    columns = [Column("model", "network", numeric=False), *map(_column, devices)]
    rows = []
    for data, network in keys:
        own = [[pair for pair in pairs if _key(pair[1]) == (data, network)] for pairs in devices.values()]
        found = [fastest(pairs) if pairs else None for pairs in own]
        record = next(pair[1] for pair in found if pair)
        random = " (random weights)" if record.model.weights == "random" else ""
        name = Cell(network + random + (f", {data}" if several else ""))
        rows.append(((name, *map(_cell, found)), record))
    return Table(tuple(columns), tuple(row for row, _ in rows), tuple(record for _, record in rows))


def _key(record: Record) -> tuple[str, str]:
    return data_of(record), network_of(record)


def _column(device: str) -> Column:
    return Column(device, device)


def _p50_ms(record: Record) -> float:
    return record.latency.percentile(50) if record.latency else float("inf")


def _cell(pair: tuple[Run, Record] | None) -> Cell:
    if pair is None:
        return Cell(ABSENT)
    p50_ms, ratio = _p50_ms(pair[1]), times_as_fast(*pair)
    figure = f"{p50_ms:.1f} ms" + (f", ×{ratio:.2f}" if ratio else "")
    return Cell(f"{figure} ({ran_in(pair[1])})", p50_ms, short=figure)
