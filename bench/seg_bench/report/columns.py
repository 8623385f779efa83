"""The columns of the table, in reading order, and how each is filled from a record."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import product

from seg_bench.article import ArticleFigures, article_row
from seg_bench.metrics import HD95_DEFINITIONS, pooled_mean_iou, summary
from seg_bench.records import HD95_UNITS, Condition, Energy, ObjectAccuracy, Record, Run
from seg_bench.report.cells import (
    ABSENT,
    DATA,
    PAGES,
    Cell,
    Column,
    number_cell,
    percentile_cell,
    summary_cell,
)
from seg_bench.report.class_table import mean_dice
from seg_bench.report.grouping import device_of
from seg_bench.report.names import data_of, engine_of, hd95_key, hd95_of, hd95_title, place_of, ran_in
from seg_bench.report.speed import times_as_fast

__all__ = [
    "COLUMNS",
    "FEWEST_IMAGES",
    "NAMES",
    "MakeCell",
    "data_set_columns",
    "hd95_columns",
    "worst_decile",
]

MakeCell = Callable[[Run, Record], Cell]
FEWEST_IMAGES = 10
"""Images from which on a tenth of them is at least one."""


def worst_decile(dice: Sequence[float]) -> float | None:
    """As `summary.worst_decile`; None for less than ten images."""
    return summary.worst_decile(dice) if len(dice) >= FEWEST_IMAGES else None


def data_set_columns(records: Sequence[Record]) -> list[tuple[Column, MakeCell]]:
    """A column of Dice for every further data set that any record was scored on."""
    conditions = [condition for record in records for condition in record.conditions or ()]
    names = dict.fromkeys(condition.name for condition in conditions if condition.kind == "data set")
    return [(Column(f"dice_on_{name}", f"Dice on {name}", interval=True), _data_set(name)) for name in names]


def hd95_columns(records: Sequence[Record]) -> list[tuple[Column, MakeCell]]:
    """A column of HD95 for every definition and unit that any record has: two do not mix."""
    used = {hd95_of(record) for record in records if record.accuracy} or {("directed", "px")}
    return [
        (Column(hd95_key(*kind), hd95_title(kind[0]), kind[1], interval=True), _hd95(*kind))
        for kind in product(HD95_DEFINITIONS, HD95_UNITS)
        if kind in used
    ]


def _hd95(definition: str, unit: str) -> MakeCell:
    cell = _summary("hd95_summary", ".2f")
    return lambda run, record: cell(run, record) if hd95_of(record) == (definition, unit) else Cell(ABSENT)


def _text(pick: Callable[[Run, Record], str]) -> MakeCell:
    return lambda run, record: Cell(pick(run, record) or ABSENT)


def _number(pick: Callable[[Record], float | None], form: str) -> MakeCell:
    return lambda run, record: number_cell(pick(record), form)


def _summary(pick: str, form: str) -> MakeCell:
    def cell(run: Run, record: Record) -> Cell:
        if record.model.weights == "random":
            random = Cell("random weights", short="random")
            return random if pick == "dice_summary" else Cell(ABSENT)
        return summary_cell(getattr(record.accuracy, pick), form) if record.accuracy else Cell(ABSENT)

    return cell


def _dice(pick: Callable[[Record], float | None]) -> MakeCell:
    """A Dice or IoU of trained weights; those of random ones say nothing."""
    return lambda run, record: number_cell(None if record.model.weights == "random" else pick(record), ".4f")


def _mean_iou(record: Record) -> float | None:
    confusion = record.accuracy.confusion if record.accuracy else None
    return pooled_mean_iou(confusion) if confusion else None


def _worst_decile(record: Record) -> float | None:
    return worst_decile(record.accuracy.dice) if record.accuracy else None


def _data_set(name: str) -> MakeCell:
    def cell(run: Run, record: Record) -> Cell:
        trained = record.model.weights != "random"
        for condition in (record.conditions or ()) if trained else ():
            if condition.name == name and condition.kind == "data set":
                return summary_cell(condition.summary, ".4f")
        return Cell(ABSENT)

    return cell


def _corrupted(record: Record) -> float | None:
    means = [_mean(it) for it in record.conditions or () if it.kind == "corruption"]
    return statistics.fmean(means) if means else None


def _mean(condition: Condition) -> float:
    return statistics.fmean(condition.dice)


def _objects(pick: Callable[[ObjectAccuracy], float | None], form: str) -> MakeCell:
    def cell(run: Run, record: Record) -> Cell:
        objects = record.accuracy.objects if record.accuracy else None
        return number_cell(pick(objects) if objects else None, form)

    return cell


def _mean_count_error(objects: ObjectAccuracy) -> float:
    return statistics.fmean(abs(error) for error in objects.count_error)


def _mean_matched_dice(objects: ObjectAccuracy) -> float | None:
    found = [dice for dice in objects.matched_dice if not math.isnan(dice)]
    return statistics.fmean(found) if found else None


def _percentile(percent: float, stage: str = "total") -> MakeCell:
    def cell(run: Run, record: Record) -> Cell:
        return percentile_cell(getattr(record.latency, stage) if record.latency else None, percent)

    return cell


def _energy(pick: Callable[[Energy], float], form: str) -> MakeCell:
    return lambda run, record: number_cell(pick(record.energy) if record.energy else None, form)


def _article(pick: Callable[[ArticleFigures], float], form: str, suffix: str = "") -> MakeCell:
    def cell(run: Run, record: Record) -> Cell:
        figures = article_row(record)
        return number_cell(pick(figures), form, suffix) if figures else Cell(ABSENT)

    return cell


def _lowest_mask_iou(record: Record) -> float | None:
    return record.agreement.lowest if record.agreement else None


def _times_as_fast(run: Run, record: Record) -> Cell:
    return number_cell(times_as_fast(run, record), ".2f")


def _where(run: Run, record: Record) -> Cell:
    return Cell(place_of(record), short=ran_in(record))


def _throughput(run: Run, record: Record) -> Cell:
    found = record.throughput
    return Cell(f"{found.images_per_s:.1f} ({found.batch})", found.images_per_s) if found else Cell(ABSENT)


def _parameters(run: Run, record: Record) -> Cell:
    count = record.model.parameters
    if count is None:
        return Cell(ABSENT)
    return Cell(f"{count / 1e6:.2f}M" if count < 9_950_000 else f"{count / 1e6:.1f}M", count)


def _note(run: Run, record: Record) -> Cell:
    notes = {"failed": record.failure, "stopped early": record.early, "noisy": record.noise}
    said = [kind for kind, line in notes.items() if line]
    text = "; ".join(f"{kind}: {notes[kind]}" for kind in said)
    return Cell(text or ABSENT, short=", ".join(said))


NAMES: tuple[tuple[Column, MakeCell], ...] = (
    (Column("machine", "machine", numeric=False), _text(lambda run, record: device_of(run.machine))),
    (
        Column("measured", "measured (UTC)", numeric=False),
        _text(lambda run, record: run.started_utc[:16].replace("T", " ")),
    ),
    (Column("data", "data", numeric=False), _text(lambda run, record: data_of(record))),
    (Column("model", "model", numeric=False), _text(lambda run, record: record.model.name)),
    (Column("precision", "precision", numeric=False), _text(lambda run, record: record.model.precision)),
    (
        Column("where", "where", numeric=False),
        lambda run, record: Cell(place_of(record), short=ran_in(record)),
    ),
    (Column("engine", "engine", numeric=False), _text(lambda run, record: engine_of(record))),
    (Column("batch", "batch"), _number(lambda record: record.settings.batch, "d")),
)
"""By what rows are told apart; of these a table has only the ones that differ, beside the last three."""

COLUMNS: tuple[tuple[Column, MakeCell], ...] = (
    (Column("dice", "Dice", interval=True), _summary("dice_summary", ".4f")),
    (Column("iou", "IoU", interval=True), _summary("iou_summary", ".4f")),
    (Column("mean_dice", "Dice of classes"), _dice(mean_dice)),
    (Column("mean_iou", "mIoU"), _dice(_mean_iou)),
    (Column("mask_iou", "mask IoU with fp32"), _number(_lowest_mask_iou, ".4f")),
    (Column("dice_worst_decile", "Dice, worst 10 %", shown=PAGES), _dice(_worst_decile)),
    (Column("dice_corrupted", "Dice, corrupted"), _dice(_corrupted)),
    (Column("ap", "mask AP"), _objects(lambda objects: objects.ap, ".4f")),
    (Column("ap50", "AP50", shown=PAGES), _objects(lambda objects: objects.ap50, ".4f")),
    (Column("count_error", "count error", shown=PAGES), _objects(_mean_count_error, ".1f")),
    (Column("matched_dice", "Dice of objects", shown=PAGES), _objects(_mean_matched_dice, ".4f")),
    (Column("parameters", "parameters", shown=PAGES), _parameters),
    (Column("encode_ms", "encode p50", "ms"), _percentile(50, "encode")),
    (Column("decode_ms", "decode p50", "ms"), _percentile(50, "decode")),
    (Column("preprocess_ms", "pre-process p50", "ms", shown=DATA), _percentile(50, "preprocess")),
    (Column("transfer_ms", "transfer p50", "ms", shown=PAGES), _percentile(50, "transfer")),
    (Column("infer_ms", "infer p50", "ms", shown=DATA), _percentile(50, "infer")),
    (Column("postprocess_ms", "post-process p50", "ms", shown=DATA), _percentile(50, "postprocess")),
    (Column("p50_ms", "p50", "ms", interval=True), _percentile(50)),
    (Column("times_as_fast", "× PyTorch"), _times_as_fast),
    (Column("p90_ms", "p90", "ms", interval=True), _percentile(90)),
    (Column("p99_ms", "p99", "ms", interval=True), _percentile(99)),
    (Column("p99_9_ms", "p99.9", "ms", shown=DATA, interval=True), _percentile(99.9)),
    (Column("load_ms", "load", "ms", shown=PAGES), _number(lambda record: record.load_ms, ".0f")),
    (
        Column("first_call_ms", "first call", "ms", shown=PAGES),
        _number(lambda record: record.first_call_ms, ".1f"),
    ),
    (Column("images_per_s", "images/s"), _number(lambda record: record.images_per_s, ".1f")),
    (Column("best_images_per_s", "images/s at best batch"), _throughput),
    (Column("joules_per_image", "energy", "J/image"), _energy(lambda it: it.joules_per_image, ".3g")),
    (Column("mean_w", "power", "W", shown=DATA), _energy(lambda energy: energy.mean_w, ".1f")),
    (Column("peak_memory_mib", "peak memory", "MiB"), _number(lambda record: record.peak_memory_mib, ".0f")),
    (
        Column("device_memory_mib", "device memory", "MiB"),
        _number(lambda record: record.device_memory_mib, ".0f"),
    ),
    (Column("note", "note", numeric=False), _note),
    (Column("article_dice", "article: Dice"), _article(lambda figures: figures.dice, ".3f")),
    (Column("article_iou", "article: IoU", shown=PAGES), _article(lambda figures: figures.iou, ".3f")),
    (
        Column("article_parameters", "article: params", shown=PAGES),
        _article(lambda figures: figures.parameters_m, ".0f", "M"),
    ),
    (Column("article_ms", "article: latency", "ms"), _article(lambda figures: figures.inference_ms, ".0f")),
)
