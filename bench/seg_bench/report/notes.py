"""What a reader needs to judge the numbers: command, machine, versions, data, settings, noise."""

from __future__ import annotations

from collections.abc import Sequence

from seg_bench.article import ARTICLE_SOURCE, article_row
from seg_bench.records import Record, Run
from seg_bench.report.class_table import classes_of
from seg_bench.report.columns import worst_decile
from seg_bench.report.names import engine_of, engines_differ, hd95_of, row_name
from seg_bench.report.speed import speed_lines

__all__ = ["legend_lines", "run_facts"]

_SAM_LEGEND = (
    "Encode, decode: the two models of a SAM alone, travel included, the decoder with all prompts of an "
    "image; the official decoder takes one prompt at a time, after our encoder, and upscales inside."
)
_OBJECT_LEGEND = (
    "Mask AP, AP50: COCO's, over all objects the model may return; from the contract's score on: count "
    "error, mean of |found - true| per image, Dice of objects, of those found; Dice, IoU and HD95 of their "
    "union."
)

_DICE_LEGEND = "Dice, IoU and HD95: mean ± standard deviation over images"
_PIXELS_LEGEND = "HD95 in pixels of the original image"
_MM_LEGEND = "HD95 (mm) by the pixel spacing of the images"
_POOLED_LEGEND = (
    "HD95 pooled: one 95th percentile of the distances in both directions; not to be compared with HD95, the "
    "larger of one of each."
)
_DECILE_LEGEND = "Dice, worst 10 %: mean over the tenth of the images with the lowest Dice, rounded up."
_CORRUPTED_LEGEND = "Dice, corrupted: mean over all corruptions of the same images."
_CLASS_LEGEND = (
    "Classes: Dice and IoU are means over the images in which ground truth or mask has the class, HD95 over "
    "those where both have it; images: those whose ground truth has it. Means leave the background out; mIoU "
    "is of the pixels of all images together, with it. Elsewhere all classes but the background count as one."
)
_LATENCY_LEGEND = (
    "Latency: the whole call, from image in memory to mask in its frame; percentiles of the raw samples. ≥: "
    "too few calls for this percentile; it lies above the value (97.5 % confidence)."
)
_ENERGY_LEGEND = (
    "Energy: of the whole device while the row was timed: mean power times the time that an image took."
)
_MEMORY_LEGEND = "Peak memory: in process, of the measuring process; on a server, of all its processes."


def run_facts(run: Run) -> list[tuple[str, str]]:
    """(name, value) pairs that describe a run, in reading order."""
    machine = run.machine
    memory = f", {machine.memory_gb:g} GiB" if machine.memory_gb is not None else ""
    facts = [
        ("command", run.command),
        (
            "measured",
            run.started_utc + ("" if run.complete else " (interrupted: fewer calls than asked for)"),
        ),
        ("machine", f"{machine.cpu}, {machine.cores} cores{memory}, {machine.system}"),
        ("GPU", machine.gpu or "none"),
        (
            "versions",
            ", ".join([f"Python {machine.python}", *(f"{k} {v}" for k, v in machine.packages.items())]),
        ),
        ("data", "; ".join(dict.fromkeys(_data(record) for record in run.records))),
        ("settings", _settings(run.records)),
        *_engines(run.records),
        *(
            ("prompts", prompts)
            for prompts in dict.fromkeys(r.settings.prompts for r in run.records)
            if prompts
        ),
        ("noise", run.note),
        *_broken_and_noisy(run.records),
    ]
    comparison = "; ".join(speed_lines(run.records))
    return facts + ([("speed", comparison)] if comparison else [])


def legend_lines(runs: Sequence[Run]) -> list[str]:
    """How to read the columns: a line for each kind of them that these runs have anything in."""
    records = [record for run in runs for record in run.records]
    conditions = [condition for record in records for condition in record.conditions or ()]
    distances = {hd95_of(record) for record in records}
    decile = any(record.accuracy and worst_decile(record.accuracy.dice) is not None for record in records)
    lines = (
        (True, _dice_legend({unit for _, unit in distances})),
        (any(definition == "pooled" for definition, _ in distances), _POOLED_LEGEND),
        (decile, _DECILE_LEGEND),
        (any(it.kind == "corruption" for it in conditions), _CORRUPTED_LEGEND),
        (any(record.accuracy and record.accuracy.objects for record in records), _OBJECT_LEGEND),
        (any(classes_of(record) for record in records), _CLASS_LEGEND),
        (True, _LATENCY_LEGEND),
        (any(record.settings.prompts for record in records), _SAM_LEGEND),
        (any(record.energy for record in records), _ENERGY_LEGEND),
        (any(record.peak_memory_of == "server" for record in records), _MEMORY_LEGEND),
        (any(article_row(record) for record in records), f"Article: {ARTICLE_SOURCE}."),
    )
    return [line for holds, line in lines if holds]


def _dice_legend(units: set[str]) -> str:
    said = [line for unit, line in (("px", _PIXELS_LEGEND), ("mm", _MM_LEGEND)) if unit in units]
    return "; ".join([_DICE_LEGEND, *said]) + "."


def _broken_and_noisy(records: Sequence[Record]) -> list[tuple[str, str]]:
    differ = engines_differ(records)
    said = [("failed", record, record.failure) for record in records]
    said += [("noisy row", record, record.noise) for record in records]
    return [(kind, f"{row_name(record, differ)}: {line}") for kind, record, line in said if line]


def _data(record: Record) -> str:
    split = f" ({record.data.split})" if record.data.split else ""
    return f"{record.data.name}{split}, {record.data.images} images"


def _engines(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What computed, where the table has no column for it."""
    engines = dict.fromkeys(engine_of(record) for record in records if record.engine)
    return [("engines", "; ".join(engines))] if engines and not engines_differ(records) else []


def _settings(records: Sequence[Record]) -> str:
    """Each distinct setting once, after the runtimes that it holds for."""
    runtimes: dict[str, dict[str, None]] = {}
    for record in records:
        runtimes.setdefault(_setting(record), {})[record.runtime] = None
    return "; ".join(f"{', '.join(names)}: {setting}" for setting, names in runtimes.items())


def _setting(record: Record) -> str:
    settings = record.settings
    threads = f"{settings.threads} threads" if settings.threads else "threads chosen by the runtime"
    text = f"batch {settings.batch}, {threads}, {settings.warm_up} warm-up and {settings.repeats} timed calls"
    text += ", channels last" if settings.channels_last else ""
    return text + (f", {settings.allocator}" if settings.allocator else "")
